"""Single values of a service: what it does with its servers, and when it has none.

Like `hanat.config.fields`: whatever TOML delivered in, a value out, or ValueError with a sentence
that says what was found and what is allowed.
"""

from __future__ import annotations

import re

from hanat.config.fields import ServerAddress, parse_server_address, parse_text, show
from hanat.core.configuration import OnServerDown, Unavailable

PERCENT = re.compile(r"([0-9]{1,3})%")
HASHES = {"source": False, "source-port": True}  # is the port hashed, too?
# Above an hour no client waits for a server to be warm; below a second there is no step.
SLOW_START_S = (1.0, 3600.0)
# IPVS has 6 minutes. Below a second the set of clients would never be read in time; a week is
# longer than any session.
PERSISTENCE_S = (1.0, 7 * 24 * 3600.0)
PRIORITY_MAX = 256  # as many as a service has servers
SORRY_MAX = 2  # one per family
RATE_MAX = 1_000_000  # a second; the kernel counts in nanoseconds between two of them
BURST_MAX = 10_000_000
OF_CLIENT_MAX = 10_000  # the kernel goes through a client's connections at each new one
MAX_CONN_MAX = 10_000_000  # more than a table has

_ON_SERVER_DOWN = (
    'write "keep", "expire" (the next packet gets another server) '
    'or "reset" (the client of a TCP connection is told)'
)


def parse_percent(value: object) -> int:
    """Return whole percent from text with its sign: ``"30%"``."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = f'a percentage carries its sign: write "30%", not {show(value)}'
        raise ValueError(text)  # noqa: TRY004
    text = parse_text(value)
    match = PERCENT.fullmatch(text)
    if match is None or int(match[1]) > 100:
        raise ValueError(f'{show(text)} is not a percentage: write "0%" to "100%"')
    return int(match[1])


def parse_hash(value: object) -> bool:
    """Say whether a client is known by its port, too: ``"source"`` or ``"source-port"``."""
    text = parse_text(value)
    if text not in HASHES:
        raise ValueError(
            f'{show(text)} is not known: write "source" for the client\'s address, or '
            '"source-port" for address and port'
        )
    return HASHES[text]


def parse_on_server_down(value: object) -> OnServerDown:
    """Return what becomes of the connections of a server that leaves."""
    text = parse_text(value)
    if text not in {policy.value for policy in OnServerDown}:
        raise ValueError(f"{show(text)} is not known: {_ON_SERVER_DOWN}")
    return OnServerDown(text)


def parse_unavailable(value: object) -> Unavailable:
    """Return what a client meets if nothing can take it."""
    text = parse_text(value)
    if text not in {answer.value for answer in Unavailable}:
        raise ValueError(
            f'{show(text)} is not known: write "reject" (the client is told) or "drop" (silence)'
        )
    return Unavailable(text)


def parse_sorry(value: object) -> tuple[ServerAddress, ...]:
    """Return sorry servers: one, or a list with one per family."""
    if not isinstance(value, list):
        return (parse_server_address(value),)
    if not value:
        raise ValueError("names no server; leave it out, then unavailable applies")
    if len(value) > SORRY_MAX:
        raise ValueError(
            f"has {len(value)} servers, at most {SORRY_MAX} are possible: one IPv4, one IPv6"
        )
    return tuple(parse_server_address(item) for item in value)
