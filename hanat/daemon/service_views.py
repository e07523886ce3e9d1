"""The services as this node shows them, made of the configuration and of connection counts.

Nothing is checked: a server without a check is up; one with a check has no verdict, is `unknown`,
and gets clients as it always did. Views are made one by one, while they are iterated over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from hanat.core.configuration import Configuration, VirtualService
from hanat.core.flows import ServerKey
from hanat.core.lookup import demand_service
from hanat.core.rotation import Facts, Rotations
from hanat.core.server_facts import CheckedServer, CheckedService, ServerId, default_policy
from hanat.core.service_view import Knowledge, ServiceView, view_of
from hanat.core.verdicts import Verdicts
from hanat.daemon.shown_services import count_flows


class ServiceViews:
    """What one node knows of all services.

    Args:
        node_id: This node.
        names: Of all nodes.
    """

    def __init__(self, node_id: int, names: Mapping[int, str]) -> None:
        self._node_id, self._names = node_id, names
        self._verdicts = Verdicts(node_id)

    def all(
        self, configuration: Configuration, counts: Mapping[ServerKey, int], now: float
    ) -> Iterator[ServiceView]:
        """Return the services of a configuration."""
        connections = _connections(configuration.services, counts)
        return (self._view(s, connections, now) for s in configuration.services)

    def one(
        self, name: str, configuration: Configuration, counts: Mapping[ServerKey, int], now: float
    ) -> ServiceView:
        """Return one service.

        Raises:
            NoSuchError: It is not configured.
        """
        service = demand_service(name, configuration.services)
        return self._view(service, _connections((service,), counts), now)

    def _view(
        self, service: VirtualService, connections: Mapping[ServerId, int], now: float
    ) -> ServiceView:
        stays = frozenset(ServerId(service.name, server.name) for server in service.servers)
        rotations = Rotations({}, Facts((checked(service),), stays=stays))
        known = Knowledge(rotations, self._verdicts, self._node_id, self._names, connections, now)
        return view_of(service, known)


def checked(service: VirtualService) -> CheckedService:
    """Return what the rotations need of a service."""
    servers = tuple(
        CheckedServer(
            server.name,
            server.place,
            server.weight,
            tuple(target.name for target in service.targets_of(server)),
        )
        for server in service.servers
    )
    policy = service.on_server_down or default_policy(service.listens[0].protocol)
    return CheckedService(service.name, servers, service.min_healthy_percent, policy)


def _connections(
    services: Iterable[VirtualService], counts: Mapping[ServerKey, int]
) -> dict[ServerId, int]:
    return {ServerId(*key): count for key, count in count_flows(services, counts).items()}
