"""``hanat key``: change the cluster key while the cluster runs."""

from __future__ import annotations

from pathlib import Path

import click

from hanat.config import Keys, add_key, drop_accepted, read_keys, use_accepted
from hanat.core.identity import fingerprint

NEXT = "copy the file to all nodes, then restart them one after the other"

file_argument = click.argument("file", type=click.Path(path_type=Path))


@click.group()
def key() -> None:
    """Change the cluster key, node by node, while the cluster runs.

    Three rounds: add, use, drop. After each, the file goes to all nodes, and they are restarted
    one after the other, each when the one before is well again. A key is shown by eight digits
    that tell it from others.
    """


@key.command()
@file_argument
def show(file: Path) -> None:
    """Show which keys FILE has."""
    _tell(file, read_keys(file))


@key.command()
@file_argument
def add(file: Path) -> None:
    """Add a new key to FILE; it is accepted, and not used yet."""
    _tell(file, add_key(file), f"{NEXT}; then: hanat key use {file}")


@key.command()
@file_argument
def use(file: Path) -> None:
    """Use the accepted key of FILE, and accept the one that was used.

    Only when every node runs with both: one that does not hears nothing of the others then.
    """
    _tell(file, use_accepted(file), f"{NEXT}; then: hanat key drop {file}")


@key.command()
@file_argument
def drop(file: Path) -> None:
    """Forget the key of FILE that is accepted and not used."""
    _tell(file, drop_accepted(file), NEXT)


def _tell(file: Path, keys: Keys, then: str = "") -> None:
    accepted = f", {fingerprint(keys.accepted)} is accepted" if keys.accepted else ""
    click.echo(f"{file}: key {fingerprint(keys.used)} is used{accepted}")
    if then:
        click.echo(then)
