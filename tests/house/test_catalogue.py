"""The documents name tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"(tests/[\w/]+\.(?:py|txt))(?:::(test_\w+))?")


@pytest.mark.parametrize(("document", "least"), [("bugs.md", 51), ("services.md", 30)])
def test_every_test_that_a_document_names_is_there(document: str, least: int) -> None:
    named = NAMED.findall((ROOT / "docs" / document).read_text())
    assert len(named) >= least
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists() or (name and f"def {name}" not in (ROOT / path).read_text())
    ]
    assert missing == []
