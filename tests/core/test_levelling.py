"""Services by counts: what the holder writes while connections come and go."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from random import Random

import pytest

from hanat.core.configuration import Listen, Protocol, RealServer, Scheduler, VirtualService
from hanat.core.levelling import PERIOD_S, Levelling, Load
from hanat.core.schedulers import InRotation, slots
from hanat.core.server_facts import ServerId
from hanat.core.services import Levels, Rotation, rotation_of

LISTEN = Listen(ip_address("203.0.113.10"), Protocol.TCP, 80, 80)


def service(scheduler: Scheduler, *weights: int, name: str = "web") -> VirtualService:
    servers = tuple(
        RealServer(f"s{n}", ip_address(f"10.11.12.{n + 1}"), 80, weight)
        for n, weight in enumerate(weights)
    )
    return VirtualService(name, (LISTEN,), scheduler, servers)


def look(
    levelling: Levelling,
    services: list[tuple[VirtualService, Rotation]],
    loads: dict[ServerId, Load],
    now: float,
) -> Levels:
    """Look at all of them in one round, one at a time."""
    levelling.begin()
    for one in services:
        levelling.look([one], loads)
    return levelling.end(now)


class Clients:
    """Connections that come and go; the kernel gives each a random slot."""

    def __init__(self, web: VirtualService, *, rate: int, life: int, seed: int = 1) -> None:
        self.web, self.rate, self.life, self.rng = web, rate, life, Random(seed)
        self.levelling = Levelling()
        self.rotation = rotation_of(web)
        self.table = slots(web.scheduler, self.rotation)
        self.live: Counter[str] = Counter()
        self.opened: Counter[str] = Counter()
        self.ends: list[list[str]] = []
        self.now = 0.0
        self.writes = 0

    def period(self) -> None:
        for _ in range(self.rate):
            chosen = self.rng.choice(self.table)
            self.live[chosen] += 1
            self.opened[chosen] += 1
            self.ends.append([chosen])
        if len(self.ends) > self.rate * self.life:
            for _ in range(self.rate):
                (gone,) = self.ends.pop(self.rng.randrange(len(self.ends)))
                self.live[gone] -= 1
        loads = {
            ServerId(self.web.name, name): Load(self.live[name], self.opened[name])
            for name in self.opened
        }
        self.now += PERIOD_S
        written = look(self.levelling, [(self.web, self.rotation)], loads, self.now)
        self.writes += len(written)
        self.table = written.get((self.web.name, 4), self.table)


@pytest.mark.parametrize("scheduler", [Scheduler.LC, Scheduler.WLC, Scheduler.SED, Scheduler.NQ])
def test_live_connections_are_within_five_percent_of_their_mean(scheduler: Scheduler) -> None:
    clients = Clients(service(scheduler, *[1] * 8), rate=100, life=40)
    off: list[float] = []
    for period in range(400):
        clients.period()
        if period >= 200:
            mean = clients.live.total() / 8
            off.append(max(abs(n - mean) for n in clients.live.values()) / mean)
    assert sorted(off)[len(off) // 2] <= 0.05
    assert max(off) <= 0.10


def test_connections_follow_the_weights() -> None:
    clients = Clients(service(Scheduler.WLC, 1, 3), rate=100, life=40)
    for _ in range(300):
        clients.period()
    assert clients.live["s1"] / clients.live["s0"] == pytest.approx(3, rel=0.1)


def test_server_that_comes_back_is_filled_and_not_flooded() -> None:
    clients = Clients(service(Scheduler.LC, 1, 1, 1), rate=30, life=40)
    clients.rotation = rotation_of(clients.web)[:2]
    clients.table = slots(Scheduler.LC, clients.rotation)
    for _ in range(200):
        clients.period()
    assert "s2" not in clients.live
    clients.rotation = rotation_of(clients.web)
    shares = []
    for _ in range(200):
        before = clients.opened["s2"]
        clients.period()
        shares.append((clients.opened["s2"] - before) / clients.rate)
    mean = clients.live.total() / 3
    assert clients.live["s2"] == pytest.approx(mean, rel=0.1)


def test_table_that_fits_is_not_written() -> None:
    web = service(Scheduler.LC, 1, 1)
    levelling = Levelling()
    loads = {ServerId("web", f"s{n}"): Load(1000, 1000) for n in range(2)}
    for n in range(10):
        assert look(levelling, [(web, rotation_of(web))], loads, n * PERIOD_S) == {}


def test_service_with_one_server_has_nothing_to_level() -> None:
    web = service(Scheduler.LC, 1, 1)
    one = (InRotation("s0"),)
    assert look(Levelling(), [(web, one)], {ServerId("web", "s0"): Load(9, 9)}, 1.0) == {}


def test_no_more_than_fifty_tables_a_second_are_written() -> None:
    webs = [service(Scheduler.LC, 1, 1, name=f"w{n}") for n in range(200)]
    levelling, writes = Levelling(), []
    for turn in range(1, 9):
        loads = {ServerId(web.name, "s0"): Load(100 * turn, 100 * turn) for web in webs}
        found = look(levelling, [(w, rotation_of(w)) for w in webs], loads, turn * PERIOD_S)
        writes.append(len(found))
    for first in range(4, 5):
        assert sum(writes[first : first + 4]) <= 50
    assert sum(writes) > 50
