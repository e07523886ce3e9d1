"""``hanat keygen``: the cluster key."""

from __future__ import annotations

from pathlib import Path

import click

from hanat.config import generate_key


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def keygen(file: Path) -> None:
    """Write a new cluster key to FILE, which must not exist.

    Every node needs the same key: make it once and copy it to the others over a safe channel.
    """
    generate_key(file)
    click.echo(f"{file}: written, readable by its owner only; copy it to every node")
