"""Change the members of nftables sets without a parser: one batch on a netlink socket.

The gate is armed anew with every renewal of the lease, up to 125 times a second.
Through libnftables that is a text to print, scan and resolve, half of what an
idle holder computed. Here the batch is a few hundred bytes of which only the
timeouts change. Everything else about nftables is left to the library.

Source: ``include/uapi/linux/netfilter/nf_tables.h`` and ``nfnetlink.h``.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from hanat.kernel.kernel_errors import refused
from hanat.kernel.netlink import (
    ANSWER_S_MAX,
    HEADER,
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    RECEIVE_BYTES,
    SO_SNDBUFFORCE,
    NetlinkClient,
    attribute,
    attributes,
    error_of,
    messages,
    nested,
    open_socket,
)

FAMILIES = {"inet": 1, "arp": 3}  # NFPROTO_INET, NFPROTO_ARP

SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW_TABLE, _NEW_SET = SUBSYSTEM << 8 | 0, SUBSYSTEM << 8 | 9
NEW_ELEMENTS = SUBSYSTEM << 8 | 12
_GET_ELEMENTS = SUBSYSTEM << 8 | 13
DELETE_ELEMENTS = SUBSYSTEM << 8 | 14
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_SET_KEY_TYPE, _SET_KEY_LENGTH, _SET_ID = 4, 5, 10
_TYPE_MARK = 19  # nft's own number, datatype.h
_SET_USER_DATA = 13
_HOST_ORDER = bytes((0, 4)) + struct.pack("=I", 1)  # how nft shows it; libnftnl's udata.h
_LIST_ELEMENT = 1
_ELEMENT_KEY, _ELEMENT_TIMEOUT = 1, 4
_DATA_VALUE = 1
_NAME_BYTES = 16  # IFNAMSIZ
_INDEX = struct.Struct("=I")
SEND_BYTES = 1 << 20
_SEQUENCE = struct.Struct("=I")
_SEQUENCE_OFFSET = 8  # in a netlink header
_SEQUENCE_MAX = 1 << 31
_UNMET = -1  # no number of an error
GENERIC = struct.Struct(">BBH")  # family, version, resource id


Message = tuple[int, int, bytes]
"""Type, flags and body of a message."""


@dataclass(frozen=True, slots=True)
class SetName:
    """A set: family and names of its table and itself."""

    family: str
    table: str
    name: str


@dataclass(frozen=True, slots=True)
class Refill:
    """Empty a set of interfaces, then add these for a while (none: leave it empty).

    Attributes:
        members: Their names, or their indexes, as the set's type has it.
        timeout_ms: How long they stay; 0: in a set without timeouts.
        demanded: Whether they have to be there before; else nothing of the transaction is done.
            Only the last of a transaction may demand, one member.
    """

    name: SetName
    members: tuple[str, ...] | tuple[int, ...] = ()
    timeout_ms: int = 0
    demanded: bool = False


class NfNetlink:
    """A socket for batches, opened in the network namespace of its first use."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._sequence = 0

    def close(self) -> None:
        """Release the descriptor; the next batch opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def refill(self, refills: Sequence[Refill], *, operation: str, target: str) -> bool:
        """Change all sets in one transaction.

        Returns:
            Whether that was done; False if what was demanded was not there.

        Raises:
            AbsentObjectError: A set or its table is missing.
            KernelError: What else the kernel said; nothing was changed.
        """
        try:
            number = self._exchange(_batch(tuple(refills)))
        except OSError as error:
            self.close()  # an answer that comes later must not meet another batch
            number = error.errno or errno.ETIMEDOUT
        if number == _UNMET:
            return False
        if number:
            raise refused(number, operation=operation, target=target)
        return True

    def run(self, messages: Sequence[Message], *, operation: str, target: str) -> None:
        """Do what messages say in one transaction.

        Raises:
            AbsentObjectError: Something that they name is missing.
            KernelError: What else the kernel said; nothing was changed.
        """
        if not messages:
            return
        try:
            number = self._exchange(_joined(messages))
        except OSError as error:
            self.close()
            number = error.errno or errno.ETIMEDOUT
        if number:
            raise refused(number, operation=operation, target=target)

    def _exchange(self, batch: _Batch) -> int:
        if self._socket is None:
            self._socket = open_socket(NETLINK_NETFILTER)
            self._socket.settimeout(ANSWER_S_MAX)
            # A transaction is one message to the socket; one of 4,093 slots has 280 KB.
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BYTES)
        if self._sequence > _SEQUENCE_MAX:
            self._sequence = 0
        data = bytearray(batch.data)
        first = self._sequence + 1
        for sequence, offset in enumerate(batch.sequences, start=first):
            _SEQUENCE.pack_into(data, offset, sequence)
        self._sequence = sequence
        last = sequence - 1  # the one before the end of the batch
        self._socket.send(data)
        found = 0
        while True:
            buffer = self._socket.recv(RECEIVE_BYTES)
            for kind, start, _ in messages(buffer):
                _, _, _, sequence, _ = HEADER.unpack_from(buffer, start)
                if kind != NLMSG_ERROR or not first <= sequence <= last:
                    continue
                found = found or error_of(buffer, start)
                if found == errno.ENOENT and batch.demanding and sequence == last - 1:
                    return _UNMET
                if sequence == last or found:
                    return found


@dataclass(frozen=True, slots=True)
class _Batch:
    """The messages of a transaction, without their sequences, and where those belong.

    Attributes:
        demanding: Whether the last deletion fails if there is nothing to delete.
    """

    data: bytes
    sequences: tuple[int, ...]
    demanding: bool


@lru_cache(maxsize=256)
def _batch(refills: tuple[Refill, ...]) -> _Batch:
    """Build a transaction: a holder asks for the same ones again and again."""
    return _joined(list(_parts(refills)), demanding=refills[-1].demanded)


def _joined(parts: Sequence[Message], *, demanding: bool = False) -> _Batch:
    messages = [(_BATCH_BEGIN, 0, GENERIC.pack(0, 0, SUBSYSTEM)), *parts]
    # The last one is acknowledged: its answer comes after those of refused ones.
    kind, flags, body = messages[-1]
    messages[-1] = (kind, flags | NLM_F_ACK, body)
    messages.append((_BATCH_END, 0, GENERIC.pack(0, 0, SUBSYSTEM)))
    data, sequences = bytearray(), []
    for kind, flags, body in messages:
        sequences.append(len(data) + _SEQUENCE_OFFSET)
        data += HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 0, 0) + body
    return _Batch(bytes(data), tuple(sequences), demanding)


def _parts(refills: Sequence[Refill]) -> Iterable[Message]:
    for refill in refills:
        emptied = _set(refill.name)
        if refill.demanded:
            emptied += _elements(refill.members)
        yield DELETE_ELEMENTS, 0, emptied
        if refill.members:
            timeout = b""
            if refill.timeout_ms:
                timeout = attribute(_ELEMENT_TIMEOUT, struct.pack(">Q", refill.timeout_ms))
            filled = _set(refill.name) + _elements(refill.members, timeout)
            yield NEW_ELEMENTS, NLM_F_CREATE, filled


def added_mark(name: SetName, number: int) -> list[Message]:
    """Return what adds a number to a set of marks, and makes the set and its table before."""
    family = GENERIC.pack(FAMILIES[name.family], 0, 0)
    table, named = name.table.encode() + b"\0", name.name.encode() + b"\0"
    words = {_SET_KEY_TYPE: _TYPE_MARK, _SET_KEY_LENGTH: _INDEX.size, _SET_ID: 1}
    made = attribute(_LIST_TABLE, table) + attribute(_LIST_SET, named)
    made += b"".join(attribute(kind, struct.pack(">I", value)) for kind, value in words.items())
    made += attribute(_SET_USER_DATA, _HOST_ORDER)
    return [
        (_NEW_TABLE, NLM_F_CREATE, family + attribute(_LIST_TABLE, table)),
        (_NEW_SET, NLM_F_CREATE, family + made),
        (NEW_ELEMENTS, NLM_F_CREATE, _set(name) + _elements([number])),
    ]


def numbers_in(name: SetName) -> frozenset[int]:
    """Return the members of a set of indexes or marks; raises as `members_in` does."""
    return frozenset(_INDEX.unpack_from(member)[0] for member in members_in(name))


def members_in(name: SetName) -> frozenset[bytes]:
    """Return the members of a set of single values, as the kernel has them.

    By netlink: with a thousand services libnftables takes long to list anything.

    Raises:
        AbsentObjectError: There is no such set.
        KernelError: What else the kernel said.
    """
    netlink = NetlinkClient(NETLINK_NETFILTER)
    target = f"{name.family} {name.table} {name.name}"
    try:
        answers = netlink.dump(_GET_ELEMENTS, _set(name), operation="look at a set", target=target)
    finally:
        netlink.close()
    found: set[bytes] = set()
    for answer in answers:
        spans = [(HEADER.size + GENERIC.size, len(answer))]
        for kind in (_LIST_ELEMENTS, _LIST_ELEMENT, _ELEMENT_KEY, _DATA_VALUE):
            spans = [
                (start, end)
                for outer in spans
                for of, start, end in attributes(answer, *outer)
                if of == kind
            ]
        found.update(bytes(answer[start:end]) for start, end in spans)
    return frozenset(found)


def _elements(members: Iterable[str | int], timeout: bytes = b"") -> bytes:
    listed = b"".join(nested(_LIST_ELEMENT, _key(member) + timeout) for member in members)
    return nested(_LIST_ELEMENTS, listed)


@lru_cache(maxsize=64)
def _set(name: SetName) -> bytes:
    return (
        GENERIC.pack(FAMILIES[name.family], 0, 0)
        + attribute(_LIST_TABLE, name.table.encode() + b"\0")
        + attribute(_LIST_SET, name.name.encode() + b"\0")
    )


@lru_cache(maxsize=64)
def _key(member: str | int) -> bytes:
    if isinstance(member, int):
        value = _INDEX.pack(member)
    else:
        value = member.encode().ljust(_NAME_BYTES, b"\0")
    return nested(_ELEMENT_KEY, attribute(_DATA_VALUE, value))
