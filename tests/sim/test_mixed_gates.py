"""Nodes whose rights end by a deadline beside nodes with timeouts, and what the margin is for."""

from __future__ import annotations

from itertools import product

import pytest

from hanat.core.configuration import PROFILES, WITH_DEADLINE, GateKind
from hanat.core.lease import Lease
from hanat.raft import promises
from tests.sim import world
from tests.sim.bench import tell
from tests.sim.clocks import slew
from tests.sim.process import Process
from tests.sim.run import cluster, converged, gates_of, holders
from tests.sim.world import World

SEEDS = range(1, 13)
SLOW, FAST = 0.991, 1.009  # each within 1 % of the truth, so nobody sees anything wrong
MIXED = sorted(set(product(GateKind, repeat=3)))


@pytest.fixture(autouse=True)
def _nobody_looks_at_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks change their rate here, as if they had always been like that."""
    monkeypatch.setattr(Process, "watch_clock", False)


class Marginless(Lease):
    """A lease that gives nothing away."""

    def __init__(self, *, duration_s: float, margin_s: float, quorum: int) -> None:
        del margin_s
        super().__init__(duration_s=duration_s, margin_s=0.0, quorum=quorum)


def lost_holder(seed: int, profile: str, gates: tuple[GateKind, ...]) -> World:
    """Cut a holder off whose clock is slow, from others whose clocks are fast."""
    here = cluster(seed=seed, profile=profile, gates=gates)
    assert here.run_until(lambda: converged(here), within_s=10), tell(here)
    (holder,) = holders(here)
    for node_id, process in here.processes.items():
        slew(process, SLOW if node_id == holder else FAST)
    here.run(here.rng.uniform(1.0, 1.5))
    for other in here.node_ids:
        if other != holder:
            here.block(holder, other)
            here.block(other, holder)
    here.run(3.0)
    assert [i for i in holders(here) if i != holder], tell(here)
    return here


def two_answer(seen: World) -> bool:
    return any("two answer" in text for text in seen.violations)


@pytest.mark.parametrize("gates", MIXED, ids=lambda gates: " ".join(g.value[0] for g in gates))
@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_lost_holder_is_replaced_and_never_two_answer(
    profile: str, gates: tuple[GateKind, ...]
) -> None:
    for seed in SEEDS[:2]:
        seen = lost_holder(seed, profile, gates)
        assert seen.violations == [], tell(seen)


def test_a_margin_of_zero_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    gates = (GateKind.DEADLINE,) * 3
    monkeypatch.setattr(world, "DELAY_S", (0.0001, 0.0002))  # an election takes less than a margin
    assert not any(two_answer(lost_holder(seed, "calm", gates)) for seed in SEEDS)
    monkeypatch.setattr(promises, "Lease", Marginless)
    assert any(two_answer(lost_holder(seed, "calm", gates)) for seed in SEEDS)


def test_margins_cover_clocks_and_slews() -> None:
    for name, profile in WITH_DEADLINE.items():
        # The holder's right is not looked at after its last beacon: what a slew of 8.3 % may take.
        looks_s = (profile.lease_s - profile.margin_s) % profile.beacon_s
        holder_s = 0.01 * 2 * profile.beacon_s + 0.083 * looks_s
        promise_s = 0.01 * profile.lease_s + 0.0006
        assert profile.margin_s >= holder_s + promise_s - 0.0006 + 0.0002, name
        assert profile.lease_s <= PROFILES[name].lease_s, "others know a profile by the longest"


def test_half_of_the_seeds_mix_gates() -> None:
    mixed = [len(set(gates_of(seed, 3))) > 1 for seed in range(400)]
    assert 100 < sum(mixed) < 250
