"""Who held the addresses, from when to when, and why that changed.

Two kinds of events go into the replicated log. Who becomes the holder tells that it
*took over*, and why as far as it knows: what it last heard of the one before. Who stops
being the holder tells that it *gave up*, and why; that may come late, when it is reached
again, and never from a node that crashed. Both are written once and changed by nobody.

Wall-clock times are those of the node that tells. They are for people and for comparing
with what was recorded elsewhere; nothing is decided by them, and the order is that of the
terms, within one that of the log.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum

from hanat.core.configuration import Profile
from hanat.core.node_snapshot import NodeSnapshot, Reason
from hanat.core.peer_trace import PeerTrace, silence_s
from hanat.core.status import Role
from hanat.core.tenure import FLUSH_S_MAX

EVENTS_MAX = 500  # in the log's state; some 150 KiB
EVENT_BYTES_MAX = 1024
TEXT_CHARS_MAX = 200
YEAR_9999_S = 253_370_764_800


class What(Enum):
    """What happened."""

    TOOK_OVER = "took over"
    GAVE_UP = "gave up"


class Why(Enum):
    """Why a node took over, as far as it knows; who gave up has a `node_snapshot.Reason`."""

    FIRST = "first"  # the log knows no holder before
    RESUMED = "resumed"  # it was the holder before
    HANDED_OVER = "handed_over"  # by the holder before, whose own event says why
    DAEMON_DIED = "daemon_died"  # said the supervisor of the holder before
    STEPPED_DOWN = "stepped_down"  # the holder before gave its lease up, for nobody in particular
    SILENCE = "silence"  # nothing was heard of the holder before, and its lease had ended
    DEPOSED = "deposed"  # it was still heard, but had lost its majority


@dataclass(frozen=True, slots=True)
class Event:
    """One change.

    Attributes:
        what: A value of `What`.
        node_id: Who took over or gave up, and tells it.
        term: In which it held.
        at_s: Wall-clock time there, seconds since 1970.
        why: A value of `Why` or `node_snapshot.Reason`.
        found: More about that: what was wrong with it.
        previous: Who held before, None if unknown; only of who took over, as the rest.
        silent_s: For each path, since the last beacon of `previous` when the election was
            won; None: none since this node started, or since it was said to be dead.
        without_s: Estimate of how long nobody answered; None if unknown.
        elected_s: From winning the election to answering.
        frames: Announcements sent at once.
        flows: Translated, established flows in its kernel, as counted within the second
            before; `complete`: all there are.
        held_s: Only of who gave up: for how long it had held.
    """

    what: str
    node_id: int
    term: int
    at_s: float
    why: str
    found: str = ""
    previous: int | None = None
    silent_s: tuple[float | None, ...] = ()
    without_s: float | None = None
    elected_s: float | None = None
    frames: int = 0
    flows: int = 0
    complete: bool = False
    held_s: float | None = None

    def encode(self) -> bytes:
        """Return the event as bytes, at most `EVENT_BYTES_MAX`."""
        document = {name: value for name, value in asdict(self).items() if value not in ("", None)}
        data = json.dumps(document, separators=(",", ":")).encode()
        return data if len(data) <= EVENT_BYTES_MAX else replace(self, found="").encode()


def decode(data: bytes) -> Event | None:
    """Return what `Event.encode` made bytes of; None if it is of another version."""
    try:
        document = json.loads(data)
        silent_s = tuple(document.pop("silent_s", ()))
        complete = document.pop("complete", False) is True
        event = Event(**document, silent_s=silent_s, complete=complete)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return event if _is_sound(event) else None


def _is_sound(event: Event) -> bool:
    """Say whether the values are of the right types: whoever shows them relies on it."""
    texts: tuple[object, ...] = (event.what, event.why, event.found)
    whole: tuple[object, ...] = (event.node_id, event.term, event.previous or 0, event.frames)
    numbers = (event.at_s, event.flows)
    perhaps = (event.without_s, event.elected_s, event.held_s, *event.silent_s)
    return (
        all(isinstance(value, str) for value in texts)
        and all(type(value) is int for value in whole)
        and all(_is_number(value) for value in numbers)
        and all(value is None or _is_number(value) for value in perhaps)
        and 0 <= event.at_s < YEAR_9999_S
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)


# ------------------------------------------------------------------------ telling


@dataclass(frozen=True, slots=True)
class Taking:
    """What a new holder knows when it begins to answer.

    Attributes:
        previous: Who held before, None if the log knows nobody.
        previous_term: And in which term.
        wall_s: Wall-clock time, seconds since 1970.
    """

    previous: int | None
    wall_s: float
    previous_term: int = 0
    frames: int = 0
    flows: int = 0
    complete: bool = False


class Witness:
    """Watches one node and makes events of what it sees.

    Args:
        node_id: The node.
        profile: That it runs with.
    """

    def __init__(self, node_id: int, profile: Profile) -> None:
        self._node_id, self._profile = node_id, profile
        self._signs: Mapping[int, PeerTrace] = {}
        self._elected_at = 0.0
        self._lost_at: float | None = None  # when this node gave up last
        self._held: tuple[int, float] | None = None  # term, since when

    def elected(self, snapshot: NodeSnapshot, signs: Mapping[int, PeerTrace]) -> None:
        """The node won an election, knowing this of its peers."""
        self._elected_at = snapshot.role_since
        self._signs = signs

    def took_over(self, snapshot: NodeSnapshot, taking: Taking) -> Event:
        """The node began to answer; return the event."""
        now = snapshot.role_since
        self._held = snapshot.term, now
        sign = self._signs.get(taking.previous or 0, PeerTrace())
        if sign.led_term not in {0, taking.previous_term}:  # nothing was heard of its last tenure
            sign = replace(sign, led_at=None, shut_at=None)
        why, since = self._why(taking, sign)
        return Event(
            what=What.TOOK_OVER.value,
            node_id=self._node_id,
            term=snapshot.term,
            at_s=round(taking.wall_s, 3),
            why=why.value,
            previous=taking.previous,
            silent_s=tuple(
                None if at is None else _rounded(self._elected_at - at) for at in sign.heard_at
            ),
            without_s=None if since is None else _rounded(max(0.0, now - since)),
            elected_s=_rounded(max(0.0, now - self._elected_at)),
            frames=taking.frames,
            flows=taking.flows,
            complete=taking.complete,
        )

    def _why(self, taking: Taking, sign: PeerTrace) -> tuple[Why, float | None]:  # noqa: PLR0911 - one return a cause
        """Return why the node took over, and since when nobody answered, if that is known."""
        if taking.previous is None:
            return Why.FIRST, None
        if taking.previous == self._node_id:
            return Why.RESUMED, self._lost_at
        # Of the very term: it may have led once more since, and never held.
        if sign.released_term and sign.released_term == taking.previous_term:
            # One that had lost its lease, and made room when it was heard again, had held no more.
            handed = sign.successor == self._node_id and not self._shut_long(sign)
            return (Why.HANDED_OVER if handed else Why.STEPPED_DOWN), self._released_at(sign)
        if sign.died_at is not None:
            # This node was frozen, or cut off, when it happened.
            unknown = sign.unheard_s > self._profile.lease_s
            return Why.DAEMON_DIED, None if unknown else sign.died_at
        if sign.word_at is None:
            return Why.SILENCE, None
        if self._elected_at - sign.word_at > silence_s(self._profile):
            return Why.SILENCE, _first(self._lease_over(sign.word_at), sign.shut_at)
        if sign.shut_at is None:
            return Why.DEPOSED, None
        return Why.DEPOSED, self._stopped_at(sign)

    def _shut_long(self, sign: PeerTrace) -> bool:
        """Say whether a holder had stopped answering before it began to hand over."""
        said_at = sign.word_at if sign.released_at is None else sign.released_at
        if sign.shut_at is None or said_at is None:
            return False
        return said_at - sign.shut_at > FLUSH_S_MAX + 2 * self._profile.lease_s

    def _released_at(self, sign: PeerTrace) -> float | None:
        """Return when it stopped answering, None if that is not known.

        That it did may be heard long after that, and if nothing had been heard of its tenure there
        is nothing to reckon by.
        """
        if sign.led_at is None and sign.unheard_s > self._profile.lease_s:
            return None
        said_at = sign.word_at if sign.released_at is None else sign.released_at
        return _first(said_at, self._stopped_at(sign))

    def _stopped_at(self, sign: PeerTrace) -> float | None:
        """Return when its lease was over, or it said that it answers no more."""
        over_at = None if sign.led_at is None else self._lease_over(sign.led_at)
        return _first(over_at, sign.shut_at)

    def _lease_over(self, heard_at: float) -> float:
        # It counts from the sending of its last beacon that was answered.
        return heard_at + self._profile.lease_s - self._profile.margin_s

    def gave_up(self, snapshot: NodeSnapshot, wall_s: float) -> Event | None:
        """The node stopped answering; return the event, None if it did not answer before."""
        if self._held is None:
            return None
        (term, since), self._held = self._held, None
        # One that was frozen notices late: the kernel ended its right in time.
        until = max(since, snapshot.gate_until) if snapshot.gate_until else snapshot.role_since
        late_s = max(0.0, snapshot.role_since - until)
        self._lost_at = snapshot.role_since - late_s
        found = {
            Reason.UNSAFE: "; ".join(snapshot.unsafe),
            Reason.HINDERED: "; ".join(snapshot.hindrances),
        }.get(snapshot.reason, "")
        return Event(
            what=What.GAVE_UP.value,
            node_id=self._node_id,
            term=term,
            at_s=round(wall_s - late_s, 3),
            why=snapshot.reason.value,
            found=found[:TEXT_CHARS_MAX],
            held_s=_rounded(self._lost_at - since),
        )


def _first(*instants: float | None) -> float | None:
    return min((at for at in instants if at is not None), default=None)


def is_settled(snapshot: NodeSnapshot) -> bool:
    """Say whether this is a moment to tell events.

    One more entry in the log would delay a node that hands over, unless it ends with it.
    """
    ending = snapshot.role is Role.RELEASING and snapshot.reason is Reason.SHUTDOWN
    return ending or snapshot.role in {Role.ACTIVE, Role.BACKUP}


def _rounded(seconds: float) -> float:
    return round(seconds, 4)


# ------------------------------------------------------------------------ reading


def last_takeover(newest_first: Iterable[Event]) -> Event | None:
    """Return the last event of somebody who took over, None if nobody is known to.

    By term: of a node without a majority the log may have it later than its successor's.
    """
    takers = (event for event in newest_first if event.what == What.TOOK_OVER.value)
    return max(takers, key=lambda event: event.term, default=None)


def in_order(events: Iterable[Event]) -> list[Event]:
    """Return events as they happened, given the order of the log.

    What a node without a majority could only tell later belongs before its successor's.
    """
    return sorted(events, key=lambda event: event.term)


@dataclass(frozen=True, slots=True)
class Tenure:
    """Who held at a moment, None: nobody, as far as was told; and by which event."""

    node_id: int | None
    event: Event | None


def holder_at(events: Iterable[Event], at_s: float) -> Tenure:
    """Return who held the addresses at a moment of wall-clock time.

    Args:
        events: In the order of the log.
        at_s: Seconds since 1970; clocks of the nodes are believed.
    """
    found = Tenure(None, None)
    for event in in_order(events):
        if event.what == What.TOOK_OVER.value:
            begun = event.at_s - (event.without_s or 0.0)
            if event.at_s <= at_s:
                found = Tenure(event.node_id, event)
            elif begun <= at_s:
                found = Tenure(None, event)
        elif event.at_s <= at_s and found.event is not None:
            held = found.event
            if found.node_id == event.node_id and held.term == event.term:
                found = Tenure(None, event)
    return found


def words(event: Event, names: Mapping[int, str]) -> str:
    """Return an event as a sentence without its subject and time."""

    def name(node_id: int | None) -> str:
        return "nobody" if node_id is None else names.get(node_id, f"node {node_id}")

    if event.what != What.TOOK_OVER.value:
        why = _WHY_GIVEN_UP.get(event.why, event.why)
        return f"gave up: {why}" + (f" ({event.found})" if event.found else "")
    why = _WHY_TAKEN.get(event.why, event.why).format(previous=name(event.previous))
    silent = [_ms(s) if s is not None else "never" for s in event.silent_s]
    if event.why == Why.SILENCE.value and any(s is not None for s in event.silent_s):
        why += f" for {' / '.join(silent)} on its paths"
    facts = [_count(event.frames, "announcement"), _count(event.flows, "flow")]
    facts += [] if event.complete else ["perhaps not all"]
    if event.without_s is not None:
        facts.insert(0, f"nobody answered for about {_ms(event.without_s)}")
    return f"took over: {why}; {', '.join(facts)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.0f} s"


_WHY_TAKEN = {
    Why.FIRST.value: "no holder is known before",
    Why.RESUMED.value: "it was the holder before",
    Why.HANDED_OVER.value: "{previous} handed over",
    Why.DAEMON_DIED.value: "the daemon of {previous} died",
    Why.STEPPED_DOWN.value: "{previous} stepped down",
    Why.SILENCE.value: "nothing was heard of {previous}",
    Why.DEPOSED.value: "{previous} was heard but had lost its majority",
}
_WHY_GIVEN_UP = {
    Reason.SWITCHOVER.value: "an operator switched over",
    Reason.SHUTDOWN.value: "it was told to end",
    Reason.UNSAFE.value: "it must not hold",
    Reason.HINDERED.value: "another node could do better",
    Reason.BLIND.value: "it did not reach servers that another node reaches",
    Reason.LEASE_EXPIRED.value: "its lease was over, no majority answered in time",
    Reason.LEADERSHIP_LOST.value: "another node leads",
}
