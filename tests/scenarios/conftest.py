"""``pytest tests/scenarios --rewrite`` records what happens in place of what was recorded."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="record the transcripts again")
