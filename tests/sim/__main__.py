"""Run many seeds: ``python -m tests.sim --seeds 1000 --profile default``.

With ``--ablate NAME`` one repair of the library is broken; then it is said how many
seeds caught that. What no random seed catches needs its schedule all the more.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time

from hanat.errors import HanatError
from tests.sim.repairs import BROKEN
from tests.sim.run import Result, run_seed, run_without_one


def main() -> int:
    """Run the seeds asked for; return 1 if an invariant was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--profile", default="default", choices=("fast", "default", "calm"))
    parser.add_argument("--story", action="store_true", help="print what happened in each seed")
    parser.add_argument("--compact", action="store_true", help="cut the logs now and then")
    parser.add_argument("--away", action="store_true", help="one node is away for ever")
    parser.add_argument("--nodes", type=int, help="how many (default 5 in each 8th seed, else 3)")
    parser.add_argument("--ablate", choices=sorted(BROKEN), help="break one repair")
    arguments = parser.parse_args()
    logging.getLogger("pysyncobj").setLevel(logging.CRITICAL + 1)
    return _ablate(arguments) if arguments.ablate else _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    bad = commands = terms = 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        result = _seed(seed, arguments)
        commands, terms = commands + result.commands, terms + result.terms
        bad += not result.valid
        _report(result, arguments, story=arguments.story or not result.valid)
    took_s = time.monotonic() - started
    sys.stdout.write(
        f"{arguments.seeds} seeds, {bad} with a violation, {commands} commands, {terms} terms, "
        f"{arguments.seeds / took_s:.1f} seeds/s\n"
    )
    return 1 if bad else 0


def _seed(seed: int, arguments: argparse.Namespace) -> Result:
    profile, compact = arguments.profile, arguments.compact
    if arguments.away:
        return run_without_one(seed, profile=profile, compact=compact)
    return run_seed(seed, profile=profile, compact=compact, nodes=arguments.nodes)


def _ablate(arguments: argparse.Namespace) -> int:
    """Break one repair; return 1 if no seed caught it."""
    guard = BROKEN[arguments.ablate]
    caught = 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        try:
            result = run_seed(
                seed,
                profile=arguments.profile,
                guard=guard,
                compact=arguments.compact,
                nodes=arguments.nodes,
            )
        except (AssertionError, HanatError) as error:  # a node that crashes is caught as well
            caught += 1
            sys.stdout.write(f"seed={seed} profile={arguments.profile} crashed: {error!r}\n")
            continue
        caught += not result.valid
        _report(result, arguments, story=arguments.story)
    sys.stdout.write(f"without {arguments.ablate}: {caught} of {arguments.seeds} seeds caught it\n")
    return 0 if caught else 1


def _report(result: Result, arguments: argparse.Namespace, *, story: bool) -> None:
    if story:
        sys.stdout.write("\n".join(result.story) + "\n")
    if not result.valid:
        name = f"seed={result.seed} profile={arguments.profile}"
        sys.stdout.write(f"{name} {result.violations[0]}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
