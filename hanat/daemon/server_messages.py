"""What nodes tell each other of servers, as bytes: views, and what operators want."""

from __future__ import annotations

import json
from collections.abc import Iterable

from hanat.core.probing import Operational
from hanat.core.server_records import Record
from hanat.core.view_exchange import Slice
from hanat.core.views import View

RECORDS_A_MESSAGE = 100


def views_to_bytes(told: Slice) -> bytes:
    """Return views as bytes."""
    views = [[t, v.state.value, v.ok] for t, v in told.views]
    document = {"anew": told.anew, "more": told.more, "views": views}
    return json.dumps(document, separators=(",", ":")).encode()


def views_of(data: bytes) -> Slice | None:
    """Return what `views_to_bytes` made bytes of; None if it is something else."""
    try:
        document = json.loads(data)
        views = [(str(t), View(Operational(s), ok is True)) for t, s, ok in document["views"]]
        # One of a version without `more` tells all others as changes.
        return Slice(tuple(views), document["anew"] is True, document.get("more") is True)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def records_to_bytes(records: Iterable[Record]) -> bytes:
    """Return records as bytes for a peer."""
    return json.dumps([[r.key.decode(), r.value.decode()] for r in records]).encode()


def records_from_bytes(data: bytes) -> list[Record] | None:
    """Return what `records_to_bytes` made bytes of; None if it is something else."""
    try:
        found = [Record(str(key).encode(), str(value).encode()) for key, value in json.loads(data)]
    except (ValueError, TypeError, RecursionError):
        return None
    return found if len(found) <= RECORDS_A_MESSAGE else None
