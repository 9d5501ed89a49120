"""`python -m engine`: the command line, and the way in of a shard.

The supervisor starts shards as `python -m engine _shard ...`; whoever salvages a damaged store starts its
reader as `python -m engine _salvage DIRECTORY`. A shard serves mail, so it never imports the command line's
libraries (click, rich) nor the supervisor's (aiohttp): they would cost each shard some 20 MB.
"""

from __future__ import annotations

import sys


def main(argv: list[str]) -> int:
    """Run a shard or the command line; return the exit status."""
    if argv[:1] == ["_salvage"]:
        from engine.control.lifetime import end_with_parent
        from engine.store.salvage import main as run_salvage

        end_with_parent()
        return run_salvage(argv[1:])
    if argv[:1] == ["_shard"]:
        from engine.shard.main import main as run_shard

        return run_shard(argv[1:])
    from engine.cli.main import run

    return run(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
