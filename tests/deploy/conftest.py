"""What these tests need of the machine."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture
def systemd_analyze() -> str:
    """The program that reads units; it needs no running systemd."""
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    return found
