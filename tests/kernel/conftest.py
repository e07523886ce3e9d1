"""Routers, clients and servers in namespaces."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from chaos.lab.netns import entered
from tests.gates import KINDS, WAYS, Kind
from tests.kernel.namespaces import namespaces
from tests.kernel.network import Network

gates_of_both_kinds = pytest.mark.parametrize(
    "network", [Kind.TIMEOUTS, Kind.DEADLINE], indirect=True
)
gates_of_all_kinds = pytest.mark.parametrize("network", KINDS, indirect=True)
gates_of_all_ways = pytest.mark.parametrize("network", WAYS, indirect=True)


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
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    """A client and a server with two routers between them, none of which has a right.

    Their gates have a deadline, unless the test says another kind, see `gates_of_both_kinds`.
    """
    with namespaces("client", "server", "r1", "r2", "switch") as made:
        network = Network(made, getattr(request, "param", Kind.DEADLINE))
        try:
            network.build()
            yield network
        finally:
            network.close()
