"""Who is reported to be silent, and when."""

from __future__ import annotations

from hanat.net.silence import LOOK_S, SILENT_S, Silence


class Watched:
    """A node with one peer, looked at as often as it makes sense."""

    def __init__(self) -> None:
        self.now = 100.0
        self.heard_at: float | None = None
        self.connected = True
        self.tcp_heard_at: float | None = None  # None: a keepalive has just come
        self.silence = Silence([2], lambda _peer: self.heard_at)
        self.told: list[tuple[int, bool]] = []

    def run(self, seconds: float, *, heard: bool = False) -> list[tuple[int, bool]]:
        told = []
        end = self.now + seconds
        while self.now < end:
            self.now += LOOK_S
            if heard:
                self.heard_at = self.now
            tcp_heard_at = self.now if self.tcp_heard_at is None else self.tcp_heard_at
            connected = {2: ("192.0.2.2", tcp_heard_at)} if self.connected else {}
            told += self.silence.look(connected, now=self.now)
        return told


def test_connected_peer_without_beacons_is_told_once_and_so_is_its_return() -> None:
    watched = Watched()
    assert watched.run(SILENT_S) == []
    assert watched.run(10 * SILENT_S) == [(2, True)]
    assert watched.run(10 * SILENT_S, heard=True) == [(2, False)]
    assert watched.run(10 * SILENT_S) == [(2, True)]


def test_peer_that_is_down_is_not_called_silent() -> None:
    watched = Watched()
    watched.connected = False
    assert watched.run(10 * SILENT_S) == []


def test_peer_that_lost_its_power_is_not_called_filtered() -> None:
    # Its connections are open as long as nobody sends enough over them to notice.
    watched = Watched()
    watched.run(1.0, heard=True)
    watched.tcp_heard_at = watched.now
    assert watched.run(10 * SILENT_S) == []


def test_peer_that_is_back_without_beacons_is_told_after_its_time() -> None:
    watched = Watched()
    watched.run(1.0, heard=True)
    watched.tcp_heard_at = watched.now
    assert watched.run(10 * SILENT_S) == []
    watched.tcp_heard_at = None
    assert watched.run(SILENT_S) == []
    assert watched.run(SILENT_S) == [(2, True)]


def test_peer_that_just_connected_has_time_to_be_heard() -> None:
    watched = Watched()
    watched.connected = False
    watched.run(10 * SILENT_S)
    watched.connected = True
    assert watched.run(SILENT_S) == []


def test_pause_of_this_process_is_no_silence_of_others() -> None:
    watched = Watched()
    watched.run(1.0, heard=True)
    watched.now += 60.0
    assert watched.run(SILENT_S, heard=False) == []
    assert watched.run(1.0, heard=True) == []
