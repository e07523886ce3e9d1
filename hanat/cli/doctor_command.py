"""``hanat doctor``: what on this machine is in hanat's way."""

from __future__ import annotations

from pathlib import Path

import click

from hanat.cli.options import json_option, print_json
from hanat.doctor.examine import diagnose
from hanat.doctor.findings import Finding, Level
from hanat.errors import EXIT_FAILED

NOT_FOR_EVER = (
    "sysctl -w lasts until the next boot: write the same setting into /etc/sysctl.d/60-hanat.conf"
)
COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


@click.command()
@click.option(
    "--config",
    "node_file",
    type=click.Path(path_type=Path),
    help="This node's file; without it only the machine is examined.",
)
@json_option
@click.pass_context
def doctor(ctx: click.Context, node_file: Path | None, *, as_json: bool) -> None:
    """Say what on this machine is in hanat's way, and what to do about it.

    Nothing is changed. The exit code is 1 if hanat will not work like this.
    """
    findings = diagnose(node_file)
    failed = any(finding.level is Level.FAIL for finding in findings)
    if as_json:
        print_json({"ok": not failed, "checks": [_document(finding) for finding in findings]})
    else:
        width = max(len(finding.check) for finding in findings)
        for finding in findings:
            level = click.style(f"{finding.level.value:<4}", fg=COLOURS[finding.level])
            click.echo(f"{level}  {finding.check:<{width}}  {finding.found}")
            if finding.fix:
                click.echo(f"      {'':<{width}}  fix: {finding.fix}")
        if any(finding.fix.startswith("sysctl -w") for finding in findings):
            click.echo(f"      {NOT_FOR_EVER}")
        counts = {level: sum(f.level is level for f in findings) for level in Level}
        click.echo(", ".join(f"{count} {level.value}" for level, count in counts.items()))
    if failed:
        ctx.exit(EXIT_FAILED)


def _document(finding: Finding) -> dict[str, str]:
    return {
        "level": finding.level.value,
        "check": finding.check,
        "found": finding.found,
        "fix": finding.fix,
    }
