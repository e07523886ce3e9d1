"""What becomes of the connections of a server that goes down, into maintenance, or away.

`on_server_down` of its service says it: *keep* them, *expire* them (the entry is deleted, the
next packet is decided anew), or *reset* them. Without a word of the service TCP is reset, UDP
expires.

A TCP connection without its entry would be found dead by its client only, from the server that gets
its next packet; the other end would wait for days. So the entry of one that is to be reset stays,
with a bit in its mark (`core.flows.RESET_MARK`) that the gate answers with a reset: the client
meets it at its next packet, the server by the client, to which the connection is over. The bit is
replicated, so whoever holds next does the same. It stays when the server is up again: one end may
have had its reset, and that connection cannot go on. Its client may connect anew from the same
port: a SYN replaces such an entry.

Deleted, not reset, are

- what is not TCP;
- a TCP connection whose server has not answered: the client sends its SYN again, and gets another
  server;
- those of programs of the holder: their packets are not forwarded, so nothing would answer them.

Whoever calls for an end has put rules in force before that lead no new flow to the server; else
the next packet would find it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

from hanat.core.configuration import (
    PROTOCOL_NUMBERS,
    Listen,
    OnServerDown,
    Protocol,
    RealServer,
    VirtualService,
)
from hanat.core.flow_selection import Place
from hanat.core.flows import RECORD_V4, STATUS_DST_NAT, awaits_reset, is_over
from hanat.core.server_facts import default_policy

_TCP = PROTOCOL_NUMBERS[Protocol.TCP]
_PROTOCOLS = {number: protocol for protocol, number in PROTOCOL_NUMBERS.items()}
_SYN_SENT = 1  # TCP_CONNTRACK_SYN_SENT


class Ended(NamedTuple):
    """How many connections ended: by deletion, and by a mark that has them reset."""

    expired: int = 0
    reset: int = 0


@dataclass(frozen=True, slots=True)
class Ending:
    """A server of a service whose connections are to end.

    Attributes:
        service: Its name, for people.
        listens: Where clients ask for the service.
        server: Packed address of the server.
        port: Of the server; 0: that which the client asked for.
        policy: None: the usual one of each protocol.
    """

    service: str
    listens: tuple[Place, ...]
    server: bytes
    port: int
    policy: OnServerDown | None


def ending_of(
    service: VirtualService, server: RealServer, policy: OnServerDown | None = None
) -> Ending:
    """Return the end of a server's connections, as its service wants it.

    Args:
        service: As it is, or was before it went.
        server: One of its servers.
        policy: Another one than that of the service.
    """
    return Ending(
        service.name,
        tuple(map(_place, _of_version(service.listens, server.address.version))),
        server.address.packed,
        server.port or 0,
        policy or service.on_server_down,
    )


def _of_version(listens: Iterable[Listen], version: int) -> Iterable[Listen]:
    return (listen for listen in listens if listen.address.version == version)


def _place(listen: Listen) -> Place:
    number = PROTOCOL_NUMBERS[listen.protocol]
    return number, listen.address.packed, listen.first_port, listen.last_port


def fate(policy: OnServerDown | None, record: bytes, local: Set[bytes]) -> OnServerDown:
    """Return what to do with a flow of a server that goes.

    Args:
        policy: Of its service; None: the usual one.
        record: The flow, in the layout of `core.flows`.
        local: Packed addresses of the programs of this machine.
    """
    if is_over(record) or awaits_reset(record):
        return OnServerDown.KEEP
    if policy is None:
        policy = default_policy(_PROTOCOLS.get(record[-6], Protocol.UDP))
    if policy is OnServerDown.RESET and not _can_be_reset(record, local):
        return OnServerDown.EXPIRE
    return policy


def _can_be_reset(record: bytes, local: Set[bytes]) -> bool:
    size = 4 if len(record) == RECORD_V4.size else 16
    return record[-6] == _TCP and record[-5] != _SYN_SENT and record[:size] not in local


class Endings:
    """Several ends, as one thing to look flows up in.

    Args:
        endings: Of two that a flow fits the first counts.
        local: Packed addresses of the programs of this machine.
    """

    def __init__(self, endings: Sequence[Ending], local: Set[bytes]) -> None:
        self._endings, self._local = endings, local
        self._servers: set[bytes] = set()
        self._ports: dict[bytes, int] = {}  # by what `_key` returns
        self._ranges: dict[bytes, list[tuple[int, int, int, int]]] = {}
        for number, ending in enumerate(endings):
            if ending.policy is not OnServerDown.KEEP:
                self._add(number, ending)

    def _add(self, number: int, ending: Ending) -> None:
        self._servers.add(ending.server)
        for protocol, address, first, last in ending.listens:
            if first == last:
                ports = _packed(first) + _packed(ending.port or first)
                key = bytes((protocol,)) + address + ending.server + ports
                self._ports.setdefault(key, number)
            else:
                key = bytes((protocol,)) + address + ending.server
                self._ranges.setdefault(key, []).append((first, last, ending.port, number))

    def __bool__(self) -> bool:
        return bool(self._servers)

    def find(self, record: bytes) -> tuple[int, OnServerDown] | None:
        """Return the place of the ending that a flow fits, and what to do; None: nothing."""
        size = 4 if len(record) == RECORD_V4.size else 16
        server = record[2 * size : 3 * size]
        if server not in self._servers or not record[-17] & STATUS_DST_NAT:
            return None
        place = record[-6:-5] + record[size : 2 * size] + server
        asked, answered = 4 * size + 2, 4 * size + 4
        number = self._ports.get(place + record[asked : asked + 2] + record[answered:][:2])
        if number is None and place in self._ranges:
            port, server_port = (
                int.from_bytes(record[at : at + 2], "big") for at in (asked, answered)
            )
            number = next(
                (
                    number
                    for first, last, wanted, number in self._ranges[place]
                    if first <= port <= last and server_port == (wanted or port)
                ),
                None,
            )
        if number is None:
            return None
        what = fate(self._endings[number].policy, record, self._local)
        return None if what is OnServerDown.KEEP else (number, what)


def _packed(port: int) -> bytes:
    return port.to_bytes(2, "big")


def to_document(endings: Sequence[Ending]) -> dict[str, Any]:
    """Return endings as values that JSON can carry; the listens of a service are there once."""
    numbers = {listens: n for n, listens in enumerate(dict.fromkeys(e.listens for e in endings))}
    return {
        "listens": [[(p, a.hex(), first, last) for p, a, first, last in some] for some in numbers],
        "endings": [
            (e.service, numbers[e.listens], e.server.hex(), e.port, e.policy and e.policy.value)
            for e in endings
        ],
    }


def from_document(document: dict[str, Any]) -> list[Ending]:
    """Return what `to_document` made a document of."""
    listens = [
        tuple((p, bytes.fromhex(a), first, last) for p, a, first, last in some)
        for some in document["listens"]
    ]
    return [
        Ending(
            service,
            listens[number],
            bytes.fromhex(server),
            port,
            None if policy is None else OnServerDown(policy),
        )
        for service, number, server, port, policy in document["endings"]
    ]
