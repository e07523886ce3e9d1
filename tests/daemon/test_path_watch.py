"""What a node makes of whom it hears on its paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import pytest

from hanat.core.beacon import PATHS_MAX
from hanat.core.configuration import PROFILES
from hanat.core.inputs import ClaimHeard, Input
from hanat.daemon.path_watch import PathWatch

PEER = 2


class Two:
    """A node with two paths or more to one peer: guard, sockets and kernel in one."""

    def __init__(self, more: Sequence[str] = ()) -> None:
        self.node_id, self.nodes, self.profile = 1, {PEER: None}, PROFILES["default"]
        self.hears, self.lively = (0,) * PATHS_MAX, 0
        self.fed: list[Input] = []
        devices = ("eth0", "eth1", *more)
        self.heard = dict.fromkeys(range(len(devices)), 0.0)
        self.asked: list[tuple[float, str]] = []
        self.now, self.frames = 0.0, Counter[str]()
        itself = cast("Any", self)
        self._watch = PathWatch(
            itself, lambda _peer, path: self.heard[path], itself,
            interfaces={"public": "eth0", "private": "eth1"},
            paths={device: path for path, device in enumerate(devices)},
            feed=self.fed.append,
        )  # fmt: skip

    def alive(self) -> dict[int, Any]:
        return {PEER: cast("Any", self)}

    def ask(self, device: str) -> int:
        self.asked.append((self.now, device))
        return 1

    def received(self, device: str) -> int:
        return self.frames[device]

    def at(self, now: float, *paths: int) -> int:
        """Hear the peer on these paths; return how often neighbours were thought of so far."""
        self.heard.update(dict.fromkeys(paths, now))
        self.now = now
        self._watch.look(now)
        return self.fed.count(ClaimHeard())


def test_path_that_carries_again_is_a_reason_to_announce_again() -> None:
    node = Two()
    begun = node.at(10.0, 0, 1)
    assert node.at(10.1, 0, 1) == begun
    assert node.at(11.0, 0) == begun  # the private network is silent
    assert node.at(12.0, 0) == begun
    assert node.at(12.1, 0, 1) == begun + 1
    assert node.at(12.2, 0, 1) == begun + 1


def test_hosts_of_a_network_that_says_nothing_are_asked_until_it_speaks() -> None:
    """Two nodes are left, and what comes on the path was addressed to the holder only."""
    node = Two()
    for tenth in range(100, 180):
        node.at(tenth / 10, 1)
    first = node.asked[0][0]
    assert 10.5 <= first < 10.7  # no frame for half a second
    assert {device for _, device in node.asked} == {"eth0"}
    assert [at for at, _ in node.asked[:4]] == pytest.approx([first + n for n in range(4)])

    node.frames["eth0"] += 1
    asked = len(node.asked)
    for tenth in range(180, 185):
        node.at(tenth / 10, 1)
    assert len(node.asked) == asked


def test_nobody_asks_while_the_peer_is_heard_on_all_paths_or_on_none() -> None:
    node = Two()
    for tenth in range(100, 200):
        node.at(tenth / 10, 0, 1)
    for tenth in range(200, 300):
        node.at(tenth / 10)
    assert not node.asked


def test_two_quiet_networks_are_both_asked_each_second() -> None:
    node = Two(("eth2",))  # the peer is heard on the third one
    for tenth in range(100, 140):
        node.frames["eth1"] += tenth <= 103
        node.at(tenth / 10, 2)
    asked = {device: [at for at, d in node.asked if d == device] for device in ("eth0", "eth1")}
    assert [len(times) for times in asked.values()] == [4, 4]
