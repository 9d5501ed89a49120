"""DKIM RSA-2048, relaxed/relaxed, against the bare RSA operation."""

from __future__ import annotations

import time
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

from bench.stages.engine import Wired
from bench.stages.stage import Stages
from engine.message.dkim import Signer

MOST_TIMES = 1.3
BATCH = 20


def test_dkim(benchmark: Any, stages: Stages, wired: Wired) -> None:
    key = rsa.generate_private_key(65537, 2048)
    signer = Signer("source.example", "bench", key)
    messages = [wired.messages[number % len(wired.messages)] for number in range(BATCH)]
    bare_us = measure_bare(key)

    def work() -> list[bytes]:
        return [signer.sign(message, 1_700_000_000.0) for message in messages]

    measured = stages.run(
        benchmark, "DKIM RSA-2048", MOST_TIMES * bare_us, work, messages=BATCH, note="budget: 1.3 times bare"
    )
    print(f"DKIM: {measured.us / bare_us:.2f} times the bare operation of {bare_us:.0f} us")


def measure_bare(key: rsa.RSAPrivateKey) -> float:
    """Return the median of what OpenSSL's own operation takes, in microseconds of processor time."""
    padding, algorithm, data = PKCS1v15(), hashes.SHA256(), bytes(600)
    taken = []
    for _ in range(200):
        began = time.process_time()
        key.sign(data, padding, algorithm)
        taken.append(time.process_time() - began)
    return sorted(taken)[len(taken) // 2] * 1e6
