"""``hanat run``: the daemon."""

from __future__ import annotations

from pathlib import Path

import click

from hanat.config import cross_check, load_node, parse_cluster, read_key, read_text
from hanat.errors import ConfigError

NODE_FILE_DEFAULT = Path("/etc/hanat/node.toml")


@click.command()
@click.option(
    "--config",
    "node_file",
    type=click.Path(path_type=Path),
    default=NODE_FILE_DEFAULT,
    show_default=True,
    help="This node's own file; it names the cluster file and the key.",
)
@click.pass_context
def run(ctx: click.Context, node_file: Path) -> None:
    """Run this node in the foreground until SIGTERM or SIGINT."""
    settings = load_node(node_file)
    text = read_text(settings.cluster_file)
    configuration = parse_cluster(text, file=str(settings.cluster_file))
    if problems := cross_check(settings, configuration, file=str(node_file)):
        raise ConfigError(problems)
    key = read_key(settings.key_file)
    # Imported behind the checks: a wrong file is reported without loading the daemon.
    from hanat.daemon.lifeline import Lifeline
    from hanat.daemon.main import run as run_node

    ctx.exit(
        run_node(
            settings,
            key=key,
            configuration=configuration,
            configuration_text=text,
            lifeline=Lifeline(None),
        ),
    )
