from __future__ import annotations

import pytest

from bench.calibrate import HOST, smtp_sink_arguments
from engine.rig.processes import run_source, running, wait_port


@pytest.mark.stranger("postfix")
def test_source_is_understood_by_postfix_smtp_sink(stranger) -> None:  # type: ignore[no-untyped-def]
    with running(smtp_sink_arguments(stranger("smtp-sink"), 21670)):
        wait_port(HOST, 21670, 10)
        load = ["--messages", "100", "--sessions", "5", "--size", "2000"]
        assert run_source("--to", f"{HOST}:21670", *load, timeout_s=60)["accepted"] == 100
