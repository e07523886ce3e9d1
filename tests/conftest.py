"""For all suites: random tests are judged by what they find, not by how long they take."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what records the transcripts of `tests/scenarios` again."""
    parser.addoption(
        "--rewrite", action="store_true", help="write what happens into tests/scenarios/*.txt"
    )
