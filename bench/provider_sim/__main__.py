"""How near limits come to what a provider hides: `python -m bench.provider_sim`.

A day of simulated time for each of a dozen providers, by fixed limits, by a back-off mode and by the engine's
adaptive limits, all through its own path, rates, slots and decisions. The policy allows 3 messages a second
over 10 connections; there is always more mail.

    of capacity     messages delivered, of what the provider would have taken
    deferred        of all attempts; greylisting is left out, since nobody could help it
    recovers in     from the start, or the end of the last trouble, to ten minutes (two windows of a longer
                    limit) with nine tenths of the capacity

    python -m bench.provider_sim --only 60/min     one provider
    python -m bench.provider_sim --real            a minute against a sink that hides a rate, and connections

Aims: at least 90 % of capacity with under 2 % deferred.

Owns: nothing that is left behind.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from bench.finding import format_machine, tell
from bench.provider_sim.table import SCENARIOS, STRATEGIES, format_rows, run_row


def main(argv: list[str] | None = None) -> int:
    """Run the simulation, or the real thing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="the provider whose name begins so")
    parser.add_argument("--limits", default="", help="one kind of limits: fixed, back-off or adaptive")
    parser.add_argument("--real", action="store_true", help="against a sink, for about two minutes")
    arguments = parser.parse_args(argv)
    print(format_machine(), flush=True)
    if arguments.real:
        from bench.provider_sim.real import run_real

        return run_real()
    pairs = [
        (scenario.name, strategy)
        for scenario in SCENARIOS
        for strategy in STRATEGIES
        if scenario.name.startswith(arguments.only) and arguments.limits in ("", strategy)
    ]
    began = time.monotonic()
    with ProcessPoolExecutor(2) as pool:
        rows = list(pool.map(run_row, *zip(*pairs, strict=True)))
    print("\n" + format_rows(rows))
    tell(f"{time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
