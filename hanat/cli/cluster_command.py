"""``hanat cluster``: what concerns all nodes."""

from __future__ import annotations

import click

from hanat.cli.api_client import api_option, request
from hanat.cli.command_errors import CommandError
from hanat.cli.options import json_option, print_json

TIMEOUT_S = 30.0  # the node limits itself to less; this is for one that is stuck


@click.group()
def cluster() -> None:
    """Do what concerns all nodes of the cluster."""


@cluster.command("finish-upgrade")
@api_option
@json_option
def finish_upgrade(*, api: str, as_json: bool) -> None:
    """Let all nodes use what the new version can; ask the leader.

    Once every node runs the new version. Before, each node can go back to the version before;
    afterwards none can. A node that is away counts with the version that it ran last.
    """
    answer = request(api, "POST", "/v1/cluster/finish-upgrade", body={}, timeout_s=TIMEOUT_S)
    if not isinstance(answer, dict) or not isinstance(answer.get("level"), int):
        raise CommandError(f"asked {api}: the answer does not say which level is in force")
    if as_json:
        print_json(answer)
    else:
        click.echo(f"upgrade finished: feature level {answer['level']} is in force")
