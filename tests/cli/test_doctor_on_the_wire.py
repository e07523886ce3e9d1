"""``hanat doctor`` asks a network who holds an address: two namespaces, one cable."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.cli.helpers import REPOSITORY

ADDRESS = "192.0.2.10"
MACS = ("02:00:00:00:00:0a", "02:00:00:00:00:0b")

pytestmark = pytest.mark.kernel


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def namespaces(_needs_root: None) -> Iterator[tuple[str, str]]:
    """A namespace that asks and one with two devices that answer, all on one bridge."""
    tag = secrets.token_hex(3)
    asking, answering = f"hanat-{tag}-q", f"hanat-{tag}-a"
    try:
        for name in (asking, answering):
            ip("netns", "add", name)
        ip("-n", asking, "link", "add", "br0", "type", "bridge")
        ip("-n", asking, "link", "set", "br0", "up")
        for index, mac in enumerate(MACS):
            here, there = f"port{index}", f"eth{index}"
            ip("-n", asking, "link", "add", here, "type", "veth", "peer", there, "netns", answering)
            ip("-n", asking, "link", "set", here, "master", "br0", "up")
            ip("-n", answering, "link", "set", there, "address", mac, "up")
        ip("-n", answering, "address", "add", f"{ADDRESS}/24", "dev", "eth0")
        yield asking, answering
    finally:
        for name in (asking, answering):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def who_answers(namespace: str) -> list[str]:
    program = (
        "from ipaddress import IPv4Address\n"
        "from hanat.kernel.facts import who_answers\n"
        f"address = IPv4Address('{ADDRESS}')\n"
        "print(*sorted(who_answers('br0', [address])[address]))"
    )
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, sys.executable, "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_everyone_who_claims_an_address_is_heard(namespaces: tuple[str, str]) -> None:
    asking, answering = namespaces
    path = "net.ipv4.conf"
    only_its_own = [f"{path}.{device}.arp_ignore=1" for device in ("eth0", "eth1")]
    command = ["ip", "netns", "exec", answering, "sysctl", "-qw", *only_its_own]
    subprocess.run(command, check=True)

    assert who_answers(asking) == [MACS[0]]
    ip("-n", answering, "address", "add", f"{ADDRESS}/32", "dev", "eth1")
    assert who_answers(asking) == [*MACS]


def test_an_address_nobody_has_is_answered_by_nobody(namespaces: tuple[str, str]) -> None:
    asking, answering = namespaces
    ip("-n", answering, "address", "flush", "dev", "eth0")

    assert who_answers(asking) == []
