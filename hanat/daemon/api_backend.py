"""The daemon as the API sees it: its status, and what operators want of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import hanat
from hanat.api.backend import Shown, Wanted
from hanat.config.settings import NodeSettings, Peer
from hanat.core.eligibility import Kind, kinds_of
from hanat.core.histogram import Histogram
from hanat.core.identity import fingerprint
from hanat.core.inputs import SwitchoverRequested
from hanat.core.lookup import demand_server
from hanat.core.nobody import Circumstances, why_nobody
from hanat.core.node_snapshot import NodeSnapshot
from hanat.core.server_facts import Administrative, Mode, ServerId
from hanat.core.service_view import ServiceView
from hanat.core.status import (
    LogStatus,
    MeshStatus,
    NodeStatus,
    PathStatus,
    PeerStatus,
    RefusedStatus,
    Role,
    VipStatus,
)
from hanat.core.totals import Figures
from hanat.daemon.adapters import ChosenGate
from hanat.daemon.config_changes import ConfigChanges
from hanat.daemon.driver import Driver
from hanat.daemon.feature_levels import FeatureLevels
from hanat.daemon.history_recorder import HistoryRecorder
from hanat.daemon.reconciling import Reconciling
from hanat.daemon.rule_counts import Counters, RuleCounts
from hanat.daemon.servers import Servers
from hanat.daemon.service_views import ServiceViews
from hanat.daemon.shown_connections import describe, selection_of
from hanat.daemon.shown_services import ShownServices
from hanat.daemon.worker_link import WorkerLink
from hanat.errors import NoQuorumError, RefusedError
from hanat.net.udp import MeshSockets, missing
from hanat.raft.connections import RaftTransport
from hanat.raft.replica import Replica

SWITCHOVER_S_MAX = 5.0
DESCRIPTION_MAX = 500
_INCOMPLETE = "connections would break; try again soon, or look at the flows in its status"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a running node consists of."""

    settings: NodeSettings
    driver: Driver
    replica: Replica
    transport: RaftTransport
    mesh: MeshSockets
    worker: WorkerLink
    changes: ConfigChanges
    historian: HistoryRecorder
    reconciling: Reconciling
    servers: Servers
    lateness: Histogram
    unannounced: Callable[[], int]
    clock: Callable[[], float]
    counters: Counters
    figures: Callable[[ServerId], Figures | None]
    gate: ChosenGate
    levels: FeatureLevels


class ApiBackend:
    """Renders snapshots and passes commands on."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._names = {peer.node_id: peer.name for peer in parts.settings.peers}
        self._changed = asyncio.Event()
        self._switching = False
        self._services = ShownServices()
        self._counts = RuleCounts(parts.counters)
        self._views = ServiceViews(parts.servers.health, self._names, self._counts, parts.figures)
        parts.driver.watch(self.wake)

    def wake(self) -> None:
        """Let a switchover that waits look again: role or holder may have changed."""
        self._changed.set()

    # ------------------------------------------------------------------- status

    def status(self) -> NodeStatus:
        """Return what this node knows, now."""
        p, s, now = self._parts, self._parts.driver.snapshot, self._parts.clock()
        configuration, holder, peers = s.configuration, self._shown_holder(s), self._peers(now)
        known = Circumstances(
            p.settings.node, self._quorum(), p.replica.can_vote, self._name(s.leader), peers
        )
        return NodeStatus(
            node=p.settings.node,
            node_id=p.settings.node_id,
            cluster=configuration.name,
            version=hanat.__version__,
            profile=s.profile.name,
            lease_s=s.profile.lease_s,
            role=s.role,
            role_s=now - s.role_since,
            reason=s.reason.value,
            term=s.term,
            leader=self._name(s.leader),
            holder=self._name(holder),
            quorum=known.quorum,
            nobody=() if holder is not None else why_nobody(s, known, now),
            unannounced=p.unannounced(),
            lease_left_s=max(0.0, s.lease_until - now) if s.role is Role.ACTIVE else None,
            unsafe=s.unsafe,
            hindrances=s.hindrances,
            handicap=s.handicap,
            revision=s.revision,
            uptime_s=now - s.started_at,
            vips=self._vips(s),
            peers=peers,
            services=self._services.of(configuration, p.worker.counts()),
            flows=p.worker.status(),
            log=LogStatus(p.replica.commit_index, p.replica.applied_index, p.replica.last_index),
            late=p.lateness.status(),
            commits=p.replica.commits.status(),
            refused=RefusedStatus(raft=p.transport.refusals, mesh=p.mesh.counts.refused),
            mesh=MeshStatus(p.mesh.counts.sent, p.mesh.counts.unsent, p.mesh.counts.heard),
            transitions=s.transitions,
            restored=s.restored,
            missing=tuple(map(str, missing(p.settings.myself.addresses))),
            repairs=s.repairs,
            gate=p.gate.by.kind.value,
            gate_found=p.gate.found,
            keys=tuple(map(fingerprint, p.transport.identity.keys)),
            level=p.replica.state.level,
            levels=tuple(p.levels.reached.items()),
        )

    def describe(self) -> str:
        """Return role and holder in one line, as a service manager shows them."""
        snapshot = self._parts.driver.snapshot
        holder = self._name(self._shown_holder(snapshot))
        words = [snapshot.role.value, f"holder {holder or 'unknown'}"]
        if snapshot.unsafe:
            words.append(f"unsafe: {'; '.join(snapshot.unsafe)}")
        if snapshot.hindrances:
            words.append(f"hindered: {'; '.join(snapshot.hindrances)}")
        return " ".join(", ".join(words).split())[:DESCRIPTION_MAX]

    async def refresh(self) -> None:
        """Ask the flow worker and the kernel for the figures of now."""
        await self._parts.worker.refresh()
        await self._counts.refresh(self._parts.driver.snapshot.configuration)
        await self._services.prepare(self._parts.driver.snapshot.configuration)

    def _name(self, node_id: int | None) -> str | None:
        return None if node_id is None else self._names.get(node_id, f"node {node_id}")

    def _holder(self, snapshot: NodeSnapshot) -> int | None:
        if snapshot.role is Role.ACTIVE:
            return self._parts.settings.node_id
        state = self._parts.replica.state
        following = state.term == snapshot.term and state.holder == snapshot.leader
        mine = state.holder == self._parts.settings.node_id
        return state.holder if following and not mine else None

    def _shown_holder(self, snapshot: NodeSnapshot) -> int | None:
        """Return the holder if it says so itself: the log tells of one that is dead, too."""
        holder = self._holder(snapshot)
        if holder is None or holder == self._parts.settings.node_id:
            return holder
        said = self._parts.replica.beacons.get(holder)
        return holder if said is not None and said.leads and not said.shut else None

    def _quorum(self) -> bool:
        connected = len(self._parts.transport.connected()) + 1
        return connected > len(self._parts.settings.peers) // 2

    def _vips(self, snapshot: NodeSnapshot) -> tuple[VipStatus, ...]:
        interfaces, held = self._parts.settings.interfaces, snapshot.places()
        return tuple(
            VipStatus(
                vip.name, str(address), interfaces.get(vip.interface, "?"),
                (vip.interface, address) in held,
            )
            for vip in snapshot.configuration.vips
            for address in vip.addresses
        )  # fmt: skip

    def _peers(self, now: float) -> tuple[PeerStatus, ...]:
        connected = self._parts.transport.connected()
        said = self._parts.replica.beacons
        found: list[PeerStatus] = []
        for peer in self._parts.settings.peers:
            if peer.node_id == self._parts.settings.node_id:
                continue
            address, heard_at = connected.get(peer.node_id, (None, None))
            heard_s = None if heard_at is None else now - heard_at
            beacon = said.get(peer.node_id)
            found.append(
                PeerStatus(
                    peer.name,
                    peer.node_id,
                    address is not None,
                    heard_s,
                    address,
                    self._beacons(peer, now),
                    fit=beacon is not None and beacon.fit,
                    complete=beacon is not None and beacon.complete,
                    unsafe=beacon is not None and beacon.unsafe,
                    handicap=None if beacon is None else beacon.handicap,
                    hindrances=() if beacon is None else kinds_of(beacon.handicap),
                    refused=self._parts.mesh.refused.get(peer.node_id, ""),
                )
            )
        return tuple(found)

    def _beacons(self, peer: Peer, now: float) -> tuple[PathStatus, ...]:
        heard_at = self._parts.mesh.heard_at
        times = [heard_at(peer.node_id, path) for path in range(len(peer.addresses))]
        return tuple(
            PathStatus(str(address), None if at is None else now - at)
            for address, at in zip(peer.addresses, times, strict=True)
        )

    # -------------------------------------------------------------- connections

    async def connections(self, wanted: Wanted, *, kill: bool) -> dict[str, Any]:
        """See `api.backend.Backend.connections`."""
        snapshot = self._parts.driver.snapshot
        selection = selection_of(wanted, snapshot.configuration)
        if kill and snapshot.role is not Role.ACTIVE:
            holder = self._name(self._holder(snapshot)) or "unknown"
            raise RefusedError(
                f"connections: {self._parts.settings.node} is {snapshot.role.value} and would not "
                f"be followed; ask the holder, which is {holder}"
            )
        answer = await self._parts.worker.query(selection, limit=wanted.limit, kill=kill)
        if answer.error:
            raise RefusedError(f"connections: {answer.error}")
        found = await describe(answer.records, snapshot.configuration)
        return {"count": answer.total, "connections": found}

    # ------------------------------------------------------------------ services

    def services(self) -> Iterator[ServiceView]:
        """See `api.backend.Backend.services`."""
        p = self._parts
        return self._views.all(p.driver.snapshot.configuration, p.worker.counts(), p.clock())

    def service(self, name: str) -> ServiceView:
        """See `api.backend.Backend.service`."""
        p = self._parts
        return self._views.one(name, p.driver.snapshot.configuration, p.worker.counts(), p.clock())

    async def administer(
        self, server: ServerId, *, mode: Mode, reason: str, for_s: float | None, by: str
    ) -> ServiceView:
        """See `api.backend.Backend.administer`."""
        p, wall_s = self._parts, self._parts.servers.wall_s
        demand_server(server, p.driver.snapshot.configuration.services)
        until_s = None if for_s is None else wall_s + for_s
        await p.servers.orders.administer(server, Administrative(mode, by, reason, wall_s, until_s))
        return self.service(server.service)

    async def weigh(self, server: ServerId, factor: float, by: str) -> ServiceView:
        """See `api.backend.Backend.weigh`."""
        demand_server(server, self._parts.driver.snapshot.configuration.services)
        await self._parts.servers.orders.weigh(server, factor, by)
        return self.service(server.service)

    # --------------------------------------------------- configuration, history

    def configuration(self) -> Shown:
        """See `api.backend.Backend.configuration`."""
        return self._parts.changes.show()

    async def change(
        self, text: str, based_on: int, *, dry_run: bool, force: bool = False
    ) -> dict[str, Any]:
        """See `api.backend.Backend.change`."""
        reconciling = self._parts.reconciling
        before = reconciling.ended.copy()
        answer = await self._parts.changes.change(text, based_on, dry_run=dry_run, force=force)
        if answer["applied"]:
            await reconciling.settled()
            answer["ended"] = dict(reconciling.ended - before)
        return answer

    def server_history(self, limit: int) -> list[dict[str, Any]]:
        """See `api.backend.Backend.server_history`."""
        return self._parts.servers.history(limit, self._names)

    def history(self, limit: int) -> list[dict[str, Any]]:
        """See `api.backend.Backend.history`."""
        return self._parts.historian.show(limit)

    async def finish_upgrade(self) -> int:
        """See `api.backend.Backend.finish_upgrade`."""
        return await self._parts.levels.finish()

    # --------------------------------------------------------------- switchover

    async def switchover(self, to: str | None) -> str:
        """Hand the addresses to another node; return the name of the new holder.

        Raises:
            RefusedError: Not now, or not to that node.
            NoQuorumError: It did not finish in time.
        """
        target = self._target(to)
        self._switching = True
        try:
            self._parts.driver.feed(SwitchoverRequested(target))
            async with asyncio.timeout(SWITCHOVER_S_MAX):
                return await self._new_holder(to)
        except TimeoutError as error:
            raise NoQuorumError(
                f"switchover: no new holder after {SWITCHOVER_S_MAX:.0f} s; "
                'see "hanat status" on every node'
            ) from error
        finally:
            self._switching = False

    def _target(self, to: str | None) -> int | None:
        settings, snapshot = self._parts.settings, self._parts.driver.snapshot
        if snapshot.role is not Role.ACTIVE:
            holder = self._name(self._holder(snapshot)) or "unknown"
            if not self._quorum():  # what it believes of a holder may be long past
                raise NoQuorumError(
                    f"switchover: {settings.node} is {snapshot.role.value} and sees no majority; "
                    "try again when it does"
                )
            raise RefusedError(
                f"switchover: {settings.node} is {snapshot.role.value}, not the holder; "
                f"ask the holder, which is {holder}"
            )
        if self._switching:
            raise RefusedError("switchover: one is under way; wait for it to end")
        self._demand_ready(to)
        return next((number for number, name in self._names.items() if name == to), None)

    def _demand_ready(self, to: str | None) -> None:
        """Refuse a switchover to who cannot take over now."""
        settings, connected = self._parts.settings, self._parts.transport.connected()
        fit, complete = self._parts.replica.fit_peers, self._parts.replica.complete_peers
        mine = self._parts.driver.snapshot.handicap
        worse = {p: kinds_of(h) for p, h in fit.items() if h & ~Kind.FLOWS.value > mine}
        if to is None:
            ready = fit.keys() - worse.keys()
            if not ready:
                raise RefusedError(
                    "switchover: no other node is connected, fit and at least as good as this one"
                )
            if not ready & complete:
                raise RefusedError(f"switchover: no other node has all flows; {_INCOMPLETE}")
            return
        known = {name: node_id for node_id, name in self._names.items()}
        if to not in known:
            raise RefusedError(f"switchover: no node {to!r}; nodes are {', '.join(sorted(known))}")
        if known[to] == settings.node_id:
            raise RefusedError(f"switchover: {to} holds the addresses already")
        if known[to] not in connected:
            raise RefusedError(f"switchover: {to} is not connected")
        if known[to] not in fit:
            raise RefusedError(
                f"switchover: {to} cannot hold or vote, or started just now; see its status"
            )
        if known[to] in worse:
            found = ", ".join(worse[known[to]])
            raise RefusedError(
                f"switchover: {to} is worse off than {settings.node} ({found}) and would hand "
                "the addresses back; see its status"
            )
        if known[to] not in complete:
            raise RefusedError(f"switchover: {to} does not have all flows; {_INCOMPLETE}")

    async def _new_holder(self, to: str | None) -> str:
        """Wait until another node announced itself, or this one took back."""
        left = False
        while True:
            snapshot = self._parts.driver.snapshot
            holder = self._holder(snapshot)
            left = left or snapshot.role is not Role.ACTIVE
            if holder is not None and holder != self._parts.settings.node_id:
                name = self._name(holder)
                assert name is not None
                if to in {None, name}:
                    return name
                raise RefusedError(f"switchover: {name} holds the addresses now, not {to}")
            if left and snapshot.role is Role.ACTIVE:
                raise NoQuorumError(
                    "switchover aborted: flows or leadership could not be handed over; "
                    f"{self._parts.settings.node} holds the addresses again"
                )
            self._changed.clear()
            await self._changed.wait()
