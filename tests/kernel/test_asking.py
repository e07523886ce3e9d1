"""A network that is quiet is made to answer, by either version of IP."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from chaos.netns import entered
from hanat.kernel.links import KernelLinks
from tests.kernel.namespaces import cable, namespaces, run, until

pytestmark = pytest.mark.kernel


@pytest.fixture
def router() -> Iterator[str]:
    """A node that has an address on eth0, and a host behind it."""
    with namespaces("router", "host") as made:
        cable((made["router"], "eth0"), (made["host"], "eth0"))
        for name, number in (("router", 11), ("host", 1)):
            run(f"ip address add 203.0.113.{number}/24 dev eth0", made[name])
        with entered(made["router"]):
            yield made["router"]


def know_the_host() -> None:
    """Have the kernel ask for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.sendto(b"", ("203.0.113.1", 9))
    until(lambda: "lladdr" in run("ip -4 neigh show dev eth0"), "the host's address")


def quiet(namespace: str, *, without: int) -> None:
    """Leave one version of IP; wait until nothing comes any more by itself."""
    if without == 6:
        run("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1", namespace)
    else:
        run("ip address flush dev eth0 scope global", namespace)


@pytest.mark.parametrize("version", [4, 6])
def test_hosts_answer(router: str, version: int) -> None:
    if version == 4:
        know_the_host()
    quiet(router, without=10 - version)
    links = KernelLinks()
    before = links.received("eth0")
    table = run("ip -4 neigh show dev eth0")

    def answered() -> bool:
        assert links.ask("eth0") >= 1
        return links.received("eth0") >= before + 3  # what a young link says by itself is less

    until(answered, "answers")
    links.close()
    if version == 4:
        assert run("ip -4 neigh show dev eth0").split()[:3] == table.split()[:3]


def test_silent_network_is_asked_in_vain_and_the_table_of_neighbours_is_left_alone(
    router: str,
) -> None:
    know_the_host()
    run("ip neigh replace 203.0.113.1 lladdr 02:00:00:00:00:01 nud stale dev eth0", router)
    links = KernelLinks()
    assert links.ask("eth0") >= 1
    assert "STALE" in run("ip -4 neigh show dev eth0")
    assert links.ask("gone0") == 0
    links.close()
