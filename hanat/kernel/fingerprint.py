"""Tell whether a table of nftables is as it was, without a list of what is in it.

With a thousand services ``nft list`` takes minutes: it asks for each set, and begins anew each time
somebody changes anything, as the gate does with each renewal. The kernel gives each chain and each
rule a handle that no other has had, and neither is ever changed but for a new one in its place. So
names and handles are enough, and the elements of named sets. Anonymous sets cannot be changed by
themselves.

Who gets clients changes all day long. What that changes is put into a second half, so that the
first can be compared beyond a rotation.

Source: ``nf_tables_fill_*_info`` in ``net/netfilter/nf_tables_api.c``.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

from hanat.core.notation import ATTACHED_SET, CARRIES_SET, GATE_TABLE, TABLE
from hanat.core.steps import LOOSE, OWN_ELEMENTS
from hanat.errors import AbsentObjectError
from hanat.kernel.netlink import (
    ATTRIBUTE,
    HEADER,
    NETLINK_NETFILTER,
    NetlinkClient,
    aligned,
    attribute,
    attributes,
)
from hanat.kernel.nfnetlink import FAMILIES, SUBSYSTEM
from hanat.kernel.ports import FIXED_BYTES

# Sets of the gate that change all the time, or that the gate itself looks at.
RIGHTS = frozenset({"answers", CARRIES_SET, "permit", ATTACHED_SET})
_OF_SERVICES = tuple(start.encode() for start in LOOSE)
# Maps and sets whose elements rotations change.
_LEADING = (b"listens_", b"ranges_", b"refused_", b"one_packet_turns_")
_NOT_LOOKED_AT = tuple(start.encode() for start in OWN_ELEMENTS)
_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_SET, _GET_ELEMENTS = 1, 4, 7, 10, 13
_GET_OBJECT = 19
_TABLE = 1  # the attribute that names it, in each kind of message
_TABLE_KEPT = {1, 2, 4}  # name, flags (a table can sleep), handle
_CHAIN_KEPT = {2, 3, 4, 5, 10}  # handle, name, hook, policy, flags
_RULE_KEPT = {2, 3}  # chain, handle; expressions have counters
_SET_NAME, _SET_FLAGS, _SET_HANDLE = 2, 3, 16
_ANONYMOUS, _MAP = 1, 8
_CHAIN_NAME = 3
_OBJECT_NAME, _OBJECT_TYPE = 2, 3
_OBJECTS = {1: "counter", 2: "quota", 4: "limit"}  # by type
_ELEMENTS = 3
_BODY = HEADER.size + 4  # behind the family
HANDLE_BYTES = ATTRIBUTE.size + 8
_LENGTH = struct.Struct("=H")
_CHAIN_HANDLE, _RULE_HANDLE, _SET_HANDLE_HEAD = (
    ATTRIBUTE.pack(HANDLE_BYTES, n) for n in (2, 3, 16)
)
_USED, _SET_FLAGS_HEAD = (ATTRIBUTE.pack(ATTRIBUTE.size + 4, kind) for kind in (6, _SET_FLAGS))

Part = tuple[bytes, int, int]


class Fingerprints:
    """A socket of its own: what it is asked takes longer than a renewal may wait."""

    def __init__(self) -> None:
        self._netlink = NetlinkClient(NETLINK_NETFILTER)

    def close(self) -> None:
        """Release the descriptor; the next call opens another."""
        self._netlink.close()

    def of(self, family: str, name: str) -> bytes | None:
        """Return what stays the same as long as nobody changes a table; None if there is none.

        Raises:
            KernelError: What the kernel answered instead.
        """
        try:
            return self._of(family, name)
        except AbsentObjectError:
            return None  # also if it goes while it is looked at

    def names(self, family: str, name: str) -> tuple[tuple[str, str], ...]:
        """Return kind and name of each chain, set, map, counter, quota and limit of a table.

        Raises:
            KernelError: What the kernel answered instead.
        """
        table = attribute(_TABLE, name.encode() + b"\0")
        try:
            found = [
                ("chain", dict(_pieces(part, {_CHAIN_NAME}))[_CHAIN_NAME])
                for part in self._walk(family, name, _GET_CHAIN, table, all_tables=True)
            ]
            for part in self._named_sets(family, name, table):
                kept = dict(_pieces(part, {_SET_NAME, _SET_FLAGS}))
                is_map = kept.get(_SET_FLAGS, b"\0\0\0\0")[3] & _MAP
                found.append(("map" if is_map else "set", kept[_SET_NAME]))
            for part in self._walk(family, name, _GET_OBJECT, table):
                kept = dict(_pieces(part, {_OBJECT_NAME, _OBJECT_TYPE}))
                if kind := _OBJECTS.get(kept[_OBJECT_TYPE][3]):
                    found.append((kind, kept[_OBJECT_NAME]))
        except AbsentObjectError:
            return ()
        return tuple((kind, _text(of)) for kind, of in found)

    def _of(self, family: str, name: str) -> bytes:
        found, loose = (hashlib.blake2b(digest_size=FIXED_BYTES) for _ in range(2))
        ours = name == TABLE
        table = attribute(_TABLE, name.encode() + b"\0")
        answer = self._netlink.get(
            SUBSYSTEM << 8 | _GET_TABLE, _generic(family) + table,
            operation="look at the rules", target=f"{family} {name}",
        )  # fmt: skip
        found.update(_kept((answer, 0, len(answer)), _TABLE_KEPT))
        behind = _BODY + len(table)
        for buffer, start, end in self._walk(family, name, _GET_CHAIN, table, all_tables=True):
            # A chain without a hook: behind its handle comes how often it is used.
            at = start + behind
            half = loose if ours and buffer.startswith(_OF_SERVICES, at + ATTRIBUTE.size) else found
            stop = _behind_handle(buffer, at, _CHAIN_HANDLE)
            if stop and buffer.startswith(_USED, stop):
                half.update(buffer[at:stop])
            else:
                half.update(_kept((buffer, start, end), _CHAIN_KEPT))
        for buffer, start, end in self._walk(family, name, _GET_RULE, table):
            at = start + behind
            half = loose if ours and buffer.startswith(_OF_SERVICES, at + ATTRIBUTE.size) else found
            stop = _behind_handle(buffer, at, _RULE_HANDLE)
            if stop:
                half.update(buffer[at:stop])
            else:
                half.update(_kept((buffer, start, end), _RULE_KEPT))
        # One dump after the other: the kernel does not make two of them for a socket.
        for part in self._named_sets(family, name, table):
            kept = dict(_pieces(part, {_SET_NAME, _SET_FLAGS, _SET_HANDLE}))
            flags, of = kept.get(_SET_FLAGS, b"\0\0\0\0"), kept[_SET_NAME]
            half = loose if ours and of.startswith(_OF_SERVICES) else found
            half.update(of + flags + kept[_SET_HANDLE])
            if (name == GATE_TABLE and _text(of) in RIGHTS) or (
                ours and of.startswith(_NOT_LOOKED_AT)
            ):
                continue
            half = loose if ours and of.startswith(_LEADING) else half
            half.update(b"".join(self._elements(family, name, table, of)))
        return found.digest() + loose.digest()

    def _named_sets(self, family: str, name: str, table: bytes) -> list[Part]:
        """Return the sets that can be changed by themselves."""
        found = []
        behind = _BODY + len(table)
        for buffer, start, end in self._walk(family, name, _GET_SET, table):
            stop = _behind_handle(buffer, start + behind, _SET_HANDLE_HEAD)
            if stop and buffer.startswith(_SET_FLAGS_HEAD, stop):
                flags = buffer[stop + ATTRIBUTE.size : stop + ATTRIBUTE.size + 4]
            else:
                pieces = dict(_pieces((buffer, start, end), {_SET_FLAGS}))
                flags = pieces.get(_SET_FLAGS, b"\0\0\0\0")
            if not flags[3] & _ANONYMOUS:  # the last byte of a number in network order
                found.append((buffer, start, end))
        return found

    def _elements(self, family: str, name: str, table: bytes, of: bytes) -> list[bytes]:
        """Return the elements of a set, sorted: the kernel's order changes with its tables."""
        found = []
        for buffer, start, end in self._walk(
            family, name, _GET_ELEMENTS, table, attribute(_SET_NAME, of)
        ):
            for kind, first, last in attributes(buffer, start + _BODY, end):
                if kind == _ELEMENTS:
                    found += [buffer[a:b] for _, a, b in attributes(buffer, first, last)]
        return sorted(found)

    def _walk(
        self,
        family: str,
        name: str,
        kind: int,
        table: bytes,
        what: bytes = b"",
        *,
        all_tables: bool = False,
    ) -> Iterator[Part]:
        """Return the messages that are about a table; the kernel does not always choose."""
        asked = b"" if all_tables else table + what
        for parts in self._netlink.walk(
            SUBSYSTEM << 8 | kind, _generic(family) + asked,
            operation="look at the rules", target=f"{family} {name}",
        ):  # fmt: skip
            for part in parts:
                if part[0].startswith(table, part[1] + _BODY):
                    yield part


def _behind_handle(buffer: bytes, at: int, head: bytes) -> int:
    """Return where a name and the handle behind it end; 0 if that is not what is there.

    The kernel puts them there in this order. To look at each attribute takes longer than all the
    rest, so that is left for those that are different.

    Args:
        buffer: Messages.
        at: Behind the name of the table.
        head: Of a handle.
    """
    if at + _LENGTH.size > len(buffer):
        return 0
    (length,) = _LENGTH.unpack_from(buffer, at)
    behind: int = at + aligned(length)
    return behind + HANDLE_BYTES if buffer.startswith(head, behind) else 0


def _generic(family: str) -> bytes:
    return struct.pack(">BBH", FAMILIES[family], 0, 0)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode()


def _pieces(part: Part, kinds: set[int]) -> Iterator[tuple[int, bytes]]:
    """Return the attributes of these kinds, in the order of the kernel."""
    buffer, start, end = part
    left = len(kinds)
    for kind, a, b in attributes(buffer, start + _BODY, end):
        if kind in kinds:
            yield kind, buffer[a:b]
            left -= 1
            if not left:
                return


def _kept(part: Part, kinds: set[int]) -> bytes:
    return b"".join(struct.pack("=HI", kind, len(v)) + v for kind, v in _pieces(part, kinds))
