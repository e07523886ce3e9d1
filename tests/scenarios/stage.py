"""What the commands of one transcript share: the cluster, and how to name and wait for things."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from hanat.core.status import Role
from hanat.errors import HanatError
from tests.scenarios.router import Router
from tests.scenarios.steady import Telling
from tests.scenarios.virtual_loop import VirtualLoop
from tests.sim.run import converged
from tests.sim.serving import Network
from tests.sim.two_paths import PublicNetwork

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s)")
SERVER = """
  [[service.server]]
  name = "web{n}"
  address = "10.11.12.{address}:80"
"""
SERVICE = """
[[service]]
name = "web"
listen = ["vip:public tcp/80"]
scheduler = "wrr"
min_healthy = "30%"

  [[service.check]]
  kind = "tcp"
  interval = "500ms"
  timeout = "200ms"
  fall = 3
  rise = 2
"""
CLUSTER = """schema = 1

[cluster]
name = "sim"
profile = "{profile}"

[[vip]]
name = "public"
address = ["203.0.113.10/24"]
interface = "public"

[[vip]]
name = "private"
address = ["10.11.12.1/24"]
interface = "private"
"""


class TranscriptError(Exception):
    """A transcript says something that has no meaning."""


@dataclass(frozen=True)
class Call:
    """One command: its name, its words, and its options, ``key=value``."""

    name: str
    words: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)

    def word(self, index: int, what: str) -> str:
        """Return a word; `what` it is says the message if it is not there."""
        if index >= len(self.words):
            raise TranscriptError(f"{self.name}: {what} is missing")
        return self.words[index]


def seconds(text: str) -> float:
    """Return a duration, ``500ms`` or ``2s``."""
    if (match := _DURATION.fullmatch(text)) is None:
        raise TranscriptError(f'"{text}" is no duration; write 500ms or 2s')
    return float(match[1]) * (0.001 if match[2] == "ms" else 1.0)


def cluster_file(profile: str, servers: int) -> str:
    """Return the text that all nodes have."""
    text = CLUSTER.format(profile=profile)
    if servers:
        behind = (SERVER.format(n=n, address=20 + n) for n in range(1, servers + 1))
        text += SERVICE + "".join(behind)
    return text


class Stage:
    """A cluster, and what is done to it.

    Args:
        call: The command ``cluster`` with its options.
    """

    def __init__(self, call: Call) -> None:
        nodes = int(call.options.get("nodes", "3"))
        self.world = Telling(
            seed=int(call.options.get("seed", "1")), node_ids=tuple(range(1, nodes + 1))
        )
        self.profile = call.options.get("profile", "default")
        self.network, self.paths = Network(), PublicNetwork()
        self.routers: dict[str, Router] = {}
        text = cluster_file(self.profile, int(call.options.get("servers", "0")))
        for node_id in self.world.node_ids:
            router = Router(self.world, node_id, text)
            router.network, router.network_of_paths = self.network, self.paths
            router.journal.lost()  # it is new
            self.routers[router.name] = router
        self.loop = VirtualLoop(self.world)
        self.heals: list[tuple[frozenset[int], Callable[[], None]]] = []
        self.connections = 0
        self.world.begin()

    def close(self) -> None:
        """End."""
        self.world.close()
        self.loop.close()

    # ------------------------------------------------------------------ naming

    def router(self, name: str) -> Router:
        """Return a node by its name."""
        if name not in self.routers:
            raise TranscriptError(f'no node "{name}"; nodes are {", ".join(self.routers)}')
        return self.routers[name]

    def named(self, call: Call) -> list[Router]:
        """Return the nodes that a command names."""
        if not call.words:
            raise TranscriptError(f"{call.name}: which node?")
        return [self.router(name) for name in call.words]

    @property
    def present(self) -> list[Router]:
        """Nodes that run."""
        return [r for r in self.routers.values() if r.alive and not r.paused]

    @property
    def holder(self) -> Router | None:
        """Who is ACTIVE, and its kernel lets it answer."""
        return next((r for r in self.present if r.role is Role.ACTIVE and self.answers(r)), None)

    def answers(self, router: Router) -> bool:
        """Say whether a node's kernel lets it answer now."""
        return router.answers_until > self.world.now

    def asked(self, call: Call) -> Router:
        """Return the node that an operator asks: ``ask=``, or the holder, or any that runs."""
        if (name := call.options.get("ask")) is not None:
            return self.router(name)
        found = self.holder or next(iter(self.present), None)
        if found is None:
            raise TranscriptError(f"{call.name}: no node runs that could be asked")
        return found

    # ------------------------------------------------------------------ waiting

    def wait(self, reached: Callable[[], bool], within_s: float) -> list[str]:
        """Let time pass until something is so; say if it is not in time."""
        if self.world.run_until(reached, within_s=within_s):
            return []
        return [f"not within {within_s:g} s"]

    def settled(self) -> bool:
        """Say whether all nodes that run follow one holder and have applied the same."""
        self.mark_absent()
        return converged(self.world)

    def is_up(self) -> bool:
        """Say whether all is well: the first revision is in force, all servers are up."""
        return self.settled() and all(
            router.core.settled == 1
            and all(s.healthy == s.candidates for s in router.servers.health.statuses.values())
            for router in self.present
        )

    def mark_absent(self) -> None:
        """Let nobody wait for nodes that do not run."""
        for router in self.routers.values():
            router.gone = not router.alive or router.paused

    def operate(self, order: Coroutine[Any, Any, Any]) -> tuple[Any, list[str]]:
        """Let an operator wait for the answer to an order; return it, or lines that say why not."""
        try:
            return self.loop.run_until_complete(order), []
        except HanatError as error:
            return None, [f"error: {line}" for line in str(error).splitlines()]
