"""The replicated state machine: what a committed entry means.

An entry is the feature level it was written in (`core.feature_level`), one kind byte, and the
layout of that kind in that level. `apply` never raises and uses no
clock and no randomness, so every node that applied the same entries is in the same state: an entry
of a known kind that it cannot read is counted and skipped, on every node alike.

A later version may have kinds that this one does not know. One with the bit `SKIPPABLE` is passed
over. At any other a node stops applying (`replica`), since its state would differ for good: also at
one of a level that this version does not read, and where such a level comes into force.

Flow batches carry the term of their holder. A batch of an older term than the
newest barrier is refused: its holder had lost the lease when it was proposed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from struct import Struct
from struct import error as StructFault  # noqa: N812 - `error` says too little

from hanat.core.beacon import NOBODY
from hanat.core.feature_level import LEVEL, OLDEST, has_agreed, is_readable, written
from hanat.core.history import EVENT_BYTES_MAX, EVENTS_MAX
from hanat.core.server_records import KEY_BYTES_MAX, VALUE_BYTES_MAX, Record, is_for_people

_BARRIER, _HOLDER, _CONFIGURATION, _FLOWS, _EVENT, _RECORDS = 1, 2, 3, 4, 5, 6
_LEVEL, _CLIENTS = 7, 8
SKIPPABLE = 0x80
_KINDS = {_BARRIER, _HOLDER, _CONFIGURATION, _FLOWS, _EVENT, _RECORDS, _LEVEL, _CLIENTS}
# A verdict of each of 10,000 servers, what operators made of it, its weight, and some to spare.
RECORDS_MAX = 50_000
RECORDS_A_PART = 500  # of a snapshot
CHANGES_MAX = 500  # of them, for people; some 150 KiB
_TERM_NODE = Struct("!QI")
_REVISION = Struct("!Q")
_TERM_ORIGIN = Struct("!QQ")
_STATE = Struct("<QIQQQ")  # see State.freeze
_ORIGIN_SERIAL = Struct("!QI")
_EVENT_SIZE = Struct("!H")
_TERM = Struct("!Q")
_KEY_VALUE = Struct("!BH")
_NODE_LEVEL = Struct("!IB")
_CORE, _EVENTS, _SERVERS, _CHANGES = b"core", b"events", b"servers", b"changes"
_LEVELS = b"levels"


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
        of_clients: It is of clients of services with persistence: an entry of another kind.
    """

    term: int
    origin: int
    batch: bytes
    of_clients: bool = False


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


@dataclass(frozen=True, slots=True)
class Records:
    """What became known of servers (`core.server_records`), opaque here.

    Attributes:
        term: Of the holder that decided it; 0: an operator did, which counts in any term.
        records: The newest of each key is kept; an empty value deletes it.
    """

    term: int
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class FeatureLevel:
    """A level that comes into force, or that a node says it has reached.

    Attributes:
        node_id: Which node; `NOBODY`: it comes into force for all.
        level: See `core.feature_level`; 0: the node is none of the cluster any more.
    """

    node_id: int
    level: int


Command = Barrier | Holder | NewConfiguration | Flows | Happened | Records | FeatureLevel


def encode(command: Command, level: int = OLDEST) -> bytes:
    """Return the bytes of an entry, in a feature level."""
    kind, content = _encoded(command)
    return bytes((level, kind)) + content


def _encoded(command: Command) -> tuple[int, bytes]:  # noqa: PLR0911 - one return a kind
    match command:
        case Barrier(term, node_id):
            return _BARRIER, _TERM_NODE.pack(term, node_id)
        case Holder(term, node_id):
            return _HOLDER, _TERM_NODE.pack(term, node_id)
        case NewConfiguration(based_on, text):
            return _CONFIGURATION, _REVISION.pack(based_on) + text.encode()
        case Flows(term, origin, batch, of_clients):
            return _CLIENTS if of_clients else _FLOWS, _TERM_ORIGIN.pack(term, origin) + batch
        case Happened(origin, serial, event):
            return _EVENT, _ORIGIN_SERIAL.pack(origin, serial) + event
        case Records(term, records):
            return _RECORDS, _TERM.pack(term) + b"".join(map(_freeze_record, records))
        case FeatureLevel(node_id, level):
            return _LEVEL, _NODE_LEVEL.pack(node_id, level)


def kept_on_disk_only(data: bytes) -> bool:
    """Say whether an entry may never be acknowledged from memory: what an operator wants.

    Whatever happens to disks and machines, an acknowledged configuration, and what was made of
    a server, is on a majority of the disks.
    """
    by_operator = bytes((_RECORDS,)) + _TERM.pack(0)
    return data[1:2] == bytes((_CONFIGURATION,)) or data[1:].startswith(by_operator)


def may_be_applied(data: bytes) -> bool:
    """Say whether this version can read an entry and do what it says, or may skip it."""
    if len(data) <= 1 or data[1] & SKIPPABLE:
        return True
    if not is_readable(data[0]) or data[1] not in _KINDS:
        return False
    if data[1] != _LEVEL or len(data) != 2 + _NODE_LEVEL.size:
        return True
    node_id, level = _NODE_LEVEL.unpack_from(data, 2)
    return bool(node_id != NOBODY or level <= LEVEL)


def decode(data: bytes) -> Command:
    """Return the entry that `encode` made bytes of.

    Raises:
        ValueError: Unknown kind, wrong length or text that is not UTF-8.
    """
    if len(data) <= 1:
        raise ValueError(f"an entry of {len(data)} bytes")
    try:
        return _decoded(data[1], data[2:])
    except StructFault as error:
        raise ValueError(f"entry of kind {data[1]} with {len(data)} bytes: {error}") from error


def _decoded(kind: int, rest: bytes) -> Command:  # noqa: PLR0911 - one return a kind
    if kind in {_FLOWS, _CLIENTS}:
        term, origin = _TERM_ORIGIN.unpack_from(rest)
        return Flows(term, origin, rest[_TERM_ORIGIN.size :], kind == _CLIENTS)
    if kind == _BARRIER:
        return Barrier(*_TERM_NODE.unpack(rest))
    if kind == _HOLDER:
        return Holder(*_TERM_NODE.unpack(rest))
    if kind == _CONFIGURATION:
        (based_on,) = _REVISION.unpack_from(rest)
        return NewConfiguration(based_on, rest[_REVISION.size :].decode())
    if kind == _EVENT:
        origin, serial = _ORIGIN_SERIAL.unpack_from(rest)
        return Happened(origin, serial, rest[_ORIGIN_SERIAL.size :])
    if kind == _RECORDS:
        (term,) = _TERM.unpack_from(rest)
        return Records(term, tuple(_thaw_records(rest[_TERM.size :])))
    if kind == _LEVEL:
        return FeatureLevel(*_NODE_LEVEL.unpack(rest))
    raise ValueError(f"entry of unknown kind {kind}")


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
        records: What is known of servers, by key.
        changes: The newest of them in the order of the log, also those that were replaced.
        refused_records: Of a holder that had lost its term, too large, or too many.
        level: The feature level in force, 0 before the first.
        levels: What each node said it has reached, by its id.
    """

    def __init__(self) -> None:
        self.term = 0
        self.holder: int | None = None
        self.revision = 0
        self.text = ""
        self.refused_batches = 0
        self.unreadable = 0
        self.events: deque[Happened] = deque(maxlen=EVENTS_MAX)
        self.records: dict[bytes, bytes] = {}
        self.changes: deque[Record] = deque(maxlen=CHANGES_MAX)
        self.refused_records = 0
        self.level = 0
        self.levels: dict[int, int] = {}

    @property
    def written_level(self) -> int:
        """The feature level to write now."""
        return written(self.level)

    def freeze(self) -> Iterator[tuple[bytes, bytes]]:
        """Return the state as it is now, in parts of a snapshot: kind and content.

        What is large comes as many parts of one kind, and may be made lazily by the thread
        that writes them: it must not change any more.
        """
        holder = 0 if self.holder is None else self.holder
        numbers = (self.term, holder, self.revision, self.refused_batches, self.unreadable)
        parts = [(_CORE, _STATE.pack(*numbers) + self.text.encode())]
        levels = {NOBODY: self.level, **self.levels}
        parts.append((_LEVELS, b"".join(_NODE_LEVEL.pack(*one) for one in levels.items())))
        if self.events:
            parts.append((_EVENTS, b"".join(map(_freeze_event, self.events))))
        if self.changes:
            parts.append((_CHANGES, b"".join(map(_freeze_record, self.changes))))
        # 50,000 of them take 50 ms to put into bytes, and half of one to copy.
        return chain(parts, _freeze_records(self.records.copy()))

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
        try:
            self.levels = dict(_NODE_LEVEL.iter_unpack(sections.get(_LEVELS, b"")))
        except StructFault as error:
            raise ValueError(f"a snapshot with damaged feature levels: {error}") from error
        self.level = self.levels.pop(NOBODY, 0)
        self.text = core[_STATE.size :].decode()
        self.events.clear()
        self.events.extend(_thaw_events(sections.get(_EVENTS, b"")))
        try:
            self.records = dict(_thaw_records(sections.get(_SERVERS, b"")))
            changes = tuple(_thaw_records(sections.get(_CHANGES, b"")))
        except StructFault as error:
            raise ValueError(f"a snapshot with damaged records of servers: {error}") from error
        self.changes.clear()
        self.changes.extend(changes)

    def apply(self, data: bytes) -> Command | None:
        """Apply one committed entry; return what took effect, None if nothing did."""
        if len(data) > 1 and data[1] & SKIPPABLE:
            return None  # no kind of this version has that bit
        try:
            command = decode(data)
        except ValueError:
            self.unreadable += 1
            return None
        return command if self._accept(command) else None

    def _accept(self, command: Command) -> bool:  # noqa: C901, PLR0911, PLR0912 - one arm a kind
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
            case Flows(term, _, _, _):
                self.refused_batches += term != self.term
                return term == self.term
            case Happened(origin, serial, event):
                known = any((e.origin, e.serial) == (origin, serial) for e in self.events)
                accepted = not known and len(event) <= EVENT_BYTES_MAX
                if accepted:
                    self.events.append(command)
                return accepted
            case Records(term, records):
                accepted = term in {0, self.term} and self._take(records)
                self.refused_records += not accepted
                return accepted
            case FeatureLevel(node_id, level):
                return self._reach(node_id, level)

    def _reach(self, node_id: int, level: int) -> bool:
        """Note what a node has reached, or let a level come into force if all have."""
        if node_id != NOBODY:
            accepted = self.levels.get(node_id, 0) != level
            self.levels[node_id] = level
            if not level:
                del self.levels[node_id]
            return accepted
        accepted = has_agreed(level, self.level, self.levels)
        if accepted:
            self.level = level
        return accepted

    def _take(self, records: tuple[Record, ...]) -> bool:
        """Keep records, all or none."""
        new = sum(bool(r.value) and r.key not in self.records for r in records)
        sound = all(r.key and len(r.value) <= VALUE_BYTES_MAX for r in records)
        if not sound or (new and len(self.records) + new > RECORDS_MAX):
            return False
        self.changes.extend(filter(is_for_people, records))
        for key, value in records:
            if value:
                self.records[key] = value
            else:
                self.records.pop(key, None)
        return True


def _freeze_event(event: Happened) -> bytes:
    return (
        _ORIGIN_SERIAL.pack(event.origin, event.serial)
        + _EVENT_SIZE.pack(len(event.event))
        + event.event
    )


def _freeze_records(known: dict[bytes, bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield parts of a snapshot, made one after the other."""
    records = map(Record._make, known.items())
    while some := b"".join(map(_freeze_record, islice(records, RECORDS_A_PART))):
        yield _SERVERS, some


def _freeze_record(record: Record) -> bytes:
    key, value = record
    assert len(key) <= KEY_BYTES_MAX, f"a key of {len(key)} bytes"
    assert len(value) <= VALUE_BYTES_MAX, f"a value of {len(value)} bytes"
    return _KEY_VALUE.pack(len(key), len(value)) + key + value


def _thaw_records(data: bytes) -> Iterator[Record]:
    """Return what `_freeze_record` made bytes of, one behind the other.

    Raises:
        struct.error: The end is missing.
    """
    position = 0
    while position < len(data):
        key_size, value_size = _KEY_VALUE.unpack_from(data, position)
        key_at = position + _KEY_VALUE.size
        value_at = key_at + key_size
        position = value_at + value_size
        if position > len(data):
            raise StructFault(f"a record ends {position - len(data)} bytes behind the end")
        yield Record(data[key_at:value_at], data[value_at:position])


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
