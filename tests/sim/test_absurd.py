"""What no node that keeps to Raft's rules says is refused, with a sentence that says why."""

from __future__ import annotations

import pytest

from hanat.core.beacon import Beacon
from hanat.errors import WireError
from hanat.raft.guard import Guard
from hanat.raft.promises import TERMS_AHEAD_MAX
from tests.sim.bench import Bench, entries_of

U64_MAX = 2**64 - 1


def follower() -> Bench:
    """Return a node that has committed what it has, up to index 6 of term 1."""
    bench = Bench(Guard, entries=entries_of(1, 2, 6), term=1).run(0.6)
    return bench.append(2, term=2, after=(6, 1), commit=6).tick()


def leader() -> Bench:
    """Return a node that leads, and whose peers acknowledge nothing."""
    return Bench(Guard).run(0.6).elect()


@pytest.mark.parametrize("term", [TERMS_AHEAD_MAX + 3, U64_MAX])
def test_term_that_no_cluster_reaches_is_refused(term: int) -> None:
    bench = follower()
    with pytest.raises(WireError, match=f"node 2 speaks of term {term}, this node of 2"):
        bench.append(2, term=term, after=(6, 1))
    with pytest.raises(WireError, match=f"node 3 speaks of term {term}, this node of 2"):
        bench.hear(3, Beacon(term=term, leads=True))
    assert bench.term == 2


def test_term_far_ahead_is_followed() -> None:
    # A node that was away for as long as anybody can think of comes back.
    bench = follower()
    bench.append(3, term=1_000_000_000, after=(6, 1))
    assert bench.term == 1_000_000_000


def test_acknowledgement_of_what_was_never_sent_is_refused() -> None:
    bench = leader()
    stamp = {"term": bench.term, "gen": 1, "reset": False, "success": True, "fit": True}
    with pytest.raises(WireError, match=r"node 3 acknowledges index \d+, the log of its leader"):
        bench.say(3, "next_node_idx", next_node_idx=bench.last + 2, **stamp)


def test_second_leader_of_a_term_is_refused() -> None:
    bench = leader()
    with pytest.raises(WireError, match=r"which this node 1 leads: .* in use on two machines"):
        bench.append(3, term=bench.term, after=(1, 0))
    assert bench.guard.leading


@pytest.mark.parametrize("terms", [(3, 2), (1, 4), (U64_MAX, U64_MAX)])
def test_entries_of_terms_that_do_not_ascend_are_refused(terms: tuple[int, int]) -> None:
    bench = follower()
    entries = [entries_of(term, 7 + at, 7 + at)[0] for at, term in enumerate(terms)]
    with pytest.raises(WireError, match="terms do not ascend"):
        bench.append(2, term=3, after=(6, 1), entries=entries)
    assert bench.last == 6


def test_committed_entries_are_not_replaced() -> None:
    bench = follower()
    with pytest.raises(WireError, match="another entry at index 5 than this node"):
        bench.append(2, term=2, after=(4, 1), entries=entries_of(2, 5, 5))
    assert bench.last == 6
    assert bench.world.violations == []
