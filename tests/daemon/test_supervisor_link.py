"""What passes between a daemon and its supervisor."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.config.settings import NodeSettings, Peer
from hanat.core.configuration import FloatingAddress
from hanat.daemon.supervisor_link import SupervisorLink, write_will
from hanat.supervisor.death_watch import DeathWatch
from hanat.supervisor.last_will import BEAT, MESSAGE_BYTES_MAX, LastWill, Route

WILL = LastWill(
    release=b"\x00sealed\xff",
    port=7412,
    routes=(
        Route("203.0.113.11", ("203.0.113.12", "203.0.113.13")),
        Route("10.11.12.11", ("10.11.12.12",)),
    ),
    addresses=(("eth0", "203.0.113.10/24"), ("eth1", "10.11.12.1/24")),
    grace_s=0.2,
)


def settings() -> NodeSettings:
    texts = (
        ("203.0.113.11", "10.11.12.11"),
        ("203.0.113.12", "10.11.12.12"),
        ("203.0.113.13",),
    )
    peers = tuple(
        Peer(f"r{i}", i, tuple(map(ip_address, addresses)))
        for i, addresses in enumerate(texts, start=1)
    )
    here = Path("/nonexistent")
    interfaces = {"public": "eth0", "private": "eth1"}
    return NodeSettings("r1", 1, here, here, here, interfaces, (), peers)


VIPS = (
    FloatingAddress("public", "public", (ip_interface("203.0.113.10/24"),)),
    FloatingAddress("private", "private", (ip_interface("10.11.12.1/24"),)),
)


def test_will_names_every_peer_on_each_path_and_every_floating_address() -> None:
    assert write_will(settings(), VIPS, release=WILL.release, grace_s=0.2) == WILL


@given(
    st.builds(
        LastWill,
        release=st.binary(max_size=50),
        port=st.integers(1, 65535),
        routes=st.lists(
            st.builds(
                Route,
                source=st.ip_addresses().map(str),
                targets=st.lists(st.ip_addresses().map(str), max_size=4).map(tuple),
            ),
            max_size=3,
        ).map(tuple),
        addresses=st.lists(st.tuples(st.text(), st.ip_addresses().map(str)), max_size=3).map(tuple),
        grace_s=st.floats(0, 10),
    )
)
def test_will_arrives_as_it_was_written(will: LastWill) -> None:
    arrived = LastWill.decode(will.encode())
    assert replace(arrived, addresses=()) == replace(will, addresses=())
    assert sorted(arrived.addresses) == sorted(will.addresses)  # those of a device come together
    assert not will.encode().startswith(BEAT)


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, SupervisorLink]]:
    """The supervisor's end and the daemon's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(5)
    pulse = DeathWatch()
    lifeline = SupervisorLink((theirs.detach(), os.dup(pulse.descriptor)))
    pulse.close()
    yield ours, lifeline
    assert lifeline._socket is not None
    lifeline._socket.close()
    ours.close()


Line = tuple[socket.socket, SupervisorLink]


def watch(lifeline: SupervisorLink, orphaned: Callable[[], None] = lambda: None) -> None:
    loop = asyncio.get_running_loop()
    lifeline.watch(loop, describe=lambda: "BACKUP", orphaned=orphaned)


async def test_daemon_leaves_its_will_and_says_that_its_loop_turns(line: Line) -> None:
    supervisor, lifeline = line
    lifeline.leave(WILL)
    watch(lifeline)
    assert LastWill.decode(supervisor.recv(MESSAGE_BYTES_MAX)) == WILL
    assert supervisor.recv(MESSAGE_BYTES_MAX) == BEAT + b"BACKUP"


async def test_daemon_learns_that_its_supervisor_is_dead(line: Line) -> None:
    supervisor, lifeline = line
    orphaned = asyncio.Event()
    lifeline.leave(WILL)
    watch(lifeline, orphaned.set)
    supervisor.close()  # with the will and a beat unread
    await asyncio.wait_for(orphaned.wait(), 5)
    lifeline.leave(WILL)  # neither is trouble: an orphan goes on until it has released


async def test_daemon_of_a_frozen_supervisor_goes_on(line: Line) -> None:
    supervisor, lifeline = line
    for _ in range(10_000):  # more than any buffer takes
        lifeline.leave(WILL)
    watch(lifeline)
    assert LastWill.decode(supervisor.recv(MESSAGE_BYTES_MAX)) == WILL


def test_daemon_without_a_supervisor_goes_on_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    SupervisorLink(None).leave(WILL)
    assert "supervisor=none" in caplog.text


def test_will_with_thousands_of_addresses_is_one_message(line: Line) -> None:
    supervisor, lifeline = line
    many = tuple((f"ethernet{n}.100", f"2001:db8:ffff::{n:x}/64") for n in range(2000))
    will = LastWill(WILL.release, WILL.port, WILL.routes, many, WILL.grace_s)
    lifeline.leave(will)
    assert LastWill.decode(supervisor.recv(MESSAGE_BYTES_MAX)) == will
