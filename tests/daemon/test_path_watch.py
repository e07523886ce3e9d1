"""What a node makes of whom it hears on its paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

import pytest

from hanat.core.beacon import PATHS_MAX, Beacon
from hanat.core.configuration import PROFILES
from hanat.core.inputs import ClaimHeard, Input, SilenceObserved
from hanat.daemon.path_watch import PathWatch

PEER = 2


class Hosts:
    """The kernel of a node: what its devices receive, and whether somebody answers there."""

    def __init__(self) -> None:
        self.now, self.frames = 0.0, Counter[str]()
        self.asked: list[tuple[float, str]] = []
        self.answer: set[str] = set()
        self.known = 1  # hosts that can be asked
        self.listening: set[str] = set()

    def ask(self, device: str) -> int:
        self.asked.append((self.now, device))
        self.listening.add(device)
        return self.known

    def answered(self, device: str) -> bool:
        return device in self.answer & self.listening

    def ask_no_more(self, device: str) -> None:
        self.listening.discard(device)

    def received(self, device: str) -> int:
        return self.frames[device]


class Two:
    """A node with two paths or more to one peer."""

    def __init__(self, paths: Mapping[str, int] | None = None) -> None:
        self.node_id, self.nodes, self.profile = 1, {PEER: None}, PROFILES["default"]
        self.hears, self.lively, self.answered = (0,) * PATHS_MAX, 0, 0
        self.peer = Beacon(term=1, lively=0b11, hears=(1,) * PATHS_MAX)  # this node, on each path
        self.hosts = Hosts()
        self.fed: list[Input] = []
        paths = {"eth0": 0, "eth1": 1} if paths is None else paths
        self.heard = dict.fromkeys(range(PATHS_MAX), 0.0)
        self.watch = PathWatch(
            cast("Any", self), lambda _peer, path: self.heard[path], cast("Any", self.hosts),
            interfaces={"public": "eth0", "private": "eth1"},
            paths=paths,
            feed=self.fed.append,
        )  # fmt: skip

    def alive(self) -> dict[int, Beacon]:
        return {PEER: self.peer}

    def at(self, now: float, *paths: int) -> int:
        """Hear the peer on these paths; return how often neighbours were thought of so far."""
        self.heard.update(dict.fromkeys(paths, now))
        self.hosts.now = now
        self.watch.look(now)
        return self.fed.count(ClaimHeard())


def test_path_that_carries_again_is_a_reason_to_announce_again() -> None:
    node = Two()
    begun = node.at(10.0, 0, 1)
    assert node.at(10.1, 0, 1) == begun
    assert node.at(11.0, 0) == begun  # the private network is silent
    assert node.at(12.0, 0) == begun
    assert node.at(12.1, 0, 1) == begun + 1
    assert node.at(12.2, 0, 1) == begun + 1


def test_hosts_are_asked_twice_a_second_while_nobody_is_heard_there() -> None:
    """Two nodes are left: a device that receives something is no reason not to ask."""
    node = Two()
    for tenth in range(100, 140):
        node.hosts.frames["eth0"] += 1
        node.at(tenth / 10, 1)
    assert {device for _, device in node.hosts.asked} == {"eth0"}
    times = [at for at, _ in node.hosts.asked]
    assert times == pytest.approx([10 + n / 2 for n in range(8)])

    node.at(14.0, 0, 1)
    assert not node.hosts.listening
    assert len(node.hosts.asked) == len(times)


def test_node_whose_questions_are_in_vain_is_silent_where_the_peer_is_answered() -> None:
    node = Two()
    for tenth in range(100, 140):
        node.hosts.frames["eth0"] += 1  # what the switch at the other end says by itself
        node.at(tenth / 10, 1)
    assert SilenceObserved("public", silent=True) not in node.fed  # perhaps nobody answers there
    assert node.answered == 0
    node.peer = node.peer._replace(answered=0b01)
    for tenth in range(140, 145):
        node.at(tenth / 10, 1)
    assert node.fed[-1] == SilenceObserved("public", silent=True)


def test_node_that_can_ask_nobody_is_not_silent() -> None:
    """IPv4 alone, and no neighbour known yet."""
    node = Two()
    node.hosts.known = 0
    node.peer = node.peer._replace(answered=0b01)
    for tenth in range(100, 180):
        node.hosts.frames["eth0"] += 1
        node.at(tenth / 10, 1)
    assert SilenceObserved("public", silent=True) not in node.fed


def test_node_that_is_answered_says_so_until_the_peer_is_heard_again() -> None:
    node = Two()
    node.peer = node.peer._replace(answered=0b01)
    node.hosts.answer = {"eth0"}
    for tenth in range(100, 140):
        node.hosts.frames["eth0"] += 1
        node.at(tenth / 10, 1)
    assert node.answered == 0b01
    assert SilenceObserved("public", silent=True) not in node.fed
    node.at(14.1, 0, 1)
    assert node.answered == 0


def test_nobody_is_asked_any_more_when_the_watch_ends() -> None:
    node = Two()
    for tenth in range(100, 140):
        node.at(tenth / 10, 1)
    assert node.hosts.listening == {"eth0"}
    node.watch.close()
    assert not node.hosts.listening


def test_nobody_asks_while_the_peer_is_heard_on_all_paths_or_on_none() -> None:
    node = Two()
    for tenth in range(100, 200):
        node.at(tenth / 10, 0, 1)
    for tenth in range(200, 300):
        node.at(tenth / 10)
    assert not node.hosts.asked


def test_two_quiet_networks_are_both_asked() -> None:
    node = Two({"eth0": 0, "eth1": 1, "eth2": 2})  # the peer is heard on the third one
    for tenth in range(100, 140):
        node.at(tenth / 10, 2)
    asked = Counter(device for _, device in node.hosts.asked)
    assert asked == {"eth0": 8, "eth1": 8}


def test_path_behind_two_on_one_device_is_watched_too() -> None:
    """A node with an IPv4 and an IPv6 address on its public network."""
    node = Two({"eth0": 1, "eth1": 2})  # of paths 0 and 1 the device has the later one
    node.peer = node.peer._replace(answered=0b100)
    for tenth in range(100, 140):
        node.at(tenth / 10, 0, 1)
    assert node.fed[-1] == SilenceObserved("private", silent=True)
