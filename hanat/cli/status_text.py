"""The status document as lines of text.

It may come from another version of hanat, so whatever is missing is shown as
``-`` and nothing that is there can break the page. Text that came over the
network is printed without its control characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

ROLE_COLOURS = {"ACTIVE": "green", "FENCED": "red", "TAKEOVER": "yellow", "RELEASING": "yellow"}
GAP = "  "
PEER_HEAD = (
    "PEER",
    "ID",
    "ADDRESS",
    "CONNECTED",
    "FIT",
    "COMPLETE",
    "HEARD",
    "BEACONS",
    "HINDERED",
)
PEER_KEYS = ("name", "node_id", "address", "connected", "fit", "complete")

Row = Sequence[str]


def status_lines(status: Mapping[str, Any]) -> list[str]:
    """Return a node's status, one screen; the role is the only thing in colour."""
    role = text(status.get("role"))
    title = (
        f"{text(status.get('node'))} (id {text(status.get('node_id'))}) of cluster "
        f"{text(status.get('cluster'))}"
        f"   hanat {text(status.get('version'))}   up {duration(status.get('uptime_s'))}"
    )
    coloured = click.style(role, fg=ROLE_COLOURS.get(role), bold=True)
    facts = [
        ("role", f"{coloured} for {duration(status.get('role_s'))}, {text(status.get('reason'))}"),
        ("term", text(status.get("term"))),
        ("leader", text(status.get("leader"))),
        ("holder", text(status.get("holder"))),
        (
            "lease",
            f"{duration(status.get('lease_left_s'))} left, profile {text(status.get('profile'))}",
        ),
        ("quorum", text(status.get("quorum"))),
        ("revision", text(status.get("revision"))),
    ]
    if status.get("lease_left_s") is None:
        facts[4] = ("lease", f"not this node's, profile {text(status.get('profile'))}")
    for name in ("unsafe", "hindrances", "nobody"):
        if items := _items(status.get(name)):
            label = {"hindrances": "hindered", "nobody": "no holder"}.get(name, name)
            facts.append((label, "; ".join(map(text, items))))
    if missing := _items(status.get("missing")):
        facts.append(("missing", f"own address {', '.join(map(text, missing))}"))
    levels = status.get("levels")
    in_force = status.get("level")
    if isinstance(levels, Mapping) and in_force and any(v != in_force for v in levels.values()):
        reached = ", ".join(f"{text(name)} {text(value)}" for name, value in levels.items())
        unfinished = f"not finished: feature level {text(in_force)} in force"
        facts.append(("upgrade", f"{unfinished}; reached: {reached}"))
    if accepted := _items(status.get("keys"))[1:]:
        used = text(_items(status.get("keys"))[0])
        facts.append(("keys", f"{used} is used, {text(accepted[0])} is accepted"))
    refused = [peer for peer in _tables(status.get("peers")) if peer.get("refused")]
    facts += [("refused", f"{text(p.get('name'))}: {text(p.get('refused'))}") for p in refused]
    return [
        title,
        *(f"{name:<10} {value}" for name, value in facts),
        *_section(("VIP", "ADDRESS", "DEVICE", "HELD"), _vips(status)),
        *_section(PEER_HEAD, _peers(status)),
        *_section(("SERVICE", "LISTEN", "SCHEDULER", "CHECKS", "FLOWS"), _services(status)),
        *_section(("SERVER", "SERVICE", "ADDRESS", "WEIGHT", "FLOWS"), _servers(status)),
        "",
        *_flows(status),
    ]


def text(value: object) -> str:
    """Return a value for people: ``-`` for None, ``yes`` and ``no``, no control characters."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "".join(c for c in str(value) if c.isprintable())


def duration(seconds: object) -> str:
    """Return a duration in its two largest units, ``-`` if it is none."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return "-"
    if not 0 <= seconds < 1e10:
        return text(seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for size, unit, smaller, smaller_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {smaller_unit}"
    raise AssertionError(f"{seconds} s is at least a minute")


def size(count: object) -> str:
    """Return a number of bytes in three digits and its unit, ``-`` if it is none."""
    if not isinstance(count, int) or isinstance(count, bool):
        return "-"
    if count < 1000:
        return f"{count} B"
    amount, units = float(count), iter("kMGTPE")
    unit = ""
    while amount >= 999.5 and (following := next(units, "")):
        amount, unit = amount / 1000, following
    return f"{amount:#.3g} {unit}B".replace(". ", " ")


def table(head: Row, rows: Iterable[Row]) -> list[str]:
    """Return rows under a head, columns as wide as their widest entry."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return [
        GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _section(head: Row, rows: list[Row]) -> list[str]:
    return ["", *table(head, rows)] if rows else []


def _items(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _tables(value: object) -> list[Mapping[str, Any]]:
    return [item for item in _items(value) if isinstance(item, Mapping)]


def _vips(status: Mapping[str, Any]) -> list[Row]:
    return [
        [text(vip.get(key)) for key in ("name", "address", "device", "held")]
        for vip in _tables(status.get("vips"))
    ]


def _peers(status: Mapping[str, Any]) -> list[Row]:
    return [
        [
            *(text(peer.get(key)) for key in PEER_KEYS),
            _age(peer.get("heard_s")),
            " / ".join(_age(path.get("beacon_s")) for path in _tables(peer.get("paths"))) or "-",
            ", ".join(map(text, _items(peer.get("hindrances")))) or "-",
        ]
        for peer in _tables(status.get("peers"))
    ]


def _age(seconds: object) -> str:
    return "never" if seconds is None else f"{duration(seconds)} ago"


def _services(status: Mapping[str, Any]) -> list[Row]:
    return [
        [
            text(service.get("name")),
            text(", ".join(map(str, _items(service.get("listen"))))),
            text(service.get("scheduler")),
            text(
                ", ".join(str(check).partition(" ")[0] for check in _items(service.get("checks")))
            ),
            text(service.get("flows")),
        ]
        for service in _tables(status.get("services"))
    ]


def _servers(status: Mapping[str, Any]) -> list[Row]:
    return [
        [
            text(server.get("name")),
            text(service.get("name")),
            *(text(server.get(key)) for key in ("address", "weight", "flows")),
        ]
        for service in _tables(status.get("services"))
        for server in _tables(service.get("servers"))
    ]


def _node_trouble(status: Mapping[str, Any]) -> list[str]:
    """Return what befell the node itself: timers that ran late, and what others changed."""
    late, lease_s = _mapping(status.get("late")).get("max_s"), status.get("lease_s")
    trouble = []
    if isinstance(late, int | float) and isinstance(lease_s, int | float) and late > lease_s / 4:
        trouble.append(f"loop late by up to {duration(late)}")
    if status.get("gate_found"):
        trouble.append(f"rights end by timeouts: {text(status['gate_found'])}")
    repairs = _mapping(status.get("repairs"))
    trouble += [f"{text(kind)} repaired {text(times)}" for kind, times in repairs.items() if times]
    if status.get("restored"):
        trouble.append(f"addresses put back {text(status['restored'])}")
    return trouble


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _flows(status: Mapping[str, Any]) -> list[str]:
    flows, log = _mapping(status.get("flows")), _mapping(status.get("log"))
    trouble = [
        f"{name} {text(flows[name])}"
        for name in ("clashed", "failed", "dropped", "overruns", "restarts")
        if flows.get(name)
    ]
    trouble += [text(alarm) for alarm in flows.get("alarms") or ()]
    trouble += _node_trouble(status)

    def counts(*names: str) -> str:
        return ", ".join(f"{name} {text(flows.get(name))}" for name in names)

    lag = duration(flows.get("lag_s"))
    lines = [
        f"flows      {text(flows.get('flows'))}, complete {text(flows.get('complete'))}, "
        f"told anew {text(flows.get('resyncs'))} times, as of {duration(flows.get('age_s'))} ago",
        f"flows out  {counts('captured', 'committed', 'pending')}, lag {lag}",
        f"flows in   {counts('received', 'installed', 'deleted')}",
        f"conntrack  {text(flows.get('kernel_entries'))} entries, "
        f"limit {text(flows.get('kernel_limit'))}",
        f"log        commit {text(log.get('commit_index'))}, applied "
        f"{text(log.get('applied_index'))}, last {text(log.get('last_index'))}",
    ]
    return [*lines[:3], f"trouble    {', '.join(trouble)}", *lines[3:]] if trouble else lines
