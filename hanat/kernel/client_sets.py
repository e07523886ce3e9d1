"""Write clients into sets of the ruleset, and read them: of persistence, and of limits.

An element that is there keeps its expiry when it is added once more (a kernel from 6.12 on changes
it). And who deletes one that is not there gets nothing of the transaction done. So each element is
added, deleted, and added with what is left of its time, in one transaction: that works on all
kernels, whatever there was before. 500 elements take the kernel 1.5 ms.

The socket stays: to close one of netfilter, the kernel waits for what the last change of rules
replaced, and meanwhile no gate is armed (`kernel.conntrack.KernelCapture`). Nor is one closed
halfway through a list: who begins to walk has to walk to the end before the next one.

Source: ``nft_add_set_elem``, ``nf_tables_fill_setelem`` in ``net/netfilter/nf_tables_api.c``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress

from hanat.core.notation import TABLE
from hanat.core.sticky import Wanted
from hanat.errors import AbsentObjectError, NoRoomError
from hanat.kernel.netlink import (
    ATTRIBUTE,
    ATTRIBUTE_NESTED,
    HEADER,
    NETLINK_NETFILTER,
    NLM_F_CREATE,
    NetlinkClient,
    aligned,
    attribute,
    attributes,
    nested,
)
from hanat.kernel.nfnetlink import (
    DELETE_ELEMENTS,
    FAMILIES,
    GENERIC,
    NEW_ELEMENTS,
    SUBSYSTEM,
    Message,
    NfNetlink,
)

_GET_ELEMENTS = SUBSYSTEM << 8 | 13
_NAMED, _SET, _LIST = 1, 2, 3
_ELEMENT, _KEY, _VALUE, _EXPIRATION = 1, 1, 1, 5
_BODY = HEADER.size + GENERIC.size
_LEFT = struct.Struct(">Q")
_EXPIRATION_HEAD = ATTRIBUTE.pack(ATTRIBUTE.size + _LEFT.size, _EXPIRATION)
_KEY_AT = 3 * ATTRIBUTE.size  # element, key, value
ELEMENTS_MAX = 1_000  # of a message: the length of an attribute has 16 bits


class KernelClientSets:
    """Implements `worker.client_set_sync.ClientSets`."""

    def __init__(self) -> None:
        self._writing, self._reading = NfNetlink(), NetlinkClient(NETLINK_NETFILTER)

    def close(self) -> None:
        """Release the descriptors; the next call opens others."""
        self._writing.close()
        self._reading.close()

    def write(self, name: str, *, put: Sequence[Wanted], gone: Sequence[bytes]) -> None:
        """See `worker.client_set_sync.ClientSets.write`."""
        head = _head(name)
        messages = list(_written(head, put, gone))
        try:
            self._writing.run(messages, operation="write clients", target=name)
        except NoRoomError:
            if not gone:
                raise
            # Who is not there cannot be added to be deleted.
            for client in gone:
                key = head + nested(_LIST, _element(client))
                with suppress(AbsentObjectError):
                    self._writing.run(
                        [(DELETE_ELEMENTS, 0, key)], operation="delete a client", target=name
                    )
            self.write(name, put=put, gone=())

    def write_all(self, parts: Sequence[tuple[str, Sequence[Wanted], Sequence[bytes]]]) -> None:
        """See `worker.client_set_sync.ClientSets.write_all`."""
        messages = [
            message for name, put, gone in parts for message in _written(_head(name), put, gone)
        ]
        names = ", ".join(name for name, _, _ in parts)
        self._writing.run(messages, operation="write clients", target=names)

    def walk(self, name: str) -> Iterator[list[Wanted]]:
        """See `worker.client_set_sync.ClientSets.walk`."""
        for parts in self._reading.walk(
            _GET_ELEMENTS, _head(name), operation="read clients", target=name
        ):
            yield [client for part in parts for client in _clients(*part)]


def _head(name: str) -> bytes:
    return (
        GENERIC.pack(FAMILIES["inet"], 0, 0)
        + attribute(_NAMED, TABLE.encode() + b"\0")
        + attribute(_SET, name.encode() + b"\0")
    )


def _written(head: bytes, put: Sequence[Wanted], gone: Sequence[bytes]) -> Iterator[Message]:
    assert len(put) + len(gone) <= ELEMENTS_MAX, f"{len(put)} and {len(gone)} elements"
    for clients in (gone, [client for client, _ in put]):  # who goes makes room
        if clients:
            keys = head + nested(_LIST, b"".join(map(_element, clients)))
            yield NEW_ELEMENTS, NLM_F_CREATE, keys
            yield DELETE_ELEMENTS, 0, keys
    if put:
        timed = b"".join(_element(client, left_ms) for client, left_ms in put)
        yield NEW_ELEMENTS, NLM_F_CREATE, head + nested(_LIST, timed)


def _element(client: bytes, left_ms: int = 0) -> bytes:
    size = len(client)
    expires = _EXPIRATION_HEAD + _LEFT.pack(left_ms) if left_ms else b""
    return (
        ATTRIBUTE.pack(_KEY_AT + size + len(expires), _ELEMENT | ATTRIBUTE_NESTED)
        + ATTRIBUTE.pack(2 * ATTRIBUTE.size + size, _KEY | ATTRIBUTE_NESTED)
        + ATTRIBUTE.pack(ATTRIBUTE.size + size, _VALUE)
        + client
        + expires
    )


def _clients(buffer: bytes, start: int, end: int) -> Iterator[Wanted]:
    """Yield the clients of a message; the kernel puts the key first, and the expiry last."""
    for kind, first, last in attributes(buffer, start + _BODY, end):
        if kind != _LIST:
            continue
        at = first
        while at + _KEY_AT <= last:
            length, _ = ATTRIBUTE.unpack_from(buffer, at)
            (size,) = struct.unpack_from("=H", buffer, at + 2 * ATTRIBUTE.size)
            expires_at = at + length - len(_EXPIRATION_HEAD) - _LEFT.size
            if length < _KEY_AT:
                return
            if buffer.startswith(_EXPIRATION_HEAD, expires_at):
                (left_ms,) = _LEFT.unpack_from(buffer, expires_at + len(_EXPIRATION_HEAD))
                client = buffer[at + _KEY_AT : at + _KEY_AT + size - ATTRIBUTE.size]
                yield Wanted(client, left_ms)
            at += aligned(length)
