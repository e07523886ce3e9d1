"""The catalogue of faults names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"(tests/[\w/]+\.py)(?:::(test_\w+))?")


def test_every_test_that_the_catalogue_names_is_there() -> None:
    named = NAMED.findall((ROOT / "docs/bugs.md").read_text())
    assert len(named) > 50
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists() or (name and f"def {name}" not in (ROOT / path).read_text())
    ]
    assert missing == []
