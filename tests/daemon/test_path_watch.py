"""What a node makes of whom it hears on its paths."""

from __future__ import annotations

from typing import Any, cast

from hanat.core.beacon import PATHS_MAX
from hanat.core.configuration import PROFILES
from hanat.core.inputs import ClaimHeard, Input
from hanat.daemon.path_watch import PathWatch

PEER = 2


class Two:
    """A node with two paths to one peer: guard, sockets and kernel in one."""

    def __init__(self) -> None:
        self.node_id, self.nodes, self.profile = 1, {PEER: None}, PROFILES["default"]
        self.hears, self.lively = (0,) * PATHS_MAX, 0
        self.fed: list[Input] = []
        self.heard = {0: 0.0, 1: 0.0}
        itself = cast("Any", self)
        self._watch = PathWatch(
            itself, lambda _peer, path: self.heard[path], itself,
            interfaces={"public": "eth0", "private": "eth1"}, paths={"eth0": 0, "eth1": 1},
            feed=self.fed.append,
        )  # fmt: skip

    def alive(self) -> dict[int, Any]:
        return {PEER: cast("Any", self)}

    def received(self, _device: str) -> int:
        return len(self.fed)

    def at(self, now: float, *paths: int) -> int:
        """Hear the peer on these paths; return how often neighbours were thought of so far."""
        self.heard.update(dict.fromkeys(paths, now))
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
