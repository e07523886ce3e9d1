"""How many connections servers have, for those services whose clients are chosen by that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hanat.core.configuration import PROTOCOL_NUMBERS, VirtualService
from hanat.core.flows import ServerKey
from hanat.core.levelling import Load
from hanat.core.server_facts import ServerId
from hanat.daemon.worker_link import WorkerLink

_Places = tuple[tuple[ServerId, tuple[ServerKey, ...]], ...]


class FlowLoads:
    """Implements `daemon.counting.Loads` by what the flow worker tells."""

    def __init__(self, worker: WorkerLink) -> None:
        self._worker = worker
        self._places: dict[str, tuple[VirtualService, _Places]] = {}

    def ask(self) -> None:
        """See `daemon.counting.Loads.ask`."""
        self._worker.ask()

    def of(
        self, services: Iterable[VirtualService], age_s: float
    ) -> Mapping[ServerId, Load] | None:
        """See `daemon.counting.Loads.of`."""
        if not self._worker.knows(age_s):
            return None
        now, opened = self._worker.counts(), self._worker.opened()
        return {
            server: Load(now.get(places[0], 0), opened.get(places[0], 0))
            if len(places) == 1
            else Load(sum(now.get(p, 0) for p in places), sum(opened.get(p, 0) for p in places))
            for service in services
            for server, places in self._places_of(service)
        }

    def keep(self, names: Iterable[str]) -> None:
        """See `daemon.counting.Loads.keep`."""
        self._places = {name: self._places[name] for name in names if name in self._places}

    def _places_of(self, service: VirtualService) -> _Places:
        """Return where the servers' connections are counted; found once for a service."""
        service_was, places = self._places.get(service.name, (None, ()))
        if service_was is not service:
            listens = [
                (PROTOCOL_NUMBERS[at.protocol], at.address.packed, at.first_port)
                for at in service.listens
            ]
            places = tuple(
                (
                    ServerId(service.name, server.name),
                    tuple(ServerKey(*listen, server.address.packed) for listen in listens),
                )
                for server in service.servers
                if server.max_conn or service.scheduler.by_counts
            )
            self._places[service.name] = service, places
        return places
