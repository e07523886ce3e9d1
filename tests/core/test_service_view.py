"""What people see of a service: who gets its clients, and why the others do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.core.configuration import (
    Listen,
    Protocol,
    RealServer,
    Scheduler,
    Sorry,
    Unavailable,
    VirtualService,
)
from hanat.core.lookup import demand_server, demand_service, no_such
from hanat.core.probing import Operational, Sighting
from hanat.core.rotation import Rotations, ServiceState
from hanat.core.server_facts import Administrative, CheckedServer, CheckedService, Mode, ServerId
from hanat.core.service_view import Condition, Knowledge, ServiceView, view_of
from hanat.core.verdicts import VerdictChanged, Verdicts
from hanat.core.views import View
from hanat.errors import NoSuchError
from tests.core.examples import EDGE, PUBLIC, PUBLIC_V6

UP, DOWN, UNKNOWN = Operational.UP, Operational.DOWN, Operational.UNKNOWN
HOLDER, BACKUP = 1, 2
NAMES = {HOLDER: "r1", BACKUP: "r2"}


def server(number: int, *, weight: int = 1, tier: int = 0, version: int = 4) -> RealServer:
    address = ip_address(f"10.0.0.{number}" if version == 4 else f"fd00::{number}")
    return RealServer(f"web{number}", address, 80, weight, tier)


def web(*servers: RealServer, scheduler: Scheduler = Scheduler.WRR) -> VirtualService:
    versions = {s.address.version for s in servers}
    listens = tuple(
        Listen(PUBLIC if version == 4 else PUBLIC_V6, Protocol.TCP, 80, 80)
        for version in sorted(versions)
    )
    return VirtualService("web", listens, scheduler, servers)


class Site:
    """A service with a target a server, ``t1`` of ``web1``; verdicts of node 1, which holds."""

    def __init__(self, service: VirtualService, *checked: int, percent: int = 0) -> None:
        self.service, self.slow_start = service, dict[ServerId, int]()
        self.full, self.filled = set[ServerId](), dict[ServerId, int]()
        targets = {f"web{n}": (f"t{n}",) for n in checked}
        self.verdicts = Verdicts(HOLDER)
        self.verdicts.configure([t for names in targets.values() for t in names], 0.0)
        self.verdicts.hold(HOLDER, 7, 0.0)
        self.rotations = Rotations(self.verdicts.committed)
        servers = tuple(
            CheckedServer(s.name, s.place, s.weight, targets.get(s.name, ()))
            for s in service.servers
        )
        self.rotations.configure([CheckedService("web", servers, percent)])

    def say(self, now: float = 0.0, **states: Operational) -> None:
        for target, state in states.items():
            answer = "200 OK" if state is UP else "503 Busy"
            self.verdicts.commit(
                VerdictChanged(target, state, answer, 3, 0.02, HOLDER, tenure=7), now
            )
        self.rotations.reconsider(states)

    def make(self, number: int, mode: Mode, **more: object) -> None:
        record = replace(Administrative(mode), **more)  # type: ignore[arg-type] # of the test
        self.rotations.administer(ServerId("web", f"web{number}"), record)

    def see(
        self, *, now: float = 10.0, connections: Mapping[ServerId, int] | None = None
    ) -> ServiceView:
        known = Knowledge(
            self.rotations, self.verdicts, HOLDER, NAMES, connections or {}, now, self.slow_start,
            self.full, self.filled,
        )  # fmt: skip
        return view_of(self.service, known)

    def shares(self) -> dict[str, float]:
        return {s.name: round(s.share_percent, 1) for s in self.see().servers}

    def conditions(self) -> str:
        return " ".join(s.condition.value for s in self.see().servers)


# ------------------------------------------------------------------------------ servers


def test_service_that_is_well_has_nothing_to_explain() -> None:
    view = Site(web(server(1, weight=2), server(2))).see(
        connections={ServerId("web", "web1"): 5, ServerId("web", "web2"): 2}
    )
    assert (view.state, view.why, view.connections) == (ServiceState.UP, "", 7)
    assert view.listens == ("203.0.113.10 tcp/80",)
    assert [(s.place, s.connections, s.why) for s in view.servers] == [
        ("10.0.0.1:80", 5, ""),
        ("10.0.0.2:80", 2, ""),
    ]


def test_share_is_that_of_the_weights_in_rotation() -> None:
    site = Site(web(server(1, weight=2), server(2), server(3), server(4, weight=0)))
    assert site.shares() == {"web1": 50, "web2": 25, "web3": 25, "web4": 0}
    site.make(3, Mode.DRAIN)
    site.rotations.weigh(ServerId("web", "web1"), 0.5)
    assert site.shares() == {"web1": 50, "web2": 50, "web3": 0, "web4": 0}
    first = site.see().servers[0]
    assert (first.weight, first.factor, first.effective_weight) == (2, 0.5, 1)
    site.slow_start = {ServerId("web", "web2"): 25}
    assert site.shares() == {"web1": 80, "web2": 20, "web3": 0, "web4": 0}


def test_share_is_of_the_clients_of_the_servers_own_ip_version() -> None:
    site = Site(web(server(1), server(2), server(6, version=6)))
    assert site.shares() == {"web1": 50, "web2": 50, "web6": 100}


def test_scheduler_without_weights_gives_equal_shares() -> None:
    assert Site(web(server(1, weight=9), server(2), scheduler=Scheduler.RR)).shares() == {
        "web1": 50, "web2": 50,
    }  # fmt: skip


def test_every_condition_has_its_word_and_its_sentence() -> None:
    numbers = range(1, 7)
    servers = [server(n, weight=0 if n == 2 else 1) for n in numbers]
    site = Site(web(*servers), 5, 6)
    site.make(3, Mode.MAINT)
    site.make(4, Mode.DRAIN, by="alice on r1", reason="new kernel", until_s=86400.0)
    site.say(t5=DOWN)
    assert site.conditions() == "serving weight maint drain down unknown"
    assert [s.why for s in site.see().servers] == [
        "",
        "web/web2 gets no clients: its weight is 0",
        "web/web3 gets no clients: it is in maintenance",
        "web/web4 gets no clients: it is drained by alice on r1 until 1970-01-02 00:00:00+00:00 "
        "(new kernel)",
        "web/web5 gets no clients: it is down (t5: 503 Busy, 3 in a row)",
        "web/web6 gets no clients: nothing is known of it yet (no verdict of t6)",
    ]
    assert [s.gets_clients for s in site.see().servers] == [True] + [False] * 5


def test_server_of_a_lower_tier_waits_and_says_so() -> None:
    site = Site(web(server(1), server(2, tier=1), scheduler=Scheduler.FO), 1)
    site.say(t1=UP)
    assert site.conditions() == "serving reserve"
    assert site.see().servers[1].why == (
        "web/web2 gets no clients: it is of tier 1, and those of a better one do"
    )
    assert site.see().state is ServiceState.UP
    site.say(t1=DOWN)
    assert site.conditions() == "down serving"
    assert site.shares() == {"web1": 0, "web2": 100}


def test_full_server_says_so_and_its_clients_are_those_of_the_others() -> None:
    first = replace(server(1), max_conn=200)
    site = Site(web(first, server(2), server(3, tier=1)))
    site.full, site.filled = {ServerId("web", "web1")}, {ServerId("web", "web1"): 3}
    view = site.see(connections={ServerId("web", "web1"): 203})
    assert site.conditions() == "full serving serving"
    assert site.shares() == {"web1": 0, "web2": 50, "web3": 50}
    assert (view.state, view.why) == (
        ServiceState.DEGRADED,
        "web: 1 of 3 servers have all connections they may have (1 full)",
    )
    assert (view.servers[0].max_conn, view.servers[0].gets_clients) == (200, False)
    assert view.servers[0].why == (
        "web/web1 gets no clients: it has as many connections as it may have, 200"
    )
    document = view.servers[0].to_document()
    assert document["configured"] == {"weight": 1, "max_conn": 200}
    assert document["runtime"] == {"factor": 1.0, "weight": 1, "times_full": 3}


def test_service_is_down_when_all_of_its_servers_are_full_and_a_down_one_stays_down() -> None:
    site = Site(web(server(1), server(2)), 2)
    site.say(t2=DOWN)
    site.full = {ServerId("web", "web1"), ServerId("web", "web2")}
    assert site.conditions() == "full down"
    view = site.see()
    assert view.state is ServiceState.DOWN
    assert view.why == (
        "web: 1 of 2 servers are healthy; 1 of 2 servers have all connections they may have; no "
        "server gets clients: they are refused (1 down, 1 full)"
    )


def test_reserve_gets_the_clients_of_a_tier_that_is_full() -> None:
    site = Site(web(server(1), server(2, tier=1), scheduler=Scheduler.FO))
    site.full = {ServerId("web", "web1")}
    assert site.conditions() == "full serving"


def test_panic_is_said_of_the_service_and_of_each_server_that_is_not_healthy() -> None:
    site = Site(web(server(1), server(2), server(3)), 1, 2, percent=60)
    site.say(t1=DOWN, t2=DOWN)
    site.make(3, Mode.DRAIN)
    view = site.see()
    assert (view.state, site.conditions()) == (ServiceState.PANIC, "panic panic drain")
    assert view.why == (
        "web: only 0 of 2 servers are healthy, fewer than 60 %: all that should serve get "
        "clients (1 drain, 2 panic)"
    )
    assert view.servers[0].why.startswith("web/web1 gets clients although it is down")


# ------------------------------------------------------------------------------- checks


def sighting(state: Operational, *, ok: bool, at: float) -> Sighting:
    return Sighting(
        "t1", state, since=0.0, ok=ok, in_a_row=2, answer="no route", latency_s=0.5, at=at,
        tenure=7, decided=UNKNOWN, news=True,
    )  # fmt: skip


def test_check_shows_verdict_own_probe_and_what_other_nodes_see() -> None:
    site = Site(web(server(1)), 1)
    (check,) = site.see().servers[0].checks
    assert (check.state, check.for_s, check.decided_by, check.probe) == (UNKNOWN, None, None, None)
    site.say(now=4.0, t1=UP)
    site.verdicts.sight(sighting(UP, ok=False, at=9.5), 9.5)
    site.verdicts.hear(BACKUP, "t1", View(DOWN, ok=False), 9.0)
    (check,) = site.see(now=10.0).servers[0].checks
    assert (check.state, check.for_s, check.answer, check.in_a_row) == (UP, 6.0, "200 OK", 3)
    assert (check.latency_s, check.decided_by) == (0.02, "r1")
    assert check.nodes == (("r1", UP), ("r2", DOWN))
    assert check.probe is not None
    assert (check.probe.ok, check.probe.answer, check.probe.ago_s) == (False, "no route", 0.5)
    assert site.see().servers[0].latency_s == 0.5


def test_note_of_a_target_is_in_the_sentence_of_its_server() -> None:
    site = Site(web(server(1)), 1)
    for now in range(0, 40, 2):
        site.say(now=float(now), t1=UP)
        site.say(now=float(now + 1), t1=DOWN)
    why = site.see(now=41.0).servers[0].why
    assert "in a row); it fell too often and stays down for another" in why


# ----------------------------------------------------------------------------- services


def test_degraded_and_down_say_how_many_and_what_clients_meet() -> None:
    site = Site(web(server(1), server(2)), 1, 2)
    site.say(t1=UP, t2=DOWN)
    assert site.see().why == "web: 1 of 2 servers are healthy (1 down)"
    assert site.see().state is ServiceState.DEGRADED
    site.say(t1=DOWN)
    assert site.see().state is ServiceState.DOWN
    assert site.see().why == (
        "web: 0 of 2 servers are healthy; no server gets clients: they are refused (2 down)"
    )
    site.service = replace(site.service, unavailable=Unavailable.DROP)
    assert "their packets are dropped" in site.see().why
    site.service = replace(site.service, sorry=(Sorry(ip_address("10.0.0.9"), 80),))
    assert "no server gets clients: the sorry server 10.0.0.9 does (2 down)" in site.see().why


def test_service_whose_servers_are_all_drained_is_down() -> None:
    site = Site(web(server(1)))
    site.make(1, Mode.DRAIN)
    assert site.see().state is ServiceState.DOWN
    assert site.see().why == (
        "web: no server should serve; no server gets clients: they are refused (1 drain)"
    )


def test_service_that_serves_one_ip_version_only_is_degraded() -> None:
    """Those of the other version are drained, so every server that should serve does."""
    site = Site(web(server(1), server(6, version=6)))
    site.make(6, Mode.DRAIN)
    view = site.see()
    assert view.state is ServiceState.DEGRADED
    assert view.why == "web: no server gets IPv6 clients: they are refused (1 drain)"


def test_server_that_the_rotations_do_not_know_is_left_out() -> None:
    site = Site(web(server(1)))
    moved = replace(server(1), address=ip_address("10.0.0.77"))
    site.service = web(moved, server(2))
    assert site.see().servers == ()
    assert site.see().state is ServiceState.DOWN
    assert "no server gets clients" in site.see().why
    other = replace(site.service, name="mail")
    site.service = other
    assert (site.see().servers, site.see().state) == ((), ServiceState.DOWN)


STATES = st.sampled_from((UP, DOWN, None))
FATES = st.lists(
    st.tuples(
        STATES, st.sampled_from(Mode), st.integers(0, 2), st.integers(0, 1), st.sampled_from((4, 6))
    ),
    min_size=1,
    max_size=6,
)


@given(FATES, st.sampled_from(Scheduler), st.sampled_from((0, 50, 100)))
def test_no_service_looks_healthy_while_clients_are_not_served(
    fates: list[tuple[Operational | None, Mode, int, int, int]],
    scheduler: Scheduler,
    percent: int,
) -> None:
    servers = [
        server(n, weight=weight, tier=tier, version=version)
        for n, (_, _, weight, tier, version) in enumerate(fates, 1)
    ]
    site = Site(web(*servers, scheduler=scheduler), *range(1, len(fates) + 1), percent=percent)
    for n, (state, mode, *_) in enumerate(fates, 1):
        if state is not None:
            site.say(0.0, **{f"t{n}": state})
        site.make(n, mode)
    view = site.see()
    served = 0
    for version in {s.address.version for s in servers}:
        names = {s.name for s in servers if s.address.version == version}
        total = sum(s.share_percent for s in view.servers if s.name in names)
        assert total == pytest.approx(100) or total == 0
        served += total > 0
    should = [s for s, fate in zip(view.servers, fates, strict=True) if fate[1] is Mode.READY]
    all_up = all(s.operational is UP for s in should if s.weight)
    assert (view.state is ServiceState.UP) <= (all_up and served == len(view.listens))
    assert (view.state is ServiceState.DOWN) is (served == 0)
    assert (view.why == "") is (view.state is ServiceState.UP)
    for one in view.servers:
        assert (one.condition in {Condition.SERVING, Condition.PANIC}) is one.gets_clients
        assert (one.why == "") is (one.condition is Condition.SERVING)


# ---------------------------------------------------------------------- documents, names


def test_document_keeps_the_three_facts_apart() -> None:
    site = Site(web(server(1, weight=2)), 1)
    site.make(1, Mode.MAINT, by="alice on r1", since_s=60.0, until_s=3600.0)
    document = site.see().to_document()
    (found,) = document["servers"]
    assert found["configured"] == {"weight": 2, "max_conn": None}
    assert found["administrative"] == {
        "mode": "maint", "by": "alice on r1", "reason": "",
        "since": "1970-01-01T00:01:00+00:00", "until": "1970-01-01T01:00:00+00:00",
    }  # fmt: skip
    assert found["operational"]["state"] == "unknown"
    assert found["operational"]["checks"][0]["target"] == "t1"
    brief = site.see().to_document(checks=False)
    assert brief["servers"][0]["operational"] == {"state": "unknown"}


def test_record_of_a_year_that_no_calendar_has_is_shown_without_it() -> None:
    site = Site(web(server(1)))
    site.make(1, Mode.DRAIN, since_s=1e300)
    assert site.see().servers[0].to_document()["administrative"]["since"] is None


def test_name_that_is_not_there_is_answered_with_those_that_are() -> None:
    assert no_such("service", "wbe", ["web", "api"]) == (
        "no service 'wbe'; the nearest name is web; there are api, web"
    )
    many = [f"s{n:03}" for n in range(12)]
    thousands = [f"shop{n:04}" for n in range(2000)]
    assert "; the nearest name is shop1234; " in no_such("service", "shpo1234", thousands)
    assert no_such("service", "é", many).endswith("s008, s009 and 2 more")
    assert no_such("server of web", "x" * 1000, []) == (
        f"no server of web '{'x' * 63}'; there is none"
    )
    assert demand_service("web", EDGE.services).name == "web"
    assert demand_server(ServerId("web", "web1"), EDGE.services).weight == 2
    with pytest.raises(NoSuchError, match="no service 'wob'; the nearest name is web"):
        demand_server(ServerId("wob", "web1"), EDGE.services)
    with pytest.raises(NoSuchError, match=r"no server of web 'web9'; .* there are web1, web2"):
        demand_server(ServerId("web", "web9"), EDGE.services)
    view = Site(web(server(1))).see()
    assert view.server("web1").name == "web1"
    with pytest.raises(NoSuchError, match="no server of web 'b'; there are web1"):
        view.server("b")
