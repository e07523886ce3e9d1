"""Which clients a service takes, and how many of them: ``allow``, ``deny``, ``limits``.

Of ``allow`` and ``deny`` the second wins: a client that is denied is refused although it is
allowed. So an entry of ``allow`` that ``deny`` has as a whole lets nobody in, which is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hanat.config.document import Findings, Location, kept, whole
from hanat.config.models import LimitsTable, ServiceTable
from hanat.core.configuration import Limits, Listen, Network, Replicate

Found = tuple[int, Network]
BURSTS = {"new_per_second": "burst", "new_per_second_per_client": "burst_per_client"}
OF_A_CLIENT = {"new_per_second_per_client", "connections_per_client"}


def read_networks(
    table: ServiceTable, key: str, listens: Iterable[Listen], findings: Findings, where: Location
) -> tuple[Network, ...]:
    """Return the networks of ``allow`` or ``deny``, each once; findings get what is wrong.

    Args:
        table: Of the service.
        key: Which of both.
        listens: Where the service listens.
        findings: Of the file.
        where: The service is.
    """
    written: list[Network | None] | None = table.allow if key == "allow" else table.deny
    if written == []:
        findings.add((*where, key), "names no network; leave it out for clients from anywhere")
    listened = {listen.address.version for listen in listens}
    known = whole(table.listen) and whole(table.server) and listened
    found: dict[Network, None] = {}
    sound: list[Found] = kept(written)
    for j, network in sound:
        if known and network.version not in listened:
            text = f"{network} is IPv{network.version}, this service listens on no such address"
            findings.add((*where, key, j), text)
        if network in found:
            findings.add((*where, key, j), f"{network} is in this list already")
        found[network] = None
    if key == "allow":
        for j, text in _shut_out(sound, kept(table.deny)):
            findings.add((*where, key, j), text)
    return tuple(found)


def _shut_out(allowed: Iterable[Found], denied: list[Found]) -> Iterator[tuple[int, str]]:
    for j, network in allowed:
        wider = next((other for _, other in denied if _contains(other, network)), None)
        if wider is not None:
            yield (
                j,
                f"{network} is in {wider} of deny, and who is denied is refused although it is "
                "allowed; leave it out here, or name smaller networks in deny",
            )


def _contains(wider: Network, network: Network) -> bool:
    if wider.version != network.version or wider.prefixlen > network.prefixlen:
        return False
    return network.network_address in wider


def read_limits(table: ServiceTable) -> Limits:
    """Return how many new connections a service takes; what was not written is not limited.

    At once as many may come as in a second, if nothing else is written.
    """
    written = table.limits
    if written is None:
        return Limits()
    given = {key: value for key in LimitsTable.model_fields if (value := getattr(written, key))}
    for rate, burst in BURSTS.items():
        if rate in given:
            given.setdefault(burst, given[rate])
    return Limits(**given)


def conflicts_of_limits(table: ServiceTable) -> Iterator[tuple[Location, str]]:
    """Yield the keys of limits that have no effect, and what to do."""
    if table.limits is not None:
        yield from _without_effect(table.limits)
        if table.ops and table.limits.connections_per_client is not None:
            yield ("limits", "connections_per_client"), f"{_NO_FLOWS}; leave it out"
    uncounted = _uncounted(table)
    for j, server in kept(table.server):
        if uncounted and server.max_conn is not None:
            yield ("server", j, "max_conn"), uncounted


_NO_FLOWS = "counts connections, and with ops there are none"


def _uncounted(table: ServiceTable) -> str:
    """Say why the connections of servers are not counted; empty if they are."""
    if table.ops:
        return f"{_NO_FLOWS}; leave it out"
    if table.replicate == Replicate(established=False):
        return (
            "counts connections that are replicated, and this service has replicate = "
            '"none"; leave one of them out'
        )
    return ""


def _without_effect(limits: LimitsTable) -> Iterator[tuple[Location, str]]:
    written = limits.model_fields_set
    for rate, burst in BURSTS.items():
        if burst in written and rate not in written:
            yield ("limits", burst), f"is how many may come at once beside {rate}; add that"
    if not written & (OF_A_CLIENT | BURSTS.keys()):
        yield (
            ("limits",),
            "limits nothing: write new_per_second, new_per_second_per_client or "
            "connections_per_client",
        )
    elif not written & OF_A_CLIENT:
        for mask in ("netmask", "netmask6"):
            if mask in written:
                yield (
                    ("limits", mask),
                    "says which addresses are one client, and no limit is of one; add "
                    "new_per_second_per_client or connections_per_client, or leave it out",
                )
