"""A node whose API answers on a Unix socket, and what needs root."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.helpers import Node, node_at


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with node_at(tmp_path / "api.sock") as node:
        yield node


@pytest.fixture
def _needs_root() -> None:
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "sysctl"))):
        pytest.skip("needs root, ip and sysctl: it makes network namespaces")


@pytest.fixture
def _is_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: scripts are files of root, and of others")
