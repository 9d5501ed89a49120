"""`python -m bench.source`: the load source, which lives in engine/rig/source.py for the sake of the demo."""

from __future__ import annotations

import sys

from engine.rig.source import main

if __name__ == "__main__":
    sys.exit(main())
