"""``hanat config``: check files; show and change the replicated configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hanat.cli.api_client import api_option, request
from hanat.cli.command_errors import CommandError
from hanat.cli.options import json_option, print_json
from hanat.cli.status_text import text
from hanat.config import check, check_advice, parse_cluster, read_text
from hanat.errors import EXIT_CONFIG_INVALID, EXIT_FAILED, ConfigError

TIMEOUT_S = 30.0  # the node limits itself to less; this is for one that is stuck
PATH = "/v1/config"
# A longer text is left to the node, which knows most of it already; to read all of a thousand
# services here takes half a second.
CHECKED_FIRST_MAX = 1 << 16
# What a node calls the text that it was sent: the file is known here alone.
_NAMED = re.compile(r"^cluster\.toml: ", re.MULTILINE)
_PHRASES = {
    "in force": "in force on",
    "not yet": "not yet in force on",
    "refused": "refused by",
    "not reachable": "not reachable:",
}


@click.group()
def config() -> None:
    """Check files, show and change the configuration of the cluster."""


@config.command("check")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
@click.pass_context
def check_files(ctx: click.Context, files: tuple[Path, ...], *, as_json: bool) -> None:
    """Check node and cluster files, alone and against each other.

    Every problem is printed, and the exit code is 5 if there is one; a warning changes nothing of
    that. A node file is also held against the cluster file it names.
    """
    problems = check(files)
    warnings = check_advice(files)
    if as_json:
        found = {"problems": problems, "warnings": warnings}
        lists = {name: [asdict(one) for one in some] for name, some in found.items()}
        print_json({"ok": not problems, **lists})
    else:
        for warning in warnings:
            click.echo(f"warning: {warning}", err=True)
        for problem in problems:
            click.echo(str(problem))
        wrong = {problem.file for problem in problems}
        for file in files:
            if str(file) not in wrong:
                click.echo(f"{file}: ok")
    if problems:
        ctx.exit(EXIT_CONFIG_INVALID)


@config.command()
@api_option
@json_option
def show(*, api: str, as_json: bool) -> None:
    """Print the configuration of the cluster, as its author wrote it.

    To standard error goes which revision it is and which node has it in force.
    """
    shown = _shown(api)
    if as_json:
        print_json(shown)
        return
    click.echo(shown["text"], nl=False)
    click.echo(f"# revision {shown['revision']}: {_who(shown)}", err=True)
    if (profile := text(shown.get("profile_in_force"))) != _profile_of(shown["text"]):
        click.echo(f'# nodes run with profile "{profile}", whatever this text says', err=True)


def _profile_of(content: str) -> str | None:
    try:
        return parse_cluster(content, file="").profile.name
    except ConfigError:
        return None  # of a newer hanat, perhaps


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
@api_option
@json_option
def diff(*, file: Path, api: str, as_json: bool) -> None:
    """Say what FILE would change; any node may be asked.

    The node checks the file as for `apply`: exit code 5 if it would not be taken.
    """
    answer = _put(api, file, _shown(api)["revision"], query="?dry_run=true")
    if as_json:
        print_json(answer)
    else:
        _print_changes(answer)


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--revision", type=click.IntRange(min=0), metavar="N",
    help="Only if the cluster has this revision; without it, whichever it has now.",
)  # fmt: skip
@click.option(
    "--force", is_flag=True,
    help="Even if no other node could hold then; never rolled back.",
)  # fmt: skip
@api_option
@json_option
@click.pass_context
def apply(
    ctx: click.Context,
    *,
    file: Path,
    revision: int | None,
    force: bool,
    api: str,
    as_json: bool,
) -> None:
    """Make FILE the configuration of the cluster; the leader must be asked.

    Returns when every node that can be reached says what became of it. Exit codes: 1 a node
    refuses it or does not answer in time, or the outcome is unknown; 3 no quorum; 4 not the
    leader, the cluster has another revision, no other node could hold, or it was rolled back
    since no majority has it in force; 5 the file is wrong.
    """
    based_on = _shown(api)["revision"] if revision is None else revision
    answer = _put(api, file, based_on, query="?force=true" if force else "")
    states = {node.get("state") for node in answer.get("nodes", [])}
    if as_json:
        print_json(answer)
    else:
        _print_changes(answer)
        if answer.get("applied"):
            click.echo(f"revision {answer['revision']}: {_who(answer)}")
            _print_ended(answer.get("ended"))
    if not states <= {"in force", "not reachable"}:
        ctx.exit(EXIT_FAILED)


def _shown(api: str) -> dict[str, Any]:
    shown = request(api, "GET", PATH, timeout_s=TIMEOUT_S)
    sound = isinstance(shown, dict) and isinstance(shown.get("text"), str)
    if not sound or not isinstance(shown.get("revision"), int):
        raise CommandError(f"asked {api}: the answer is no configuration")
    found: dict[str, Any] = shown
    return found


def _put(api: str, file: Path, based_on: int, *, query: str) -> dict[str, Any]:
    content = read_text(file)
    if len(content) <= CHECKED_FIRST_MAX:
        parse_cluster(content, file=str(file))  # names the file in what is wrong with it
    try:
        answer = request(
            api,
            "PUT",
            f"{PATH}{query}",
            body=content.encode(),
            headers={"If-Match": f'"{based_on}"', "Content-Type": "application/toml"},
            timeout_s=TIMEOUT_S,
        )
    except CommandError as error:
        if len(content) > CHECKED_FIRST_MAX:
            parse_cluster(content, file=str(file))
        raise CommandError(_NAMED.sub(f"{file}: ", str(error)), error.exit_code) from None
    if not isinstance(answer, dict) or not isinstance(answer.get("revision"), int):
        raise CommandError(f"asked {api}: the answer does not say what became of the configuration")
    return answer


def _print_changes(answer: Mapping[str, Any]) -> None:
    changes = answer.get("changes") or ()
    for line in changes:
        click.echo(text(line))
    if answer.get("same_text"):
        click.echo(f"revision {answer['revision']} is this text already")
    elif not changes:
        click.echo("only comments, order or notation differ")


def _print_ended(ended: object) -> None:
    """Say how many flows the change ended, and why."""
    counts = ended if isinstance(ended, dict) else {}
    total = sum(count for count in counts.values() if isinstance(count, int))
    if total:
        why = ", ".join(f"{text(reason)} {text(count)}" for reason, count in sorted(counts.items()))
        click.echo(f"{total} {'flow' if total == 1 else 'flows'} ended: {why}")


def _who(document: Mapping[str, Any]) -> str:
    """Return what each node says, those that agree together: ``in force on r1, r2``."""
    nodes: Iterable[Any] = document.get("nodes") or ()
    found: dict[str, list[str]] = {}
    for node in nodes:
        if isinstance(node, dict):
            found.setdefault(text(node.get("state")), []).append(text(node.get("node")))
    return "; ".join(
        f"{_PHRASES.get(state, state)} {', '.join(names)}" for state, names in found.items()
    )
