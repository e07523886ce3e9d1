"""``hanat run``: a node."""

from __future__ import annotations

import os
from pathlib import Path

import click

from hanat.cli.options import node_file_option
from hanat.supervisor.supervisor import SUPERVISOR, python_command


@click.command()
@node_file_option
def run(node_file: Path) -> None:
    """Run this node in the foreground until SIGTERM or SIGINT.

    The process that stays is the supervisor of the daemon. It frees the lease when
    the daemon dies and starts it again.
    """
    # In place of this process: the supervisor keeps its pid and none of what was loaded.
    command = [*python_command(SUPERVISOR), "--config", str(node_file)]
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted
