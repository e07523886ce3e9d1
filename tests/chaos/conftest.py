"""What the tests of the lab share."""

from __future__ import annotations

import os
import shutil

import pytest

from chaos.lab import equipment


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [tool for tool in ("ip", "nft") if shutil.which(tool) is None]
    reason = "needs root" if os.geteuid() != 0 else f"needs {missing}" if missing else None
    for item in items:
        if reason and item.get_closest_marker("kernel"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def prefix() -> str:
    """A prefix no other test run on this machine uses."""
    return f"hanat-t{os.getpid()}"


@pytest.fixture
def faketime() -> None:
    """For tests that step the wall clock of a process."""
    lacks = equipment.missing("clock")
    if lacks:
        pytest.skip(lacks)
