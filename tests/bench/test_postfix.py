from __future__ import annotations

import pytest

from bench.postfix import PostfixSetup, is_postfix_here, running_postfix
from engine.rig.processes import read_tree, run_source, running_sink, started_at
from tests.lacking import lack


@pytest.mark.slow
@pytest.mark.stranger("postfix")
def test_private_instance_relays_and_is_gone_afterwards(stranger) -> None:  # type: ignore[no-untyped-def]
    stranger("postfix")
    if not is_postfix_here():
        lack("Postfix's master needs root")
    hops = {"d0.bench.example": "[127.0.0.31]:21680"}
    with running_sink("--listen", "127.0.0.31:21680", "--report", "/dev/null") as sink:
        with running_postfix(PostfixSetup(21681, hops)) as postfix:
            account = run_source(
                "--to", "127.0.0.1:21681", "--messages", "20", "--sessions", "2", timeout_s=60
            )
            tree = read_tree(postfix.master.pid)
        assert sink.is_alive()
    assert account["accepted"] == 20
    assert len(tree) > 5
    assert not any(started_at(pid) for pid in tree)
