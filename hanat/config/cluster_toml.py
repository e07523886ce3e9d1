"""``cluster.toml``: what names refer to, what excludes what, and the values for the core.

Services are read in `hanat.config.service_section`, their checks in `hanat.config.check_options`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hanat.config.document import (
    Findings,
    kept,
    parse_toml,
    read_text,
    validate,
    whole,
)
from hanat.config.floating import FloatingAddresses
from hanat.config.limits import CLUSTER_LIMITS, CLUSTER_TOTALS, check_limits, check_services
from hanat.config.models import ClusterFile, MasqueradeTable, ServiceTable, TransitTable
from hanat.config.service_section import Services
from hanat.core.configuration import (
    PROFILES,
    Address,
    Configuration,
    Forward,
    Masquerade,
    Network,
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
    check_services(document, findings)
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
    floating = FloatingAddresses(findings, all_sound=True)
    floating.know(known.vips)
    return Services(floating, findings).read(list(enumerate(tables)))


class _Reading:
    """One pass over a sound model; problems of meaning go to the findings."""

    def __init__(self, model: ClusterFile, findings: Findings) -> None:
        self._model = model
        self._findings = findings
        self._floating = FloatingAddresses(findings, all_sound=whole(model.vip))

    def configuration(self) -> Configuration:
        """Return all values. Raises ConfigError with every problem, also earlier ones."""
        model = self._model
        if model.vip == []:
            self._findings.add(("vip",), "there must be at least one [[vip]]")
        self._floating.read(kept(model.vip))
        masquerades = [self._masquerade(i, table) for i, table in kept(model.masquerade)]
        services = Services(self._floating, self._findings).read(kept(model.service))
        transits = self._transits(kept(model.transit), services)
        self._findings.raise_if_any()
        assert model.cluster is not None, "no cluster table and no problem"
        return Configuration(
            name=model.cluster.name,
            profile=model.cluster.profile or PROFILES["default"],
            vips=tuple(vip.value for vip in self._floating.vips.values()),
            masquerades=tuple(m for m in masquerades if m is not None),
            services=services,
            forward=model.cluster.forward or Forward.SERVICES,
            transits=transits,
        )

    def _masquerade(self, i: int, table: MasqueradeTable) -> Masquerade | None:
        networks: list[tuple[int, Network]] = kept(table.networks)
        if table.networks == []:
            self._findings.add(("masquerade", i, "from"), "needs at least one network")
        vip = (
            self._floating.find(table.to, ("masquerade", i, "to")) if table.to is not None else None
        )
        if vip is None:
            return None
        sources: dict[int, Address] = {}
        for j, network in networks:
            address = vip.value.of_version(network.version)
            if address is not None:
                sources[network.version] = address.ip
            elif vip.complete:
                family = f"IPv{network.version}"
                text = f'{network} is {family}, vip "{table.to}" has no such address'
                self._findings.add(("masquerade", i, "from", j), text)
        ordered = tuple(network for _, network in networks)
        return Masquerade(ordered, tuple(sources.values()), vip.value.interface)

    def _transits(
        self, tables: list[tuple[int, TransitTable]], services: tuple[VirtualService, ...]
    ) -> tuple[Transit, ...]:
        """Return what is left alone; nothing that hanat translates may be in it."""
        ours: dict[Address, str] = {
            server.address: f'server "{server.name}" of service "{service.name}"'
            for service in services
            for server in service.servers
        }
        ours |= {
            sorry.address: f'the sorry server of service "{service.name}"'
            for service in services
            for sorry in service.sorry
        }
        ours |= {address: f'vip "{name}"' for address, name in self._floating.owners.items()}
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
