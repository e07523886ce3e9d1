"""``hanat server``: servers, why they get no clients, and what operators make of them."""

from __future__ import annotations

import time
from collections.abc import Mapping

import click

from hanat.cli.api_client import api_option, request
from hanat.cli.command_errors import CommandError
from hanat.cli.names import ServerPath, caller, parse_duration, parse_server, parse_weight, quoted
from hanat.cli.options import json_option, print_json
from hanat.cli.service_text import (
    Document,
    ask,
    ask_all,
    demand_object,
    sentence,
    server_lines,
    server_table,
    servers_of,
)
from hanat.cli.status_text import duration, text

TIMEOUT_S = 30.0  # the node limits itself to less; this is for one that is stuck
LOOK_S = 1.0  # between two looks at the connections of a server that is drained

_server = click.argument("server", type=parse_server, metavar="SERVICE/SERVER")
_for = click.option(
    "--for", "for_s", type=parse_duration, metavar="DURATION",
    help="Then it is ready again by itself: 30s, 10m, 2h.",
)  # fmt: skip
_reason = click.option("--reason", metavar="TEXT", help="Why, in one line; everybody sees it.")


@click.group()
def server() -> None:
    """Show servers, and take them out of rotation."""


@server.command(name="list")
@click.argument("service", required=False)
@api_option
@json_option
def list_(*, service: str | None, api: str, as_json: bool) -> None:
    """List servers, of one service or of all; any node may be asked.

    CHECKS is what the checks say, MODE what operators made of the server, SHARE its part of the
    new clients; NEW CLIENTS says whether it gets any, and if not, the first reason. NEW/S is
    connections a second, TOTAL all there were, IN and OUT bytes from and to clients.
    """
    services = ask_all(api) if service is None else [ask(api, f"/{quoted(service)}")]
    servers = [{"service": s.get("name"), **found} for s in services for found in servers_of(s)]
    if as_json:
        print_json({"servers": servers})
        return
    for line in server_table((f"{text(s['service'])}/{text(s.get('name'))}", s) for s in servers):
        click.echo(line)


@server.command()
@_server
@api_option
@json_option
def show(*, server: ServerPath, api: str, as_json: bool) -> None:
    """Say whether a server gets clients, and why not; then all that is known of it."""
    found = ask(api, server.path)
    if as_json:
        print_json(found)
        return
    for line in server_lines(found):
        click.echo(line)


@server.command()
@_server
@_reason
@api_option
@json_option
def ready(*, server: ServerPath, reason: str | None, api: str, as_json: bool) -> None:
    """Put a server back into rotation, if its checks and weight allow it."""
    _print(_administer(api, server, {"mode": "ready", "reason": reason}), as_json=as_json)


@server.command()
@_server
@_for
@_reason
@click.option("--wait", is_flag=True, help="Until its connections are gone.")
@click.option(
    "--timeout", type=parse_duration, default="10m", show_default=True, metavar="DURATION",
    help="Wait no longer.",
)  # fmt: skip
@api_option
@json_option
def drain(
    *,
    server: ServerPath,
    wait: bool,
    timeout: float,
    api: str,
    as_json: bool,
    **order: float | str | None,
) -> None:
    """Give a server no new clients; its connections go on.

    It stays so until "hanat server ready", also over a takeover and a new configuration.
    """
    found = _administer(api, server, {"mode": "drain", **_sent(order)})
    if wait:
        found = _wait(api, server, found, timeout)
    _print(found, as_json=as_json)


@server.command()
@_server
@_for
@_reason
@api_option
@json_option
def maint(*, server: ServerPath, api: str, as_json: bool, **order: float | str | None) -> None:
    """Give a server no new clients and end its connections, as on_server_down says."""
    _print(_administer(api, server, {"mode": "maint", **_sent(order)}), as_json=as_json)


@server.command()
@_server
@click.argument("weight", type=parse_weight, metavar="PERCENT%|FACTOR")
@api_option
@json_option
def weight(*, server: ServerPath, weight: float, api: str, as_json: bool) -> None:
    """Give a server a part of its configured weight: 50% or 0.5, 100% as configured."""
    _print(_administer(api, server, {"weight": weight}), as_json=as_json)


def _sent(order: dict[str, float | str | None]) -> dict[str, object]:
    """Return the options of a command as the API has them."""
    for_s = order["for_s"]
    for_ = f"{for_s:.0f}s" if isinstance(for_s, float) else None
    return {"reason": order["reason"], "for": for_}


def _administer(api: str, server: ServerPath, order: dict[str, object]) -> Document:
    """Let a node do something to a server; return the server then."""
    body = {key: value for key, value in order.items() if value is not None} | {"by": caller()}
    path = f"/v1/services{server.path}"
    return demand_object(api, request(api, "POST", path, body=body, timeout_s=TIMEOUT_S))


def _wait(api: str, server: ServerPath, found: Document, timeout_s: float) -> Document:
    """Look until a drained server has no connections; say how many are left when that changes.

    Raises:
        CommandError: It has some after the timeout, or is not drained any more.
    """
    until, shown = time.monotonic() + timeout_s, None
    while left := _connections(api, found):
        words = "1 connection left" if left == 1 else f"{left} connections left"
        if left != shown:
            click.echo(f"{server}: {words}", err=True)
            shown = left
        if time.monotonic() >= until:
            raise CommandError(
                f"drain: {server} has {words} after {duration(timeout_s)} and stays in drain; "
                f'"hanat conn list --service {server.service}" has them, '
                f'"hanat server maint {server}" ends them'
            )
        time.sleep(LOOK_S)  # noqa: TID251 - a command has no loop
        found = ask(api, server.path)
        if _mode(found) == "ready":
            raise CommandError(f"drain: {server} is ready again, with {words}")
    return found


def _mode(found: Document) -> object:
    record = found.get("administrative")
    return record.get("mode") if isinstance(record, Mapping) else None


def _connections(api: str, found: Document) -> int:
    count = found.get("connections")
    if not isinstance(count, int):
        raise CommandError(f"asked {api}: the answer does not say how many connections there are")
    return count


def _print(found: Document, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        click.echo(f"{sentence(found)}; connections: {text(found.get('connections'))}")
