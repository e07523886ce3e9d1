"""Events of the history: what they say, how they travel, and who held when."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.core import inputs as told
from hanat.core.eligibility import Seen
from hanat.core.history import (
    EVENT_BYTES_MAX,
    Event,
    Taking,
    What,
    Why,
    Witness,
    decode,
    holder_at,
    in_order,
    is_settled,
    last_takeover,
    words,
)
from hanat.core.node_snapshot import NodeSnapshot, Reason
from hanat.core.peer_trace import PeerTrace
from hanat.core.status import Role
from tests.core.test_node import ME, PEER, PROFILE, Harness

WALL_S = 1_790_000_000.0
NAMES = {1: "r1", 2: "r2", 3: "r3"}
ELECTED_AT, ACTIVE_AT = 10.0, 10.02
SAID_AT = ELECTED_AT - PROFILE.lease_s  # its last beacon


def snapshot(
    role: Role, at: float, *, term: int = 7, reason: Reason = Reason.ELECTED
) -> NodeSnapshot:
    found = Harness().node.snapshot()
    return replace(found, role=role, role_since=at, term=term, reason=reason)


def taken(sign: PeerTrace | None = None, *, previous: int | None = PEER) -> Event:
    """Return what a node tells that took over, knowing this of the holder before."""
    witness = Witness(ME, PROFILE)
    witness.elected(snapshot(Role.TAKEOVER, ELECTED_AT), {} if sign is None else {PEER: sign})
    taking = Taking(previous, WALL_S, 6, frames=8, flows=12, complete=True)
    return witness.took_over(snapshot(Role.ACTIVE, ACTIVE_AT), taking)


def test_silent_holder_is_told_with_its_silence_on_each_path() -> None:
    event = taken(PeerTrace((SAID_AT, SAID_AT - 0.1, None), word_at=SAID_AT))
    assert event.why == Why.SILENCE.value
    assert event.silent_s == pytest.approx((0.12, 0.22, None))
    # Its lease counted from the sending of the last beacon that was answered.
    assert event.without_s == pytest.approx(0.02 + PROFILE.margin_s)
    assert event.elected_s == pytest.approx(0.02)
    assert words(event, NAMES) == (
        "took over: nothing was heard of r2 for 120 ms / 220 ms / never on its paths; nobody "
        "answered for about 30 ms, 8 announcements, 12 flows"
    )


def test_holder_that_was_never_heard_is_told_without_a_duration() -> None:
    assert words(taken(PeerTrace((None, None))), NAMES) == (
        "took over: nothing was heard of r2; 8 announcements, 12 flows"
    )


@pytest.mark.parametrize(
    ("sign", "why", "without_s"),
    [
        (PeerTrace(died_at=9.99), Why.DAEMON_DIED, 0.03),
        (PeerTrace(died_at=9.99, unheard_s=1.7), Why.DAEMON_DIED, None),
        # It handed over, and its daemon ended before this node had a majority to hold by.
        (
            PeerTrace(died_at=9.99, released_term=6, released_at=9.5, successor=ME),
            Why.HANDED_OVER,
            0.52,
        ),
        (PeerTrace(died_at=9.99, released_term=5, released_at=9.5), Why.DAEMON_DIED, 0.03),
        (PeerTrace(word_at=9.99, released_term=6, successor=ME), Why.HANDED_OVER, 0.03),
        # All cables were out while it held, and it was heard of again long after that.
        (
            PeerTrace(word_at=9.99, released_term=6, released_at=9.98, unheard_s=2.0),
            Why.STEPPED_DOWN,
            None,
        ),
        (PeerTrace(word_at=9.99, released_term=6), Why.STEPPED_DOWN, 0.03),
        (PeerTrace(word_at=9.99, released_term=6, released_at=9.95), Why.STEPPED_DOWN, 0.07),
        # Nobody heard it for 3 s, and then that it had given up.
        (
            PeerTrace(word_at=9.99, led_at=7.0, released_term=6, released_at=9.95),
            Why.STEPPED_DOWN,
            3.02 - PROFILE.lease_s + PROFILE.margin_s,
        ),
        (
            PeerTrace(word_at=9.99, led_at=9.98, released_term=6, successor=ME, released_at=9.985),
            Why.HANDED_OVER,
            0.035,
        ),
        # It had a lease again just before it made room, and did not answer by it.
        (
            PeerTrace(word_at=9.99, led_at=8.0, shut_at=8.1, released_term=6, released_at=9.985),
            Why.STEPPED_DOWN,
            1.92,
        ),
        (
            PeerTrace(
                word_at=9.99,
                led_at=8.0,
                shut_at=8.1,
                released_term=6,
                successor=ME,
                released_at=9.985,
            ),
            Why.STEPPED_DOWN,
            1.92,
        ),
        # It let its flows drain before it handed over.
        (
            PeerTrace(
                word_at=9.99,
                led_at=9.8,
                shut_at=9.8,
                released_term=6,
                successor=ME,
                released_at=9.985,
            ),
            Why.HANDED_OVER,
            0.22,
        ),
        # What was heard is of a tenure before.
        (
            PeerTrace(word_at=9.99, led_at=2.0, led_term=3, shut_at=2.1, released_term=6),
            Why.STEPPED_DOWN,
            0.03,
        ),
        (PeerTrace(word_at=9.99, led_at=8.0, shut_at=8.1), Why.DEPOSED, 1.92),
        (PeerTrace(word_at=9.0, led_at=8.0, shut_at=8.1), Why.SILENCE, 1.92),
        (PeerTrace(word_at=9.99, released_term=5), Why.DEPOSED, None),  # of a term long ago
        (PeerTrace(word_at=9.99, released_term=7), Why.DEPOSED, None),  # in which it did not hold
        (PeerTrace(word_at=9.99), Why.DEPOSED, None),
        (PeerTrace(word_at=5.0), Why.SILENCE, 5.02 - PROFILE.lease_s + PROFILE.margin_s),
        (PeerTrace(), Why.SILENCE, None),
        (None, Why.SILENCE, None),
    ],
)
def test_reason_is_what_was_last_known_of_the_holder_before(
    sign: PeerTrace | None, why: Why, without_s: float | None
) -> None:
    event = taken(sign)
    assert event.why == why.value
    assert event.without_s == (None if without_s is None else pytest.approx(without_s))


def test_handover_whose_first_round_of_votes_failed_is_told_as_one() -> None:
    witness = Witness(ME, PROFILE)
    sign = PeerTrace(word_at=9.99, released_term=6, successor=ME)
    witness.elected(snapshot(Role.TAKEOVER, ELECTED_AT, term=8), {PEER: sign})
    taking = Taking(PEER, WALL_S, previous_term=6)
    event = witness.took_over(snapshot(Role.ACTIVE, ACTIVE_AT, term=8), taking)
    assert event.why == Why.HANDED_OVER.value


def test_first_holder_and_one_that_resumes_say_so() -> None:
    assert taken(previous=None).why == Why.FIRST.value
    witness = Witness(ME, PROFILE)
    witness.took_over(snapshot(Role.ACTIVE, 1.0), Taking(None, WALL_S))
    lost = snapshot(Role.FENCED, 3.0, reason=Reason.LEASE_EXPIRED)
    gone = witness.gave_up(lost, WALL_S + 2)
    assert gone is not None
    assert (gone.why, gone.term, gone.held_s) == ("lease_expired", 7, 2.0)
    again = witness.took_over(snapshot(Role.ACTIVE, 3.5), Taking(ME, WALL_S + 2.5))
    assert (again.why, again.without_s) == (Why.RESUMED.value, 0.5)


def test_one_that_was_frozen_held_until_its_kernel_ended_its_right() -> None:
    witness = Witness(ME, PROFILE)
    witness.took_over(snapshot(Role.ACTIVE, 1.0), Taking(None, WALL_S))
    thawed = snapshot(Role.BACKUP, 6.0, reason=Reason.LEADERSHIP_LOST)
    gone = witness.gave_up(replace(thawed, gate_until=3.1), WALL_S + 5)
    assert gone is not None
    assert (gone.held_s, gone.at_s) == (2.1, WALL_S + 2.1)
    again = witness.took_over(snapshot(Role.ACTIVE, 6.5), Taking(ME, WALL_S + 5.5))
    assert again.without_s == 3.4


def test_kernel_that_would_let_it_answer_longer_changes_nothing() -> None:
    witness = Witness(ME, PROFILE)
    witness.took_over(snapshot(Role.ACTIVE, 1.0), Taking(None, WALL_S))
    released = snapshot(Role.RELEASING, 2.0, reason=Reason.SWITCHOVER)
    gone = witness.gave_up(replace(released, gate_until=2.1), WALL_S + 1)
    assert gone is not None
    assert (gone.held_s, gone.at_s) == (1.0, WALL_S + 1)


def test_who_gives_up_tells_the_term_it_held_and_what_was_in_its_way() -> None:
    h = Harness().active(until=9.0)
    witness = Witness(ME, PROFILE)
    witness.took_over(h.node.snapshot(), Taking(None, WALL_S))
    h.now = 4.0
    h.tell(told.CarrierObserved("public", carrier=False))
    h.peers(Seen(PEER, fit=True, handicap=0))
    event = witness.gave_up(h.node.snapshot(), WALL_S)
    assert event is not None
    assert words(event, NAMES) == "gave up: another node could do better (public: no carrier)"
    assert (event.term, event.held_s) == (1, 4.0)
    assert witness.gave_up(h.node.snapshot(), WALL_S) is None  # once


@pytest.mark.parametrize(
    ("role", "reason", "settled"),
    [
        (Role.ACTIVE, Reason.LEASE_OBTAINED, True),
        (Role.BACKUP, Reason.HANDED_OVER, True),
        (Role.RELEASING, Reason.SWITCHOVER, False),
        (Role.RELEASING, Reason.SHUTDOWN, True),
        (Role.TAKEOVER, Reason.ELECTED, False),
    ],
)
def test_events_wait_while_a_node_hands_over_unless_it_ends_then(
    role: Role,
    reason: Reason,
    settled: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    assert is_settled(snapshot(role, 1.0, reason=reason)) is settled


numbers = st.none() | st.floats(0, 1e6)
events = st.builds(
    Event,
    what=st.sampled_from([what.value for what in What]),
    node_id=st.integers(1, 255),
    term=st.integers(0, 2**63),
    at_s=st.floats(0, 2e11),
    why=st.sampled_from([why.value for why in Why]),
    found=st.text(max_size=200),
    previous=st.none() | st.integers(1, 255),
    silent_s=st.lists(numbers, max_size=4).map(tuple),
    without_s=numbers,
    elected_s=numbers,
    frames=st.integers(0, 1000),
    flows=st.integers(0, 10**7),
    complete=st.booleans(),
    held_s=numbers,
)


@given(events)
def test_event_survives_the_log_and_is_never_too_large(event: Event) -> None:
    data = event.encode()
    assert len(data) <= EVENT_BYTES_MAX
    found = decode(data)
    assert found is not None
    assert found in {event, replace(event, found="")}
    assert words(found, NAMES)


GOOD = taken(PeerTrace((SAID_AT, None), word_at=SAID_AT)).encode()


@pytest.mark.parametrize(
    "change",
    [
        {"term": "7"}, {"node_id": 1.5}, {"node_id": True}, {"at_s": 1e300}, {"at_s": -1},
        {"why": 3}, {"without_s": "1"}, {"silent_s": [[]]}, {"silent_s": 3}, {"colour": "red"},
        {"previous": "r1"},
    ],
    ids=str,
)  # fmt: skip
def test_event_of_another_form_is_none(change: dict[str, Any]) -> None:
    assert decode(json.dumps({**json.loads(GOOD), **change}).encode()) is None


@given(st.binary(max_size=50) | st.sampled_from([b"[]", b"null", b"NaN", b"[" * 900, b"{}"]))
def test_garbage_is_none(data: bytes) -> None:
    assert decode(data) is None


def took(node_id: int, term: int, at_s: float, without_s: float = 0.0) -> Event:
    return Event("took over", node_id, term, at_s, "silence", without_s=without_s)


def gave(node_id: int, term: int, at_s: float) -> Event:
    return Event("gave up", node_id, term, at_s, "switchover")


HISTORY = [
    took(1, 1, 100.0),
    took(2, 2, 200.0, without_s=5.0),
    gave(1, 1, 194.0),  # told late, when it was back
    gave(2, 2, 300.0),
    took(3, 3, 301.0),
]


@pytest.mark.parametrize(
    ("at_s", "holder"),
    [
        (99.0, None), (100.0, 1), (193.0, 1), (196.0, None), (200.0, 2), (299.9, 2),
        (300.5, None), (301.0, 3), (9999.0, 3),
    ],
)  # fmt: skip
def test_holder_at_a_time_is_who_took_over_and_did_not_give_up(
    at_s: float, holder: int | None
) -> None:
    assert holder_at(HISTORY, at_s).node_id == holder


def test_nothing_is_known_of_a_time_before_the_history() -> None:
    assert holder_at(HISTORY, 99.0).event is None
    assert holder_at(HISTORY, 300.5).event == HISTORY[3]


def test_what_was_told_late_ends_no_later_tenure() -> None:
    late = [took(1, 1, 100.0), took(3, 3, 110.0), gave(1, 1, 99.0), took(2, 2, 100.0)]
    assert holder_at([*late, gave(2, 2, 105.0)], 120.0).node_id == 3


def test_last_takeover_is_of_the_highest_term() -> None:
    assert last_takeover(reversed(HISTORY)) == HISTORY[4]
    assert last_takeover([HISTORY[3]]) is None
    late = [took(1, 1, 100.0), took(3, 3, 300.0), took(2, 2, 200.0)]
    assert last_takeover(reversed(late)) == late[1]


def test_what_was_told_late_is_shown_before_its_successor() -> None:
    first, second, late, fourth, fifth = HISTORY
    assert in_order(HISTORY) == [first, late, second, fourth, fifth]


def test_one_of_a_thing_is_not_told_in_the_plural() -> None:
    event = replace(taken(), frames=1, flows=1)
    assert "; 1 announcement, 1 flow" in words(replace(event, without_s=None, complete=True), NAMES)
