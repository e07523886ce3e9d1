"""Nodes that watch servers, in virtual time: the daemon's own `Servers`, and a checker's `Probes`.

Whether a server answers a node is what a run says; how long it takes, and when it is asked, is
random. The checker is a process of its own: it goes on while its node stands still, and what it
sees waits until that reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address

from hanat.core.checks import ServiceCheck, Target, TcpCheck
from hanat.core.configuration import (
    Configuration,
    Listen,
    Protocol,
    RealServer,
    Scheduler,
    VirtualService,
)
from hanat.core.levelling import Load
from hanat.core.probing import Check, Operational, Probe, Probes, Reply
from hanat.core.server_facts import ServerId
from hanat.core.services import Rotation
from hanat.core.status import Role
from hanat.daemon.servers import ServerParts, Servers
from hanat.raft.state import Command
from tests.sim.examples import configuration
from tests.sim.process import TICK_S_MIN, Process
from tests.sim.world import World

CHECK = Check(interval_s=0.5, timeout_s=0.2, fall=3, rise=2)
# Until a server that died is out of rotation: the probes that fail, and a commit.
GONE_S = CHECK.fall * CHECK.interval_s * 1.1 + CHECK.timeout_s + 0.1
BACK_S = CHECK.rise * CHECK.interval_s * 1.1 + CHECK.timeout_s + 0.1
WALL_S = 1.7e9


def serving(profile: str, servers: int, *, max_conn: int = 0) -> Configuration:
    """Return a configuration with one service of so many servers, ``web1`` and so on."""
    listen = Listen(ip_address("203.0.113.10"), Protocol.TCP, 80, 80)
    behind = tuple(
        RealServer(f"web{n}", ip_address(f"10.11.12.{20 + n}"), 80, 1, max_conn=max_conn)
        for n in range(1, servers + 1)
    )
    checks = (ServiceCheck(TcpCheck(), CHECK),)
    service = VirtualService("web", (listen,), Scheduler.WRR, behind, checks=checks)
    return replace(configuration(profile), services=(service,))


class Network:
    """Which servers answer whom."""

    def __init__(self) -> None:
        self.down: set[str] = set()  # names of servers
        self.blind: set[int] = set()  # nodes that reach none
        self.connections: dict[str, int] = {}  # of servers, as every node's table has them

    def answers(self, node_id: int, target: Target) -> bool:
        """Say whether a server answers a node."""
        return node_id not in self.blind and server_of(target) not in self.down


class NetworkLoads:
    """What a node counts of the servers' connections."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def ask(self) -> None:
        """It is known."""

    def of(self, services: Iterable[VirtualService], age_s: float) -> Mapping[ServerId, Load]:
        """Return all of them."""
        del services, age_s
        return {
            ServerId("web", name): Load(count) for name, count in self._network.connections.items()
        }

    def keep(self, names: Iterable[str]) -> None:
        """Nothing is remembered."""


def server_of(target: Target) -> str:
    """Return the name of the server that is probed."""
    return f"web{int(target.address) % 256 - 20}"


class VirtualChecker:
    """What `hanat.checker` is to the daemon.

    Args:
        process: Its node.
        network: Which servers answer.
    """

    def __init__(self, process: ServingProcess, network: Network) -> None:
        self._process, self._network = process, network
        self._world, self._incarnation = process.world, process.incarnation
        self._probes = Probes(draw=process.world.rng.random)
        self._targets: Mapping[str, Target] = {}
        self._number = 0

    def start(self) -> None:
        """It runs already."""

    def configure(self, targets: Mapping[str, Target]) -> None:
        """Probe these and no others."""
        self._targets = dict(targets)
        timing = {name: target.timing for name, target in targets.items()}
        self._probes.configure(timing, self._process.clock())
        self._go_on()

    def hold(self, tenure: int | None) -> None:
        """Note in which tenure the node holds the addresses."""
        self._probes.hold(tenure)

    def commit(self, target: str, state: Operational) -> None:
        """Note what the log says."""
        self._probes.commit(target, state)

    def look(self) -> None:
        """It lives as long as its node."""

    def _go_on(self) -> None:
        """Wait for the next probe."""
        self._number += 1
        due = self._probes.due()
        if due is not None:
            delay_s = max(0.0, due - self._process.clock()) / self._process.rate
            self._world.after(delay_s, self._start, self._number)

    @property
    def _over(self) -> bool:
        process = self._process
        return not process.alive or process.incarnation != self._incarnation

    def _start(self, number: int) -> None:
        if self._over or number != self._number:
            return
        for probe in self._probes.start(self._process.clock()):
            target = self._targets[probe.target]
            if self._network.answers(self._process.node_id, target):
                latency_s, reply = self._world.rng.uniform(0.0005, 0.02), Reply(ok=True)
            else:  # refused, or silent
                latency_s = self._world.rng.choice((0.001, CHECK.timeout_s))
                reply = Reply(ok=False, answer="no answer")
            self._world.after(latency_s, self._finish, probe, replace(reply, latency_s=latency_s))
        self._go_on()

    def _finish(self, probe: Probe, reply: Reply) -> None:
        if self._over:
            return
        sighting = self._probes.finish(probe, reply, self._process.clock())
        self._go_on()
        if sighting is not None:
            self._process.reads(lambda: self._process.servers.sighted(sighting))


class ServingProcess(Process):
    """A node with services whose servers it watches."""

    network: Network
    servers: Servers
    opens_at = 0.0  # until then the servers' part is told that the gate is shut

    def _build(self) -> None:
        super()._build()
        self.rotations: dict[str, Rotation] = {}
        parts = ServerParts(
            self.node_id, self.replica, self.guard, self._rotate, lambda _tables, _done: None,
            NetworkLoads(self.network), lambda _ends, _done: None,
            lambda: self._role_now,
            self.feed, self.clock, lambda: WALL_S + self.world.now, self._kick_soon,
        )  # fmt: skip
        self.servers = Servers(parts)
        self.servers.begin(VirtualChecker(self, self.network))

    @property
    def _role_now(self) -> Role:
        return self.core.role if self.world.now >= self.opens_at else Role.TAKEOVER

    def _rotate(
        self, rotations: Mapping[str, Rotation], done: Callable[[str | None], None]
    ) -> None:
        """Let these get new clients; a kernel takes a while, and so does the thread."""

        def ended(_: BaseException | None) -> None:
            self.rotations.update(rotations)
            done(None)

        self.rulesets(lambda: None, ended)

    def reads(self, call: object) -> None:
        """Take what the checker says, as soon as the process runs."""
        assert callable(call)
        if not self.alive:
            return
        if self.paused:
            self.world.after(0.01, self.reads, call)
            return
        self.world.on(self, call)
        self._kick_soon()

    @property
    def clients(self) -> set[str]:
        """Names of the servers that get new clients by this node's rules."""
        return {one.name for one in self.rotations.get("web", ())}

    def _command(self, command: Command) -> None:
        self.servers.applied(command)
        super()._command(command)

    def _restored(self) -> None:
        super()._restored()
        self.servers.restored()
        if self.replica.state.revision:
            wanted = self.refusing.configuration()
            self.rulesets(lambda: None, lambda _: self.servers.configure(wanted, lambda: None))

    def _tick_now(self) -> None:
        super()._tick_now()
        self.servers.look(self.clock())

    def _tick_later(self) -> None:
        self.tick_number += 1
        deadline = min(self.guard.deadline, self.servers.due)
        delay_s = max(TICK_S_MIN, deadline - self.clock())
        self.tick_due = self.clock() + delay_s
        self.world.after(delay_s / self.rate, self._tick, self.incarnation, self.tick_number)


def serving_cluster(
    *, seed: int, profile: str = "default", servers: int = 4, max_conn: int = 0
) -> tuple[World, Network]:
    """Return three nodes that watch so many servers."""
    world, network = World(seed=seed), Network()
    for node_id in world.node_ids:
        process = ServingProcess(world, node_id, profile=profile, rate=1.0)
        process.network = network
        process.configuration = serving(profile, servers, max_conn=max_conn)
        process.start()
    return world, network
