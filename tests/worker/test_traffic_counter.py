"""The holder's flow worker counts, and tells what was added."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from hanat.core.accounting import Place
from hanat.core.configuration import Replicate
from hanat.core.flow_scope import ReplicationScope
from hanat.core.flows import Flow
from hanat.core.totals import NOTHING, Totals
from hanat.kernel.kernel_errors import refused
from hanat.worker import traffic_counter
from hanat.worker.flow_worker import FlowWorker
from hanat.worker.traffic_counter import TrafficCounter
from tests.contract.flows import TCP, inbound
from tests.fakes.flows import FakeAccounts
from tests.fakes.kernel import FakeConntrack, FakeKernel, FakeRoutes

VIP, SERVER = ip_address("203.0.113.10").packed, ip_address("10.11.12.101").packed
SCOPE = ReplicationScope(frozenset({VIP}), ports={(TCP, VIP): ((80, 80),)})
PLACE = Place(TCP, VIP, 80, SERVER, 8080)
ONE = Totals(0, 1, 100, 2, 2000)
WAIT_S_MAX = 10


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("READ_S", "TELL_S", "WALK_S", "TELL_SOON_S", "READ_SOON_S"):
        monkeypatch.setattr(traffic_counter, name, 0.001)
    monkeypatch.setattr(traffic_counter, "WALK_SHARE", 1.0)


class Bench:
    """A fake kernel and what is told of it."""

    def __init__(self) -> None:
        self.kernel = FakeKernel((), lambda: 0.0)
        self.accounting = TrafficCounter(FakeConntrack(self.kernel))
        self.accounting.scope = SCOPE
        self.accounting.tell = self._add
        self.sums: dict[Place, Totals] = {}
        self.told: list[tuple[int, bool]] = []  # how many sums, and whether bytes are counted

    def _add(self, added: traffic_counter.Added, has_bytes: bool) -> None:  # noqa: FBT001 - a callback
        self.told.append((len(added), has_bytes))
        for place, totals in added.items():
            self.sums[place] = self.sums.get(place, NOTHING).plus(totals)

    @property
    def total(self) -> Totals:
        return self.sums.get(PLACE, NOTHING)

    def carry(self, flow: Flow) -> None:
        """Let a flow carry what `ONE` says."""
        record = flow.to_record()
        self.kernel.flows.carry(record, *ONE[1:])

    def open(self, port: int) -> Flow:
        flow = inbound(port)
        self.kernel.flows.put(flow.to_record())
        self.carry(flow)
        return flow

    def end(self, flow: Flow) -> None:
        self.kernel.flows.pop(flow.to_record())

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S_MAX):
            while not condition():  # noqa: ASYNC110 - timers are what is waited for
                await asyncio.sleep(0.001)

    async def turns(self) -> None:
        """Let every timer fire some times."""
        before = len(self.told)
        await self.until(lambda: len(self.told) > before + 5)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.accounting.close()


async def test_flows_that_end_and_that_go_on_are_told(bench: Bench) -> None:
    bench.accounting.start()
    await bench.until(lambda: not bench.accounting.walks)
    first, second = bench.open(1), bench.open(2)
    bench.accounting.opened([first.to_record(), second.to_record()])
    bench.end(first)
    await bench.until(lambda: bench.total == Totals(2, 2, 200, 4, 4000))
    bench.carry(second)
    await bench.until(lambda: bench.total == Totals(2, 3, 300, 6, 6000))
    await bench.turns()
    assert bench.total == Totals(2, 3, 300, 6, 6000)


async def test_nothing_that_happened_before_is_counted(bench: Bench) -> None:
    old, ends = bench.open(1), bench.open(2)
    bench.accounting.start()
    bench.end(ends)
    await bench.turns()
    assert bench.total == NOTHING
    bench.carry(old)
    await bench.until(lambda: bench.total == ONE)


async def test_backup_that_was_prepared_counts_from_its_first_packet_on(bench: Bench) -> None:
    old = bench.open(1)
    bench.accounting.prepare()
    bench.accounting.prepare()
    await bench.until(lambda: not bench.accounting.walks)
    bench.kernel.flows.put(inbound(2).to_record())  # told by the holder
    for flow in (old, inbound(2)):
        bench.carry(flow)
    bench.accounting.start()
    await bench.until(lambda: bench.total == ONE.plus(ONE))


async def test_who_stops_counts_the_rest(bench: Bench) -> None:
    bench.accounting.start()
    await bench.until(lambda: not bench.accounting.walks)
    flows = [bench.open(port) for port in range(1, 4)]
    bench.accounting.stop()
    bench.accounting.stop()
    bench.carry(flows[0])  # as long as it still carries
    await bench.until(lambda: not bench.accounting.walks)
    assert bench.total == Totals(0, 4, 400, 8, 8000)
    bench.end(flows[0])
    told = len(bench.told)
    await asyncio.sleep(0.01)
    assert len(bench.told) == told
    assert bench.kernel.flows.ended is None  # nobody listens


class Slow(FakeAccounts):
    """Tells of all flows at once, and is done when it is let go."""

    go = False

    def walk(self) -> Generator[list[bytes]]:
        yield self._flows.counted()
        while not self.go:
            yield []


async def test_who_stops_in_the_middle_of_a_walk_counts_the_rest(bench: Bench) -> None:
    slow = Slow(bench.kernel.flows)
    bench.accounting._accounts = slow
    flow = bench.open(1)
    bench.accounting.start()
    await bench.until(lambda: len(bench.accounting._flows) == 1)
    bench.carry(flow)
    bench.accounting.stop()
    slow.go = True
    await bench.until(lambda: not bench.accounting.walks)
    assert bench.total == ONE


async def test_last_walk_takes_the_place_of_the_one_that_was_to_come(bench: Bench) -> None:
    # Both would read from one, and the one that comes later finds none.
    bench.accounting.start()
    await bench.until(lambda: not bench.accounting.walks)
    next_one = bench.accounting._timers["walk"]
    bench.accounting.stop()
    assert next_one.cancelled()
    await bench.until(lambda: not bench.accounting.walks)


async def test_who_holds_again_at_once_goes_on(bench: Bench) -> None:
    bench.accounting.start()
    await bench.until(lambda: not bench.accounting.walks)
    flow = bench.open(1)
    bench.accounting.stop()
    bench.accounting.start()
    await bench.until(lambda: bench.total == ONE)
    bench.carry(flow)
    bench.end(flow)
    await bench.until(lambda: bench.total == ONE.plus(ONE))


async def test_holder_is_heard_without_traffic_and_says_whether_bytes_are_counted(
    bench: Bench,
) -> None:
    bench.accounting.start()
    await bench.until(lambda: len(bench.told) > 3)
    assert set(bench.told) == {(0, True)}
    bench.kernel.flows.counts = False
    await bench.until(lambda: bench.told[-1] == (0, False))


async def test_much_is_told_in_slices(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic_counter, "ROWS_A_MESSAGE", 10)
    bench.accounting.scope = ReplicationScope(
        frozenset({VIP}), ports={(TCP, VIP): tuple((port, port) for port in range(1000, 1095))}
    )
    bench.accounting.start()
    flows = [inbound(port) for port in range(1000, 1095)]
    asked = [_asking(flow, flow.original.source_port) for flow in flows]
    bench.accounting.opened([flow.to_record() for flow in asked])
    await bench.until(lambda: len(bench.sums) == len(flows))
    assert max(count for count, _ in bench.told) == 10
    bench.accounting.opened([flow.to_record() for flow in asked])
    bench.accounting.stop()
    await bench.until(lambda: sum(t.connections for t in bench.sums.values()) == 2 * len(flows))


def _asking(flow: Flow, port: int) -> Flow:
    """Return a flow that asks for another port."""
    record = bytearray(flow.to_record())
    record[18:20] = port.to_bytes(2, "big")
    return Flow.from_record(bytes(record))


async def test_connections_of_a_service_that_is_not_replicated_count_too(bench: Bench) -> None:
    worker = FlowWorker(
        FakeConntrack(bench.kernel),
        FakeRoutes(bench.kernel),
        propose=lambda _term, _batch, _done: True,
        completed=lambda _complete: None,
        clock=lambda: 0.0,
    )
    worker.set_scope(
        replace(SCOPE, services={(TCP, VIP): ((80, 80, Replicate(established=False)),)})
    )
    worker.accounting.tell = bench.accounting.tell
    worker.start_capture(1)
    await bench.until(lambda: not worker.accounting.walks)
    flow = inbound(1)
    bench.kernel.track(flow.to_record())
    bench.carry(flow)
    await bench.until(lambda: bench.total == Totals(1, *ONE[1:]))
    assert not worker.counts()
    worker.stop_capture()
    worker.accounting.close()


class Shut(FakeAccounts):
    """Cannot be opened."""

    def open(self) -> None:
        raise refused(errno.EPERM, operation="count flows", target="conntrack")


async def test_holder_without_counters_holds_all_the_same(bench: Bench) -> None:
    bench.accounting._accounts = Shut(bench.kernel.flows)
    bench.accounting.start()
    bench.accounting.opened([bench.open(1).to_record()])
    bench.accounting.stop()
    await asyncio.sleep(0.01)
    assert bench.told == []


class Faulty(FakeAccounts):
    """Breaks off every second walk, and fails every third read."""

    walked = reads = 0

    def walk(self) -> Generator[list[bytes]]:
        self.walked += 1
        found = self._flows.counted()
        half = len(found) // 2
        yield found[:half]
        if self.walked % 2:
            raise refused(errno.ENOBUFS, operation="count flows", target="conntrack")
        yield found[half:]

    def read(self) -> list[bytes]:
        self.reads += 1
        if self.reads % 3 == 0:
            raise refused(errno.EIO, operation="read counters", target="conntrack")
        return super().read()


async def test_kernel_that_fails_now_and_then_costs_nothing(bench: Bench) -> None:
    faulty = Faulty(bench.kernel.flows)
    bench.accounting._accounts = faulty
    bench.accounting.start()
    await bench.until(lambda: faulty.walked >= 3)
    flows = [bench.open(port) for port in range(1, 5)]
    await bench.until(lambda: bench.total == Totals(0, 4, 400, 8, 8000))
    for flow in flows:
        bench.carry(flow)
    bench.end(flows[0])
    await bench.until(lambda: bench.total == Totals(0, 8, 800, 16, 16_000))
    await bench.turns()
    assert bench.total == Totals(0, 8, 800, 16, 16_000)
