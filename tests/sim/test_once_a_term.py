"""What a leader needs in its log once a term gets there, however late, and once."""

from __future__ import annotations

from collections import Counter

import pytest

from hanat.core.status import Role
from hanat.raft import durability
from hanat.raft.guard import Guard
from hanat.raft.messages import unwrap
from hanat.raft.state import Barrier, Command, Holder, NewConfiguration, decode
from tests.sim.bench import Bench

ONCE = {Barrier: 1, NewConfiguration: 1, Holder: 1}


@pytest.mark.parametrize("why", ["too long", "disk"])
def test_leader_whose_log_takes_nothing_for_a_while_holds_afterwards(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(Guard, nodes=1)
    disk = bench.node.journal.disk
    assert bench.world.run_until(lambda: bench.guard.leading, within_s=5)
    with monkeypatch.context() as patch:
        if why == "disk":
            disk.failing = True
        else:
            patch.setattr(durability, "LOG_BYTES_MAX", -1)
        bench.run(2.0)
        assert bench.node.role is Role.TAKEOVER
    disk.failing = False
    term = bench.term
    bench.run(2.0)
    assert (bench.node.role, bench.term) == (Role.ACTIVE, term)
    assert proposed(bench) == ONCE


def test_what_waits_for_a_commit_is_not_appended_again() -> None:
    bench = Bench(Guard).elect()
    asked = count_proposals(bench)
    bench.run(4 * bench.node.configuration.profile.lease_s)  # nobody acknowledges
    assert bench.guard.leading
    assert len(asked) >= 3
    assert proposed(bench) == {Barrier: 1}


def test_leader_that_is_acknowledged_proposes_each_once() -> None:
    bench = Bench(Guard).elect()
    bench.acks = {2, 3}
    asked = count_proposals(bench)
    bench.run(2.0)
    assert bench.node.role is Role.ACTIVE
    assert (proposed(bench), [type(c) for c in asked]) == (ONCE, [*ONCE])


def count_proposals(bench: Bench) -> list[Command]:
    """Have noted what the node wants to have in its log."""
    asked: list[Command] = []
    propose_once = bench.node.replica.propose_once

    def noted(command: Command) -> None:
        asked.append(command)
        propose_once(command)

    bench.node.replica.propose_once = noted  # type: ignore[method-assign]
    return asked


def proposed(bench: Bench) -> Counter[type]:
    """Return how many entries of each kind are in the log."""
    found = (unwrap(command) for command, _, _ in bench.node.journal[:])
    return Counter(type(decode(content)) for content in found if content is not None)
