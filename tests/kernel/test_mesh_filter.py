"""A socket of the mesh receives what a peer may have sent, and nothing else."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from hanat.core.configuration import Address
from hanat.kernel.mesh_filter import admit_only
from hanat.net.beacon_wire import MAGIC
from hanat.net.death_notice import MAGIC as RELEASE_MAGIC

pytestmark = pytest.mark.kernel

MAGICS = (MAGIC, RELEASE_MAGIC)
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
OTHERS = {4: ("127.0.0.2", "198.51.100.1"), 6: ("::2", "2001:db8::1")}


def _received(version: int, sources: list[Address], data: bytes) -> bool:
    """Say whether a datagram from the loopback address comes out of the socket."""
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    with (
        socket.socket(family, socket.SOCK_DGRAM) as near,
        socket.socket(family, socket.SOCK_DGRAM) as far,
    ):
        admit_only(near, sources, MAGICS)
        near.bind((LOOPBACK[version], 0))
        near.setblocking(False)  # noqa: FBT003
        far.bind((LOOPBACK[version], 0))
        far.sendto(data, near.getsockname())  # delivered before this returns, on loopback
        try:
            return near.recv(2048) == data
        except BlockingIOError:
            return False


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("magic", MAGICS)
@pytest.mark.parametrize("length", [0, 1, 1100])
def test_a_peers_datagram_comes_whole(version: int, magic: bytes, length: int) -> None:
    sources = [ip_address(text) for text in (*OTHERS[version], LOOPBACK[version])]
    assert _received(version, sources, magic + b"x" * length)
    assert _received(version, sources[::-1], magic + b"x" * length)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("data", [b"", b"hnt", b"garbage", b"\x00" * 1200, b"hnt0" + b"x" * 90])
def test_what_is_no_datagram_of_ours_is_dropped(version: int, data: bytes) -> None:
    assert not _received(version, [ip_address(LOOPBACK[version])], data)


@pytest.mark.parametrize("version", [4, 6])
def test_a_datagram_of_a_stranger_is_dropped(version: int) -> None:
    assert not _received(version, [ip_address(text) for text in OTHERS[version]], MAGIC + b"x" * 99)
    assert not _received(version, [], MAGIC + b"x" * 99)
