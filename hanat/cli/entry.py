"""The command ``hanat`` itself: which commands there are, and how errors end."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from hanat import __version__
from hanat.cli.command_errors import CommandError
from hanat.errors import HanatError

# Name to where it is and what it does; the sentence is here so that help imports nothing.
COMMANDS = {
    "cluster": ("hanat.cli.cluster_command:cluster", "Do what concerns all nodes of the cluster."),
    "config": ("hanat.cli.config_command:config", "Check, show and change the configuration."),
    "conn": ("hanat.cli.conn_command:conn", "List, count and end connections."),
    "doctor": ("hanat.cli.doctor_command:doctor", "Say what on this machine is in hanat's way."),
    "fence": (
        "hanat.cli.fence_command:fence",
        "Make sure that a node that does not run is silent.",
    ),
    "history": (
        "hanat.cli.history_command:history",
        "Show who held the addresses, and why that changed.",
    ),
    "key": ("hanat.cli.key_command:key", "Change the cluster key while the cluster runs."),
    "keygen": ("hanat.cli.keygen_command:keygen", "Write a new cluster key."),
    "run": ("hanat.cli.run_command:run", "Run this node."),
    "server": ("hanat.cli.server_command:server", "Show servers, and take them out of rotation."),
    "service": ("hanat.cli.service_command:service", "Show services, and who gets their clients."),
    "status": ("hanat.cli.status_command:status", "Show what a node knows."),
    "switchover": (
        "hanat.cli.switchover_command:switchover",
        "Hand the addresses to another node.",
    ),
    "vip": ("hanat.cli.history_command:vip", "Say who holds the addresses, now or at a time."),
}


class _Commands(click.Group):
    """A group that imports a command when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in sorted(COMMANDS)])

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  what click says
        """Run a command; what hanat raises on purpose becomes a message and an exit code."""
        try:
            return super().invoke(ctx)
        except (HanatError, CommandError) as error:
            click.echo(f"hanat: {error}", err=True)
            ctx.exit(error.exit_code)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hanat", message="%(prog)s %(version)s")
def main() -> None:
    """High-availability NAT router and layer-4 load balancer.

    Exit codes: 0 ok, 1 failed, 2 usage, 3 no quorum, 4 refused, 5 configuration invalid.
    """
