"""Random faults over many seeds; a failing seed prints the command that replays it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hanat.core.configuration import PROFILES
from tests.sim.run import Result, run_seed, run_without_one

SEEDS_QUICK = 12
SEEDS_OF_FIVE = 4
SEEDS_SWARM = 48


def verdict(result: Result, profile: str) -> str:
    story = "\n".join(result.story)
    replay = f"python -m tests.sim --first {result.seed} --seeds 1 --profile {profile} --story"
    return f"seed={result.seed}: {result.violations}\n{story}\nreplay: {replay}"


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_invariants_hold_under_random_faults(profile: str) -> None:
    for seed in range(1, 1 + SEEDS_QUICK):
        result = run_seed(seed, profile=profile)
        assert result.valid, verdict(result, profile)


def test_invariants_hold_while_addresses_come_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("holding", "tenure"):
        monkeypatch.setattr(f"hanat.core.{module}.FIRST_MAX", 1)
    for seed in range(1, 1 + SEEDS_QUICK):
        result = run_seed(seed)
        assert result.valid, verdict(result, "default")


def test_invariants_hold_while_logs_are_cut() -> None:
    for seed in range(1, 1 + SEEDS_QUICK):
        result = run_seed(seed, compact=True)
        assert result.valid, verdict(result, "default --compact")


def test_two_of_three_serve_whatever_happens_to_them_while_one_is_away() -> None:
    for seed in range(1, 1 + SEEDS_QUICK):
        result = run_without_one(seed)
        assert result.valid, verdict(result, "default --away")


def test_invariants_hold_among_five_nodes() -> None:
    for seed in range(1, 1 + SEEDS_OF_FIVE):
        result = run_seed(seed, nodes=5)
        assert result.valid, verdict(result, "default --nodes 5")


@pytest.mark.swarm
@pytest.mark.timeout(900)
@pytest.mark.parametrize("compact", [False, True], ids=["", "compact"])
@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_invariants_hold_for_many_seeds(profile: str, *, compact: bool) -> None:
    for seed in range(1000, 1000 + SEEDS_SWARM):
        result = run_seed(seed, profile=profile, compact=compact)
        assert result.valid, verdict(result, profile)


def test_the_same_seed_gives_the_same_story() -> None:
    assert run_seed(7).story == run_seed(7).story


def test_profiles_leave_room_for_three_beacons_in_a_lease() -> None:
    for profile in PROFILES.values():
        assert profile.lease_s >= 3 * profile.beacon_s + profile.margin_s
        with pytest.raises(AssertionError):
            replace(profile, lease_s=3 * profile.beacon_s)
