"""``[[service]]``: what clients see, the servers behind it, and what excludes what.

A service's ``vip:NAME`` stands for the vip's address in each family the service
has servers of. A server without a port keeps the port the client asked for; a
server with a port gets every port of its service there, also those of a range.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from hanat.config.check_options import Asked, read_checks
from hanat.config.document import Findings, Location, kept, nearest, whole
from hanat.config.fields import ListenText, ServerAddress
from hanat.config.floating import FloatingAddresses
from hanat.config.models import ServerTable, ServiceTable
from hanat.config.one_packet_sources import ambiguities
from hanat.config.service_clients import read_limits, read_networks
from hanat.config.service_conflicts import conflicts
from hanat.core.configuration import (
    Address,
    Listen,
    Persistence,
    RealServer,
    Replicate,
    Scheduler,
    Sorry,
    Unavailable,
    VirtualService,
)


class Services:
    """Reads the services of a file; problems of meaning go to the findings.

    Args:
        floating: What they may listen on.
        findings: Of the file.
    """

    def __init__(self, floating: FloatingAddresses, findings: Findings) -> None:
        self._floating = floating
        self._findings = findings

    def read(self, tables: list[tuple[int, ServiceTable]]) -> tuple[VirtualService, ...]:
        """Return the services of sound tables, each with its index."""
        names: dict[str, int] = {}
        services: list[VirtualService] = []
        published: list[_Published] = []
        for i, table in tables:
            if table.name is not None and names.setdefault(table.name, i) != i:
                self._findings.add(
                    ("service", i, "name"), f'another service is named "{table.name}"'
                )
            servers = self._servers(i, table)
            listens = self._listens(i, table, servers)
            published.extend(
                _Published(listen, table.name or f"service[{i}]", ("service", i, "listen", j))
                for j, listen in listens
            )
            values = tuple(listen for _, listen in listens)
            services.append(self._service(i, table, values, servers))
        self._refuse_overlaps(published)
        for where, text in ambiguities(
            [(i, s) for (i, _), s in zip(tables, services, strict=True)]
        ):
            self._findings.add(where, text)
        return tuple(services)

    def _service(
        self,
        i: int,
        table: ServiceTable,
        listens: tuple[Listen, ...],
        servers: tuple[RealServer, ...],
    ) -> VirtualService:
        for key, text in conflicts(table):
            self._findings.add(("service", i, *key), text)
        allow, deny = (
            read_networks(table, key, listens, self._findings, ("service", i))
            for key in ("allow", "deny")
        )
        asked = Asked(
            servers=servers,
            ports=_ports(table) if whole(table.listen) else "",
            floating=self._floating.owners,
            is_known=whole(table.server),
        )
        return VirtualService(
            name=table.name or "",
            listens=listens,
            scheduler=table.scheduler or Scheduler.WRR,
            servers=servers,
            replicate=table.replicate or Replicate(),
            sources=self._sources(i, table),
            checks=read_checks(table.check, asked, self._findings, ("service", i)),
            min_healthy_percent=table.min_healthy or 0,
            on_server_down=table.on_server_down,
            sorry=self._sorry(i, table, listens),
            unavailable=table.unavailable or Unavailable.REJECT,
            slow_start_s=table.slow_start or 0.0,
            persistence=_persistence(table),
            hash_port=table.hash_port or False,
            ops=table.ops or False,
            allow=allow,
            deny=deny,
            limits=read_limits(table),
        )

    def _sources(self, i: int, table: ServiceTable) -> tuple[str, ...]:
        """Return the interfaces that clients come by; a vip must be on each."""
        if table.sources == []:
            self._findings.add(
                ("service", i, "from"), "names no interface; leave it out for that of the vip"
            )
        known = self._floating.interfaces
        sources: list[tuple[int, str]] = kept(table.sources)
        for j, name in sources:
            if self._floating.all_sound and name not in known:
                text = f'no vip is on interface "{name}"; {nearest(name, known)}'
                self._findings.add(("service", i, "from", j), text)
        return tuple(dict.fromkeys(name for _, name in sources))

    def _sorry(self, i: int, table: ServiceTable, listens: tuple[Listen, ...]) -> tuple[Sorry, ...]:
        """Return where clients go when no server can take them."""
        where: Location = ("service", i, "sorry")
        servers = {server.address: server.name for _, server in kept(table.server)}
        listened = {listen.address.version for listen in listens}
        is_sound = whole(table.listen) and whole(table.server) and self._floating.complete
        found: dict[int, Sorry] = {}
        for place in table.sorry or ():
            address, version = place.address, place.address.version
            if address in self._floating.owners:
                vip = self._floating.owners[address]
                text = f'{address} is the floating address of vip "{vip}"; write that of a machine'
                self._findings.add(where, text)
            elif place in servers:
                text = (
                    f'is server "{servers[place]}" of this service, and there are clients for it '
                    "only when no server can take them; write another address or port"
                )
                self._findings.add(where, text)
            elif version in found:
                self._findings.add(
                    where, f"has two IPv{version} servers; one per family is possible"
                )
            elif is_sound and listened and version not in listened:
                text = f"{address} is IPv{version}, this service listens on no such address"
                self._findings.add(where, text)
            found[version] = Sorry(address, place.port)
        return tuple(found.values())

    def _servers(self, i: int, table: ServiceTable) -> tuple[RealServer, ...]:
        if table.server == []:
            self._findings.add(("service", i, "server"), "needs at least one server")
        names: dict[str, int] = {}
        places: dict[ServerAddress, str] = {}
        servers = []
        for j, server in kept(table.server):
            where: Location = ("service", i, "server", j)
            if names.setdefault(server.name, j) != j:
                text = f'another server of this service is named "{server.name}"'
                self._findings.add((*where, "name"), text)
            self._check_server_address(server, places, (*where, "address"))
            weight = 1 if server.weight is None else server.weight
            tier = (server.priority or 1) - 1
            place = server.address
            servers.append(
                RealServer(
                    server.name, place.address, place.port, weight, tier, server.max_conn or 0
                )
            )
        return tuple(servers)

    def _check_server_address(
        self, server: ServerTable, places: dict[ServerAddress, str], where: Location
    ) -> None:
        address = server.address.address
        if address in self._floating.owners:
            text = f'{address} is the floating address of vip "{self._floating.owners[address]}"'
            self._findings.add(where, f"{text}; a server needs its own")
        if places.setdefault(server.address, server.name) != server.name:
            text = f'server "{places[server.address]}" of this service has this address and port'
            self._findings.add(where, text)

    def _listens(
        self, i: int, table: ServiceTable, servers: tuple[RealServer, ...]
    ) -> list[tuple[int, Listen]]:
        if table.listen == []:
            self._findings.add(("service", i, "listen"), "needs at least one address and port")
        families = {server.address.version for server in servers}
        sound = whole(table.server) and bool(servers)
        listens: list[tuple[int, Listen]] = []
        for j, listen in kept(table.listen):
            where: Location = ("service", i, "listen", j)
            addresses = self._published_addresses(listen, where)
            served = [address for address in addresses if address.version in families]
            if addresses and not served and sound:
                versions = " or ".join(_family(a.version) for a in addresses)
                self._findings.add(where, f"this service has no {versions} server")
            if not addresses:
                sound = False  # what it would have published is not known
            listens.extend((j, _listen(listen, address)) for address in served)
        if sound and whole(table.listen):
            self._refuse_unreachable_servers(i, table, {x.address.version for _, x in listens})
        return listens

    def _published_addresses(self, listen: ListenText, where: Location) -> list[Address]:
        if listen.vip is not None:
            vip = self._floating.find(listen.vip, where)
            return [address.ip for address in vip.value.addresses] if vip is not None else []
        assert listen.address is not None, "a listen names a vip or an address"
        if listen.address in self._floating.owners:
            return [listen.address]
        if self._floating.complete:
            known = ", ".join(map(str, self._floating.owners)) or "none"
            self._findings.add(
                where, f"{listen.address} is not a floating address; they are {known}"
            )
        return []

    def _refuse_unreachable_servers(self, i: int, table: ServiceTable, families: set[int]) -> None:
        for j, server in kept(table.server):
            address = server.address.address
            if families and address.version not in families:
                family = _family(address.version)
                text = f"{address} is {family}, this service listens on no such address"
                self._findings.add(("service", i, "server", j, "address"), text)

    def _refuse_overlaps(self, published: list[_Published]) -> None:
        published = sorted(published, key=lambda one: (one.channel, one.listen.first_port))
        for _, group in itertools.groupby(published, key=lambda one: one.channel):
            widest: _Published | None = None
            for one in group:
                if widest is not None and one.listen.first_port <= widest.listen.last_port:
                    first, second = sorted((widest, one), key=lambda x: x.where[1::2])
                    self._findings.add(
                        second.where,
                        f'"{second.listen}" of service "{second.service}" overlaps with '
                        f'"{first.listen}" of service "{first.service}"',
                    )
                if widest is None or one.listen.last_port > widest.listen.last_port:
                    widest = one


@dataclass(frozen=True, slots=True)
class _Published:
    """A listen with where it comes from."""

    listen: Listen
    service: str
    where: Location

    @property
    def channel(self) -> tuple[int, int, str]:
        """What two listens must share to be able to overlap."""
        address = self.listen.address
        return (address.version, int(address), self.listen.protocol.value)


def _listen(text: ListenText, address: Address) -> Listen:
    return Listen(address, text.protocol, text.first_port, text.last_port)


def _ports(table: ServiceTable) -> str:
    """Return what a service listens on if that is more than one port: ``53, 80-90``."""
    ranges = sorted({(one.first_port, one.last_port) for _, one in kept(table.listen)})
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return ""
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ranges)


def _persistence(table: ServiceTable) -> Persistence | None:
    written = table.persistence
    if written is None:
        return None
    value = Persistence(written.timeout)
    return Persistence(
        value.timeout_s, written.netmask or value.netmask, written.netmask6 or value.netmask6
    )


def _family(version: int) -> str:
    return f"IPv{version}"
