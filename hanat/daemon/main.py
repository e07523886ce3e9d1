"""Build a node out of its parts and run it until it is told to stop.

The only module that names concrete adapters. Everything runs on one asyncio loop in one
thread; calls into the kernel are synchronous and short, and what is not short has a thread of its
own: the disk, and configurations (rulesets).
"""

from __future__ import annotations

import asyncio
import logging
import random  # noqa: TID251 - the one place where randomness comes from outside
import secrets
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from hanat.api.server import ApiServer, serve
from hanat.config.key import Keys
from hanat.config.settings import NodeSettings
from hanat.core.beacon import Died, Heard, digest_of
from hanat.core.clock_rate import ClockWatch
from hanat.core.configuration import Address, Configuration, nominal_lease_s, profile_with
from hanat.core.histogram import Histogram
from hanat.core.history import Witness
from hanat.core.inputs import FlowsFlushed, Input, ShutdownRequested
from hanat.core.node import Node
from hanat.core.placements import placements
from hanat.daemon import realtime
from hanat.daemon.adapters import Adapters
from hanat.daemon.api_backend import ApiBackend, Parts
from hanat.daemon.background import Background
from hanat.daemon.checking import make_checker
from hanat.daemon.config_changes import ChangeParts, ConfigChanges
from hanat.daemon.config_rollout import ConfigRollout
from hanat.daemon.driver import Driver
from hanat.daemon.executor import Callbacks, Kernel, NodeExecutor, Place
from hanat.daemon.failure_origin import failure_of_node
from hanat.daemon.feature_levels import FeatureLevels
from hanat.daemon.flow_replication import FlowReplication
from hanat.daemon.gate_change import GateChange
from hanat.daemon.hand_over import HandOver
from hanat.daemon.history_recorder import HistoryRecorder, HistoryRecorderParts
from hanat.daemon.levels import FlowLoads
from hanat.daemon.peer_links import PeerLinks
from hanat.daemon.reconciling import Reconciling
from hanat.daemon.ruleset_installer import RulesetInstaller
from hanat.daemon.servers import ServerParts, Servers
from hanat.daemon.supervisor_link import SupervisorLink, write_will
from hanat.daemon.watches import Watches, WatchParts
from hanat.doctor import preflight
from hanat.errors import EXIT_FAILED, EXIT_OK, JournalError
from hanat.kernel.addresses import KernelAddresses
from hanat.kernel.counters import KernelCounters
from hanat.kernel.mesh_filter import admit_only
from hanat.kernel.sysctls import KernelSettings
from hanat.net.death_notice import seal_release
from hanat.net.freshness import Exchange
from hanat.net.silence import Silence, tell
from hanat.net.udp import MeshSockets
from hanat.raft import library
from hanat.raft.connections import RaftTransport
from hanat.raft.guard import Guard
from hanat.raft.journal_opening import open_journal
from hanat.raft.messages import decode
from hanat.raft.replica import Replica
from hanat.raft.snapshot_store import SnapshotStore
from hanat.raft.state import Command, FeatureLevel, Flows, Happened, NewConfiguration
from hanat.stderr_log import to_stderr

log = logging.getLogger(__name__)

TICK_S_MIN = 0.001
LATE_BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
TRANSPORT_BEACONS = 0.9  # how often connections are looked at: about each beacon
SOON_BEACONS = 0.5  # a tick that is due within this is done when a beacon wakes the node anyway

# Seconds of CLOCK_BOOTTIME: it goes on while the machine is suspended.
clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
wall = time.time  # noqa: TID251 - what the history shows to people; nothing is decided by it


def run(
    settings: NodeSettings,
    *,
    keys: Keys,
    configuration: Configuration,
    configuration_text: str,
    lifeline: SupervisorLink,
) -> int:
    """Run a node until SIGTERM or SIGINT; return the exit code.

    Args:
        settings: This node's own file.
        keys: Of the cluster.
        configuration: The cluster file, parsed.
        configuration_text: The same, as text: proposed if the cluster has none yet.
        lifeline: To the supervisor.

    Raises:
        StartupError: This machine lacks something, or something is taken.
        KernelError: The kernel refused what every node needs.
    """
    to_stderr()
    daemon = Daemon(settings, keys=keys, configuration=configuration, text=configuration_text)
    return asyncio.run(daemon.run(lifeline))


class Daemon:
    """One running node."""

    def __init__(
        self, settings: NodeSettings, *, keys: Keys, configuration: Configuration, text: str
    ) -> None:
        self._settings, self._text = settings, text
        self._identity = preflight.identity(settings, configuration, keys)
        self._incarnation = secrets.randbits(64) or 1
        self._stopped = asyncio.Event()
        self._crash: BaseException | None = None
        adapters = self._adapters = Adapters.of(settings, clock)
        profile = profile_with(configuration.profile.name, adapters.gate.by.kind)
        self._configuration = replace(configuration, profile=profile)
        self._own = preflight.own_addresses(adapters.links, adapters.addresses)
        self._paths = preflight.check(
            settings, configuration, links=adapters.links, addresses=adapters.addresses
        )
        self._build()

    # ----------------------------------------------------------------- building

    def _build(self) -> None:
        settings, profile = self._settings, self._configuration.profile
        rng = random.Random(secrets.randbits(64))  # noqa: S311 - timers, not secrets
        library.prepare(clock=clock, uniform=rng.random)
        others = {p.node_id: p.addresses for p in settings.peers if p.node_id != settings.node_id}
        self._journal = open_journal(
            settings.data_dir, node_id=settings.node_id, cluster=self._configuration.name
        )
        self._journal.admit(self._identity.members)
        if self._journal.report:
            log.warning("journal report=%r", self._journal.report)
        self._guard = Guard(
            node_id=settings.node_id,
            peer_ids=others,
            profile=profile,
            journal=self._journal,
            clock=clock,
            rng=rng,
        )
        # What it promised before may have been longer than what it asks for.
        longest_s = nominal_lease_s(profile)
        self._guard.clock_watch = ClockWatch(lease_s=longest_s, read=realtime.read_clocks)
        self._guard.interfaces = digest_of(settings.interfaces)
        self._node = Node(node_id=settings.node_id, configuration=self._configuration, now=clock())
        store = SnapshotStore(settings.data_dir, cluster=self._configuration.name)
        self._replica = Replica(
            self._guard, on_input=self._feed, on_command=self._command, store=store
        )
        if store.report:
            log.warning("snapshot report=%r", store.report)
        journal, snapshots = (Background(n, after=self._kick) for n in ("journal", "snapshot"))
        rulesets = self._make_rulesets()
        self._background = (journal, snapshots, rulesets)
        self._guard.durability.background = journal
        self._replica.snapshots.background = snapshots
        self._replica.snapshots.restored = self._restored
        self._make_wire(others)
        self._replication = FlowReplication(
            self._replica, self._guard, origin=self._incarnation, kick=self._kick, wall=wall
        )
        self._worker = self._replication.worker
        self._reconciling = Reconciling(self._worker, settings, lambda: self._servers.rotations)
        self._kicked = self._is_preferred = False
        self._timer: asyncio.TimerHandle | None = None
        self._due = self._looked_at = 0.0
        self._transfer = HandOver(
            self._replica, beacon_s=profile.beacon_s, clock=clock, feed=self._feed
        )
        self._servers = Servers(
            ServerParts(
                settings.node_id, self._replica, self._guard, self._rulesets.rotate,
                self._rulesets.level, FlowLoads(self._worker), self._worker.end_connections,
                lambda: self._node.role, self._feed, clock, wall, self._kick,
            )
        )  # fmt: skip
        self._checker = make_checker(
            settings, sighted=self._servers.sighted, lost=self._servers.checker_lost
        )
        self._lateness = Histogram(LATE_BOUNDS_S)
        self._levels = FeatureLevels(settings, self._replica, self._kick)

    def _make_wire(self, others: Mapping[int, Sequence[Address]]) -> None:
        settings = self._settings
        exchange = Exchange(
            self._identity, incarnation=self._incarnation, peer_ids=others, clock=clock
        )
        self._transport = RaftTransport(
            identity=self._identity,
            own=settings.myself.addresses,
            peers=others,
            port=settings.raft_port,
            guard=self._guard,
            kick=self._kick,
        )
        self._transport.path_heard_at = exchange.heard_at
        self._mesh = MeshSockets(
            own=settings.myself.addresses,
            peers=others,
            port=settings.mesh_port,
            exchange=exchange,
            hear=self._heard,
            view=self._guard.view,
        )
        exchange.level = self._guard.level
        links = PeerLinks(self._transport, self._mesh, self._guard)
        self._guard.bind(self._replica.machine, links)
        self._silence = Silence(others, exchange.heard_at)

    def _make_rulesets(self) -> Background:
        """Make what reads and installs configurations; return its thread."""
        self._adapters.gate.take_over(self._settings.interfaces.values())
        # None of the loop's priority: it takes long and nobody's lease depends on it.
        thread = Background("rulesets", after=lambda: None, begin=realtime.step_back)
        self._rulesets = RulesetInstaller(
            self._settings.interfaces,
            conversation=preflight.conversation_of(
                self._settings, links=self._adapters.links, addresses=self._adapters.addresses
            ),
            gate=GateChange(  # in a thread, so by a socket of its own
                self._adapters.gate.granting.gate,
                KernelAddresses(),
                self._settings.interfaces.values(),
                self._adapters.gate.by,
            ),
            firewall=self._adapters.firewall,
            background=thread,
            known=(self._text, self._configuration),
        )
        self._configurations = ConfigRollout(
            self._settings, self._configuration,
            rulesets=self._rulesets, feed=self._feed, heed=self._heed,
        )  # fmt: skip
        return thread

    # ------------------------------------------------------------------ running

    async def run(self, lifeline: SupervisorLink) -> int:
        """Run until told to stop; return the exit code."""
        self._lifeline = lifeline
        try:
            return await self._run()
        finally:
            for work in self._background:
                work.close()
            self._adapters.gate.granting.gate.close()
            try:
                self._journal.close()
            except JournalError as error:
                log.error("journal found=%r", str(error))  # noqa: TRY400 - the text says it all

    async def _run(self) -> int:
        loop, settings = asyncio.get_running_loop(), self._settings
        self._loop = loop
        loop.set_exception_handler(self._broken)
        await preflight.check_neighbours(settings, self._configuration)
        self._make_driver(loop)
        backend = self._backend = ApiBackend(
            Parts(
                settings, self._driver, self._replica, self._transport, self._mesh, self._worker,
                self._changes, self._historian, self._reconciling, self._servers, self._lateness,
                lambda: self._executor.refused, clock, KernelCounters(), self._replication.figures,
                self._adapters.gate, self._levels,
            )
        )  # fmt: skip
        try:
            # Whatever can be taken is taken first: a second daemon must not clean up
            # under the feet of the first.
            self._mesh.bind(admit_only)
            await self._transport.listen()
            server = await serve(settings.api_listen, backend, names=settings.api_names)
        except BaseException:
            await self._leave_peers()
            raise
        self._leave_will(self._configuration)
        self._worker.set_level(self._guard.level())
        self._replication.start(self._configuration, self._own)
        self._servers.begin(self._checker)
        realtime.prepare()  # not before: loading takes a second of computing, others have leases
        self._driver.begin()
        self._transport.accepting = True
        self._mesh.listen(loop)
        watches = self._begin_watches(loop)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: self._feed(ShutdownRequested()))
        self._lifeline.watch(
            loop, describe=backend.describe, orphaned=lambda: self._feed(ShutdownRequested())
        )
        log.info("node=%s id=%d started", settings.node, settings.node_id)
        dialling = loop.create_task(self._transport.dial())
        dialling.add_done_callback(self._dialling_ended)
        self._adapters.announcer.prepare(placements(self._configuration.vips, settings.interfaces))
        realtime.settle()
        self._tick(loop.time())
        await self._stopped.wait()
        if self._timer is not None:
            self._timer.cancel()
        dialling.cancel()
        watches.close()
        await self._leave(server)
        if self._crash is not None:
            log.critical("stopped reason=%r", self._crash, exc_info=self._crash)
            return EXIT_FAILED
        log.info("stopped")
        return EXIT_OK

    def _begin_watches(self, loop: asyncio.AbstractEventLoop) -> Watches:
        watches = Watches(
            WatchParts(
                self._settings, self._guard, self._rulesets, self._adapters.links, self._paths,
                self._mesh.heard_at, self._feed, self._usable,
                lambda: self._driver.snapshot.configuration.vips,
            )
        )  # fmt: skip
        watches.begin(loop)
        return watches

    async def _leave(self, server: ApiServer) -> None:
        self._worker.close()
        self._checker.close()
        await server.close()
        await self._leave_peers()
        self._driver.close()

    async def _leave_peers(self) -> None:
        self._mesh.close()
        await self._transport.close()

    def _dialling_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._broken(self._loop, {"message": "dialling ended", "exception": task.exception()})

    def _make_driver(self, loop: asyncio.AbstractEventLoop) -> None:
        executor = self._executor = NodeExecutor(
            Place.of(self._settings, self._text, clock),
            kernel=Kernel(
                self._adapters.addresses, self._adapters.announcer, self._adapters.gate.granting,
                self._rulesets, KernelSettings(),
            ),
            replica=self._replica,
            worker=self._worker,
            callbacks=Callbacks(
                flushed=lambda: self._feed(FlowsFlushed()),
                transfer=self._transfer.begin,
                finish=self._stopped.set,
                ended=self._reconciling.watching(self._feed),
                soon=loop.call_soon, later=loop.call_later,
            ),
        )  # fmt: skip
        self._driver = Driver(self._node, executor, clock=clock, loop=loop)
        self._driver.watch(self._tell_revision)
        self._make_historian(executor)
        self._changes = ConfigChanges(
            ChangeParts(
                self._settings, self._replica, self._guard, self._rulesets,
                lambda: self._driver.snapshot, self._kick,
            )
        )  # fmt: skip

    def _make_historian(self, executor: NodeExecutor) -> None:
        parts = HistoryRecorderParts(
            self._settings, self._replica, self._guard, self._mesh.heard_at, self._worker,
            clock, wall, lambda: executor.frames,
        )  # fmt: skip
        self._historian = HistoryRecorder(
            parts, Witness(self._settings.node_id, self._configuration.profile),
            snapshot=lambda: self._driver.snapshot, origin=self._incarnation, kick=self._kick,
        )  # fmt: skip
        self._driver.watch_role(self._historian.entered)
        self._driver.watch(self._historian.look)

    def _broken(self, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        crash = failure_of_node(context)  # nobody expected it: fence and end, rather than guess
        if crash is None:
            return
        self._crash = crash
        self._driver.close()
        self._stopped.set()
        self._adapters.gate.granting.gate.shut()

    def _tick(self, due: float) -> None:
        self._lateness.observe(self._loop.time() - due)
        self._turn()

    def _turn(self) -> None:  # under load no timer ever fires
        if self._crash is not None:
            return
        now, beacon_s = clock(), self._guard.profile.beacon_s
        if now - self._looked_at >= TRANSPORT_BEACONS * beacon_s:
            self._looked_at = now
            self._transport.tick()
            for peer, silent in self._silence.look(self._transport.connected(), now=now):
                tell(peer, silent=silent, port=self._settings.mesh_port)
        self._replica.tick()
        if self._replica.behind:
            self._kick()
        elif not self._is_preferred and self._replica.leader is not None:
            self._is_preferred = True  # it has caught up
            realtime.prefer()
        self._replication.look(now)
        self._historian.look()
        self._servers.look(now)
        self._levels.look(now)
        self._transfer.look()
        self._tick_later()

    def _tick_later(self) -> None:
        deadline = min(self._guard.deadline, self._servers.due)
        due = self._due = self._loop.time() + max(TICK_S_MIN, deadline - clock())
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._tick, due)

    def _heard(self, said: Heard | Died) -> None:
        if isinstance(said, Died):
            log.warning("peer=%d daemon=dead released=true", said.peer)
            self._guard.died(said.peer)
            self._historian.died(said.peer)
            self._kick()
            return
        self._historian.hear(said)
        self._guard.hear(said)
        if said.payload:
            self._guard.receive(said.peer, decode(said.payload))
        soon = self._loop.time() + SOON_BEACONS * self._guard.profile.beacon_s
        if said.payload or self._due <= soon or self._guard.deadline <= clock():
            self._kick()

    def _kick(self) -> None:  # one tick after all messages that arrived together
        if not self._kicked:
            self._kicked = True
            self._loop.call_soon(self._kick_now)

    def _kick_now(self) -> None:
        self._kicked = False
        self._turn()

    def _feed(self, item: Input) -> None:
        if self._crash is None and not self._stopped.is_set():
            self._driver.feed(item)

    def _command(self, command: Command) -> None:
        if isinstance(command, Flows):
            self._replication.apply(command)
            return
        self._servers.applied(command)
        if isinstance(command, NewConfiguration):
            self._changes.accepted(command)
            self._configurations.committed(self._replica.state)
        if isinstance(command, Happened):
            self._historian.applied(command)
        if isinstance(command, FeatureLevel):
            self._write_level()
        self._backend.wake()

    def _restored(self) -> None:  # the state has become that of a snapshot
        self._worker.forget()
        self._historian.restored()
        self._servers.restored()
        self._write_level()
        self._configurations.committed(self._replica.state)

    def _write_level(self) -> None:
        """Let the flow worker, and the supervisor, write in the level in force."""
        self._worker.set_level(self._guard.level())
        self._leave_will(self._willed)

    def _heed(self, configuration: Configuration, then: Callable[[], None]) -> None:
        """Prepare for a configuration, then let it come into force."""
        self._leave_will(configuration)
        self._replication.configure(configuration)
        self._servers.configure(configuration, then)

    def _tell_revision(self) -> None:
        self._guard.revision, self._guard.refuses = self._node.settled, self._node.refuses

    def _leave_will(self, configuration: Configuration) -> None:
        self._willed = configuration
        will = write_will(
            self._settings,
            configuration.vips,
            release=seal_release(self._identity, self._incarnation, self._guard.level()),
            grace_s=self._configuration.profile.grace_s,
        )
        self._lifeline.leave(will, self._adapters.gate.map_fd)

    def _usable(self, device: str, usable: bool) -> None:  # noqa: FBT001 - called by the watch
        if device in self._paths:
            self._transport.path_changed(self._paths[device], usable=usable)
