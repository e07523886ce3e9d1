"""``cluster.toml``: what names refer to, what excludes what, and the values for the core.

A service's ``vip:NAME`` stands for the vip's address in each family the service
has servers of. A server without a port keeps the port the client asked for; a
server with a port gets every port of its service there, also those of a range.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hanat.config.document import (
    Findings,
    Location,
    kept,
    nearest,
    parse_toml,
    read_text,
    validate,
    whole,
)
from hanat.config.fields import ListenText, ServerAddress
from hanat.config.limits import CLUSTER_LIMITS, CLUSTER_TOTALS, check_limits
from hanat.config.models import (
    ClusterFile,
    MasqueradeTable,
    ServerTable,
    ServiceTable,
    TransitTable,
    VipTable,
)
from hanat.core.configuration import (
    PROFILES,
    Address,
    Configuration,
    FloatingAddress,
    Forward,
    Interface,
    Listen,
    Masquerade,
    Network,
    RealServer,
    Replicate,
    Scheduler,
    Transit,
    VirtualService,
)


def load_cluster(path: Path) -> Configuration:
    """Return the configuration in a file.

    Raises:
        ConfigError: With every problem of the file.
    """
    return parse_cluster(read_text(path), file=str(path))


def parse_cluster(text: str, *, file: str) -> Configuration:
    """Return the configuration in a text; `file` is its name in messages.

    Raises:
        ConfigError: With every problem of the text.
    """
    document = parse_toml(text, file=file)
    findings = Findings(file, document)
    check_limits(document, findings, lists=CLUSTER_LIMITS, totals=CLUSTER_TOTALS)
    model = validate(ClusterFile, document, findings)
    if model is None:
        findings.raise_if_any()
    assert model is not None, "a document without a model and without a problem"
    return _Reading(model, findings).configuration()


def read_services(
    tables: Iterable[ServiceTable], known: Configuration, findings: Findings
) -> tuple[VirtualService, ...]:
    """Return what services mean beside the floating addresses of a configuration.

    Args:
        tables: Sound ones.
        known: That configuration; its own services are not looked at.
        findings: Gets what is wrong.
    """
    reading = _Reading(
        ClusterFile.model_construct(schema_version=1, cluster=None, vip=[]), findings
    )
    return reading.services_beside(known, list(tables))


@dataclass(frozen=True, slots=True)
class _Vip:
    """A floating address with what is known of it; incomplete after a problem."""

    value: FloatingAddress
    complete: bool


class _Reading:
    """One pass over a sound model; problems of meaning go to the findings."""

    def __init__(self, model: ClusterFile, findings: Findings) -> None:
        self._model = model
        self._findings = findings
        self._vips: dict[str, _Vip] = {}
        self._floating: dict[Address, str] = {}  # to the vip's name
        self._all_vips_sound = whole(model.vip)

    def configuration(self) -> Configuration:
        """Return all values. Raises ConfigError with every problem, also earlier ones."""
        model = self._model
        if model.vip == []:
            self._findings.add(("vip",), "there must be at least one [[vip]]")
        self._read_vips(kept(model.vip))
        masquerades = [self._masquerade(i, table) for i, table in kept(model.masquerade)]
        services = self._services(kept(model.service))
        transits = self._transits(kept(model.transit), services)
        self._findings.raise_if_any()
        assert model.cluster is not None, "no cluster table and no problem"
        return Configuration(
            name=model.cluster.name,
            profile=model.cluster.profile or PROFILES["default"],
            vips=tuple(vip.value for vip in self._vips.values()),
            masquerades=tuple(m for m in masquerades if m is not None),
            services=services,
            forward=model.cluster.forward or Forward.SERVICES,
            transits=transits,
        )

    def services_beside(
        self, known: Configuration, tables: list[ServiceTable]
    ) -> tuple[VirtualService, ...]:
        """Return services of a text whose floating addresses are known already."""
        for vip in known.vips:
            self._vips[vip.name] = _Vip(vip, complete=True)
            self._floating |= {address.ip: vip.name for address in vip.addresses}
        return self._services(list(enumerate(tables)))

    def _read_vips(self, tables: list[tuple[int, VipTable]]) -> None:
        for i, table in tables:
            if table.name in self._vips:
                self._findings.add(("vip", i, "name"), f'another vip is named "{table.name}"')
                continue
            addresses: dict[int, Interface] = {}
            listed: list[tuple[int, Interface]] = kept(table.address)
            if table.address == []:
                self._findings.add(("vip", i, "address"), "needs at least one address")
            for j, address in listed:
                where: Location = ("vip", i, "address", j)
                if address.version in addresses:
                    self._findings.add(
                        where, f"a vip has at most one {_family(address.version)} address"
                    )
                elif address.ip in self._floating:
                    self._findings.add(
                        where, f'vip "{self._floating[address.ip]}" has {address.ip} already'
                    )
                else:
                    addresses[address.version] = address
                    self._floating[address.ip] = table.name
            self._vips[table.name] = _Vip(
                FloatingAddress(table.name, table.interface or "", tuple(addresses.values())),
                complete=whole(table.address),
            )

    def _vip(self, name: str, where: Location) -> _Vip | None:
        vip = self._vips.get(name)
        if vip is None and self._all_vips_sound:
            self._findings.add(where, f'there is no vip "{name}"; {nearest(name, self._vips)}')
        return vip

    def _masquerade(self, i: int, table: MasqueradeTable) -> Masquerade | None:
        networks: list[tuple[int, Network]] = kept(table.networks)
        if table.networks == []:
            self._findings.add(("masquerade", i, "from"), "needs at least one network")
        vip = self._vip(table.to, ("masquerade", i, "to")) if table.to is not None else None
        if vip is None:
            return None
        sources: dict[int, Address] = {}
        for j, network in networks:
            address = vip.value.of_version(network.version)
            if address is not None:
                sources[network.version] = address.ip
            elif vip.complete:
                family = _family(network.version)
                text = f'{network} is {family}, vip "{table.to}" has no such address'
                self._findings.add(("masquerade", i, "from", j), text)
        ordered = tuple(network for _, network in networks)
        return Masquerade(ordered, tuple(sources.values()), vip.value.interface)

    def _services(self, tables: list[tuple[int, ServiceTable]]) -> tuple[VirtualService, ...]:
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
            scheduler = table.scheduler or Scheduler.WRR
            values = tuple(listen for _, listen in listens)
            replicate = table.replicate or Replicate()
            services.append(
                VirtualService(
                    table.name or "", values, scheduler, servers, replicate, self._sources(i, table)
                )
            )
        self._refuse_overlaps(published)
        return tuple(services)

    def _sources(self, i: int, table: ServiceTable) -> tuple[str, ...]:
        """Return the interfaces that clients come by; a vip must be on each."""
        if table.sources == []:
            self._findings.add(
                ("service", i, "from"), "names no interface; leave it out for that of the vip"
            )
        known = {vip.value.interface for vip in self._vips.values()}
        sources: list[tuple[int, str]] = kept(table.sources)
        for j, name in sources:
            if self._all_vips_sound and name not in known:
                text = f'no vip is on interface "{name}"; {nearest(name, known)}'
                self._findings.add(("service", i, "from", j), text)
        return tuple(dict.fromkeys(name for _, name in sources))

    def _transits(
        self, tables: list[tuple[int, TransitTable]], services: tuple[VirtualService, ...]
    ) -> tuple[Transit, ...]:
        """Return what is left alone; nothing that hanat translates may be in it."""
        ours: dict[Address, str] = {
            server.address: f'server "{server.name}" of service "{service.name}"'
            for service in services
            for server in service.servers
        }
        ours |= {address: f'vip "{name}"' for address, name in self._floating.items()}
        names: dict[str, int] = {}
        transits: list[Transit] = []
        for i, table in tables:
            if names.setdefault(table.name, i) != i:
                text = f'another transit is named "{table.name}"'
                self._findings.add(("transit", i, "name"), text)
            if table.network == []:
                self._findings.add(("transit", i, "network"), "needs at least one network")
            listed: list[tuple[int, Network]] = kept(table.network)
            for j, network in listed:
                inside = [f"{a} of {of}" for a, of in ours.items() if a in network]
                if inside:
                    text = f"{network} contains {inside[0]}, which is not left alone"
                    self._findings.add(("transit", i, "network", j), text)
            transits.append(Transit(table.name, tuple(network for _, network in listed)))
        return tuple(transits)

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
            servers.append(
                RealServer(server.name, server.address.address, server.address.port, weight)
            )
        return tuple(servers)

    def _check_server_address(
        self, server: ServerTable, places: dict[ServerAddress, str], where: Location
    ) -> None:
        address = server.address.address
        if address in self._floating:
            text = f'{address} is the floating address of vip "{self._floating[address]}"'
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
            vip = self._vip(listen.vip, where)
            return [address.ip for address in vip.value.addresses] if vip is not None else []
        assert listen.address is not None, "a listen names a vip or an address"
        if listen.address in self._floating:
            return [listen.address]
        if self._all_vips_sound and all(vip.complete for vip in self._vips.values()):
            known = ", ".join(map(str, self._floating)) or "none"
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


def _family(version: int) -> str:
    return f"IPv{version}"
