"""The services as this node shows them: what the log knows of them, and how many use them.

Views are made one by one, while they are iterated over: 10,000 servers take longer than a lease.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from hanat.core.configuration import Configuration, VirtualService
from hanat.core.flows import ServerKey
from hanat.core.lookup import demand_service
from hanat.core.server_facts import ServerId
from hanat.core.service_health import ServiceHealth
from hanat.core.service_view import Knowledge, ServiceView, view_of
from hanat.core.totals import Figures, nobody_counts
from hanat.daemon.rule_counts import RuleCounts
from hanat.daemon.shown_services import count_flows
from hanat.errors import RefusedError


class ServiceViews:
    """What one node knows of all services.

    Args:
        health: Of the servers.
        names: Of all nodes.
        counts: What the rules of services counted.
        figures: Returns the sums of a server, or of a service.
    """

    def __init__(
        self,
        health: ServiceHealth,
        names: Mapping[int, str],
        counts: RuleCounts,
        figures: Callable[[ServerId], Figures | None] = nobody_counts,
    ) -> None:
        self._health, self._names, self._counts = health, names, counts
        self._figures = figures

    def all(
        self, configuration: Configuration, counts: Mapping[ServerKey, int], now: float
    ) -> Iterator[ServiceView]:
        """Return the services of a configuration; those that come into force just now are not."""
        services = [s for s in configuration.services if s.name in self._health.statuses]
        known = self._knowledge(services, counts, now)
        return (view_of(service, known) for service in services)

    def one(
        self, name: str, configuration: Configuration, counts: Mapping[ServerKey, int], now: float
    ) -> ServiceView:
        """Return one service.

        Raises:
            NoSuchError: It is not configured.
            RefusedError: It is just coming into force.
        """
        service = demand_service(name, configuration.services)
        if name not in self._health.statuses:
            raise RefusedError(f"service {name} is just coming into force; ask again")
        return view_of(service, self._knowledge((service,), counts, now))

    def _knowledge(
        self, services: Iterable[VirtualService], counts: Mapping[ServerKey, int], now: float
    ) -> Knowledge:
        connections = {ServerId(*key): n for key, n in count_flows(services, counts).items()}
        known = self._health.knowledge(self._names, connections, now)
        return replace(
            known,
            refused=self._counts.refused,
            datagrams=self._counts.datagrams,
            figures=self._figures,
        )
