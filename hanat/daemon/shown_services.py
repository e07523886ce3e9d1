"""Services and their servers as a status shows them.

Most of it changes with the configuration only. A thousand services of ten servers take 50 ms,
and a load balancer that asks for the health of a node each second needs none of it. So they are
made once for a configuration, in slices, when somebody wants to see them; each status then adds
the flows of those that have any.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from hanat.core.checks import kind_word
from hanat.core.configuration import (
    PROTOCOL_NUMBERS,
    Configuration,
    RealServer,
    VirtualService,
)
from hanat.core.descriptions import describe_check, describe_service
from hanat.core.flows import ServerKey
from hanat.core.status import ServerStatus, ServiceStatus

SLICE = 50  # services


class ShownServices:
    """The services of the newest configuration that somebody wanted to see."""

    def __init__(self) -> None:
        self._configuration: Configuration | None = None
        self._shown: tuple[ServiceStatus, ...] = ()

    async def prepare(self, configuration: Configuration) -> None:
        """Make what `of` shows of a configuration; the loop turns meanwhile."""
        if configuration is self._configuration:
            return
        shown: list[ServiceStatus] = []
        for first in range(0, len(configuration.services), SLICE):
            shown += map(_shown, configuration.services[first : first + SLICE])
            await asyncio.sleep(0)
        self._configuration, self._shown = configuration, tuple(shown)

    def of(
        self, configuration: Configuration, counts: Mapping[ServerKey, int]
    ) -> tuple[ServiceStatus, ...]:
        """Return the services with their flows.

        Of a large configuration that was not prepared: none. That is what nobody looks at.
        """
        shown = self._shown
        if configuration is not self._configuration:
            few = len(configuration.services) <= SLICE
            shown = tuple(map(_shown, configuration.services)) if few else ()
        flows = count_flows(configuration.services, counts) if shown and counts else {}
        busy = {service for service, _ in flows}
        return tuple(_with_flows(s, flows) if s.name in busy else s for s in shown)


def _shown(service: VirtualService) -> ServiceStatus:
    servers = tuple(
        ServerStatus(s.name, _endpoint(s), s.weight, 0, s.tier + 1) for s in service.servers
    )
    _, *options = describe_service(service)
    return ServiceStatus(
        service.name,
        tuple(map(str, service.listens)),
        service.scheduler.value,
        0,
        servers,
        checks=tuple(f"{kind_word(c.kind)} {describe_check(c)}" for c in service.checks),
        options=tuple(options),
    )


def _with_flows(service: ServiceStatus, flows: Mapping[tuple[str, str], int]) -> ServiceStatus:
    servers = tuple(
        replace(server, flows=flows.get((service.name, server.name), 0))
        for server in service.servers
    )
    return replace(service, servers=servers, flows=sum(server.flows for server in servers))


def _endpoint(server: RealServer) -> str:
    if server.port is None:
        return str(server.address)
    host = f"[{server.address}]" if server.address.version == 6 else str(server.address)
    return f"{host}:{server.port}"


def count_flows(
    services: Iterable[VirtualService], counts: Mapping[ServerKey, int]
) -> Mapping[tuple[str, str], int]:
    """Return the flows of each server, by names of service and server; absent ones are 0.

    Args:
        services: Whose.
        counts: By server and the first port of a listen (`core.flows.FlowTable.counts`).
    """
    listens = {
        (PROTOCOL_NUMBERS[listen.protocol], listen.address.packed, listen.first_port): service
        for service in services
        for listen in service.listens
    }
    servers: dict[str, dict[bytes, list[str]]] = {}
    found: Counter[tuple[str, str]] = Counter()
    for key, flows in counts.items():
        counted = listens.get((key.protocol, key.listen, key.port))
        if counted is None:
            continue
        names = servers.get(counted.name)
        if names is None:
            names = servers[counted.name] = {}
            for server in counted.servers:
                names.setdefault(server.address.packed, []).append(server.name)
        for name in names.get(key.server, ()):
            found[counted.name, name] += flows
    return found
