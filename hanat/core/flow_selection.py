"""Choose flows by what an operator knows of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hanat.core.flows import RECORD_V4

Place = tuple[int, bytes, int, int]  # protocol number, packed address, first and last port


@dataclass(frozen=True, slots=True)
class FlowQuery:
    """Flows that fit all of what is given.

    Attributes:
        protocol: IP protocol number.
        client: Packed address of who began.
        server: Packed address of who answers.
        listens: Places of a service; a flow is asked of one of them.
    """

    protocol: int | None = None
    client: bytes | None = None
    server: bytes | None = None
    listens: tuple[Place, ...] | None = None

    def matches(self, record: bytes) -> bool:
        """Say whether a flow fits."""
        size = 4 if len(record) == RECORD_V4.size else 16
        return (
            (self.protocol is None or record[-6] == self.protocol)
            and (self.client is None or record[:size] == self.client)
            and (self.server is None or record[2 * size : 3 * size] == self.server)
            and (self.listens is None or self._is_asked(record, size))
        )

    def _is_asked(self, record: bytes, size: int) -> bool:
        asked = record[-6], record[size : 2 * size]
        port = int.from_bytes(record[4 * size + 2 : 4 * size + 4], "big")
        return any(
            asked == (protocol, address) and first <= port <= last
            for protocol, address, first, last in self.listens or ()
        )

    def to_document(self) -> dict[str, Any]:
        """Return the selection as values that JSON can carry."""
        listens = self.listens
        return {
            "protocol": self.protocol,
            "client": None if self.client is None else self.client.hex(),
            "server": None if self.server is None else self.server.hex(),
            "listens": listens and [(p, a.hex(), first, last) for p, a, first, last in listens],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> FlowQuery:
        """Return what `to_document` made a document of."""
        client, server, listens = (document[name] for name in ("client", "server", "listens"))
        return cls(
            document["protocol"],
            None if client is None else bytes.fromhex(client),
            None if server is None else bytes.fromhex(server),
            None
            if listens is None
            else tuple((p, bytes.fromhex(a), f, e) for p, a, f, e in listens),
        )
