"""Connections as an operator sees them: of services and servers, not of a kernel's table."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from hanat.api.backend import Wanted
from hanat.core.configuration import PROTOCOL_NUMBERS, Configuration
from hanat.core.flow_selection import FlowQuery, Place
from hanat.core.flows import Flow, Tuple5
from hanat.errors import RefusedError

TURN = 50  # connections, about 1 ms
PROTOCOLS: Mapping[str, int] = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}
NAMES = {number: name for name, number in PROTOCOLS.items()}
STATES = {
    1: "SYN_SENT", 2: "SYN_RECV", 3: "ESTABLISHED", 4: "FIN_WAIT", 5: "CLOSE_WAIT", 6: "LAST_ACK",
    7: "TIME_WAIT", 8: "CLOSE",
}  # fmt: skip


def selection_of(wanted: Wanted, configuration: Configuration) -> FlowQuery:
    """Return how to recognise in a kernel's table what is wanted.

    Raises:
        RefusedError: There is no such service.
    """
    listens = None
    if wanted.service is not None:
        known = {service.name: service for service in configuration.services}
        if wanted.service not in known:
            raise RefusedError(
                f"connections: no service {wanted.service!r}; "
                f"services are {', '.join(sorted(known)) or 'none'}"
            )
        listens = _places(configuration)[wanted.service]
    return FlowQuery(
        protocol=None if wanted.protocol is None else PROTOCOLS[wanted.protocol],
        client=None if wanted.client is None else wanted.client.packed,
        server=None if wanted.server is None else wanted.server.packed,
        listens=listens,
    )


def _places(configuration: Configuration) -> dict[str, tuple[Place, ...]]:
    return {
        service.name: tuple(
            (PROTOCOL_NUMBERS[li.protocol], li.address.packed, li.first_port, li.last_port)
            for li in service.listens
        )
        for service in configuration.services
    }


async def describe(records: Sequence[bytes], configuration: Configuration) -> list[dict[str, Any]]:
    """Return connections for people and programs; the loop has its turns meanwhile."""
    services = {name: FlowQuery(listens=places) for name, places in _places(configuration).items()}
    found: list[dict[str, Any]] = []
    for record in records:
        if len(found) % TURN == 0:
            await asyncio.sleep(0)
        name = next((name for name, places in services.items() if places.matches(record)), None)
        found.append({"service": name, **_describe(Flow.from_record(record))})
    return found


def _describe(flow: Flow) -> dict[str, Any]:
    is_tcp = flow.protocol == PROTOCOLS["tcp"]
    return {
        "protocol": NAMES.get(flow.protocol, str(flow.protocol)),
        "client": _endpoint(flow.original, flow.protocol, source=True),
        "asked": _endpoint(flow.original, flow.protocol, source=False),
        "server": _endpoint(flow.reply, flow.protocol, source=True),
        "answered": _endpoint(flow.reply, flow.protocol, source=False),
        "state": STATES.get(flow.tcp_state) if is_tcp else None,
        "timeout_s": flow.timeout_s,
    }


def _endpoint(side: Tuple5, protocol: int, *, source: bool) -> str:
    address, port = (
        (side.source, side.source_port) if source else (side.destination, side.destination_port)
    )
    if protocol not in PROTOCOL_NUMBERS.values():
        return str(address)
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"{host}:{port}"
