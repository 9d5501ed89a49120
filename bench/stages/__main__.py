"""`python -m bench.stages`: the stages of the budget table, their figures and their allocations."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest


def main(argv: list[str] | None = None) -> int:
    """Run the stages by pytest; exits as pytest does, 0 also where a budget is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.stages", description=__doc__)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="pytest-benchmark's JSON, ours in extra_info"
    )
    arguments = parser.parse_args(argv)
    options = [str(Path(__file__).parent), "-q", "-s", "--benchmark-columns=median,iqr,rounds"]
    options += ["-p", "no:cacheprovider"]
    options += [f"--benchmark-json={arguments.json}"] if arguments.json else []
    return int(pytest.main(options))


if __name__ == "__main__":
    sys.exit(main())
