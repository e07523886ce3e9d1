"""Which keys of ``cluster.toml`` not every node may know yet, since they came with a later version.

A node refuses a key that it does not know. One of a version that has it must not bring it into
the cluster while another node may run the version before: that one would refuse the whole
configuration. So such a key waits for its feature level (`core.feature_level`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping

KEY_LEVELS: Mapping[str, int] = {}
"""Keys that came later than level 5, with the level they need: ``service.server.weight``."""


def key_too_new(text: str, level: int) -> tuple[str, int] | None:
    """Return a key that needs a higher level than is in force, and which; None if there is none.

    Args:
        text: Of a cluster file that can be read.
        level: In force.
    """
    later = {key: needed for key, needed in KEY_LEVELS.items() if needed > level}
    if not later:
        return None
    found = (key for key in _keys_of(tomllib.loads(text)) if key in later)
    return next(((key, later[key]) for key in found), None)


def _keys_of(value: object, prefix: str = "") -> Iterator[str]:
    """Yield the keys of a document, those of tables with their tables' before them."""
    if isinstance(value, list):
        for one in value:
            yield from _keys_of(one, prefix)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield prefix + key
            yield from _keys_of(inner, f"{prefix}{key}.")
