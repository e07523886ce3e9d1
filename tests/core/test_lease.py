"""The arithmetic of promises and the lease."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.core.lease import Lease, Promise

DURATION_S = 0.1
MARGIN_S = 0.01


def lease(quorum: int = 2) -> Lease:
    return Lease(duration_s=DURATION_S, margin_s=MARGIN_S, quorum=quorum)


def test_lease_counts_from_the_send_time_not_from_the_receipt() -> None:
    holder = lease()
    assert holder.acknowledged(peer=2, term=1, sent_at=10.0, now=10.05)
    assert holder.until == pytest.approx(10.0 + DURATION_S - MARGIN_S)


def test_lease_of_five_needs_the_second_newest_acknowledgement() -> None:
    holder = lease(quorum=3)
    assert not holder.acknowledged(peer=2, term=1, sent_at=10.04, now=10.05)
    assert holder.acknowledged(peer=3, term=1, sent_at=10.02, now=10.05)
    assert holder.until == pytest.approx(10.02 + DURATION_S - MARGIN_S)


def test_late_acknowledgement_does_not_shorten_the_lease() -> None:
    holder = lease()
    holder.acknowledged(peer=2, term=1, sent_at=10.05, now=10.06)
    until = holder.until
    assert not holder.acknowledged(peer=2, term=1, sent_at=10.01, now=10.07)
    assert holder.until == until


def test_acknowledgements_of_an_older_term_do_not_count_in_a_new_one() -> None:
    holder = lease(quorum=3)
    holder.acknowledged(peer=2, term=1, sent_at=10.0, now=10.01)
    assert not holder.acknowledged(peer=3, term=2, sent_at=10.02, now=10.03)


def test_given_up_lease_is_never_renewed_in_its_term() -> None:
    holder = lease()
    holder.acknowledged(peer=2, term=1, sent_at=10.0, now=10.01)
    holder.give_up(1)
    assert not holder.acknowledged(peer=2, term=1, sent_at=10.02, now=10.03)
    assert holder.until == 0.0
    assert holder.acknowledged(peer=2, term=2, sent_at=10.04, now=10.05)


def test_started_node_helps_nobody_for_one_duration() -> None:
    promise = Promise(quiet_s=DURATION_S, now=50.0)
    assert not promise.heard(leader=1, term=3, duration_s=DURATION_S, now=50.05)
    assert promise.binds(candidate=1, now=50.09)
    assert not promise.binds(candidate=1, now=50.11)


def test_promise_binds_to_the_leader_that_was_heard() -> None:
    promise = Promise(quiet_s=DURATION_S, now=0.0)
    assert promise.heard(leader=1, term=3, duration_s=DURATION_S, now=50.0)
    assert promise.binds(candidate=2, now=50.099)
    assert not promise.binds(candidate=1, now=50.099)
    assert not promise.binds(candidate=2, now=50.101)


def test_a_leader_is_promised_what_it_asks_for_and_the_longest_counts() -> None:
    promise = Promise(quiet_s=DURATION_S, now=0.0)
    assert promise.heard(leader=1, term=3, duration_s=DURATION_S, now=50.0)
    assert promise.heard(leader=1, term=3, duration_s=DURATION_S / 4, now=50.001)
    assert promise.binds(candidate=2, now=50.099)
    assert not promise.binds(candidate=2, now=50.101)


@pytest.mark.parametrize("asked_s", [0.0, DURATION_S + 0.001])
def test_nothing_is_promised_to_who_asks_for_more_than_a_start_waits_for(asked_s: float) -> None:
    promise = Promise(quiet_s=DURATION_S, now=0.0)
    assert not promise.heard(leader=1, term=3, duration_s=asked_s, now=50.0)
    assert not promise.binds(candidate=2, now=50.0)


def test_promise_is_released_only_for_the_very_next_term() -> None:
    promise = Promise(quiet_s=DURATION_S, now=0.0)
    promise.heard(leader=1, term=3, duration_s=DURATION_S, now=50.0)
    assert promise.released_for(4)
    assert not promise.released_for(3)
    assert not promise.released_for(5)


def test_moment_in_which_a_promise_ends_is_no_part_of_it() -> None:
    promise = Promise(quiet_s=1.0, now=50.0)
    assert promise.quiet(50.5)
    assert not promise.quiet(51.0)
    assert promise.heard(leader=1, term=3, duration_s=1.0, now=51.0)
    assert promise.binds(candidate=2, now=51.5)
    assert not promise.binds(candidate=2, now=52.0)


@pytest.mark.parametrize(
    ("leader", "term", "now", "is_void"),
    [
        (1, 3, 50.5, True),
        (1, 4, 50.5, True),  # and all before it
        (1, 2, 50.5, False),  # of an earlier tenure: a late word
        (2, 3, 50.5, False),  # it was promised to somebody else
        (1, 3, 51.0, False),  # it bound nobody any more
    ],
)
def test_leader_that_answers_no_more_frees_those_who_promised_it(
    *, leader: int, term: int, now: float, is_void: bool
) -> None:
    promise = Promise(quiet_s=1.0, now=0.0)
    promise.heard(leader=1, term=3, duration_s=1.0, now=50.0)
    assert promise.release(leader=leader, term=term, now=now) is is_void
    assert promise.until == (now if is_void else 51.0)
    assert promise.binds(candidate=3, now=50.6) is not is_void


def test_node_that_promised_nothing_has_nothing_to_be_freed_of() -> None:
    promise = Promise(quiet_s=1.0, now=50.0)
    assert (promise.leader, promise.term) == (None, -1)
    assert not promise.release(leader=1, term=9, now=50.5)
    assert promise.binds(candidate=1, now=50.6)


def test_lease_is_nothing_before_the_first_promise() -> None:
    holder = lease()
    assert (holder.term, holder.until, holder.given_up_term) == (-1, 0.0, 0)
    assert not lease(quorum=3).acknowledged(peer=2, term=1, sent_at=0.1, now=0.1)


def test_margin_is_less_than_the_lease_and_may_be_nothing() -> None:
    assert Lease(duration_s=1.0, margin_s=0.0, quorum=2).until == 0.0
    for margin_s in (-0.1, 1.0):
        with pytest.raises(AssertionError):
            Lease(duration_s=1.0, margin_s=margin_s, quorum=2)


def test_cluster_of_one_renews_by_itself_until_it_gives_up() -> None:
    holder = lease(quorum=1)
    assert holder.alone(term=4, now=10.0)
    assert holder.term == 4
    assert holder.until == pytest.approx(10.0 + DURATION_S - MARGIN_S)
    assert holder.alone(term=4, now=10.01)
    holder.give_up(4)
    assert not holder.alone(term=4, now=10.02)
    assert holder.until == 0.0
    assert holder.alone(term=5, now=10.03)
    assert holder.term == 5
    assert not lease(quorum=2).alone(term=1, now=10.0)


@given(
    delay_s=st.floats(0, 1),
    rate_leader=st.floats(0.99, 1.01),
    rate_follower=st.floats(0.99, 1.01),
)
def test_lease_ends_before_the_promise_it_rests_on(
    delay_s: float, rate_leader: float, rate_follower: float
) -> None:
    # True time 0: the leader sends; `delay_s` later the follower hears it.
    holder = lease()
    sent_at = 1000.0 * rate_leader
    acknowledged_at = (1000.0 + 2 * delay_s) * rate_leader
    holder.acknowledged(peer=2, term=1, sent_at=sent_at, now=acknowledged_at)
    lease_end = holder.until / rate_leader - 1000.0
    heard_at = (1000.0 + delay_s) * rate_follower
    promise = Promise(quiet_s=DURATION_S, now=0.0)
    promise.heard(leader=1, term=1, duration_s=DURATION_S, now=heard_at)
    promise_end = promise.until / rate_follower - 1000.0
    assert lease_end < promise_end
