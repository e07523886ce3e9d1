"""Routers, clients and servers in namespaces."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from chaos.netns import entered
from tests.kernel.namespaces import namespaces
from tests.kernel.network import Network


@pytest.fixture(autouse=True)
def _needs_root() -> None:
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "conntrack", "sysctl"))):
        pytest.skip("needs root, ip, conntrack and sysctl: it makes network namespaces")


@pytest.fixture
def inside() -> Iterator[str]:
    """Put the test into an empty namespace."""
    with namespaces("alone") as made, entered(made["alone"]):
        yield made["alone"]


@pytest.fixture
def network() -> Iterator[Network]:
    """A client and a server with two routers between them, none of which has a right."""
    with namespaces("client", "server", "r1", "r2", "switch") as made:
        network = Network(made)
        try:
            network.build()
            yield network
        finally:
            network.close()
