"""A simulated node with those parts of the daemon that an operator hears: API, history, changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from hanat.config import parse_cluster
from hanat.config.settings import NodeSettings, Peer
from hanat.core import actions as do
from hanat.core import inputs as told
from hanat.core.beacon import Heard
from hanat.core.configuration import Configuration, GateKind
from hanat.core.histogram import Histogram
from hanat.core.history import Witness
from hanat.core.node_snapshot import NodeSnapshot
from hanat.core.outcomes import Failed
from hanat.core.status import FlowStatus
from hanat.daemon.announcing import FRAMES_EACH
from hanat.daemon.api_backend import ApiBackend, Parts
from hanat.daemon.config_changes import ChangeParts, ConfigChanges
from hanat.daemon.feature_levels import FeatureLevels
from hanat.daemon.hand_over import HandOver
from hanat.daemon.history_recorder import HistoryRecorder, HistoryRecorderParts
from hanat.errors import ConfigError
from hanat.raft.state import Command, Happened, NewConfiguration
from tests.scenarios.steady import Steady, Telling
from tests.sim.refusing import REFUSED, Refusing
from tests.sim.serving import WALL_S, ServingProcess
from tests.sim.two_paths import PATHS, PRIVATE, PUBLIC, OnTwoPaths

RATE_STEP = 0.001  # the clocks run at slightly different rates
ADDING_S, RULESETS_S, FLUSH_S = (0.0, 0.004), (0.005, 0.015), 0.001

read = lru_cache(maxsize=64)(lambda text: parse_cluster(text, file="cluster.toml"))


Reasons = tuple[str, ...]


class Kernel(Refusing):
    """A kernel that takes every ruleset, or none but that in force.

    Attributes:
        stubborn: It takes none.
    """

    stubborn = False

    def configuration(self) -> Configuration:
        """Return what the newest committed text says."""
        return read(self._node.replica.state.text)

    def refuses(self, configuration: Configuration) -> bool:
        """Say whether it refuses the ruleset of a configuration."""
        return self.stubborn and configuration != self._in_force


class _Rulesets:
    """What reads configurations and tries them out, as `daemon.config_changes` wants it."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def read(self, text: str, *, file: str, done: Callable[[object], None]) -> None:
        try:
            done(parse_cluster(text, file=file))
        except ConfigError as error:
            done(error)

    def try_out(
        self, wanted: Configuration, done: Callable[[str | None], None], *, bytes_max: int | None
    ) -> None:
        del bytes_max
        done(REFUSED.detail if self._router.kernel.refuses(wanted) else None)


class _Driver:
    """The newest state of a node, and its inputs."""

    def __init__(self, router: Router) -> None:
        self._router = router

    @property
    def snapshot(self) -> NodeSnapshot:
        return self._router.core.snapshot()

    def feed(self, item: told.Input) -> None:
        self._router.world.on(self._router, self._router.feed, item)

    def watch(self, _watcher: Callable[[], None]) -> None: ...


class Router(OnTwoPaths, ServingProcess):
    """A node of a transcript.

    Args:
        world: Where it lives; takes what it tells.
        node_id: Which one; its name is ``r`` and the number.
        text: Its cluster file.
    """

    historian: HistoryRecorder | None = None
    backend: ApiBackend | None = None

    def __init__(self, world: Telling, node_id: int, text: str) -> None:
        rate = 1 + (2 - node_id) * RATE_STEP
        super().__init__(world, node_id, profile=read(text).profile.name, rate=rate)
        self.telling, self.text, self.configuration = world, text, read(text)
        self.refusing = self.kernel = Kernel(self)
        self.offset = 100.0 * node_id
        for disk in (self.disk, self.snapshot_disk, self.rulesets, self.addresses._slices):
            disk._rng = Steady()
        self.journal._rng = self.addresses._rng = Steady()
        self.addresses.adding_s, self.rulesets.work_s = ADDING_S, RULESETS_S
        self.frames = 0

    @property
    def name(self) -> str:
        """What operators call it."""
        return f"r{self.node_id}"

    @property
    def settings(self) -> NodeSettings:
        """Its file."""
        folder = Path("/etc/hanat")
        peers = (
            Peer(f"r{i}", i, (ip_address(f"10.11.12.{10 + i}"), ip_address(f"203.0.113.{10 + i}")))
            for i in self.members
        )
        return NodeSettings(
            node=self.name, node_id=self.node_id, cluster_file=folder / "cluster.toml",
            data_dir=folder, key_file=folder / "cluster.key",
            interfaces={"public": PUBLIC, "private": PRIVATE}, api_listen=(), peers=tuple(peers),
        )  # fmt: skip

    # ----------------------------------------------------------------- building

    def _build(self) -> None:
        self.historian = self.backend = None
        self._known: tuple[Reasons, Reasons, tuple[int, bool]] = (), (), (0, False)
        super()._build()
        self.handing_over = HandOver(
            self.replica,
            beacon_s=self.guard.profile.beacon_s,
            clock=self.clock,
            feed=self.feed,
        )
        settings = self.settings
        driver, worker = _Driver(self), cast(Any, SimpleNamespace(status=self._flows, counts=dict))
        historian = self.historian = HistoryRecorder(
            HistoryRecorderParts(
                settings, self.replica, self.guard, self.exchange.heard_at, worker, self.clock,
                lambda: WALL_S + self.world.now, lambda: self.frames,
            ),
            Witness(self.node_id, self.guard.profile),
            snapshot=self.core.snapshot, origin=self.exchange.incarnation, kick=self._kick_soon,
        )  # fmt: skip
        self.changes = ConfigChanges(
            ChangeParts(
                settings, self.replica, self.guard, cast(Any, _Rulesets(self)),
                self.core.snapshot, self._kick_soon,
            )
        )  # fmt: skip
        self.backend = ApiBackend(self._parts(settings, driver, worker, historian))
        self._let_historian_hear(historian)

    def _parts(
        self, settings: NodeSettings, driver: _Driver, worker: object, historian: HistoryRecorder
    ) -> Parts:
        def connected() -> dict[int, tuple[str, float]]:
            return {peer: (f"r{peer}", self.clock()) for peer in self.guard.connected}

        async def settled() -> None: ...

        counts = SimpleNamespace(sent=0, unsent=0, heard=0, refused=0)
        mesh = SimpleNamespace(counts=counts, heard_at=self.exchange.heard_at, refused={})
        transport = SimpleNamespace(
            connected=connected, refusals=0, identity=SimpleNamespace(keys=())
        )
        reconciling = SimpleNamespace(ended=Counter(), settled=settled)
        gate = SimpleNamespace(by=SimpleNamespace(kind=GateKind.TIMEOUTS), found="")
        return Parts(
            settings, cast(Any, driver), self.replica, cast(Any, transport), cast(Any, mesh),
            cast(Any, worker), self.changes, historian, cast(Any, reconciling), self.servers,
            Histogram((0.01,)), lambda: 0, self.clock, cast(Any, None), lambda _: None,
            cast(Any, gate), FeatureLevels(settings, self.replica, self._kick_soon),
        )  # fmt: skip

    def _let_historian_hear(self, historian: HistoryRecorder) -> None:
        hear, died = self.guard.hear, self.guard.died

        def heard_beacon(heard: Heard) -> None:
            historian.hear(heard)
            hear(heard)

        def heard_death(peer: int) -> None:
            historian.died(peer)
            died(peer)

        self.guard.hear = heard_beacon  # type: ignore[method-assign]
        self.guard.died = heard_death  # type: ignore[method-assign]

    def _flows(self) -> FlowStatus:
        return FlowStatus(flows=len(set(self.applied)), complete=self.guard.complete)

    # ------------------------------------------------------------------ running

    def _step(self, item: told.Input) -> None:
        was, since = self.core.role, self.core.role_since
        super()._step(item)
        core = self.core
        if isinstance(item, told.RulesetDrifted) and self.todo:
            self._say(f"ruleset found={'; '.join(item.found)!r} action=installed_again")
        unsafe, hindrances, revision = self._known
        self._known = core.unsafe, core.hindrances, (core.settled, core.refuses)
        if core.unsafe != unsafe:
            self._say("unsafe: " + "; ".join(core.unsafe) if core.unsafe else "not unsafe")
        if core.hindrances != hindrances:
            words = "; ".join(core.hindrances)
            self._say(f"hindered: {words}" if words else "not hindered")
        if (core.settled, core.refuses) != revision:
            state = "refused" if core.refuses else "in force"
            self._say(f"revision {core.settled} {state}")
        if self.historian is not None and (core.role, core.role_since) != (was, since):
            self.historian.entered(was)

    def _say(self, text: str) -> None:
        self.world.tell(f"{self.node_id} {text}")

    def _work(self) -> None:
        super()._work()
        if self.historian is not None and self.backend is not None:
            self.historian.look()
            self.backend.wake()

    def _tick_now(self) -> None:
        super()._tick_now()
        if self.historian is not None:
            self.historian.look()
        self.handing_over.look()

    def _command(self, command: Command) -> None:
        if isinstance(command, NewConfiguration):
            self.changes.accepted(command)
        if isinstance(command, Happened) and self.historian is not None:
            self.historian.applied(command)
        super()._command(command)
        if self.backend is not None:
            self.backend.wake()

    def _restored(self) -> None:
        super()._restored()
        if self.historian is not None:
            self.historian.restored()

    def freeze(self) -> None:
        """Let the process stand still."""
        self._say("stands still")
        self.paused, self.kicked = True, False

    def thaw(self) -> None:
        """Let it go on."""
        self._say("goes on")
        self._resume(self.incarnation)

    # --------------------------------------------------------------- the kernel

    def _execute(self, action: do.Action) -> Failed | None:
        match action:
            case do.ProposeConfiguration():
                self.replica.propose_once(NewConfiguration(0, self.text))
                return None
            case do.Announce(vips):
                self.frames += FRAMES_EACH * sum(len(vip.addresses) for vip in vips)
            case do.FlushFlows():  # it is the flow worker's matter, and takes a moment
                self.world.after(FLUSH_S, self._flushed, self.incarnation)
                return None
            case do.TransferLeadership(to):
                self.handing_over.begin(to)
                return None
            case do.RestoreAddresses(vips):
                addresses = ", ".join(str(a) for vip in vips for a in vip.addresses)
                self._say(f"puts {addresses} back")
            case do.Finish():
                self.world.after(0.0, self._end, self.incarnation)
            case _:
                pass
        return super()._execute(action)

    def _flushed(self, incarnation: int) -> None:
        if self.alive and self.paused:
            self.world.after(FLUSH_S, self._flushed, incarnation)
        elif self.alive and incarnation == self.incarnation:
            self.world.on(self, self.feed, told.FlowsFlushed())

    def _end(self, incarnation: int) -> None:
        if self.alive and incarnation == self.incarnation:
            self.kill("ended")

    def _arm(self, action: do.ArmGate) -> None:
        last = max(p.answers_until for p in self.world.processes.values())
        super()._arm(action)
        if last < self.world.now < self.answers_until:
            self.telling.begins_to_answer(self, last or None)


assert set(PATHS.values()) == {0, 1}, "the first address of each peer is on the private network"
