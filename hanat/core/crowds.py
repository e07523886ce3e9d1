"""Clients that have as many connections as one may have, by the table of flows.

The kernel counts the connections of a client by itself (`core.service_limits`), each when its first
packet comes. Connections that it was given it never counts: those that a new holder inherited, and
those that were there before there was a limit, or before the rules were installed anew. So the
holder looks at its table of flows as well, about once a second, and tells the kernel which clients
have too many: new connections of these are refused until it has looked again.

The two never disagree for long: what both know both count, and either may refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from heapq import nlargest
from typing import Any

from hanat.core.flows import KEY_V4_SIZE

CLIENTS_MAX = 5_000  # of a service and family; those that have the most

_Counted = tuple[dict[bytes, int], int]  # connections by client, and which bits do not tell clients


@dataclass(frozen=True, slots=True)
class Crowd:
    """Where a service listens that limits the connections of its clients.

    Attributes:
        name: Of the kernel's set of clients that have too many; listens of a service and IP
            version have the same.
        most: So many are too many.
        prefix: Length of what counts as one client, in bits.
        protocol: Number of the IP protocol.
        listen: Packed address.
    """

    name: str
    most: int
    prefix: int
    protocol: int
    listen: bytes
    first_port: int
    last_port: int

    def to_document(self) -> list[Any]:
        """Return it as values that JSON can carry."""
        return [part.hex() if isinstance(part, bytes) else part for part in astuple(self)]

    @classmethod
    def from_document(cls, document: Sequence[Any]) -> Crowd:
        """Return what `to_document` made a document of."""
        name, most, prefix, protocol, listen, first, last = document
        return cls(name, most, prefix, protocol, bytes.fromhex(listen), first, last)


class Census:
    """Counts the flows of clients, some flows at a time.

    Args:
        crowds: Of whose clients.
    """

    def __init__(self, crowds: Iterable[Crowd]) -> None:
        self._at: dict[bytes, list[Crowd]] = {}  # by protocol and address
        for crowd in crowds:
            self._at.setdefault(bytes([crowd.protocol]) + crowd.listen, []).append(crowd)
        self._most = {crowd.name: crowd.most for some in self._at.values() for crowd in some}
        self._counts: dict[str, dict[bytes, int]] = {name: {} for name in self._most}
        self._counted: dict[bytes, list[_Counted]] = {}  # by protocol, address and port

    def add(self, keys: Iterable[bytes]) -> None:
        """Count flows, by their keys."""
        counted, find = self._counted, self._find
        for key in keys:
            size = 4 if len(key) == KEY_V4_SIZE else 16
            place = key[-1:] + key[size : 2 * size] + key[-5:-3]
            found = counted.get(place)
            if found is None:
                found = find(place)
            for counts, cut in found:
                client = _client(key[:size], cut) if cut else key[:size]
                counts[client] = counts.get(client, 0) + 1

    def _find(self, place: bytes) -> list[_Counted]:
        """Return where a flow counts; remembered, for ports that somebody listens on."""
        port = int.from_bytes(place[-2:], "big")
        found = [
            (self._counts[crowd.name], 8 * len(crowd.listen) - crowd.prefix)
            for crowd in self._at.get(place[:-2], ())
            if crowd.first_port <= port <= crowd.last_port
        ]
        if found:
            self._counted[place] = found
        return found

    def crowded(self) -> Mapping[str, Sequence[bytes]]:
        """Return the clients that have too many, packed, by the name of each set."""
        return {name: self.crowded_in(name) for name in self.names}

    @property
    def names(self) -> Sequence[str]:
        """The names of all sets."""
        return tuple(self._counts)

    def crowded_in(self, name: str) -> Sequence[bytes]:
        """Return the clients that have too many, packed, for one set."""
        most = self._most[name]
        return _largest({c: n for c, n in self._counts[name].items() if n >= most})


def _largest(counts: dict[bytes, int]) -> list[bytes]:
    if len(counts) <= CLIENTS_MAX:
        return list(counts)
    return nlargest(CLIENTS_MAX, counts, key=counts.__getitem__)


def _client(address: bytes, cut: int) -> bytes:
    """Return an address without its last bits."""
    return (int.from_bytes(address, "big") >> cut << cut).to_bytes(len(address), "big")
