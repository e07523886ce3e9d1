"""Everything that decides which servers get clients, on one node: verdicts, rotations, slow start.

The log has the facts (`core.server_records`); what follows from them is the same on every node.
The holder proposes: verdicts of its own probes, and which servers stay while their new checks have
no verdict. Operators' records may be proposed by anybody. What is in the log is applied by `apply`
or, of a snapshot, by `restore`; `configure` takes a configuration that came into force.

Each call returns *effects*, in order: what to propose, what to render anew, whose connections end,
and what to tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from hanat.core import server_records as records
from hanat.core.agent_words import AgentWords
from hanat.core.checks import Target
from hanat.core.configuration import Configuration, VirtualService
from hanat.core.full_servers import counted
from hanat.core.health_effects import (
    Committed,
    Effect,
    Effects,
    End,
    Propose,
    Rotate,
    Seen,
    Watch,
    sorry_ends,
)
from hanat.core.leftovers import Leftovers
from hanat.core.probing import JITTER, Sighting
from hanat.core.proposals import Proposals
from hanat.core.rotation import ConnectionsEnd, Rotations, ServiceChanged, ServiceStatus
from hanat.core.schedulers import InRotation
from hanat.core.server_facts import (
    CheckedService,
    ServerId,
    checked_service,
)
from hanat.core.server_records import Kind, Record
from hanat.core.service_view import Knowledge
from hanat.core.services import Rotation
from hanat.core.slow_starts import SlowStarts
from hanat.core.time_limits import TimeLimits
from hanat.core.verdicts import Event as VerdictEvent
from hanat.core.verdicts import VerdictChanged, Verdicts
from hanat.core.view_exchange import Slice
from hanat.core.views import View

# Of a configuration so many servers are looked at in one call; each costs 40 us.
SLICE_SERVERS = 100


@dataclass(slots=True)
class _Gathered:
    """Effects of one call; what can be said at once is said once."""

    proposed: list[Record] = field(default_factory=list)
    again: list[Record] = field(default_factory=list)  # was proposed before
    services: dict[str, None] = field(default_factory=dict)  # to be rendered anew
    others: list[Effect] = field(default_factory=list)


class _Turn(NamedTuple):
    """One call, and when it is."""

    gathered: _Gathered
    now: float
    wall_s: float


class _Known(NamedTuple):
    """A service, and what follows from its configuration alone."""

    service: VirtualService
    checked: CheckedService
    targets: Mapping[str, Target]


def _known(service: VirtualService) -> _Known:
    found = {server.name: service.targets_of(server) for server in service.servers}
    targets = {target.name: target for some in found.values() for target in some}
    names = {name: [target.name for target in some] for name, some in found.items()}
    return _Known(service, checked_service(service, names), targets)


class ServiceHealth:
    """The services of one node, and the health of their servers.

    Times are seconds of this node's clock, but for `wall_s`: seconds since 1970, for people and
    for orders of before this node ran. After each call `due` says when to call `tick`.

    Args:
        node_id: This node.
        began: When it started.
    """

    def __init__(self, node_id: int, began: float = 0.0) -> None:
        self._node_id = node_id
        self._verdicts = Verdicts(node_id)
        self._rotations = Rotations(self._verdicts.committed)
        self._known: dict[str, _Known] = {}
        self._taken: dict[str, _Known] = {}  # of those that are known
        self._coming: Generator[None, _Turn, None] | None = None  # a configuration, in slices
        self._leftovers: Leftovers | None = None  # of which some are still to be looked at
        self._holder: int | None = None
        self._term = 0
        self._records: dict[bytes, bytes] = {}  # of the log
        self._stale: dict[bytes, None] = {}  # that a snapshot changed, to be applied; ordered
        self._slow = SlowStarts()
        self._limits = TimeLimits(began)  # of all that the log has, configured or not
        self._proposals = Proposals()
        self._agents = AgentWords()  # of this tenure
        self.targets: Mapping[str, Target] = {}
        self.counted: tuple[VirtualService, ...] = ()  # by counts, or with servers that may be full
        self.full: set[ServerId] = set()
        self._filled = Counter[ServerId]()  # how often

    # ------------------------------------------------------------------- from the log

    def configure(self, configuration: Configuration, now: float, wall_s: float) -> Effects:
        """Take the services of a configuration, and no others.

        Of many servers some are taken at a time, the others by `tick`. A service that is the same
        object as before is not looked at. One that was not taken yet has all its servers.
        """
        self._coming, self._leftovers = self._taking(configuration), None
        next(self._coming)
        gathered = _Gathered()
        self._go_on(_Turn(gathered, now, wall_s))
        return self._effects(gathered, now)

    def _go_on(self, turn: _Turn) -> None:
        """Take some more of a configuration."""
        if self._coming is not None:
            try:
                self._coming.send(turn)
            except StopIteration:
                self._coming = None

    def _taking(self, configuration: Configuration) -> Generator[None, _Turn, None]:
        turn = yield
        known: dict[str, _Known] = {}
        looked_at = 0
        changed: list[_Known] = []
        for service in configuration.services:
            found = self._known.get(service.name)
            if found is None or found.service is not service:
                found = _known(service)
                looked_at += len(service.servers)
                if looked_at >= SLICE_SERVERS:
                    turn, looked_at = (yield), 0
            if self._taken.get(service.name) is not found:
                changed.append(found)
            known[service.name] = found
        gone = [name for name in self._taken if name not in known]
        self._known = known
        self.targets = {n: t for one in known.values() for n, t in one.targets.items()}
        gathered, now, wall_s = turn
        self.counted = counted(configuration.services)
        gathered.others.append(Watch(self.targets))
        events = self._verdicts.configure(self.targets.keys(), now, self._recovery_s)
        self._take(events, gathered, wall_s)
        self._changed(self._rotations.replace((), gone), gathered, now)
        for name in gone:
            del self._taken[name]
        for one in changed:
            looked_at += len(one.service.servers)
            if looked_at >= SLICE_SERVERS:
                turn, looked_at = (yield), 0
            self._take_service(one, turn)
        self._rotations.configure(one.checked for one in known.values())  # in their order
        self._coming = None  # all are taken
        self._settle(turn.gathered)

    @property
    def is_coming(self) -> bool:
        """Whether a part of the newest configuration, or of a snapshot, is still to be taken."""
        return self._coming is not None or bool(self._stale)

    def _take_service(self, known: _Known, turn: _Turn) -> None:
        """Take one service, and what the log knows of it already."""
        gathered, now, _ = turn
        for target in known.targets:
            self._adopt(target, gathered, now)
        self._changed(self._rotations.replace([known.checked]), gathered, now)
        self._taken[known.service.name] = known
        gathered.services[known.service.name] = None
        for server in known.service.servers:
            for kind in (Kind.MODE, Kind.WEIGHT, Kind.STAY):
                key = records.key_of(kind, ServerId(known.service.name, server.name))
                if value := self._records.get(key):
                    self._apply_to_server(Record(key, value), *turn)

    def _adopt(self, target: str, gathered: _Gathered, now: float) -> None:
        """Take the verdict that the log has of a target, as if it had been applied now."""
        key = records.key_of(Kind.VERDICT, target)
        for name, verdict in records.verdicts_of([Record(key, self._records.get(key, b""))], now):
            self._verdicts.adopt(name, verdict)
            if name in self.targets:
                gathered.others.append(Committed(name, verdict.state))

    def _recovery_s(self, target: str) -> float:
        """Return how long it takes until a target is seen up that can be reached again."""
        timing = self.targets[target].timing
        return timing.rise * timing.interval_s * (1 + JITTER) + timing.timeout_s

    def hold(self, node_id: int | None, term: int, now: float, wall_s: float) -> Effects:
        """Note who holds the addresses, and since which term."""
        self._holder, self._term = node_id, term
        self._agents.clear()
        gathered = _Gathered()
        self._take(self._verdicts.hold(node_id, term, now), gathered, wall_s)
        self._proposals.clear()
        self._limits.again()
        self._settle(gathered)
        return self._effects(gathered, now)

    def apply(self, changes: Iterable[Record], now: float, wall_s: float) -> Effects:
        """Apply records of the log."""
        gathered, targets = _Gathered(), []
        for record in changes:
            if record.value:
                self._records[record.key] = record.value
            else:
                self._records.pop(record.key, None)
            self._stale.pop(record.key, None)
            self._proposals.applied(record.key)
            if records.kind_of(record.key) is not Kind.VERDICT:
                self._apply_to_server(record, gathered, now, wall_s)
                continue
            change = records.verdict_of(record)
            if not record.value and self._verdicts.drop(records.target_of(record.key)):
                targets.append(records.target_of(record.key))
            if change is not None and self._verdicts.commit(change, now):
                targets.append(change.target)
                gathered.others.append(Committed(change.target, change.state))
        self._changed(self._rotations.reconsider(targets), gathered, now)
        return self._effects(gathered, now)

    def restore(self, known: Mapping[bytes, bytes], now: float, wall_s: float) -> Effects:
        """Take all records of a snapshot; of many that differ some, the others by `tick`."""
        before, self._records = self._records, dict(known)
        self._stale |= {key: None for key in before if key not in self._records}
        self._stale |= {k: None for k, value in self._records.items() if before.get(k) != value}
        gathered = _Gathered()
        self._refresh(_Turn(gathered, now, wall_s))
        return self._effects(gathered, now)

    def _refresh(self, turn: _Turn) -> None:
        """Apply some of the records that a snapshot changed."""
        if not self._stale:
            return
        targets = []
        for key in list(islice(self._stale, SLICE_SERVERS)):
            del self._stale[key]
            value = self._records.get(key, b"")
            if records.kind_of(key) is Kind.VERDICT:
                targets.append(records.target_of(key))
                self._verdicts.drop(records.target_of(key))
                self._adopt(records.target_of(key), turn.gathered, turn.now)
            else:
                self._apply_to_server(Record(key, value), *turn)
        self._changed(self._rotations.reconsider(targets), turn.gathered, turn.now)
        self._settle(turn.gathered)

    # ------------------------------------------------------------------ what is seen

    def sight(self, sighting: Sighting, now: float, wall_s: float) -> Effects:
        """Take how this node sees a target."""
        gathered = _Gathered()
        if sighting.target in self.targets and sighting.news:
            gathered.others.append(Seen(sighting.target, View(sighting.state, sighting.ok)))
        self._take(self._verdicts.sight(sighting, now), gathered, wall_s)
        if sighting.tenure == self._term and self._holder == self._node_id:
            gathered.proposed += self._agents.heed(sighting, self._rotations, wall_s)
        return self._effects(gathered, now)

    def hear(self, node_id: int, told: Slice, now: float, wall_s: float) -> Effects:
        """Take how another node sees targets."""
        gathered = _Gathered()
        if told.anew:
            self._verdicts.renew(node_id)
        for target, view in told.views:  # perhaps of a configuration that is still being read here
            self._take(self._verdicts.hear(node_id, target, view, now), gathered, wall_s)
        if not told.more:
            self._take(self._verdicts.renewed(node_id, now), gathered, wall_s)
        return self._effects(gathered, now)

    def forget(self, node_id: int, now: float, wall_s: float) -> Effects:
        """Drop the views of a node that is not heard, or does not probe, any more."""
        gathered = _Gathered()
        self._take(self._verdicts.forget(node_id, now), gathered, wall_s)
        return self._effects(gathered, now)

    def eligible(self, nodes: Collection[int], now: float, wall_s: float) -> Effects:
        """Note which other nodes could hold the addresses."""
        gathered = _Gathered()
        self._take(self._verdicts.eligible(nodes, now), gathered, wall_s)
        return self._effects(gathered, now)

    def not_handed_over(self, now: float) -> None:
        """Note that this node, which is blind, does not serve: it is asked again in a second."""
        self._verdicts.not_handed_over(now)

    def fill(self, came: Collection[ServerId], went: Collection[ServerId], now: float) -> Effects:
        """Take which servers have become full, so that they get no new clients, and which not."""
        gathered = _Gathered()
        gathered.services |= dict.fromkeys(sorted({s.service for s in (*came, *went)}))
        self._filled.update(came)
        self.full.update(came)
        self.full.difference_update(went)
        return self._effects(gathered, now)

    # -------------------------------------------------------------------------- time

    def due(self) -> float | None:
        """Return when to call `tick`, seconds; None: not before something else happens."""
        if self.is_coming or self._leftovers is not None:
            return 0.0
        limits_due = self._limits.due() if self._holder == self._node_id else None
        dues = (self._verdicts.due(), self._slow.due(), self._proposals.due(), limits_due)
        return min((due for due in dues if due is not None), default=None)

    def tick(self, now: float, wall_s: float) -> Effects:
        """Do what is due by time."""
        gathered = _Gathered()
        turn = _Turn(gathered, now, wall_s)
        self._clean(gathered)
        self._refresh(turn)
        self._go_on(turn)
        self._take(self._verdicts.tick(now), gathered, wall_s)
        gathered.services |= dict.fromkeys(self._slow.step(now))
        gathered.again += self._proposals.again(now)
        if self._holder == self._node_id:
            gathered.proposed += self._over(now)
        return self._effects(gathered, now)

    # -------------------------------------------------------------------- for people

    @property
    def statuses(self) -> Mapping[str, ServiceStatus]:
        """What follows for each service, in the order of the configuration."""
        return self._rotations.statuses

    def users(self, target: str) -> Collection[ServerId]:
        """Return the servers that a target is probed for."""
        return self._rotations.users(target)

    def knows(self, server: ServerId) -> bool:
        """Say whether a server is configured."""
        return self._rotations.knows(server)

    def knowledge(
        self, names: Mapping[int, str], connections: Mapping[ServerId, int], now: float
    ) -> Knowledge:
        """Return what a view of services is made of.

        Args:
            names: Of all nodes.
            connections: Of each server that has some.
            now: The time.
        """
        percents = self._slow.percents(now)
        return Knowledge(
            self._rotations, self._verdicts, self._node_id, names, connections, now, percents,
            self.full, self._filled,
        )  # fmt: skip

    # ---------------------------------------------------------------------- the rules

    def _take(self, events: Iterable[VerdictEvent], gathered: _Gathered, wall_s: float) -> None:
        for event in events:
            if isinstance(event, VerdictChanged):
                gathered.proposed.append(records.verdict_record(event, wall_s))
            else:
                gathered.others.append(event)

    def _over(self, now: float) -> Iterator[Record]:
        """Yield the records of servers whose time is over, unless an operator is faster."""
        for server, order in self._limits.over(now):
            record = records.mode_record(server, order)
            yield records.following(record, self._records.get(record.key, b""))

    def _apply_to_server(
        self, record: Record, gathered: _Gathered, now: float, wall_s: float
    ) -> None:
        server = records.server_of(record.key)
        match records.kind_of(record.key):
            case Kind.MODE:
                mode = records.mode_of(record)
                self._limits.note(server, mode, now, wall_s)
                if mode != self._rotations.administrative(server):
                    self._changed(self._rotations.administer(server, mode), gathered, now)
            case Kind.WEIGHT:
                factor = records.factor_of(record)
                self._changed(self._rotations.weigh(server, factor), gathered, now)
            case Kind.STAY if record.value:
                self._changed(self._rotations.stay(server), gathered, now)
            case _:
                pass

    def _changed(
        self, events: Iterable[ServiceChanged | ConnectionsEnd], gathered: _Gathered, now: float
    ) -> None:
        for event in events:
            if isinstance(event, ConnectionsEnd):
                gathered.others += self._ends(event)
                continue
            gathered.others.append(event)
            if event.rotates_anew:
                gathered.services[event.name] = None
                known = self._known.get(event.name)
                self._slow.note(event, 0.0 if known is None else known.service.slow_start_s, now)
                if known is not None and event.was is not None and event.now is not None:
                    was, then = dict(event.was.rotation), dict(event.now.rotation)
                    gathered.others += sorry_ends(known.service, was, then)

    def _ends(self, event: ConnectionsEnd) -> Iterable[End]:
        """Return whose connections end, as the service was that led clients there.

        Those of a server that is removed from a service end when its new rules are in force: the
        node looks then at every flow (`core.reconcile`), by the policy of the service as it is.
        """
        name, known = event.server.service, self._taken.get(event.server.service)
        if known is None:
            return
        new = self._known.get(name)
        if new is not None and all(event.place != server.place for server in new.service.servers):
            return
        for server in known.service.servers:
            if (server.name, server.place) == (event.server.server, event.place):
                yield End(known.service, server, event.policy)

    def _settle(self, gathered: _Gathered) -> None:
        """As the holder, begin; what is not taken yet must not count as gone."""
        self._leftovers = None
        if self._holder == self._node_id and not self.is_coming:
            known = {
                name: (one.service, one.checked.on_server_down) for name, one in self._taken.items()
            }
            self._leftovers = Leftovers(self._rotations, known, self.targets, self._records)
            self._clean(gathered)

    def _clean(self, gathered: _Gathered) -> None:
        """As the holder, look at some of what was left over."""
        if self._leftovers is None:
            return
        for item in self._leftovers.some():
            if isinstance(item, Record):
                gathered.proposed.append(item)
            else:
                gathered.others.append(item)
        if self._leftovers.is_over:
            self._leftovers = None

    def _effects(self, gathered: _Gathered, now: float) -> Effects:
        effects: list[Effect] = list(gathered.others)
        if gathered.services:
            there = [name for name in gathered.services if name in self._taken]
            effects.append(Rotate({name: self._rotation(name, now) for name in there}))
        new = (r for r in gathered.proposed if _is_verdict(r) or self._proposals.put(r, now))
        if self._holder == self._node_id and (proposed := [*gathered.again, *new]):
            effects.append(Propose(self._term, tuple(proposed)))
        return tuple(effects)

    def _rotation(self, name: str, now: float) -> Rotation:
        """Return who gets new clients of a service."""
        service, status = self._taken[name].service, self._rotations.statuses[name]
        tiers = {server.name: server.tier for server in service.servers}
        full = {s.name for s in service.servers if s.max_conn and (name, s.name) in self.full}
        return tuple(
            InRotation(
                server, weight, self._slow.percent(ServerId(name, server), now), tiers[server]
            )
            for server, weight in status.rotation
            if server not in full
        )


def _is_verdict(record: Record) -> bool:
    """Say whether `core.verdicts` proposes it again by itself."""
    return bool(record.value) and records.kind_of(record.key) is Kind.VERDICT
