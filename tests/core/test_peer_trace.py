"""What is remembered of a peer's beacons, for the reason of a takeover."""

from __future__ import annotations

import pytest

from hanat.core.beacon import Beacon, Heard
from hanat.core.peer_trace import PeerTrace, TraceRecorder

SILENCE_S = 0.025
DEAD = PeerTrace((None, None), died_at=9.005, unheard_s=9.005 - 9.0)
BOTH = (9.0, 9.0)  # when it was heard last on each path


def heard(beacon: Beacon, *, echoed_at: float | None = None, introduced: bool = False) -> Heard:
    return Heard(
        peer=2,
        sequence=1,
        beacon=beacon,
        payload=b"",
        echoed_at=echoed_at,
        promised_at=None,
        introduced=introduced,
    )


@pytest.fixture
def watch() -> TraceRecorder:
    """Of a peer that was heard last at 9.0, as the leader of term 6."""
    watch = TraceRecorder(SILENCE_S)
    for at in (8.98, 8.99, 9.0):
        watch.hear(heard(Beacon(6, leads=True, asks=True), echoed_at=at - 0.005), at, (at, at))
    return watch


def test_leader_led_until_its_newest_beacon(watch: TraceRecorder) -> None:
    assert watch.sign(BOTH) == PeerTrace(BOTH, word_at=9.0, led_at=9.0, led_term=6)


def test_beacons_that_come_from_before_a_silence_tell_nothing_new(watch: TraceRecorder) -> None:
    for at in (11.0, 11.0001, 11.0002):  # kept by its kernel while it had no cable
        watch.hear(heard(Beacon(6, leads=True, asks=True), echoed_at=8.999), at, (at, at))
    watch.hear(heard(Beacon(6, released_term=6), echoed_at=8.999), 11.001, (11.001, 11.001))
    sign = watch.sign((11.001, 11.001))
    assert (sign.led_at, sign.released_term, sign.released_at) == (9.0, 6, 11.001)
    watch.hear(heard(Beacon(8, leads=True, asks=True), echoed_at=11.0015), 11.002, (11.002, 11.002))
    assert watch.sign((11.002, 11.002)).led_at == 11.002


def test_leader_that_hears_nothing_is_no_silent_one_and_its_lease_ends(
    watch: TraceRecorder,
) -> None:
    """It asks for no promises then, and renews nothing."""
    at = 9.0
    for _ in range(100):
        at += 0.01
        watch.hear(heard(Beacon(6, leads=True), echoed_at=8.999), at, (at, at))
    assert watch.sign((at, at)).word_at == at
    assert watch.sign((at, at)).led_at == 9.0


def test_leader_that_this_node_does_not_reach_leads_all_the_same(watch: TraceRecorder) -> None:
    at = 11.0
    for _ in range(150):
        at += 0.01
        watch.hear(heard(Beacon(6, leads=True, asks=True)), at, (at, at))
    assert watch.sign((at, at)).led_at == at


def test_leader_that_answers_no_more_stopped_when_it_said_so_first(watch: TraceRecorder) -> None:
    for at in (9.01, 9.02, 9.03):  # asks: it has a lease again, and is about to make room
        beacon = Beacon(6, leads=True, asks=at > 9.02, shut=True)
        watch.hear(heard(beacon, echoed_at=at - 0.005), at, (at, at))
    sign = watch.sign((9.03, 9.03))
    assert (sign.led_at, sign.shut_at) == (9.0, 9.01)
    watch.hear(heard(Beacon(6, leads=True, asks=True), echoed_at=9.035), 9.04, (9.04, 9.04))
    sign = watch.sign((9.04, 9.04))  # it resumed
    assert (sign.led_at, sign.shut_at) == (9.04, None)


def test_one_that_has_started_and_leads_has_not_stopped_just_now(watch: TraceRecorder) -> None:
    watch.hear(heard(Beacon(6), echoed_at=9.5, introduced=True), 9.5, (9.5, 9.0))
    watch.hear(heard(Beacon(7, leads=True, asks=True, shut=True), echoed_at=9.505), 9.51, BOTH)
    assert watch.sign(BOTH).shut_at is None


def test_release_counts_from_when_it_was_said_first(watch: TraceRecorder) -> None:
    for at in (9.01, 9.02):
        watch.hear(heard(Beacon(6, released_term=6, successor=3), echoed_at=at), at, (at, at))
    sign = watch.sign((9.02, 9.02))
    assert (sign.released_at, sign.word_at, sign.successor) == (9.01, 9.02, 3)


def test_new_incarnation_leaves_the_sign_until_it_leads(watch: TraceRecorder) -> None:
    watch.hear(heard(Beacon(6), echoed_at=9.5, introduced=True), 9.5, (9.5, 9.0))
    watch.hear(heard(Beacon(6), echoed_at=9.505), 9.51, (9.51, 9.51))
    assert watch.sign((9.51, 9.51)) == PeerTrace(BOTH, word_at=9.0, led_at=9.0, led_term=6)
    watch.hear(heard(Beacon(7, leads=True, asks=True), echoed_at=9.515), 9.52, (9.52, 9.52))
    assert watch.sign((9.52, 9.52)) == PeerTrace(
        (9.52, 9.52), word_at=9.52, led_at=9.52, led_term=7
    )


def test_new_incarnation_that_leads_and_never_answers_leaves_the_sign(
    watch: TraceRecorder,
) -> None:
    """It was elected and lost the next election: its last tenure ended in silence as before."""
    paths = (9.51, 9.51)
    watch.hear(heard(Beacon(6), echoed_at=9.5, introduced=True), 9.5, (9.5, 9.5))
    watch.hear(heard(Beacon(7, leads=True, asks=True, shut=True), echoed_at=9.505), 9.51, paths)
    sign = watch.sign(paths)
    assert (sign.word_at, sign.led_at, sign.led_term) == (9.0, 9.0, 6)
    watch.hear(heard(Beacon(7, leads=True, asks=True), echoed_at=9.515), 9.52, (9.52, 9.52))
    sign = watch.sign((9.52, 9.52))
    assert (sign.word_at, sign.led_at, sign.led_term) == (9.52, 9.52, 7)


def test_silence_before_a_word_of_giving_up_is_remembered(watch: TraceRecorder) -> None:
    watch.hear(heard(Beacon(9, released_term=8), echoed_at=9.004), 11.0, (11.0, 11.0))
    for at in (11.01, 11.02):
        watch.hear(heard(Beacon(9, released_term=8), echoed_at=at - 0.005), at, (at, at))
    sign = watch.sign((11.02, 11.02))
    assert (sign.released_at, sign.unheard_s) == (11.0, 2.0)


def test_silence_in_which_a_tenure_passed_unheard_is_remembered_until_it_is_given_up() -> None:
    """It took over and lost its lease without a cable, and made room 0.1 s after it was back."""
    watch = TraceRecorder(SILENCE_S)
    for at in (8.99, 9.0):
        watch.hear(heard(Beacon(5), echoed_at=at - 0.005), at, (at, at))
    for at in (11.0, 11.01, 11.02):
        shut = Beacon(6, leads=True, shut=True)
        watch.hear(heard(shut, echoed_at=at - 0.001), at, (at, at))
    gives_up = Beacon(7, released_term=6)
    watch.hear(heard(gives_up, echoed_at=11.029), 11.03, (11.03, 11.03))
    assert watch.sign((11.03, 11.03)).unheard_s == 2.0
    # Heard as a follower since, it could only hold after that.
    watch.hear(heard(Beacon(7), echoed_at=11.039), 11.04, (11.04, 11.04))
    watch.hear(heard(Beacon(8, leads=True, shut=True), echoed_at=11.049), 11.05, (11.05, 11.05))
    watch.hear(heard(Beacon(9, released_term=8), echoed_at=11.059), 11.06, (11.06, 11.06))
    assert watch.sign((11.06, 11.06)).unheard_s < 0.02


def test_silence_before_a_death_is_remembered(watch: TraceRecorder) -> None:
    for at in (10.7, 10.701):  # this node was frozen when it happened
        watch.died(at)
    sign = watch.sign(BOTH)
    assert sign.died_at == 10.701
    assert sign.unheard_s == pytest.approx(1.7)


def test_daemon_that_gave_up_before_it_died_is_remembered_for_both(watch: TraceRecorder) -> None:
    said = Beacon(7, released_term=6, successor=3)
    watch.hear(heard(said, echoed_at=9.0), 9.004, (9.004, 9.004))
    for at in (9.005, 9.006):  # told on each path
        watch.died(at)
    sign = watch.sign(BOTH)
    assert (sign.died_at, sign.word_at, sign.heard_at) == (9.006, None, (None, None))
    assert (sign.released_term, sign.released_at, sign.successor) == (6, 9.004, 3)


def test_daemon_that_died_is_remembered_as_that_until_it_leads_again(watch: TraceRecorder) -> None:
    watch.died(9.005)
    assert watch.sign(BOTH) == DEAD
    watch.hear(heard(Beacon(6), echoed_at=9.5, introduced=True), 9.5, (9.5, None))
    assert watch.sign((9.5, 9.5)) == DEAD


def test_tenure_that_nobody_heard_does_not_end_when_an_earlier_one_did(
    watch: TraceRecorder,
) -> None:
    watch.hear(heard(Beacon(6, leads=True, shut=True), echoed_at=9.01), 9.02, (9.02, 9.02))
    assert watch.sign(BOTH).shut_at == 9.02
    watch.hear(heard(Beacon(8, leads=True, shut=True), echoed_at=9.03), 9.04, (9.04, 9.04))
    sign = watch.sign(BOTH)
    assert (sign.led_term, sign.led_at, sign.shut_at) == (8, None, None)
