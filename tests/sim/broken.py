"""Guards with one repair broken, by name."""

from __future__ import annotations

from typing import TypeVar

from hanat.raft.guard import Guard

Variant = TypeVar("Variant", bound=type[Guard])

BROKEN: dict[str, type[Guard]] = {}


def broken(variant: Variant) -> Variant:
    """Register a guard without a repair."""
    assert variant.__doc__
    name = "".join("-" + c.lower() if c.isupper() else c for c in variant.__name__)
    BROKEN[name.removeprefix("-without-")] = variant
    return variant
