"""Which datagrams are believed, whatever happens to them on the way."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.core.beacon import Beacon, Died, Heard, Promised
from hanat.core.identity import Identity
from hanat.errors import WireError
from hanat.net.death_notice import seal_release
from hanat.net.freshness import Exchange, Stranger

BEACON = Beacon(term=1)


def identity(node_id: int) -> Identity:
    return Identity(bytes(32), "edge1", 0.1, node_id)


@dataclass
class Pair:
    """Nodes 1 and 2, that can be started anew, and all that was ever sent."""

    now: float = 100.0
    incarnations: int = 0
    ends: dict[int, Exchange] = field(default_factory=dict)
    sent: list[tuple[int, bytes]] = field(default_factory=list)  # to whom, what

    def __post_init__(self) -> None:
        for node_id in (1, 2):
            self.start(node_id)

    def start(self, node_id: int) -> None:
        self.incarnations += 1
        self.ends[node_id] = Exchange(
            identity(node_id),
            incarnation=self.incarnations,
            peer_ids=[3 - node_id],
            clock=lambda: self.now,
        )

    def send(self, node_id: int, beacon: Beacon = BEACON) -> bytes:
        data = self.ends[node_id].seal(3 - node_id, beacon)
        self.sent.append((3 - node_id, data))
        return data

    def deliver(self, number: int) -> Heard | None:
        """Deliver a datagram, and the answer that a stranger gets; return what was believed."""
        receiver, data = self.sent[number]
        try:
            said = self.ends[receiver].open(data, path=0)
        except WireError:
            return None
        if isinstance(said, Stranger):
            answer = self.ends[receiver].seal(said.peer, BEACON, echo=said.mark)
            self.sent.append((said.peer, answer))
            return None
        assert not isinstance(said, Died)
        return said

    def meet(self, *, period_s: float = 0.0) -> None:
        """Let both believe each other."""
        for node_id in (1, 2, 1, 2):
            self.now += period_s
            self.send(node_id)
            self.deliver(len(self.sent) - 1)
            self.deliver(len(self.sent) - 1)


def test_strangers_need_one_round_trip() -> None:
    pair = Pair()
    first = pair.ends[2].open(pair.send(1), path=0)
    assert isinstance(first, Stranger)
    answer = pair.ends[2].seal(1, BEACON, echo=first.mark)
    heard = pair.ends[1].open(answer, path=0)
    assert isinstance(heard, Heard)
    assert heard.introduced
    back = pair.ends[2].open(pair.send(1), path=0)
    assert isinstance(back, Heard)
    assert back.introduced


def test_copy_on_another_path_says_nothing_new_but_shows_that_the_path_works() -> None:
    pair = Pair()
    pair.meet()
    data = pair.send(1)
    assert isinstance(pair.ends[2].open(data, path=0), Heard)
    pair.now = 101.0
    assert pair.ends[2].open(data, path=1) is None
    assert pair.ends[2].heard_at(1, 1) == 101.0
    assert pair.ends[2].heard_at(1, 0) == 100.0
    assert pair.ends[2].heard_at(1) == 101.0


def test_promise_counts_from_when_the_beacon_was_sent() -> None:
    pair = Pair()
    pair.meet()
    pair.now = 105.0
    asked = pair.ends[2].open(pair.send(1), path=0)
    assert isinstance(asked, Heard)
    pair.now = 105.02
    promised = Beacon(term=1, promised=Promised(1, asked.sequence))
    heard = pair.ends[1].open(pair.send(2, promised), path=0)
    assert isinstance(heard, Heard)
    assert (heard.promised_at, heard.echoed_at) == (105.0, 105.0)


@pytest.mark.parametrize("sequence", [0, 10**6])
def test_promise_on_what_was_never_sent_counts_for_nothing(sequence: int) -> None:
    pair = Pair()
    pair.meet()
    promised = Beacon(term=1, promised=Promised(1, sequence))
    heard = pair.ends[1].open(pair.send(2, promised), path=0)
    assert isinstance(heard, Heard)
    assert heard.promised_at is None


def test_second_node_of_the_same_id_is_told_apart() -> None:
    pair = Pair()
    pair.meet()
    first = pair.ends[2]
    pair.start(2)
    pair.meet()
    pair.ends[2] = first
    with pytest.raises(WireError, match="two nodes run with the same id"):
        pair.ends[1].open(pair.send(2), path=0)


def test_second_machine_of_the_same_id_is_refused_by_its_address() -> None:
    pair = Pair()
    pair.meet()
    twin = pair.send(2)
    release = seal_release(identity(2), pair.ends[2].incarnation)
    for data in (twin, release):
        with pytest.raises(WireError, match="node 2 sends from the address of node 3"):
            pair.ends[1].open(data, path=0, source=3)
    assert isinstance(pair.ends[1].open(twin, path=0, source=2), Heard)


def test_dead_daemon_is_buried_once_and_not_heard_again() -> None:
    pair = Pair()
    pair.meet()
    late = pair.send(2)
    release = seal_release(identity(2), pair.ends[2].incarnation)
    assert pair.ends[1].open(release, path=0) == Died(2)
    assert pair.ends[1].open(release, path=1) is None
    assert pair.ends[1].heard_at(2) is None
    with pytest.raises(WireError):
        pair.ends[1].open(late, path=0)
    pair.start(2)
    pair.meet()
    assert isinstance(pair.ends[1].open(pair.send(2), path=0), Heard)
    assert pair.ends[1].open(release, path=0) is None  # of its predecessor


def test_incarnation_that_is_gone_does_not_replace_one_that_a_replay_introduced() -> None:
    pair = Pair()
    old, new = pair.send(1), pair.send(1)

    def answer(datagram: bytes) -> bytes:
        said = pair.ends[2].open(datagram, path=0)
        assert isinstance(said, Stranger)
        return pair.ends[2].seal(1, BEACON, echo=said.mark)

    ghost = answer(new)
    pair.start(2)
    assert isinstance(pair.ends[1].open(answer(old), path=0), Heard)
    assert isinstance(pair.ends[1].open(ghost, path=0), Stranger)
    pair.meet()
    assert isinstance(pair.ends[1].open(pair.send(2), path=0), Heard)


steps = st.one_of(
    st.tuples(st.just("send"), st.sampled_from((1, 2))),
    st.tuples(st.just("start"), st.sampled_from((1, 2))),
    st.tuples(st.just("deliver"), st.integers(1, 12)),  # of the newest, any number of times
    st.tuples(st.just("replay"), st.integers(0, 10**6)),  # of all ever sent
)


@given(st.lists(steps, max_size=150))
def test_what_is_believed_is_newer_than_all_that_was_believed_before(
    script: list[tuple[str, int]],
) -> None:
    pair = Pair()
    newest = {1: -1, 2: -1}  # receiver → number of the newest datagram it believed
    for what, value in script:
        if what == "send":
            pair.send(value)
        elif what == "start":
            pair.start(value)
            newest[value] = -1
        elif pair.sent:
            number = len(pair.sent) - value if what == "deliver" else value
            number %= len(pair.sent)
            if pair.deliver(number) is not None:
                receiver = pair.sent[number][0]
                assert number > newest[receiver]
                newest[receiver] = number


@given(st.lists(steps, max_size=60))
def test_after_any_history_two_nodes_find_each_other(script: list[tuple[str, int]]) -> None:
    pair = Pair()
    for what, value in script:
        if what == "send":
            pair.send(value)
        elif what == "start":
            pair.start(value)
        elif pair.sent:
            pair.deliver((len(pair.sent) - value if what == "deliver" else value) % len(pair.sent))
    pair.meet(period_s=1.0)
    for node_id in (1, 2):
        pair.send(node_id)
        assert pair.deliver(len(pair.sent) - 1) is not None


def test_recorded_beacon_of_an_earlier_start_is_answered_once_in_a_period() -> None:
    pair = Pair()
    pair.meet()
    recorded = pair.send(1)
    for _ in range(40):  # more than are remembered
        pair.start(1)
        pair.now += 1.0
        pair.meet()
    pair.now += 1.0
    answers = 0
    for _ in range(1000):
        pair.now += 0.0001  # 0.1 s in all, 1.0 leases
        answers += isinstance(pair.ends[2].open(recorded, path=0), Stranger)
    assert 1 <= answers <= 9


def test_living_node_is_answered_beside_recorded_ones() -> None:
    pair = Pair()
    recorded = []
    for _ in range(2):
        pair.start(1)
        recorded.append(pair.send(1))
    pair.start(1)
    for data in recorded * 100:
        pair.ends[2].open(data, path=0)
    said = pair.ends[2].open(pair.send(1), path=0)
    assert isinstance(said, Stranger)
    assert pair.ends[1].open(pair.ends[2].seal(1, BEACON, echo=said.mark), path=0) is not None


def test_copies_on_two_paths_are_answered_once() -> None:
    pair = Pair()
    data = pair.send(1)
    assert isinstance(pair.ends[2].open(data, path=0), Stranger)
    assert pair.ends[2].open(data, path=1) is None
