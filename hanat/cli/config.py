"""``hanat config``: work on configuration files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from hanat.cli.client import json_option, print_json
from hanat.config import check
from hanat.errors import EXIT_CONFIG_INVALID


@click.group()
def config() -> None:
    """Check configuration files."""


@config.command("check")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
@click.pass_context
def check_files(ctx: click.Context, files: tuple[Path, ...], *, as_json: bool) -> None:
    """Check node and cluster files, alone and against each other.

    Every problem is printed, and the exit code is 5 if there is one. A node file is also held
    against the cluster file it names.
    """
    problems = check(files)
    if as_json:
        print_json({"ok": not problems, "problems": [asdict(problem) for problem in problems]})
    else:
        for problem in problems:
            click.echo(str(problem))
        wrong = {problem.file for problem in problems}
        for file in files:
            if str(file) not in wrong:
                click.echo(f"{file}: ok")
    if problems:
        ctx.exit(EXIT_CONFIG_INVALID)
