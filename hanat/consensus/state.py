"""The replicated state machine: what a committed entry means.

An entry is one kind byte and a fixed layout. `apply` never raises and uses no
clock and no randomness, so every node that applied the same entries is in the
same state: an entry it cannot read is counted and skipped, on every node alike.

Flow batches carry the term of their holder. A batch of an older term than the
newest barrier is refused: its holder had lost the lease when it was proposed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from struct import Struct
from struct import error as StructFault  # noqa: N812 - `error` says too little

from hanat.core.history import EVENT_BYTES_MAX, EVENTS_MAX

_BARRIER, _HOLDER, _CONFIGURATION, _FLOWS, _EVENT = 1, 2, 3, 4, 5
_TERM_NODE = Struct("!QI")
_REVISION = Struct("!Q")
_TERM_ORIGIN = Struct("!QQ")
_STATE = Struct("<QIQQQ")  # see State.freeze
_ORIGIN_SERIAL = Struct("!QI")
_EVENT_SIZE = Struct("!H")
_CORE, _EVENTS = b"core", b"events"


@dataclass(frozen=True, slots=True)
class Barrier:
    """A leader's first own entry of a term."""

    term: int
    node_id: int


@dataclass(frozen=True, slots=True)
class Holder:
    """A node took the addresses in this term."""

    term: int
    node_id: int


@dataclass(frozen=True, slots=True)
class NewConfiguration:
    """The text of a configuration, valid if `based_on` is the revision in force."""

    based_on: int
    text: str


@dataclass(frozen=True, slots=True)
class Flows:
    """A batch of flow changes, opaque here.

    Attributes:
        term: Of the holder that captured it.
        origin: Incarnation of the capturing process; it does not install its own.
    """

    term: int
    origin: int
    batch: bytes


@dataclass(frozen=True, slots=True)
class Happened:
    """An event for the history (`core.history`), opaque here.

    Attributes:
        origin: Incarnation of the process that tells it.
        serial: Its number there: told twice it counts once.
    """

    origin: int
    serial: int
    event: bytes


Command = Barrier | Holder | NewConfiguration | Flows | Happened


def encode(command: Command) -> bytes:
    """Return the bytes of an entry."""
    match command:
        case Barrier(term, node_id):
            return bytes((_BARRIER,)) + _TERM_NODE.pack(term, node_id)
        case Holder(term, node_id):
            return bytes((_HOLDER,)) + _TERM_NODE.pack(term, node_id)
        case NewConfiguration(based_on, text):
            return bytes((_CONFIGURATION,)) + _REVISION.pack(based_on) + text.encode()
        case Flows(term, origin, batch):
            return bytes((_FLOWS,)) + _TERM_ORIGIN.pack(term, origin) + batch
        case Happened(origin, serial, event):
            return bytes((_EVENT,)) + _ORIGIN_SERIAL.pack(origin, serial) + event


def kept_on_disk_only(data: bytes) -> bool:
    """Say whether an entry may never be acknowledged from memory: a configuration.

    Whatever happens to disks and machines, an acknowledged configuration is on a majority
    of the disks.
    """
    return data[:1] == bytes((_CONFIGURATION,))


def decode(data: bytes) -> Command:
    """Return the entry that `encode` made bytes of.

    Raises:
        ValueError: Unknown kind, wrong length or text that is not UTF-8.
    """
    kind, rest = data[:1], data[1:]
    try:
        if kind == bytes((_FLOWS,)):
            term, origin = _TERM_ORIGIN.unpack_from(rest)
            return Flows(term, origin, rest[_TERM_ORIGIN.size :])
        if kind == bytes((_BARRIER,)):
            return Barrier(*_TERM_NODE.unpack(rest))
        if kind == bytes((_HOLDER,)):
            return Holder(*_TERM_NODE.unpack(rest))
        if kind == bytes((_CONFIGURATION,)):
            (based_on,) = _REVISION.unpack_from(rest)
            return NewConfiguration(based_on, rest[_REVISION.size :].decode())
        if kind == bytes((_EVENT,)):
            origin, serial = _ORIGIN_SERIAL.unpack_from(rest)
            return Happened(origin, serial, rest[_ORIGIN_SERIAL.size :])
    except StructFault as error:
        raise ValueError(f"entry of kind {kind!r} with {len(data)} bytes: {error}") from error
    raise ValueError(f"entry of unknown kind {kind!r}")


class State:
    """What all nodes agree on.

    Attributes:
        term: Of the newest barrier applied.
        holder: Who announced itself as holder in that term, None before.
        revision: Number of the configuration in force, 0 before the first.
        text: That configuration, as its author wrote it.
        refused_batches: Flow batches of a holder that had lost its term.
        unreadable: Entries skipped because they could not be read.
        events: The newest of the history, oldest first.
    """

    def __init__(self) -> None:
        self.term = 0
        self.holder: int | None = None
        self.revision = 0
        self.text = ""
        self.refused_batches = 0
        self.unreadable = 0
        self.events: deque[Happened] = deque(maxlen=EVENTS_MAX)

    def freeze(self) -> list[tuple[bytes, bytes]]:
        """Return the state as it is now, in parts of a snapshot: kind and content.

        What is large comes as many parts of one kind, and may be made lazily by the thread
        that writes them: it must not change any more.
        """
        holder = 0 if self.holder is None else self.holder
        numbers = (self.term, holder, self.revision, self.refused_batches, self.unreadable)
        parts = [(_CORE, _STATE.pack(*numbers) + self.text.encode())]
        if self.events:
            parts.append((_EVENTS, b"".join(map(_freeze_event, self.events))))
        return parts

    def restore(self, sections: Mapping[bytes, bytes]) -> None:
        """Become what `freeze` returned parts of.

        Raises:
            ValueError: They are not of this version.
        """
        core = sections.get(_CORE, b"")
        if len(core) < _STATE.size:
            raise ValueError(f"a snapshot without the section {_CORE!r}")
        self.term, holder, self.revision, self.refused_batches, self.unreadable = (
            _STATE.unpack_from(core)
        )
        self.holder = holder or None
        self.text = core[_STATE.size :].decode()
        self.events.clear()
        self.events.extend(_thaw_events(sections.get(_EVENTS, b"")))

    def apply(self, data: bytes) -> Command | None:
        """Apply one committed entry; return what took effect, None if nothing did."""
        try:
            command = decode(data)
        except ValueError:
            self.unreadable += 1
            return None
        return command if self._accept(command) else None

    def _accept(self, command: Command) -> bool:
        match command:
            case Barrier(term, _):
                if term > self.term:
                    self.term, self.holder = term, None
                return term == self.term
            case Holder(term, node_id):
                if term == self.term:
                    self.holder = node_id
                return term == self.term
            case NewConfiguration(based_on, text):
                accepted = based_on == self.revision
                if accepted:
                    self.revision, self.text = self.revision + 1, text
                return accepted
            case Flows(term, _, _):
                self.refused_batches += term != self.term
                return term == self.term
            case Happened(origin, serial, event):
                known = any((e.origin, e.serial) == (origin, serial) for e in self.events)
                accepted = not known and len(event) <= EVENT_BYTES_MAX
                if accepted:
                    self.events.append(command)
                return accepted


def _freeze_event(event: Happened) -> bytes:
    return (
        _ORIGIN_SERIAL.pack(event.origin, event.serial)
        + _EVENT_SIZE.pack(len(event.event))
        + event.event
    )


def _thaw_events(data: bytes) -> Iterator[Happened]:
    """Return what `_freeze_event` made bytes of, one behind the other."""
    position = 0
    try:
        while position < len(data):
            origin, serial = _ORIGIN_SERIAL.unpack_from(data, position)
            position += _ORIGIN_SERIAL.size
            (size,) = _EVENT_SIZE.unpack_from(data, position)
            position += _EVENT_SIZE.size + size
            yield Happened(origin, serial, data[position - size : position])
    except StructFault as error:
        raise ValueError(f"a snapshot with a damaged section {_EVENTS!r}: {error}") from error
