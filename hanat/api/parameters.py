"""What a request is about: the parameters of ``/v1/connections`` and ``/v1/history``."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from typing import Final

from yarl import URL

from hanat.api.backend import Wanted
from hanat.api.request_errors import BadRequestError
from hanat.core.configuration import Address
from hanat.core.history import EVENTS_MAX

LIMIT_MAX: Final = 2000
PROTOCOLS: Final = ("tcp", "udp", "icmp", "icmpv6")
TEXT_CHARS_MAX: Final = 255
KNOWN: Final = ("service", "protocol", "client", "server", "limit")


def wanted_of(url: URL) -> Wanted:
    """Return what the parameters of a request ask for.

    Raises:
        BadRequestError: A parameter is unknown, there twice, or has a wrong value.
    """
    found = _parameters(url, KNOWN)
    protocol = found.get("protocol")
    if protocol is not None and protocol not in PROTOCOLS:
        raise BadRequestError(f"protocol {protocol!a} is none of {', '.join(PROTOCOLS)}")
    return Wanted(
        service=found.get("service"),
        protocol=protocol,
        client=_address("client", found.get("client")),
        server=_address("server", found.get("server")),
        limit=_limit(found.get("limit", "100")),
    )


def limit_of(url: URL) -> int:
    """Return how many events a request asks for, all without a parameter.

    Raises:
        BadRequestError: As `wanted_of`.
    """
    return _limit(_parameters(url, ("limit",)).get("limit", str(EVENTS_MAX)))


def _parameters(url: URL, known: Collection[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in url.query.items():
        if name not in known:
            raise BadRequestError(
                f"unknown parameter {name[:TEXT_CHARS_MAX]!a}; known are {', '.join(known)}"
            )
        if name in found:
            raise BadRequestError(f"the parameter {name!r} is there twice")
        found[name] = value[:TEXT_CHARS_MAX]
    return found


def _address(name: str, text: str | None) -> Address | None:
    if text is None:
        return None
    try:
        return ip_address(text)
    except ValueError:
        raise BadRequestError(
            f"{name} {text!a} is not an IPv4 or IPv6 address; names are not looked up, "
            'those of servers and their addresses are in "hanat status"'
        ) from None


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > LIMIT_MAX:
        raise BadRequestError(f"limit {text!a} is not a number from 0 to {LIMIT_MAX}")
    return int(text)
