"""Find a service or a server by its name, or say which names there are.

Which name is nearest is a matter of difflib, at a ratio of 0.6 or more. It takes 0.3 ms a name,
and a cluster may have 2,000: so only those are compared that begin and end most like what was
asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from heapq import nlargest

from hanat.core.configuration import RealServer, VirtualService
from hanat.core.server_facts import ServerId
from hanat.errors import NoSuchError

NAMES_SHOWN = 10
NAME_CHARS_SHOWN = 63  # as long as names can be
NAMES_COMPARED = 20


def demand_service(name: str, services: Iterable[VirtualService]) -> VirtualService:
    """Return the service of a name.

    Raises:
        NoSuchError: There is none.
    """
    by_name = {service.name: service for service in services}
    if name not in by_name:
        raise NoSuchError(no_such("service", name, by_name))
    return by_name[name]


def demand_server(server: ServerId, services: Iterable[VirtualService]) -> RealServer:
    """Return a server as it is configured.

    Raises:
        NoSuchError: There is no such service, or it has no such server.
    """
    by_name = {s.name: s for s in demand_service(server.service, services).servers}
    if server.server not in by_name:
        raise NoSuchError(no_such(f"server of {server.service}", server.server, by_name))
    return by_name[server.server]


def no_such(kind: str, name: str, known: Iterable[str]) -> str:
    """Return a sentence: there is none of that name, which is nearest, and what there is.

    Args:
        kind: ``service`` or ``server of NAME``.
        name: What was asked for, of any length.
        known: Names there are.
    """
    name, names = name[:NAME_CHARS_SHOWN], sorted(known)
    clauses = [f"no {kind} {name!a}"]
    alike = nlargest(NAMES_COMPARED, names, key=lambda known: _common(name, known))
    clauses += [f"the nearest name is {near}" for near in get_close_matches(name, alike, n=1)]
    shown = ", ".join(names[:NAMES_SHOWN])
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    clauses.append(f"there are {shown}{more}" if names else "there is none")
    return "; ".join(clauses)


def _common(one: str, other: str) -> int:
    """Return how many characters both begin and end with."""
    return _begin(one, other) + _begin(one[::-1], other[::-1])


def _begin(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
