"""The holder looks at the connections of many servers, in turns that are short."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from hanat.core.configuration import PROTOCOL_NUMBERS, Scheduler, VirtualService
from hanat.core.flows import ServerKey
from hanat.core.full_servers import OUT_S_MIN
from hanat.core.levelling import PERIOD_S, Load
from hanat.core.server_facts import ServerId
from hanat.core.services import Levels, rotation_of
from hanat.daemon.counting import REST, Counting
from hanat.daemon.levels import FlowLoads
from tests.core.examples import WEB

MANY, SERVERS, MOST = 1_000, 20, 10


def bounded(name: str) -> VirtualService:
    servers = tuple(replace(WEB.servers[0], name=f"s{n}", max_conn=MOST) for n in range(SERVERS))
    return replace(WEB, name=name, servers=servers, scheduler=Scheduler.RR)


class Site:
    """Services and a clock; each look at a service takes some time."""

    def __init__(self, *services: VirtualService, service_s: float = 0.0) -> None:
        self.services, self.service_s = services, service_s
        self.now = 100.0
        self.counts: dict[ServerId, int] = {}
        self.known = True
        self.asked = 0
        self.slices: list[int] = []  # servers of each
        self.full: set[ServerId] = set()
        self.levels: list[Levels] = []
        self.counting = Counting(
            self,
            lambda: self.now,
            fill=self._fill,
            rotations=lambda: {s.name: rotation_of(s) for s in self.services},
            level=self.levels.append,
        )

    def ask(self) -> None:
        self.asked += 1

    def of(
        self, services: Iterable[VirtualService], age_s: float
    ) -> Mapping[ServerId, Load] | None:
        assert age_s > PERIOD_S
        some = tuple(services)
        self.slices.append(sum(len(service.servers) for service in some))
        self.now += self.service_s * len(some)
        if not self.known:
            return None
        servers = [ServerId(service.name, one.name) for service in some for one in service.servers]
        return {me: Load(self.counts[me]) for me in servers if me in self.counts}

    def keep(self, names: Iterable[str]) -> None:
        del names

    def _fill(self, came: Collection[ServerId], went: Collection[ServerId]) -> None:
        self.full = (self.full | set(came)) - set(went)

    def round(self) -> None:
        """Wait until a round is due, and have it done."""
        self.now = max(self.now, self.counting.due)
        self.slices, asked = [], self.asked
        while self.asked == asked:
            self.counting.look(self.services, self.now)

    def fill(self, count: int) -> set[ServerId]:
        """Let every server have so many connections; return all servers."""
        all_of_them = {ServerId(s.name, o.name) for s in self.services for o in s.servers}
        self.counts = dict.fromkeys(all_of_them, count)
        return all_of_them


def many(*, service_s: float = 0.0) -> Site:
    return Site(*(bounded(f"web{n}") for n in range(MANY)), service_s=service_s)


def test_no_turn_looks_at_many_servers_and_a_round_at_all_of_them() -> None:
    site = many()
    site.round()

    assert max(site.slices) <= 500
    assert sum(site.slices) == MANY * SERVERS


def test_all_that_became_full_leave_in_one_round_and_come_back_in_one() -> None:
    site = many()
    everyone = site.fill(MOST)
    site.round()
    assert site.full == everyone

    site.fill(0)
    site.now += OUT_S_MIN
    site.round()
    assert site.full == set()


def test_next_look_waits_by_the_time_that_the_last_took() -> None:
    site = many(service_s=0.001)
    began = site.now
    site.round()
    assert round(site.counting.due - site.now, 6) == round(REST * (site.now - began), 6)

    few = Site(bounded("web"), service_s=0.001)
    few.round()
    assert few.counting.due - few.now == PERIOD_S


def test_nobody_comes_or_goes_while_connections_are_not_known() -> None:
    """A worker that was started again has counted nobody yet."""
    site = Site(bounded("web"), replace(WEB, name="level", scheduler=Scheduler.LC))
    everyone = site.fill(MOST)
    site.round()
    full, site.levels[:] = set(site.full), []
    assert full == {server for server in everyone if server.service == "web"}

    site.fill(0)
    site.known = False
    for _ in range(10):
        site.round()
    assert (site.full, site.levels) == (full, [])

    site.known = True
    site.round()
    assert site.full == set()


def test_tables_of_services_by_counts_are_made_one_or_two_a_turn() -> None:
    site = Site(
        *(replace(bounded(f"web{n}"), scheduler=Scheduler.LC) for n in range(10)),
    )
    site.fill(1)
    site.round()
    assert max(site.slices) <= 2 * SERVERS
    assert sum(site.slices) == 10 * SERVERS


def test_another_configuration_begins_anew_and_forgets_who_is_gone() -> None:
    site = many()
    site.fill(MOST)
    site.round()
    site.counting.look(site.services, site.now)
    site.services = site.services[:2]
    site.round()
    assert {server.service for server in site.full} == {"web0", "web1"}


class Worker:
    """Tells counts, and how old they are."""

    def __init__(self) -> None:
        self.age_s = 0.0
        self.found: dict[ServerKey, int] = {}

    def ask(self) -> None: ...

    def knows(self, age_s: float) -> bool:
        return self.age_s <= age_s

    def counts(self) -> Mapping[ServerKey, int]:
        return self.found

    def opened(self) -> Mapping[ServerKey, int]:
        return {key: 2 * count for key, count in self.found.items()}


def test_loads_are_sums_of_all_listens_and_none_if_they_are_old() -> None:
    worker, service = Worker(), bounded("web")
    first, second = service.servers[0], service.servers[1]
    service = replace(service, servers=(first, replace(second, max_conn=0)))
    loads = FlowLoads(worker)  # type: ignore[arg-type]  # a part of it
    for at in service.listens:
        key = ServerKey(
            PROTOCOL_NUMBERS[at.protocol], at.address.packed, at.first_port, first.address.packed
        )
        worker.found[key] = 3
    count = 3 * len(service.listens)
    assert loads.of([service], 1.0) == {ServerId("web", first.name): Load(count, 2 * count)}

    worker.age_s = 1.1
    assert loads.of([service], 1.0) is None
