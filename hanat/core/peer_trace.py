"""What a node last knew of a peer: signs of why the peer holds no longer, and since when."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hanat.core.beacon import Beacon, Heard
from hanat.core.configuration import Profile

SILENT_BEACONS = 2.5  # one lost beacon is no silence
KEPT_S = 1.0  # what a kernel has kept comes in one burst, the first after a silence


def silence_s(profile: Profile) -> float:
    """Return after how long without a beacon a peer is silent."""
    return SILENT_BEACONS * profile.beacon_s


@dataclass(frozen=True, slots=True)
class PeerTrace:
    """What a node last knew of a peer; times in seconds of its own clock.

    Attributes:
        heard_at: Its last beacon on each path, None for none.
        died_at: When its supervisor said that it was dead, if it was not heard since.
        word_at: Its newest beacon.
        led_at: Its newest beacon as a leader that answers for the addresses and asks for
            promises, see `TraceRecorder`; None if there is none. One that hears no majority asks
            for none, and its lease ends meanwhile.
        led_term: Of what term that and the next one are, 0 if not known.
        shut_at: When it said first after that one that it leads and answers no more; it may
            have a lease again before it makes room.
        released_term: Up to which term it said there that it answers no more.
        released_at: When it said so first.
        unheard_s: How long nothing had been heard of it when it said so, or when its death was
            told, or before it was heard again as a leader that does not answer: it may have stopped
            at any time of that.
        successor: And to whom it handed over.
    """

    heard_at: tuple[float | None, ...] = ()
    died_at: float | None = None
    word_at: float | None = None
    led_at: float | None = None
    led_term: int = 0
    shut_at: float | None = None
    released_term: int = 0
    released_at: float | None = None
    unheard_s: float = 0.0
    successor: int = 0


class TraceRecorder:
    """Remembers what one peer said of having led, as long as that tells of its last tenure.

    Two kinds of beacons do not count as a leader's. Those of a new incarnation: they leave the sign
    as it was until it leads and answers again. And those that come after a silence and may be from
    before it: the kernel of a node without a cable keeps them for its ARP, for seconds, and
    sends them when the cable is back. One that echoes a datagram of after the silence is new,
    and so is one that comes `KEPT_S` later: a peer may lead without hearing this node.

    Args:
        silence_s: Without a beacon for longer than that the peer was silent.
    """

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._died_at: float | None = None
        self._word: tuple[Beacon, float] | None = None
        self._last_word: Beacon | None = None  # of one that died
        self._resumed_at: float | None = None  # heard again after its last silence
        self._led_at: float | None = None
        self._led_term = 0
        self._shut_at: float | None = None
        self._released: tuple[int, float | None] = (0, None)  # the term, when it said so first
        self._unheard_s = 0.0  # before that
        self._gap_s = 0.0  # the last silence, if it may have held and stopped in it unheard
        self._silent_s = 0.0  # before the news of its death
        self._former: PeerTrace | None = None

    def died(self, now: float) -> None:
        """The peer's supervisor said that its daemon is dead."""
        if self._word is not None:
            self._last_word, at = self._word
            self._silent_s = now - at
        self._died_at, self._word = now, None

    def hear(self, said: Heard, now: float, heard_at: tuple[float | None, ...]) -> None:
        """Note a beacon of the peer, and when the peer was heard last on each path."""
        beacon = said.beacon
        if said.introduced:
            self._former = self._former or self._sign(heard_at)
            self._resumed_at, self._released, self._gap_s = None, (0, None), 0.0
            self._led_at = self._shut_at = None
        elif self._word is not None and now - self._word[1] > self._silence_s:
            self._resumed_at, self._gap_s = now, now - self._word[1]
        if beacon.leads and not self._may_be_old(said, now):
            self._led(beacon, now)
        if beacon.released_term > self._released[0]:
            self._released = beacon.released_term, now
            self._unheard_s = 0.0 if self._word is None else now - self._word[1]
            if self._led_at is None:
                self._unheard_s = max(self._unheard_s, self._gap_s)
        if not beacon.leads and not self._may_be_old(said, now):
            self._gap_s = 0.0
        self._word = beacon, now

    def _led(self, beacon: Beacon, now: float) -> None:
        """Note a beacon of it as the leader."""
        if not beacon.shut:
            self._former = None
        if beacon.term != self._led_term:
            self._led_term = beacon.term
            self._led_at = self._shut_at = None
        if not beacon.shut:
            self._shut_at = None
            self._led_at = now if beacon.asks else self._led_at
        elif self._shut_at is None and self._led_at is not None:  # one that has just started: no
            self._shut_at = now

    def _may_be_old(self, said: Heard, now: float) -> bool:
        resumed_at = self._resumed_at
        if resumed_at is None or now - resumed_at > KEPT_S:
            return False
        return (said.echoed_at or 0.0) < resumed_at

    def sign(self, heard_at: tuple[float | None, ...]) -> PeerTrace:
        """Return what is known of the peer, given when it was heard last on each path."""
        return self._former or self._sign(heard_at)

    def _sign(self, heard_at: tuple[float | None, ...]) -> PeerTrace:
        if self._word is None:
            return self._sign_of_dead(len(heard_at))
        beacon, at = self._word
        # A beacon that introduces a new incarnation came over one path already.
        return PeerTrace(
            tuple(None if path_at is None else min(path_at, at) for path_at in heard_at),
            word_at=at,
            led_at=self._led_at,
            led_term=self._led_term,
            shut_at=self._shut_at,
            released_term=beacon.released_term,
            released_at=self._released[1],
            unheard_s=self._unheard_s,
            successor=beacon.successor,
        )

    def _sign_of_dead(self, paths: int) -> PeerTrace:
        """Return what one that was not heard since it died had given up before."""
        sign = PeerTrace((None,) * paths, died_at=self._died_at, unheard_s=self._silent_s)
        if self._last_word is None or self._released[1] is None:
            return sign
        return replace(
            sign,
            led_at=self._led_at,
            led_term=self._led_term,
            shut_at=self._shut_at,
            released_term=self._last_word.released_term,
            released_at=self._released[1],
            unheard_s=self._unheard_s,
            successor=self._last_word.successor,
        )
