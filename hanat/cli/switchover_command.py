"""``hanat switchover``: a planned change of holder."""

from __future__ import annotations

import click

from hanat.cli.api_client import api_option, request
from hanat.cli.command_errors import CommandError
from hanat.cli.options import json_option, print_json

TIMEOUT_S = 30.0  # the node limits itself to less; this is for one that is stuck


@click.command()
@click.option("--to", metavar="NODE", help="The new holder; without it the holder chooses.")
@api_option
@json_option
def switchover(*, to: str | None, api: str, as_json: bool) -> None:
    """Hand the floating addresses to another node; the holder must be asked."""
    answer = request(api, "POST", "/v1/switchover", body={"to": to}, timeout_s=TIMEOUT_S)
    if not isinstance(answer, dict) or not isinstance(answer.get("holder"), str):
        raise CommandError(f"asked {api}: the answer does not say who the holder is")
    if as_json:
        print_json(answer)
    else:
        click.echo(f"holder: {answer['holder']}")
