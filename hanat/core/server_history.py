"""What happened to servers, for people: the changes that the log has, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from hanat.core import server_records as records
from hanat.core.probing import Operational
from hanat.core.server_facts import Mode, ServerId
from hanat.core.server_records import Kind, Record


@dataclass(frozen=True, slots=True)
class ServerChange:
    """One change of one of the three facts about servers.

    Attributes:
        at_s: Wall clock of the node that decided, or was told, it; seconds since 1970.
        what: ``verdict``, ``mode`` or ``weight``.
        servers: Whom it concerns; of a verdict those that are checked so now, perhaps none.
        node_id: The holder that decided; None: an operator did.
        text: All that as a sentence.
    """

    at_s: float
    what: str
    servers: tuple[str, ...]
    node_id: int | None
    text: str


def changes_of(
    newest: Iterable[Record], users: Callable[[str], Iterable[ServerId]], names: Mapping[int, str]
) -> list[ServerChange]:
    """Return changes in the order of the log; what is of another version is left out.

    Args:
        newest: Of the log.
        users: Returns the servers that a target is probed for.
        names: Of all nodes.
    """
    found = (_change(record, users, names) for record in newest)
    return [change for change in found if change is not None]


def _change(
    record: Record, users: Callable[[str], Iterable[ServerId]], names: Mapping[int, str]
) -> ServerChange | None:
    match records.kind_of(record.key):
        case Kind.VERDICT:
            return _verdict(record, users, names)
        case Kind.MODE:
            return _mode(record)
        case Kind.WEIGHT:
            return _weight(record)
        case _:
            return None


def _verdict(
    record: Record, users: Callable[[str], Iterable[ServerId]], names: Mapping[int, str]
) -> ServerChange | None:
    verdict = records.verdict_of(record)
    if verdict is None:
        return None
    servers = tuple(map(str, users(verdict.target)))
    node = names.get(verdict.node_id, f"node {verdict.node_id}")
    whose = ", ".join(servers) or "nobody's"
    text = f"{verdict.target} ({whose}) is {verdict.state.value}"
    if verdict.state is Operational.DOWN:
        text += f": {verdict.answer or 'no answer'}, {verdict.in_a_row} times in a row"
    return ServerChange(
        records.decided_at(record), "verdict", servers, verdict.node_id, f"{text}, says {node}"
    )


def _mode(record: Record) -> ServerChange:
    mode, server = records.mode_of(record), records.server_of(record.key)
    words = {
        Mode.READY: "is ready again",
        Mode.DRAIN: "gets no new clients (drain)",
        Mode.MAINT: "is in maintenance",
    }
    text = f"{server} {words[mode.mode]}, by {mode.by or 'somebody'}"
    if mode.reason:
        text += f": {mode.reason}"
    if mode.until_s is not None:
        until = datetime.fromtimestamp(mode.until_s, UTC).isoformat(timespec="seconds")
        text += f" (until {until})"
    return ServerChange(mode.since_s, "mode", (str(server),), None, text)


def _weight(record: Record) -> ServerChange:
    server, factor = records.server_of(record.key), records.factor_of(record)
    by, at_s = records.weighed_by(record)
    text = f"{server} gets {factor * 100:g} % of its weight, by {by or 'somebody'}"
    return ServerChange(at_s, "weight", (str(server),), None, text)
