"""What these tests need of the machine."""

from __future__ import annotations

import os
import shutil

import pytest


@pytest.fixture
def systemd_analyze() -> str:
    """The program that reads units; it needs no running systemd."""
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    fit = os.geteuid() == 0 and all(map(shutil.which, ("ip", "nft", "unshare")))
    for item in items:
        if not fit and item.get_closest_marker("kernel") and "deploy" in item.path.parts:
            item.add_marker(pytest.mark.skip(reason="needs root, ip, nft and unshare"))
