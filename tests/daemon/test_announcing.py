"""Announcements of a thousand addresses: so many a millisecond, and none without a lease."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_interface

from hanat.core.placements import Placement
from hanat.daemon.announcing import SLICE_S, Announcing
from hanat.errors import KernelError

MANY = tuple(
    Placement("eth0", ip_interface(f"10.9.{n // 250}.{n % 250 + 1}/16")) for n in range(1000)
)
PACE = 50


class Loop:
    """A loop whose time goes on by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sent: list[tuple[float, int]] = []
        self.placed: list[Placement] = []
        self.failed: list[KernelError] = []
        self.refuses = False
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self.announcing = Announcing(
            self._send,
            failed=self.failed.append,
            later=self._later,
            clock=lambda: self.now,
            frames_per_ms=PACE,
        )

    def _send(self, part: Sequence[Placement]) -> None:
        self.sent.append((self.now, len(part)))
        self.placed += part
        if self.refuses:
            raise KernelError(operation="announce", target="eth0", found="ENETDOWN")

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        self._timers.append((self.now + delay_s, call))

    def run(self, timers: int = 10_000) -> None:
        while self._timers and timers:
            timers -= 1
            self.now, call = self._timers.pop(0)
            call()


def test_round_keeps_its_pace_and_comes_to_its_end() -> None:
    h = Loop()
    h.announcing.begin(MANY, 200.0)
    assert h.sent == [(100.0, PACE // 2)]  # at once
    h.run()
    assert h.placed == list(MANY)
    assert max(count for _, count in h.sent) <= PACE // 2
    assert len({at for at, _ in h.sent}) == len(h.sent) == 40
    assert h.now - 100.0 < 41 * SLICE_S


def test_rounds_that_meet_do_not_go_faster_and_one_of_them_waits() -> None:
    h = Loop()
    for _ in range(5):
        h.announcing.begin(MANY, 200.0)
        h.run(timers=10)
    h.run()
    assert len({at for at, _ in h.sent}) == len(h.sent)
    assert len(h.placed) == 3 * len(MANY)  # the first, one behind it, one behind that


def test_nothing_is_sent_when_the_lease_is_over_or_its_right_withdrawn() -> None:
    h = Loop()
    h.announcing.begin(MANY, 100.0 + 5 * SLICE_S)
    h.run()
    assert 0 < len(h.placed) < len(MANY)
    assert max(at for at, _ in h.sent) < 100.0 + 5 * SLICE_S

    h = Loop()
    h.announcing.begin(MANY, 200.0)
    h.run(timers=3)
    done = len(h.placed)
    h.announcing.stop()
    h.run()
    assert len(h.placed) == done


def test_renewed_lease_lets_the_round_go_on() -> None:
    h = Loop()
    h.announcing.begin(MANY, 100.0 + 5 * SLICE_S)
    h.announcing.extend(200.0)
    h.run()
    assert h.placed == list(MANY)


def test_round_after_one_that_was_stopped_begins_anew() -> None:
    h = Loop()
    h.announcing.begin(MANY, 200.0)
    h.announcing.stop()
    h.announcing.begin(MANY[:10], 200.0)
    h.run()
    assert h.placed[PACE // 2 :] == list(MANY[:10])
    assert not h.announcing._round


def test_refusal_in_the_middle_ends_the_round_and_is_told() -> None:
    h = Loop()
    h.announcing.begin(MANY, 200.0)
    h.run(timers=3)
    h.refuses = True
    h.run()
    assert [error.found for error in h.failed] == ["ENETDOWN"]
    assert len(h.sent) == 5
    h.refuses = False
    h.announcing.begin(MANY[:10], 200.0)
    h.run()
    assert h.placed[-10:] == list(MANY[:10])
