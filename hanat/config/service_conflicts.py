"""What the keys of a service say against each other.

Each is an error, although one of both could be taken to count: a key without effect is one that
somebody believes in.
"""

from __future__ import annotations

from collections.abc import Iterator

from hanat.config.document import Location, kept, whole
from hanat.config.models import ServiceTable
from hanat.config.service_clients import conflicts_of_limits
from hanat.core.configuration import OnServerDown, Protocol, Scheduler

Conflict = tuple[Location, str]
"""The key, within the service, and what is wrong with it."""


def conflicts(table: ServiceTable) -> Iterator[Conflict]:
    """Yield the keys that do not go with others, and what to do.

    Args:
        table: Of a service; None where a value was wrong, which then conflicts with nothing.
    """
    if table.scheduler is not None:
        yield from _with_scheduler(table, table.scheduler)
    if table.min_healthy and (table.check == [] or "check" not in table.model_fields_set):
        yield (
            ("min_healthy",),
            "without a check all servers are healthy; add a [[service.check]], or leave it out",
        )
    if table.on_server_down is OnServerDown.RESET and _protocols(table) == {Protocol.UDP}:
        yield ("on_server_down",), 'only TCP has a reset, and this service is UDP; write "expire"'
    if table.ops:
        yield from _with_ops(table)
    yield from conflicts_of_limits(table)


def _with_scheduler(table: ServiceTable, scheduler: Scheduler) -> Iterator[Conflict]:
    if table.hash_port is not None and not scheduler.by_source:
        yield (
            ("hash",),
            f'scheduler "{scheduler.value}" does not choose by the client; write '
            'scheduler = "sh" or "mh", or leave hash out',
        )
    if scheduler is Scheduler.FO:
        return
    for j, server in kept(table.server):
        if server.priority is not None:
            yield (
                ("server", j, "priority"),
                f'is of scheduler "fo", and this service has "{scheduler.value}"; write '
                'scheduler = "fo", or divide the clients by weight',
            )


def _with_ops(table: ServiceTable) -> Iterator[Conflict]:
    if Protocol.TCP in _protocols(table):
        yield (
            ("ops",),
            "is for UDP, where a datagram can be all there is, and this service listens on TCP; "
            "give its UDP ports a service of their own",
        )
    if table.scheduler is not None and table.scheduler.by_counts:
        yield (
            ("scheduler",),
            f'"{table.scheduler.value}" counts connections, and with ops there are none; write '
            "wrr, rr, random, sh, mh or fo",
        )
    if table.persistence is not None:
        yield (
            ("persistence",),
            "keeps a client at a server, and ops sends each datagram by itself; leave one of them "
            'out, or write scheduler = "sh" instead of persistence',
        )
    written = table.model_fields_set
    if "replicate" in written and table.replicate is not None and table.replicate.established:
        yield (
            ("replicate",),
            'with ops there are no flows to replicate; leave it out, or write "none"',
        )
    if table.on_server_down not in {None, OnServerDown.KEEP}:
        yield ("on_server_down",), "with ops there are no connections to end; leave it out"


def _protocols(table: ServiceTable) -> set[Protocol]:
    """Return what a service listens on; nothing if that is not known."""
    if not whole(table.listen):
        return set()
    return {listen.protocol for _, listen in kept(table.listen)}
