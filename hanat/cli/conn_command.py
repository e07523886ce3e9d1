"""``hanat conn``: the connections that a node knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import click

from hanat.cli.api_client import api_option, request
from hanat.cli.command_errors import CommandError
from hanat.cli.options import json_option, print_json
from hanat.cli.status_text import duration, table, text

TIMEOUT_S = 30.0  # the node limits itself to less; this is for one that is stuck
HEAD = ("PROTOCOL", "SERVICE", "CLIENT", "ASKED", "SERVER", "ANSWERED", "STATE", "TIMEOUT")
KEYS = ("protocol", "service", "client", "asked", "server", "answered", "state")

_OPTIONS = (
    click.option("--service", metavar="NAME", help="Asked of this service."),
    click.option("--protocol", metavar="NAME", help="tcp, udp, icmp or icmpv6."),
    click.option("--client", metavar="ADDRESS", help="Begun by this address."),
    click.option("--server", metavar="ADDRESS", help="Answered by this address."),
    api_option,
    json_option,
)


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group()
def conn() -> None:
    """List, count and end connections."""


@conn.command(name="list")
@_with_options
@click.option("--limit", default=100, show_default=True, help="How many at most, up to 2000.")
def list_(*, api: str, as_json: bool, limit: int, **wanted: str | None) -> None:
    """List connections that fit all options."""
    answer = _ask(api, "GET", wanted, limit=str(limit))
    if as_json:
        print_json(answer)
        return
    found = [item for item in answer.get("connections", []) if isinstance(item, dict)]
    rows = [[*(text(c.get(key)) for key in KEYS), duration(c.get("timeout_s"))] for c in found]
    for line in table(HEAD, rows):
        click.echo(line)
    if len(rows) < _number(api, answer, "count"):
        click.echo(f"{len(rows)} of {answer['count']}; --limit shows more", err=True)


@conn.command()
@_with_options
def count(*, api: str, as_json: bool, **wanted: str | None) -> None:
    """Count connections that fit all options."""
    found = _number(api, _ask(api, "GET", wanted, limit="0"), "count")
    if as_json:
        print_json({"count": found})
    else:
        click.echo(found)


@conn.command()
@_with_options
@click.option("--all", "everything", is_flag=True, help="End every connection.")
def kill(*, api: str, as_json: bool, everything: bool, **wanted: str | None) -> None:
    """End connections that fit all options; the holder must be asked.

    Their entries are deleted on all nodes; the next packet of such a connection is no part of
    any.
    """
    if not everything and not any(wanted.values()):
        raise click.UsageError("say which connections, or --all")
    if everything and any(wanted.values()):
        raise click.UsageError("--all and a choice do not go together")
    killed = _number(api, _ask(api, "DELETE", wanted), "killed")
    if as_json:
        print_json({"killed": killed})
    else:
        click.echo(f"killed: {killed}")


def _ask(api: str, method: str, wanted: dict[str, str | None], **more: str) -> dict[str, Any]:
    given = {name: value for name, value in wanted.items() if value is not None}
    path = f"/v1/connections?{urlencode({**given, **more})}"
    answer = request(api, method, path.rstrip("?"), timeout_s=TIMEOUT_S)
    if not isinstance(answer, dict):
        raise CommandError(f"asked {api}: the answer is not about connections")
    return answer


def _number(api: str, answer: dict[str, Any], name: str) -> int:
    value = answer.get(name)
    if not isinstance(value, int):
        raise CommandError(f"asked {api}: the answer does not say {name}")
    return value
