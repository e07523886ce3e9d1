"""What follows from what became known of servers: who is to do what.

`core.service_health` returns these; the daemon carries them out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from hanat.core.checks import Target
from hanat.core.configuration import OnServerDown, Protocol, RealServer, VirtualService
from hanat.core.probing import Operational
from hanat.core.rotation import ServiceChanged
from hanat.core.server_records import Record
from hanat.core.services import Rotation
from hanat.core.verdicts import Froze, HandOver, Thawed
from hanat.core.views import View


@dataclass(frozen=True, slots=True)
class Propose:
    """Append these records to the log, as the holder of this term."""

    term: int
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Rotate:
    """Render these services anew: who gets their new clients now."""

    rotations: Mapping[str, Rotation]


@dataclass(frozen=True, slots=True)
class End:
    """A server went down, into maintenance, or away: this becomes of its connections.

    Attributes:
        service: As it was when it led clients there.
        server: One of its servers.
    """

    service: VirtualService
    server: RealServer
    policy: OnServerDown


@dataclass(frozen=True, slots=True)
class Watch:
    """Probe these targets and no others."""

    targets: Mapping[str, Target]


@dataclass(frozen=True, slots=True)
class Seen:
    """Tell the other nodes how this one sees a target."""

    target: str
    view: View


@dataclass(frozen=True, slots=True)
class Committed:
    """Tell who probes what the log says of a target."""

    target: str
    state: Operational


Effect = (
    Propose | Rotate | Watch | Seen | Committed | End | ServiceChanged | HandOver | Froze | Thawed
)
Effects = tuple[Effect, ...]


def sorry_ends(
    service: VirtualService, before: Collection[str], after: Collection[str]
) -> Iterator[End]:
    """Yield the end of UDP at a sorry server, once there is a server again.

    Else a client that sends from one port for ever would stay there. TCP connections end by
    themselves.

    Args:
        service: Of these clients.
        before: Names of the servers in rotation before.
        after: The same, now.
    """
    listens = tuple(one for one in service.listens if one.protocol is Protocol.UDP)
    for sorry in service.sorry if listens else ():
        version = sorry.address.version
        names = {server.name for server in service.servers if server.address.version == version}
        if names.isdisjoint(before) and not names.isdisjoint(after):
            server = RealServer("sorry", sorry.address, sorry.port, 1)
            yield End(replace(service, listens=listens), server, OnServerDown.EXPIRE)
