"""``hanat fence``: make sure that a node is silent."""

from __future__ import annotations

from pathlib import Path

import click

from hanat.cli.options import json_option, node_file_option, print_json
from hanat.core.configuration import Interface
from hanat.doctor.fence_files import read_addresses, read_target
from hanat.doctor.fence_node import fence as take_away
from hanat.errors import ConfigError


@click.command()
@node_file_option
@click.option("--force", is_flag=True, help="Even if the node runs: one that hangs.")
@json_option
def fence(node_file: Path, *, force: bool, as_json: bool) -> None:
    """Take both rights and the floating addresses away from a node that does not run.

    For ExecStopPost= of a service, and for people. It may be repeated, also where
    hanat never ran, and touches nothing that is not hanat's. The floating addresses are
    those of the cluster file and those that hanat's gate in the kernel guards, which
    are of the configuration in force; if the cluster file is damaged, only the latter.
    """
    target = read_target(node_file)
    damaged: ConfigError | None = None
    named: list[tuple[str, Interface]] = []
    try:
        named = read_addresses(target)
    except ConfigError as error:
        damaged = error
    done = take_away(target, named, force=force)
    if damaged is not None:
        if not done.gate_found:
            raise damaged  # nobody knows what to look for
        click.echo(f"hanat: {damaged}\nhanat: fenced by what the gate guards", err=True)
    if as_json:
        removed = [{"device": device, "address": str(address)} for device, address in done.removed]
        print_json({"gate_found": done.gate_found, "removed": removed})
        return
    rights = "both rights withdrawn" if done.gate_found else "no rights: there is no gate"
    gone = ", ".join(f"{address} from {device}" for device, address in done.removed)
    click.echo(
        f"{target.node} is fenced: {rights}, "
        + (f"removed {gone}" if gone else "no floating address was here")
    )
