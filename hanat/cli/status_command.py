"""``hanat status``: what a node knows, in one screen."""

from __future__ import annotations

import click

from hanat.cli.api_client import api_option, request
from hanat.cli.command_errors import CommandError
from hanat.cli.options import json_option, print_json
from hanat.cli.status_text import status_lines

TIMEOUT_S = 5.0  # the node answers from memory; more means it is stuck


@click.command()
@api_option
@json_option
def status(*, api: str, as_json: bool) -> None:
    """Show what a node knows: role, lease, peers, services and flows."""
    document = request(api, "GET", "/v1/status", timeout_s=TIMEOUT_S)
    if not isinstance(document, dict):
        raise CommandError(f"asked {api}: the answer is not a status")
    if as_json:
        print_json(document)
        return
    for line in status_lines(document):
        click.echo(line)
