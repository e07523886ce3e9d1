"""Nodes with a path on each network, and what the public one carries: the daemon's `PathWatch`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from hanat.daemon.path_watch import PathWatch
from tests.sim.process import Process

PRIVATE, PUBLIC = "eth1", "eth0"
PATHS = {PRIVATE: 0, PUBLIC: 1}


@dataclass
class PublicNetwork:
    """What the public network carries, by node.

    Attributes:
        deaf: Nodes to whom and from whom it carries no beacon.
        frames: Those of them whose device receives something nevertheless.
        answers: Nodes whom its hosts answer.
    """

    deaf: set[int] = field(default_factory=set)
    frames: set[int] = field(default_factory=set)
    answers: set[int] = field(default_factory=set)


class _Links:
    """The devices of one node, with what `kernel.ports.Links` offers a `PathWatch`."""

    def __init__(self, node: OnTwoPaths) -> None:
        self._node, self._frames = node, dict.fromkeys(PATHS, 0)

    def received(self, device: str) -> int:
        node_id, network = self._node.node_id, self._node.network_of_paths
        if device != PUBLIC or node_id not in network.deaf or node_id in network.frames:
            self._frames[device] += 1
        return self._frames[device]

    def ask(self, _device: str) -> int:
        return 1

    def answered(self, device: str) -> bool:
        return device == PUBLIC and self._node.node_id in self._node.network_of_paths.answers

    def ask_no_more(self, _device: str) -> None: ...


class OnTwoPaths(Process):
    """A node with two paths: its datagrams arrive on both, but where the public one is silent."""

    network_of_paths = PublicNetwork()

    def _build(self) -> None:
        super()._build()
        self.path_watch = PathWatch(
            self.guard, self.exchange.heard_at, cast(Any, _Links(self)),
            interfaces={"public": PUBLIC}, paths=PATHS, feed=self.feed,
        )  # fmt: skip

    def receive_datagram(self, data: bytes) -> None:
        super().receive_datagram(data)
        sender = next(
            (p for p, known in self.exchange._peers.items() if known.newest == data), None
        )
        if sender is not None and not {sender, self.node_id} & self.network_of_paths.deaf:
            self.exchange.open(data, path=1)

    def _tick_now(self) -> None:
        self.path_watch.look(self.clock())
        super()._tick_now()
