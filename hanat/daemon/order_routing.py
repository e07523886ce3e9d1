"""Operators' orders: into the log, by this node or by the leader; see `core.orders`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from hanat.core.orders import BY_OPERATORS, Appended, Order, Outcome
from hanat.core.server_facts import Administrative, ServerId
from hanat.core.server_records import (
    Record,
    is_sound,
    kind_of,
    mode_record,
    server_of,
    weight_record,
)
from hanat.core.service_health import ServiceHealth
from hanat.daemon.server_messages import records_from_bytes, records_to_bytes
from hanat.errors import NoQuorumError, RefusedError
from hanat.raft.guard import Guard
from hanat.raft.replica import Replica
from hanat.raft.state import RECORDS_MAX, Records

log = logging.getLogger(__name__)

COMMIT_S_MAX = 5.0  # a healthy commit takes some milliseconds
AGAIN_S = 1.0  # what a peer was asked to propose is asked again


class OrderRouting:
    """What operators want of servers, until the log has it.

    Args:
        health: Knows the servers.
        clock: Seconds of CLOCK_BOOTTIME.
        wall: Seconds since 1970.
        kick: Called when something was proposed.
    """

    def __init__(
        self,
        replica: Replica,
        guard: Guard,
        health: ServiceHealth,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        kick: Callable[[], None],
    ) -> None:
        self._replica, self._guard, self._health = replica, guard, health
        self._clock, self._wall, self._kick = clock, wall, kick
        self._waiting: dict[Order, asyncio.Future[Outcome]] = {}
        self._appended = Appended()
        guard.on_records = self._asked

    # ----------------------------------------------------------------- of this node's

    async def administer(self, server: ServerId, record: Administrative) -> None:
        """Make a server ready, drain it or take it into maintenance.

        Raises:
            RefusedError: It is just coming into force; somebody else changed it at the same time;
                the log has no room.
            NoQuorumError: No majority, or no leader, within 5 s; it may still come.
        """
        await self._commit(server, mode_record(server, record))

    async def weigh(self, server: ServerId, factor: float, by: str) -> None:
        """Give a server a runtime weight, a factor on the configured one; errors as above."""
        await self._commit(server, weight_record(server, factor, by=by, at_s=self._wall()))

    async def _commit(self, server: ServerId, record: Record) -> None:
        if not self._health.knows(server):
            raise RefusedError(f"{server}: its configuration is just coming into force; ask again")
        self._demand_room(record)
        order = Order(record, self._clock())
        deadline = self._clock() + COMMIT_S_MAX
        try:
            while self._clock() < deadline:
                match await self._ask(order):
                    case Outcome.DONE:
                        return
                    case Outcome.OVERTAKEN if not order.may_be_repeated(self._clock()):
                        raise RefusedError(
                            f"{server}: somebody else changed it at the same time; look at "
                            f"hanat server show {server} and say again what you want"
                        )
                    case _:
                        pass
        finally:
            self._waiting.pop(order, None)
        self._demand_room(record)
        raise NoQuorumError(
            f"no majority took note of server {server} within {COMMIT_S_MAX:.0f} s; it may still "
            "come: see hanat server show"
        )

    def _demand_room(self, record: Record) -> None:
        known = self._replica.state.records
        if record.key not in known and len(known) >= RECORDS_MAX:
            raise RefusedError(
                f"{server_of(record.key)}: the log holds {len(known)} records of servers "
                f"(verdicts, modes, runtime weights), and takes no more than {RECORDS_MAX}; remove "
                "services or servers that nobody needs from the configuration, then ask again"
            )

    async def _ask(self, order: Order) -> Outcome | None:
        """Propose it, or have the leader do so, and wait for a while what becomes of it."""
        future = self._waiting[order] = asyncio.get_running_loop().create_future()
        self.send(order.ask(self._replica.state.records))
        done, _ = await asyncio.wait([future], timeout=AGAIN_S)
        return future.result() if done else None

    def send(self, record: Record) -> None:
        """Propose a record, or have the leader do so; asked twice it counts once."""
        leader = self._guard.leader
        if self._replica.leading:
            self.append([record], term=0)
        elif leader is not None and leader != self._guard.node_id:
            content = records_to_bytes([record])
            self._guard.wire.send(leader, {"type": "records", "records": content})

    # ------------------------------------------------------------------ as the leader

    def _asked(self, peer: int, data: bytes) -> None:
        """A peer wants these proposed that an operator told it."""
        records = records_from_bytes(data)
        if records is None or not all(map(self._is_wanted, records)):
            log.warning("peer=%d records=unreadable action=ignored", peer)
        else:
            self.append(records, term=0)

    def _is_wanted(self, record: Record) -> bool:
        """Say whether an operator may have wanted this."""
        by_operator = is_sound(record) and kind_of(record.key) in BY_OPERATORS
        return by_operator and self._health.knows(server_of(record.key))

    def append(self, records: Sequence[Record], term: int) -> None:
        """Append records to the log, but those that something newer overtook.

        A leader that has not applied all of before its term does nothing: it does not know yet
        what they would overtake. Who asks for something asks again.

        Args:
            records: Of operators, or of the holder.
            term: In which alone they count; 0: in any.
        """
        state = self._replica.state
        if state.term != self._replica.term:
            return
        now, in_log = self._clock(), state.records
        new = [r for r in records if self._appended.admits(r, in_log, now)]
        if new and self._replica.propose(Records(term, tuple(new))):
            for record in new:
                self._appended.note(record, now)
            self._kick()

    # ------------------------------------------------------------------- from the log

    def begin(self) -> None:
        """Another term begins: what was appended may be in no log any more."""
        self._appended.clear()

    def applied(self, records: Iterable[Record]) -> None:
        """Note what is in the log."""
        self._appended.applied(records)
        for order, future in self._waiting.items():
            self._tell(future, order.applied(records))

    def restored(self) -> None:
        """The state has become that of a snapshot."""
        for order, future in self._waiting.items():
            self._tell(future, order.restored(self._replica.state.records))

    def _tell(self, future: asyncio.Future[Outcome], outcome: Outcome | None) -> None:
        if outcome is not None and not future.done():
            future.set_result(outcome)
