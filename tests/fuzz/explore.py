"""Feed one target with octets that atheris makes, guided by the coverage of engine/.

    python -m tests.fuzz.explore server -max_total_time=60 NEW_DIRECTORY tests/fuzz/corpus/server

What stands behind the target is libFuzzer's: the first directory gets the inputs that reached something
new, a finding is written as a file (`-artifact_prefix=`) and goes into tests/fuzz/corpus/TARGET with its
repair.

Owns: the start of a run; a process of its own, for libFuzzer ends it.
"""

from __future__ import annotations

import sys

import atheris


def main() -> None:
    """Run until libFuzzer ends the process."""
    with atheris.instrument_imports(include=["engine"]):
        from tests.fuzz.targets import TARGETS

    _, name, *options = sys.argv
    target = TARGETS[name]
    atheris.Setup([f"fuzz-{name}", *options], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
