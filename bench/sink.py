"""`python -m bench.sink`: the sink, which lives in engine/rig/sink.py for the sake of the demo."""

from __future__ import annotations

import sys

from engine.rig.sink import main

if __name__ == "__main__":
    sys.exit(main())
