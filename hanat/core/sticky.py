"""Services with persistence as values: whose clients stay at a server, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

CLIENTS_MAX = 65_536  # of a server; more are sent as if they were new
NOBODY = -1

Key = tuple[str, int]
"""Name of a service, and an IP version."""


@dataclass(frozen=True, slots=True)
class StickyServer:
    """A server of a service with persistence.

    Attributes:
        address: Packed.
        port: 0: the one the client asked for.
        set_name: Of its clients, in the table ``inet hanat``.
    """

    name: str
    address: bytes
    port: int
    set_name: str


@dataclass(frozen=True, slots=True)
class StickyService:
    """A service with persistence, as far as one IP version goes.

    Attributes:
        prefix: Length of what of an address tells clients apart.
        timeout_s: Of an entry, since the client's newest connection.
        listens: Protocol number, packed address, first and last port.
        datagrams: UDP is among them.
    """

    name: str
    version: int
    prefix: int
    timeout_s: int
    listens: tuple[tuple[int, bytes, int, int], ...]
    servers: tuple[StickyServer, ...]
    datagrams: bool = False

    def to_document(self) -> dict[str, Any]:
        """Return it as values that JSON can carry."""
        return {
            "name": self.name,
            "version": self.version,
            "prefix": self.prefix,
            "timeout_s": self.timeout_s,
            "listens": [(p, address.hex(), *ports) for p, address, *ports in self.listens],
            "servers": [(s.name, s.address.hex(), s.port, s.set_name) for s in self.servers],
            "datagrams": self.datagrams,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> StickyService:
        """Return what `to_document` made a document of."""
        listens = tuple(
            (protocol, bytes.fromhex(address), first, last)
            for protocol, address, first, last in document["listens"]
        )
        servers = tuple(
            StickyServer(name, bytes.fromhex(address), port, set_name)
            for name, address, port, set_name in document["servers"]
        )
        return cls(**{**document, "listens": listens, "servers": servers})


class Told(NamedTuple):
    """Clients of one server, as nodes tell each other.

    Attributes:
        clients: Packed addresses, of the network that they stand for.
        ages: Ticks since the newest connection of each.
    """

    service: str
    version: int
    prefix: int
    server: str
    clients: list[bytes]
    ages: list[int]


class Change(NamedTuple):
    """An entry that is new, was refreshed, or moved.

    Attributes:
        server: That has the client, by number.
        former: That had it before; the same for a refreshed one, `NOBODY` for a new one.
    """

    key: Key
    client: bytes
    server: int
    former: int


class Wanted(NamedTuple):
    """What the kernel's set of a server is to have of a client.

    Attributes:
        left_ms: Until it expires.
    """

    client: bytes
    left_ms: int
