"""Options and output that commands share."""

from __future__ import annotations

import json
from pathlib import Path

import click
from click.core import ParameterSource

from hanat.cli.command_errors import CommandError
from hanat.errors import EXIT_CONFIG_INVALID

NODE_FILE_DEFAULT = Path("/etc/hanat/node.toml")


def _check(ctx: click.Context, parameter: click.Parameter, value: Path) -> Path:
    """Say what is missing if nobody named a file and the usual one is not there."""
    source = ctx.get_parameter_source(str(parameter.name))
    if source is ParameterSource.DEFAULT and not value.exists():
        raise CommandError(
            f"{value} is not there; name this node's file: {ctx.command_path} --config FILE",
            EXIT_CONFIG_INVALID,
        )
    return value


node_file_option = click.option(
    "--config",
    "node_file",
    type=click.Path(path_type=Path),
    default=NODE_FILE_DEFAULT,
    show_default=True,
    callback=_check,
    help="This node's own file; it names the cluster file and the key.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(document: object) -> None:
    """Print a document as JSON, readable and in the order it came."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))
