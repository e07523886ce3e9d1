"""``hanat service``: the services, and how they are."""

from __future__ import annotations

import click

from hanat.cli.api_client import api_option
from hanat.cli.names import quoted
from hanat.cli.options import json_option, print_json
from hanat.cli.service_text import ask, ask_all, service_lines, service_table


@click.group()
def service() -> None:
    """Show services, and who gets their clients."""


@service.command(name="list")
@api_option
@json_option
def list_(*, api: str, as_json: bool) -> None:
    """List all services; any node may be asked.

    STATE is the worst that matters to clients: up, degraded (some servers that should serve do
    not), panic (too few are healthy, so all are used), down (no server gets clients). NEW/S is
    connections a second, TOTAL all there were, IN and OUT bytes from and to clients.
    """
    services = ask_all(api)
    if as_json:
        print_json({"services": services})
        return
    for line in service_table(services):
        click.echo(line)


@service.command()
@click.argument("name")
@api_option
@json_option
def show(*, name: str, api: str, as_json: bool) -> None:
    """Show one service with its servers, and why some get no clients."""
    found = ask(api, f"/{quoted(name)}")
    if as_json:
        print_json(found)
        return
    for line in service_lines(found):
        click.echo(line)
