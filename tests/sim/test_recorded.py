"""What state machines are given is what was committed, judged by the recorded history alone.

And the judge can find something: nodes that apply flows when they append them, not when they
are committed, are caught by it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.judge.checkers import Verdict
from chaos.judge.committed import applied_as_committed
from chaos.observe import run_history
from chaos.observe.run_history import Fact, History
from tests.sim.bench import tell
from tests.sim.process import Process
from tests.sim.recorded import AppliedAtAppend, Recorded
from tests.sim.run import cluster, converged, holders, run_seed
from tests.sim.world import World

SEEDS = range(1, 7)
ALONE = range(100, 105)  # numbers of commands that only a cut off leader gets
AFTER = range(200, 205)


def judged(facts: list[Fact], path: Path) -> Verdict:
    """Return the verdict about facts that went through a file."""
    with path.open("w") as file:
        for fact in facts:
            run_history.write(file, fact)
    read = run_history.read(path)
    assert read == facts
    return applied_as_committed(History.of(read))


def leader_alone(process: type[Process], seed: int) -> World:
    """Let a leader append what nobody else gets, and another one be elected meanwhile."""
    world = cluster(seed=seed, process=process)
    assert world.run_until(lambda: converged(world), within_s=10), tell(world)
    (old,) = holders(world)
    others = [i for i in world.node_ids if i != old]
    ends = [world.block(*pair) for o in others for pair in ((o, old), (old, o))]
    assert [world.processes[old].propose(uid) for uid in ALONE] == [True] * len(ALONE)

    def replaced() -> bool:
        return any(world.processes[o].ready for o in others)

    assert world.run_until(replaced, within_s=2), tell(world)
    (new,) = (world.processes[o] for o in others if world.processes[o].ready)
    assert [new.propose(uid) for uid in AFTER] == [True] * len(AFTER)
    world.run(0.2)
    for end in ends:
        end()
    assert world.run_until(lambda: converged(world), within_s=10), tell(world)
    return world


@pytest.mark.parametrize("seed", SEEDS)
def test_leader_that_was_alone_applies_what_was_committed(seed: int, tmp_path: Path) -> None:
    world = leader_alone(Recorded, seed)
    verdict = judged(world.facts, tmp_path / "history.jsonl")
    assert verdict.valid is True, f"{verdict}\n{tell(world)}"
    assert world.processes[1].applied == [*AFTER]


@pytest.mark.parametrize("seed", SEEDS)
def test_flows_applied_before_their_commit_are_found(seed: int, tmp_path: Path) -> None:
    world = leader_alone(AppliedAtAppend, seed)
    verdict = judged(world.facts, tmp_path / "history.jsonl")
    assert verdict.valid is False
    assert verdict.evidence["early"], verdict
    assert verdict.evidence["different"], verdict
    assert not verdict.evidence["lost"], verdict


def test_under_random_faults_what_is_applied_was_committed(tmp_path: Path) -> None:
    for seed in SEEDS:
        result = run_seed(seed, process=Recorded)
        assert result.valid, result
        verdict = judged(list(result.facts), tmp_path / "history.jsonl")
        assert verdict.valid is True, f"seed={seed} {verdict}"


def test_random_faults_show_flows_that_were_applied_before_their_commit(tmp_path: Path) -> None:
    """In most runs: it takes a leader that loses what it did not commit."""
    found = []
    for seed in SEEDS:
        facts = list(run_seed(seed, process=AppliedAtAppend).facts)
        verdict = judged(facts, tmp_path / "history.jsonl")
        found.append(verdict.valid is False)
    assert 2 * sum(found) > len(found), dict(zip(SEEDS, found, strict=True))
