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
