"""Run many seeds: ``python -m tests.sim --seeds 1000 --profile default``."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from tests.sim.run import run_seed


def main() -> int:
    """Run the seeds asked for; return 1 if an invariant was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--profile", default="default", choices=("fast", "default", "calm"))
    parser.add_argument("--story", action="store_true", help="print what happened in each seed")
    arguments = parser.parse_args()
    logging.getLogger("pysyncobj").setLevel(logging.CRITICAL)
    started = time.monotonic()
    bad = commands = terms = 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        result = run_seed(seed, profile=arguments.profile)
        commands, terms = commands + result.commands, terms + result.terms
        bad += not result.valid
        if arguments.story or not result.valid:
            sys.stdout.write("\n".join(result.story) + "\n")
        if not result.valid:
            sys.stdout.write(f"seed={seed} profile={arguments.profile} {result.violations[0]}\n")
            sys.stdout.flush()
    took_s = time.monotonic() - started
    sys.stdout.write(
        f"{arguments.seeds} seeds, {bad} with a violation, {commands} commands, {terms} terms, "
        f"{arguments.seeds / took_s:.1f} seeds/s\n"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
