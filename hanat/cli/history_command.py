"""``hanat history`` and ``hanat vip who``: who held the addresses, and why that changed."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from hanat.cli.api_client import api_option, request
from hanat.cli.command_errors import CommandError
from hanat.cli.options import json_option, print_json
from hanat.cli.status_text import table, text
from hanat.core.history import EVENTS_MAX, Event, holder_at

TIMEOUT_S = 5.0
HEAD = ("AT", "TERM", "NODE", "WHAT")
SERVERS_HEAD = ("AT", "FACT", "NODE", "WHAT")
_AGO = re.compile(r"-(\d+(?:\.\d+)?)(s|m|h|d)")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.command()
@click.option(
    "--limit", type=click.IntRange(1, EVENTS_MAX), default=20, show_default=True,
    help="How many at most, the newest.",
)  # fmt: skip
@click.option("--servers", is_flag=True, help="What happened to the servers of services.")
@api_option
@json_option
def history(*, limit: int, servers: bool, api: str, as_json: bool) -> None:
    """Show who took the addresses over or gave them up, when and why, oldest first.

    Any node may be asked. Times are those of the node that took over or gave up, shown in
    local time; the order is that of the terms, within one that of the replicated log. With
    --servers: which servers went down, came back, were drained or weighed, and who said so.
    """
    events = _events(api, limit, "servers" if servers else "events")
    if as_json:
        print_json({"servers" if servers else "events": events})
        return
    keys = ("what", "node", "text") if servers else ("term", "node", "text")
    rows = [
        [_local(event.get("at_s")), *(text(event.get(key)) for key in keys)] for event in events
    ]
    head = SERVERS_HEAD if servers else HEAD
    for line in table(head, rows) if rows else ["nothing has happened"]:
        click.echo(line)


@click.group()
def vip() -> None:
    """Say who holds the floating addresses, now or at a time."""


@vip.command()
@click.option(
    "--at", metavar="TIME",
    help="RFC 3339, HH:MM[:SS] of today, or how long ago: -30s, -5m, -2h, -1d.",
)  # fmt: skip
@api_option
@json_option
def who(*, at: str | None, api: str, as_json: bool) -> None:
    """Say who holds the floating addresses, or who held them at a time.

    For a time in the past the replicated history is asked, by the clocks of the nodes.
    """
    if at is None:
        status = request(api, "GET", "/v1/status", timeout_s=TIMEOUT_S)
        if not isinstance(status, dict):
            raise CommandError(f"asked {api}: the answer is no status")
        answer: dict[str, Any] = {"holder": status.get("holder"), "term": status.get("term")}
    else:
        answer = _held(api, parse_time(at, now_s=time.time()))  # noqa: TID251 - the user's clock
    if as_json:
        print_json(answer)
        return
    click.echo(text(answer["holder"]) if answer["holder"] else "nobody")
    if answer.get("text"):
        click.echo(f"{_local(answer['since_s'])} {text(answer['text'])}", err=True)


def _held(api: str, at_s: float) -> dict[str, Any]:
    documents = _events(api, EVENTS_MAX)
    events = [_event(document) for document in documents]
    tenure = holder_at(events, at_s)
    if tenure.event is None:
        raise CommandError(
            f"nothing is known of {_local(at_s)}: the history begins later, or is empty"
        )
    event = documents[events.index(tenure.event)]
    holder = event.get("node") if tenure.node_id is not None else None
    return {
        "holder": holder, "term": event.get("term"), "at_s": at_s,
        "since_s": event.get("at_s"), "text": f"{event.get('node')} {event.get('text')}",
    }  # fmt: skip


def _event(document: Mapping[str, Any]) -> Event:
    """Return what matters of an event."""
    try:
        without_s = document.get("without_s")
        return Event(
            what=str(document["what"]),
            node_id=int(document["node_id"]),
            term=int(document["term"]),
            at_s=float(document["at_s"]),
            why=str(document["why"]),
            without_s=None if without_s is None else float(without_s),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CommandError(f"an event without its parts: {error!r}") from None


def _events(api: str, limit: int, kind: str = "events") -> list[dict[str, Any]]:
    answer = request(api, "GET", f"/v1/history?limit={limit}", timeout_s=TIMEOUT_S)
    events = answer.get(kind) if isinstance(answer, dict) else None
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise CommandError(f"asked {api}: the answer is no history")
    return events


def parse_time(given: str, *, now_s: float) -> float:
    """Return a time as seconds since 1970.

    Args:
        given: RFC 3339 (without an offset: local time), ``HH:MM[:SS]`` of today, ``-5m``.
        now_s: Seconds since 1970.

    Raises:
        click.BadParameter: It is none of these.
    """
    if (ago := _AGO.fullmatch(given)) is not None:
        return now_s - float(ago[1]) * _UNITS[ago[2]]
    today = datetime.fromtimestamp(now_s).astimezone()
    try:
        if (clock := _CLOCK.fullmatch(given)) is not None:
            seconds = float(clock[3] or 0)
            when = today.replace(
                hour=int(clock[1]), minute=int(clock[2]), second=int(seconds),
                microsecond=round(seconds % 1 * 1e6) % 1_000_000,
            )  # fmt: skip
        else:
            when = datetime.fromisoformat(given)
            when = when if when.tzinfo else when.replace(tzinfo=today.tzinfo)
        return when.timestamp()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f'"{given}" is neither RFC 3339 nor HH:MM[:SS] nor like -5m', param_hint="--at"
        ) from None


def _local(at_s: object) -> str:
    if not isinstance(at_s, int | float):
        return "-"
    try:
        return datetime.fromtimestamp(at_s).astimezone().isoformat(sep=" ", timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return text(at_s)
