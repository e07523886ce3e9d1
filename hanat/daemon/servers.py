"""Between the services' health and what acts on it: the log, the checker, rulesets, flows, peers.

Decides nothing: `core.service_health` does. Each node probes; the holder's verdicts go into the log
and come back from it on every node alike. How a node sees its servers goes to its peers on the
routers' own connections: the changes, and all of it when a connection is new.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from typing import Any, Protocol

from hanat.core.checks import Target
from hanat.core.configuration import Configuration
from hanat.core.endings import Ended, Ending, ending_of
from hanat.core.health_effects import Committed, Effects, End, Propose, Rotate, Seen, Watch
from hanat.core.inputs import Input, SwitchoverRequested
from hanat.core.probing import Operational, Sighting
from hanat.core.rotation import ServiceChanged
from hanat.core.server_facts import ServerId
from hanat.core.server_history import changes_of
from hanat.core.server_records import Record
from hanat.core.service_health import ServiceHealth
from hanat.core.services import Levels, Rotation
from hanat.core.status import Role
from hanat.core.verdicts import Froze, HandOver, Thawed
from hanat.core.view_exchange import ViewExchange
from hanat.core.views import View
from hanat.daemon.counting import Counting, Loads
from hanat.daemon.order_routing import OrderRouting
from hanat.daemon.server_messages import views_of, views_to_bytes
from hanat.raft.guard import Guard
from hanat.raft.replica import Replica
from hanat.raft.state import Barrier, Command, Holder, Records

log = logging.getLogger(__name__)

AGAIN_S = 1.0
# Of views no more than this waits in the buffer of a connection, which the log needs, too.
QUEUED_BYTES_MAX = 64 << 10
QUEUE_LOOK_S = 0.02
RECORDS_AN_ENTRY = 500  # of 1,000 verdicts the first are in force before the last


class Checker(Protocol):
    """What probes; see `hanat.daemon.checker_link`."""

    def start(self) -> None:
        """Begin; nothing is probed yet."""
        ...

    def configure(self, targets: Mapping[str, Target]) -> None:
        """Probe these and no others."""
        ...

    def hold(self, tenure: int | None) -> None:
        """This node holds the addresses in this tenure; None: it does not."""
        ...

    def commit(self, target: str, state: Operational) -> None:
        """Note what the log says."""
        ...

    def look(self) -> None:
        """See whether it lives."""
        ...


@dataclass(frozen=True, slots=True)
class ServerParts:
    """What the services' health needs.

    Attributes:
        node_id: This node.
        rotate: Lets these servers get new clients, of all services; tells why that failed.
        level: Lets services by counts have these tables, likewise.
        loads: Tells how many connections their servers have.
        end: Ends the connections of servers, as the holder.
        role: Returns this node's.
        feed: Tells the core of the node.
        clock: Seconds of CLOCK_BOOTTIME.
        wall: Seconds since 1970.
        kick: Called when something was proposed.
    """

    node_id: int
    replica: Replica
    guard: Guard
    rotate: Callable[[Mapping[str, Rotation], Callable[[str | None], None]], None]
    level: Callable[[Levels, Callable[[str | None], None]], None]
    loads: Loads
    end: Callable[[Sequence[Ending], Callable[[Sequence[Ended]], None]], None]
    role: Callable[[], Role]
    feed: Callable[[Input], None]
    clock: Callable[[], float]
    wall: Callable[[], float]
    kick: Callable[[], None]


class Servers:
    """The services of this node and the health of their servers.

    Attributes:
        health: What is known; read only.
        orders: Operators' orders.
    """

    def __init__(self, parts: ServerParts) -> None:
        self._parts = parts
        self.health = ServiceHealth(parts.node_id, parts.clock())
        self.orders = OrderRouting(
            parts.replica, parts.guard, self.health,
            clock=parts.clock, wall=parts.wall, kick=parts.kick,
        )  # fmt: skip
        self._checker: Checker | None = None
        self._taken: Callable[[], None] | None = None
        self._rotations: dict[str, Rotation] = {}
        self._refused = ""  # by the kernel
        self._again_at = math.inf  # a rotation that was refused is tried again
        self._ends: list[Ending] = []  # when it is in force
        self._counting = Counting(
            parts.loads, parts.clock, fill=self._fill, rotations=lambda: self._rotations,
            level=lambda tables: parts.level(tables, self._tell_rotation),
        )  # fmt: skip
        self._exchange, self._tell_at = ViewExchange(), math.inf
        self._eligible: frozenset[int] = frozenset()
        self._tenure: int | None = None
        parts.guard.on_views = self._heard

    @property
    def wall_s(self) -> float:
        """Seconds since 1970."""
        return self._parts.wall()

    @property
    def rotations(self) -> Mapping[str, Rotation]:
        """Who gets new clients, by name of the service; never changed, but replaced."""
        return self._rotations

    def begin(self, checker: Checker) -> None:
        """Start what probes, and tell it everything."""
        self._checker = checker
        checker.start()
        checker.configure(self.health.targets)
        checker.hold(self._tenure)

    # ------------------------------------------------------------------ from the log

    def configure(self, configuration: Configuration, taken: Callable[[], None]) -> None:
        """Take a configuration that comes into force, in some turns if it is large.

        Args:
            configuration: Which one; one that is still being taken is passed over.
            taken: Called when all of it is.
        """
        parts, self._taken = self._parts, taken
        self._do(self.health.configure(configuration, parts.clock(), parts.wall()))
        self._tell_taken()

    def _tell_taken(self) -> None:
        if self._taken is not None and not self.health.is_coming:
            taken, self._taken = self._taken, None
            taken()

    def applied(self, command: Command) -> None:
        """Take a command that took effect."""
        parts = self._parts
        now, wall_s = parts.clock(), parts.wall()
        match command:
            case Barrier(term, _):
                self.orders.begin()
                self._hold(None, term)
            case Holder(term, node_id):
                self._hold(node_id, term)
            case Records(_, records):
                self._do(self.health.apply(records, now, wall_s))
                self.orders.applied(records)
            case _:
                pass

    def restored(self) -> None:
        """The state has become that of a snapshot."""
        parts, state = self._parts, self._parts.replica.state
        self._do(self.health.restore(state.records, parts.clock(), parts.wall()))
        self._hold(state.holder, state.term)
        self.orders.restored()

    def _hold(self, node_id: int | None, term: int) -> None:
        parts = self._parts
        self._tenure = term if node_id == parts.node_id else None
        self._counting.clear()
        if self._checker is not None:
            self._checker.hold(self._tenure)
        self._do(self.health.hold(node_id, term, parts.clock(), parts.wall()))
        self._fill((), tuple(self.health.full))

    # ------------------------------------------------------------------- what is seen

    def sighted(self, sighting: Sighting) -> None:
        """Take what the checker saw."""
        parts = self._parts
        self._do(self.health.sight(sighting, parts.clock(), parts.wall()))

    def checker_lost(self) -> None:
        """Note that nothing is probed at present: what was seen is worth nothing any more."""
        parts = self._parts
        self._exchange.clear()
        self._tell_views()
        self._do(self.health.forget(parts.node_id, parts.clock(), parts.wall()))

    def _heard(self, peer: int, data: bytes) -> None:
        parts = self._parts
        told = views_of(data)
        if told is None:
            log.warning("peer=%d views=unreadable action=ignored", peer)
            return
        self._do(self.health.hear(peer, told, parts.clock(), parts.wall()))

    # --------------------------------------------------------------------------- time

    @property
    def due(self) -> float:
        """When to call `look` at the latest, seconds of the clock."""
        dues = [self.health.due(), self._again_at, self._tell_at]
        if self._counts:
            dues.append(self._counting.due)
        return min((due for due in dues if due is not None), default=math.inf)

    def look(self, now: float) -> None:
        """Do what is due, and note which peers are there."""
        parts = self._parts
        if self._checker is not None:
            self._checker.look()
        guard = parts.guard
        complete = guard.complete_peers
        eligible = frozenset(
            peer for peer, handicap in guard.fit_peers.items()
            if peer in complete and handicap <= guard.handicap
        )  # fmt: skip
        if eligible != self._eligible:
            self._eligible = eligible
            self._do(self.health.eligible(eligible, now, parts.wall()))
        for peer in self._exchange.connect(guard.connections):
            self._do(self.health.forget(peer, now, parts.wall()))
        self._tell_views()
        due = self.health.due()
        if due is not None and due <= now:
            self._do(self.health.tick(now, parts.wall()))
            self._tell_taken()
        if self._again_at <= now:
            self._begin_rotation()
        if self._counts and self._counting.due <= now:
            self._counting.look(self.health.counted, now)

    @property
    def _counts(self) -> bool:
        """Whether this node looks at how many connections servers have."""
        return self._tenure is not None and bool(self.health.counted or self.health.full)

    def _fill(self, came: Collection[ServerId], went: Collection[ServerId]) -> None:
        self._do(self.health.fill(came, went, self._parts.clock()))

    def history(self, limit: int, names: Mapping[int, str]) -> list[dict[str, Any]]:
        """Return the newest changes, oldest first; see `api.backend.Backend.server_history`."""
        newest = [*self._parts.replica.state.changes][-limit:] if limit else []
        return [
            {
                "at": datetime.fromtimestamp(change.at_s, UTC).isoformat(timespec="milliseconds"),
                "at_s": change.at_s,
                "what": change.what,
                "servers": list(change.servers),
                "node": None if change.node_id is None else names.get(change.node_id),
                "text": change.text,
            }
            for change in changes_of(newest, self.health.users, names)
        ]

    # ------------------------------------------------------------------------ effects

    def _do(self, effects: Effects) -> None:  # noqa: C901, PLR0912 - one arm an effect
        views: list[tuple[str, View]] = []
        ends: list[Ending] = []
        rotated: dict[str, Rotation] = {}
        for effect in effects:
            match effect:
                case Propose(term, records):
                    self._propose(term, records)
                case Rotate(rotations):
                    rotated |= rotations
                case Watch(targets):
                    self._watch(targets)
                case Seen(target, view):
                    views.append((target, view))
                case Committed(target, state):
                    if self._checker is not None:
                        self._checker.commit(target, state)
                case End(service, server, policy):
                    ends.append(ending_of(service, server, policy))
                case HandOver():
                    self._hand_over(effect)
                case Froze() | Thawed() | ServiceChanged():
                    _tell(effect)
        if views:
            self._exchange.see(views)
            self._tell_views()
        if rotated:
            self._rotate(rotated, ends)
        elif ends:
            self._end(ends)

    def _hand_over(self, effect: HandOver) -> None:
        """Let the witness hold, if there is something to hand over: not before the gate is open."""
        parts = self._parts
        if parts.role() is not Role.ACTIVE:
            self.health.not_handed_over(parts.clock())
            return
        log.error("servers=blind action=hand_over to=%d found=%r", effect.witness, str(effect))
        parts.feed(SwitchoverRequested(effect.witness, blind=True))

    def _rotate(self, rotated: Mapping[str, Rotation], ends: list[Ending]) -> None:
        """Have rules rendered; connections end when no new one is led there any more."""
        services = self.health.statuses
        rotations = {n: r for n, r in self._rotations.items() if n in services}
        self._rotations = {**rotations, **rotated}
        self._ends += ends
        self._begin_rotation()

    def _begin_rotation(self) -> None:
        self._again_at = math.inf
        ends, self._ends = self._ends, []

        def done(error: str | None) -> None:
            if error is not None:
                self._ends = [*ends, *self._ends]
                self._again_at = self._parts.clock() + AGAIN_S
            elif ends:
                self._end(ends)
            self._tell_rotation(error)

        self._parts.rotate(self._rotations, done)

    def _tell_rotation(self, error: str | None) -> None:
        """Say once that the kernel refuses rules, and once that it does not any more."""
        if error and not self._refused:
            log.error("rotation found=%r action=tried_again", error)
        elif self._refused and not error:
            log.warning("rotation=in_force")
        self._refused = error or ""

    def _end(self, ends: list[Ending]) -> None:
        if self._tenure is not None:
            self._parts.end(ends, partial(_tell_ended, ends))

    def _watch(self, targets: Mapping[str, Target]) -> None:
        self._exchange.keep(targets)
        if self._checker is not None:
            self._checker.configure(targets)

    def _propose(self, term: int, records: Sequence[Record]) -> None:
        if self._parts.replica.term == term:
            for first in range(0, len(records), RECORDS_AN_ENTRY):
                self.orders.append(records[first : first + RECORDS_AN_ENTRY], term)

    def _tell_views(self) -> None:
        """Tell each peer some of what it does not know yet, if its connection has room."""
        wire = self._parts.guard.wire
        waiting = self._exchange.waiting()
        free = [peer for peer in waiting if wire.queued(peer) <= QUEUED_BYTES_MAX]
        for peer in free:
            told = views_to_bytes(self._exchange.take(peer))
            wire.send(peer, {"type": "views", "views": told})
        self._tell_at = math.inf
        if self._exchange.waiting():
            self._tell_at = self._parts.clock() + (0.0 if free else QUEUE_LOOK_S)


def _tell_ended(ends: Sequence[Ending], counts: Sequence[Ended]) -> None:
    for end, ended in zip(ends, counts, strict=False):
        if ended.expired or ended.reset:
            log.info(
                "service=%s server=%s expired=%d reset=%d",
                end.service, ip_address(end.server), ended.expired, ended.reset,
            )  # fmt: skip


def _tell(effect: Froze | Thawed | ServiceChanged) -> None:
    match effect:
        case Froze(witness, down, targets):
            log.error(
                "verdicts=frozen found=%r",
                f"{down} of {targets} targets are down for this node and up for node {witness}",
            )
        case Thawed():
            log.warning("verdicts=decided_again")
        case ServiceChanged(name, was, now) if now is not None:
            state = now.state.value
            if was is None or was.state is not now.state:
                log.warning(
                    "service=%s state=%s healthy=%d of=%d",
                    name, state, now.healthy, now.candidates,
                )  # fmt: skip
        case _:
            pass
