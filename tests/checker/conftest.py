"""Servers that answer as they like, on the loopback of a namespace."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.lab.netns import entered
from tests.kernel.namespaces import namespaces


@pytest.fixture
def inside() -> Iterator[str]:
    """Put the test into an empty namespace."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nft", "sysctl"))):
        pytest.skip("needs root, ip, nft and sysctl: it makes network namespaces")
    with namespaces("checked") as made, entered(made["checked"]):
        yield made["checked"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody can read, and only root write."""
    with tempfile.TemporaryDirectory(prefix="hanat-scripts-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
