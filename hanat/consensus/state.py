"""The replicated state machine: what a committed entry means.

An entry is one kind byte and a fixed layout. `apply` never raises and uses no
clock and no randomness, so every node that applied the same entries is in the
same state: an entry it cannot read is counted and skipped, on every node alike.

Flow batches carry the term of their holder. A batch of an older term than the
newest barrier is refused: its holder had lost the lease when it was proposed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from struct import error as StructFault  # noqa: N812 - `error` says too little

_BARRIER, _HOLDER, _CONFIGURATION, _FLOWS = 1, 2, 3, 4
_TERM_NODE = Struct("!QI")
_REVISION = Struct("!Q")
_TERM_ORIGIN = Struct("!QQ")
_STATE = Struct("<QIQQQ")  # see State.freeze
_CORE = b"core"


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


Command = Barrier | Holder | NewConfiguration | Flows


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


def worth_a_sync(data: bytes) -> bool:
    """Say whether an entry must be durable before it is acknowledged.

    A configuration must survive that all nodes lose their power at once. Flows are
    not worth a sync each; barriers and holders are of the past after a power cut.
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
    """

    def __init__(self) -> None:
        self.term = 0
        self.holder: int | None = None
        self.revision = 0
        self.text = ""
        self.refused_batches = 0
        self.unreadable = 0

    def freeze(self) -> list[tuple[bytes, bytes]]:
        """Return the state as it is now, in parts of a snapshot: kind and content.

        What is large comes as many parts of one kind, and may be made lazily by the thread
        that writes them: it must not change any more.
        """
        holder = 0 if self.holder is None else self.holder
        numbers = (self.term, holder, self.revision, self.refused_batches, self.unreadable)
        return [(_CORE, _STATE.pack(*numbers) + self.text.encode())]

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
