"""What a command line says of a server: its name, a duration, a part of its weight."""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from urllib.parse import quote

import click

from hanat.core.service_view import FACTOR_MAX

CALLER_CHARS_MAX = 63  # that the API takes
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(s|m|h)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_WEIGHT = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(%?)")


class ServerPath(NamedTuple):
    """A server of a service, as the user wrote them."""

    service: str
    server: str

    def __str__(self) -> str:
        return f"{self.service}/{self.server}"

    @property
    def path(self) -> str:
        """Below ``/v1/services``."""
        return f"/{quoted(self.service)}/servers/{quoted(self.server)}"


def parse_server(given: str) -> ServerPath:
    """Return both names of ``SERVICE/SERVER``.

    Raises:
        click.BadParameter: It is something else, likewise below.
    """
    service, _, server = given.partition("/")
    if not service or not server or "/" in server:
        raise click.BadParameter(f'"{given}" is not SERVICE/SERVER, such as web/web1')
    return ServerPath(service, server)


def parse_duration(given: str) -> float:
    """Return the seconds of ``30s``, ``10m`` or ``2h``."""
    found = _DURATION.fullmatch(given)
    if found is None:
        raise click.BadParameter(f'"{given}" is not a duration, such as 30s, 10m or 2h')
    return float(found[1]) * _SECONDS[found[2]]


def parse_weight(given: str) -> float:
    """Return ``50%`` or ``0.5`` as a factor on the configured weight."""
    found = _WEIGHT.fullmatch(given)
    if found is None:
        raise click.BadParameter(f'"{given}" is not a part of a weight, such as 50% or 0.5')
    factor = float(found[1]) / (100 if found[2] else 1)
    if factor > FACTOR_MAX:
        raise click.BadParameter(
            f'"{given}" is more than {FACTOR_MAX:g} times the weight; half of it is 50% or 0.5'
        )
    return factor


def quoted(name: str) -> str:
    """Return a name as a part of a path."""
    return quote(name, safe="") if name not in {".", ".."} else name.replace(".", "%2E")


def caller() -> str:
    """Return the user that calls, also behind sudo(8)."""
    name = os.environ.get("SUDO_USER") or os.environ.get("USER") or f"uid {os.getuid()}"
    return "".join(c for c in name if c.isprintable())[:CALLER_CHARS_MAX] or "somebody"
