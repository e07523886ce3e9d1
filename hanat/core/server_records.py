"""What the log knows of servers, as keys and values.

A *record* is one fact with a key; a later one of the same key replaces it, and an empty value
deletes it. The replicated state keeps the newest of each without knowing what it means, so that
all nodes have the same, also after a snapshot.

========  =====================  =========================================================
kind      key                    value
========  =====================  =========================================================
verdict   a target's name        up or down, with the answer that decided, and who decided
mode      ``service/server``     what operators made of it: drain, by whom, until when
weight    ``service/server``     a factor on the configured weight
stay      ``service/server``     it gets clients as before: its checks have no verdict yet
========  =====================  =========================================================

Verdicts and those that stay are decided by the holder, so they count only in its term. Mode and
weight come from operators, and say which record they follow.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from hashlib import blake2b
from typing import Any, NamedTuple

from hanat.core.probing import LINE_CHARS_MAX, Operational
from hanat.core.server_facts import YEAR_9999_S, Administrative, Mode, ServerId
from hanat.core.verdicts import Verdict, VerdictChanged

KEY_BYTES_MAX = 255
VALUE_BYTES_MAX = 2048
TEXT_CHARS_MAX = 200
FACTOR_MAX = 10.0  # of a weight


class Kind(Enum):
    """What a record is about; the value is the first byte of its key."""

    VERDICT = "v"
    MODE = "m"
    WEIGHT = "w"
    STAY = "s"


class Record(NamedTuple):
    """One fact; an empty value deletes it."""

    key: bytes
    value: bytes


def key_of(kind: Kind, name: str | ServerId) -> bytes:
    """Return the key of a target's verdict, or of what is known of a server."""
    return f"{kind.value}{name}".encode()


def _value(document: Mapping[str, object]) -> bytes:
    """Return a document as bytes, its longest texts cut until it fits."""
    cut = dict(document)
    while True:
        data = json.dumps(cut, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
        if len(data) <= VALUE_BYTES_MAX:
            return data
        longest = max(cut, key=lambda name: len(str(cut[name])))
        cut[longest] = str(cut[longest])[: len(str(cut[longest])) // 2]


def is_sound(record: Record) -> bool:
    """Say whether a record fits the log; what a peer sends may not."""
    return 0 < len(record.key) <= KEY_BYTES_MAX and len(record.value) <= VALUE_BYTES_MAX


def verdict_record(change: VerdictChanged, at_s: float) -> Record:
    """Return the record of a verdict; `at_s` is wall-clock time, for people."""
    document = {
        "state": change.state.value, "answer": change.answer[:LINE_CHARS_MAX],
        "row": change.in_a_row, "latency": round(change.latency_s, 6),
        "node": change.node_id, "term": change.tenure, "at": round(at_s, 3),
    }  # fmt: skip
    return Record(key_of(Kind.VERDICT, change.target), _value(document))


def mode_record(server: ServerId, record: Administrative) -> Record:
    """Return the record of what an operator made of a server."""
    key = key_of(Kind.MODE, server)
    document = {
        "mode": record.mode.value, "by": record.by[:TEXT_CHARS_MAX],
        "reason": record.reason[:TEXT_CHARS_MAX], "since": round(record.since_s, 3),
    }  # fmt: skip
    if record.until_s is not None:
        document["until"] = round(record.until_s, 3)
    return Record(key, _value(document))


def weight_record(server: ServerId, factor: float, *, by: str, at_s: float) -> Record:
    """Return the record of a runtime weight: who wanted it, and when, seconds since 1970."""
    document = {"factor": factor, "by": by[:TEXT_CHARS_MAX], "at": round(at_s, 3)}
    return Record(key_of(Kind.WEIGHT, server), _value(document))


def following(record: Record, present: bytes) -> Record:
    """Return an operator's record that says which one it follows; see `core.orders`.

    Args:
        record: Of mode or weight.
        present: The value that the log has of this key; empty: none.
    """
    return Record(record.key, _value({**_document(record.value), "after": _mark(present)}))


def follows(record: Record, present: bytes) -> bool:
    """Say whether a record follows what the log has; one that does not say so always does."""
    after = _document(record.value).get("after")
    return after is None or after == _mark(present)


def _mark(value: bytes) -> str:
    return blake2b(value, digest_size=8).hexdigest() if value else ""


def stay_record(server: ServerId, *, stays: bool) -> Record:
    """Return the record that a server gets clients as before, or does not any more."""
    return Record(key_of(Kind.STAY, server), b"{}" if stays else b"")


def deleted(key: bytes) -> Record:
    """Return the record that deletes what has this key."""
    return Record(key, b"")


# ------------------------------------------------------------------------ reading


def kind_of(key: bytes) -> Kind | None:
    """Return what a record is about; None if it is of another version."""
    return _KINDS.get(key[:1])


def is_for_people(record: Record) -> bool:
    """Say whether a record belongs into the history of servers."""
    return bool(record.value) and kind_of(record.key) not in {None, Kind.STAY}


def target_of(key: bytes) -> str:
    """Return the target of a verdict's key."""
    return key[1:].decode(errors="replace")


def server_of(key: bytes) -> ServerId:
    """Return the server of any other key."""
    service, _, server = key[1:].decode(errors="replace").partition("/")
    return ServerId(service, server)


def verdict_of(record: Record) -> VerdictChanged | None:
    """Return what `verdict_record` made a record of; None if it is of another version."""
    found = _document(record.value)
    try:
        return VerdictChanged(
            target=target_of(record.key),
            state=Operational(found["state"]),
            answer=_text(found.get("answer", "")),
            in_a_row=_whole(found.get("row", 0)),
            latency_s=_number(found.get("latency", 0.0)),
            node_id=_whole(found["node"]),
            tenure=_whole(found["term"]),
        )
    except (KeyError, ValueError):
        return None


def decided_at(record: Record) -> float:
    """Return when a verdict was decided, wall-clock time; 0 if that is not known."""
    try:
        return _moment(_document(record.value).get("at", 0.0))
    except ValueError:
        return 0.0


def mode_of(record: Record) -> Administrative:
    """Return what an operator made of a server; `ready` if it was deleted or is not known here."""
    found = _document(record.value)
    try:
        until = found.get("until")
        return Administrative(
            mode=Mode(found["mode"]),
            by=_text(found.get("by", "")),
            reason=_text(found.get("reason", "")),
            since_s=_moment(found.get("since", 0.0)),
            until_s=None if until is None else _moment(until),
        )
    except (KeyError, ValueError):
        return Administrative()


def factor_of(record: Record) -> float:
    """Return a runtime weight; 1 if it was deleted or makes no sense."""
    try:
        factor = _number(_document(record.value)["factor"])
    except (KeyError, ValueError):
        return 1.0
    return min(factor, FACTOR_MAX) if factor >= 0 else 1.0


def weighed_by(record: Record) -> tuple[str, float]:
    """Return who gave a server its runtime weight, and when, seconds since 1970."""
    found = _document(record.value)
    try:
        return _text(found.get("by", "")), _moment(found.get("at", 0.0))
    except ValueError:
        return "", 0.0


def verdicts_of(records: Iterable[Record], now: float) -> Iterator[tuple[str, Verdict]]:
    """Yield the verdicts among records, by target, as if they had been applied now."""
    for record in records:
        change = verdict_of(record) if kind_of(record.key) is Kind.VERDICT else None
        if change is not None:
            yield change.target, change.verdict(now)


_KINDS = {kind.value.encode(): kind for kind in Kind}


def _document(value: bytes) -> dict[str, Any]:
    try:
        found = json.loads(value) if value else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")  # noqa: TRY004 - of a record, not of a call
    return value[:TEXT_CHARS_MAX]


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise ValueError("not a whole number of 64 bits")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError("not a number")  # noqa: TRY004 - of a record, not of a call
    try:
        number = float(value)
    except OverflowError:
        raise ValueError("a number of too many digits") from None
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _moment(value: object) -> float:
    """Return a time, seconds since 1970, that a calendar has."""
    number = _number(value)
    if not 0 <= number < YEAR_9999_S:
        raise ValueError("not a time between 1970 and the year 9999")
    return number
