"""``hanat fence``: make sure that a node is silent."""

from __future__ import annotations

from pathlib import Path

import click

from hanat.cli.client import json_option, print_json
from hanat.cli.run import NODE_FILE_DEFAULT
from hanat.config import load_cluster, load_node
from hanat.daemon.fence import fence as take_away


@click.command()
@click.option(
    "--config",
    "node_file",
    type=click.Path(path_type=Path),
    default=NODE_FILE_DEFAULT,
    show_default=True,
    help="This node's own file; it names the cluster file.",
)
@click.option("--force", is_flag=True, help="Even if the node runs: one that hangs.")
@json_option
def fence(node_file: Path, *, force: bool, as_json: bool) -> None:
    """Take both rights and the floating addresses away from a node that does not run.

    For ExecStopPost= of a service, and for people. It may be repeated, also where
    hanat never ran, and touches nothing that is not hanat's. The floating addresses are
    those of the cluster file and those that hanat's gate in the kernel guards, which
    are of the configuration in force.
    """
    settings = load_node(node_file)
    done = take_away(settings, load_cluster(settings.cluster_file), force=force)
    if as_json:
        removed = [{"device": device, "address": str(address)} for device, address in done.removed]
        print_json({"gate_found": done.gate_found, "removed": removed})
        return
    rights = "both rights withdrawn" if done.gate_found else "no rights: there is no gate"
    gone = ", ".join(f"{address} from {device}" for device, address in done.removed)
    click.echo(
        f"{settings.node} is fenced: {rights}, "
        + (f"removed {gone}" if gone else "no floating address was here")
    )
