"""Verdicts, rotations and what operators made of servers, as one node has them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address
from typing import TypeVar

import pytest

from hanat.consensus.state import Barrier, Holder, Records, State, encode
from hanat.core import service_health
from hanat.core.checks import ServiceCheck, TcpCheck
from hanat.core.configuration import (
    PROFILES,
    Configuration,
    Listen,
    OnServerDown,
    Protocol,
    RealServer,
    Scheduler,
    VirtualService,
)
from hanat.core.health_effects import Committed, Effect, End, Propose, Rotate, Seen
from hanat.core.probing import Check, Operational, Sighting
from hanat.core.schedulers import InRotation
from hanat.core.server_facts import Administrative, Mode, ServerId
from hanat.core.server_history import changes_of
from hanat.core.server_records import Record, mode_of, mode_record, weight_record
from hanat.core.service_health import ServiceHealth
from hanat.core.verdicts import HandOver
from hanat.core.views import View

ME, PEER, TERM = 1, 2, 3
CHECK = ServiceCheck(TcpCheck(), Check(interval_s=2.0, timeout_s=1.0))
LISTEN = Listen(ip_address("203.0.113.10"), Protocol.TCP, 80, 80)
WEB1, WEB2, WEB3 = (ServerId("web", f"web{n}") for n in (1, 2, 3))


def server(number: int, weight: int = 1) -> RealServer:
    return RealServer(f"web{number}", ip_address(f"10.11.12.{20 + number}"), 80, weight)


def web(*numbers: int, checked: bool = True) -> VirtualService:
    servers = tuple(server(number) for number in numbers)
    checks = (CHECK,) if checked else ()
    return VirtualService("web", (LISTEN,), Scheduler.WRR, servers, checks=checks)


def configuration(*services: VirtualService) -> Configuration:
    return Configuration("test", PROFILES["default"], (), (), services)


E = TypeVar("E", bound=Effect)


def of(kind: type[E], effects: Iterable[Effect]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


class Bench:
    """A node, the state of its log, and what the kernel was told last."""

    def __init__(
        self, *services: VirtualService, node_id: int = ME, state: State | None = None
    ) -> None:
        self.now = 100.0
        self.state = State() if state is None else state
        self.health = ServiceHealth(node_id)
        self.rotations: dict[str, tuple[InRotation, ...]] = {}
        self.effects: list[Effect] = []
        self.configure(*services)

    @property
    def wall_s(self) -> float:
        return 1e9 + self.now

    def take(self, effects: Iterable[Effect]) -> list[Effect]:
        found = list(effects)
        for rotate in of(Rotate, found):
            self.rotations |= rotate.rotations
        self.effects += found
        return found

    def configure(self, *services: VirtualService) -> list[Effect]:
        found = self.take(self.health.configure(configuration(*services), self.now, self.wall_s))
        while self.health.due() == 0.0:
            found += self.take(self.health.tick(self.now, self.wall_s))
        return found

    def hold(self, node_id: int | None = ME, term: int = TERM) -> list[Effect]:
        self.state.apply(encode(Barrier(term, node_id or ME)))
        if node_id is not None:
            self.state.apply(encode(Holder(term, node_id)))
        return self.take(self.health.hold(node_id, term, self.now, self.wall_s))

    def commit(self, effects: Iterable[Effect]) -> list[Effect]:
        """Let what was proposed come into the log."""
        found: list[Effect] = []
        for proposal in of(Propose, effects):
            found += self.record(*proposal.records, term=proposal.term)
        return found

    def record(self, *records: Record, term: int = 0) -> list[Effect]:
        command = self.state.apply(encode(Records(term, records)))
        if not isinstance(command, Records):
            return []
        return self.take(self.health.apply(command.records, self.now, self.wall_s))

    def target(self, number: int) -> str:
        place = f"10.11.12.{20 + number}:80"
        (name,) = (name for name in self.health.targets if place in name)
        return name

    def sees(
        self, number: int, state: Operational, *, tenure: int | None = TERM,
        percent: int | None = None, mode: str = "",
    ) -> list[Effect]:  # fmt: skip
        up = state is Operational.UP
        sighting = Sighting(
            target=self.target(number), state=state, since=self.now, ok=up, in_a_row=3,
            answer="" if up else "connection refused", latency_s=0.001, at=self.now,
            tenure=tenure, decided=state if tenure is not None else Operational.UNKNOWN, news=True,
            percent=percent, mode=mode,
        )  # fmt: skip
        return self.take(self.health.sight(sighting, self.now, self.wall_s))

    def all_up(self, *numbers: int) -> Bench:
        for number in numbers:
            self.commit(self.sees(number, Operational.UP))
        return self

    @property
    def clients(self) -> list[str]:
        return [one.name for one in self.rotations["web"]]


def test_service_without_a_check_has_all_its_servers() -> None:
    assert Bench(web(1, 2, checked=False)).clients == ["web1", "web2"]


def test_verdict_of_the_holder_counts_when_it_is_in_the_log_and_not_before() -> None:
    b = Bench(web(1, 2, 3))
    b.hold()
    assert b.clients == []  # nobody knows anything of them
    b.all_up(1, 2, 3)
    assert b.clients == ["web1", "web2", "web3"]
    effects = b.sees(2, Operational.DOWN)
    assert b.clients == ["web1", "web2", "web3"]
    applied = b.commit(effects)
    assert b.clients == ["web1", "web3"]
    assert Committed(b.target(2), Operational.DOWN) in applied
    assert "connection refused" in b.health.why(WEB2, b.now)


def test_connections_of_a_server_that_went_down_end_as_the_service_says() -> None:
    expire = replace(web(1, 2), on_server_down=OnServerDown.EXPIRE)
    b = Bench(expire)
    b.hold()
    b.all_up(1, 2)
    ends = of(End, b.commit(b.sees(1, Operational.DOWN)))
    assert ends == [End(expire, server(1), OnServerDown.EXPIRE)]


def test_connections_of_a_server_that_is_removed_end_as_the_service_said() -> None:
    before = replace(web(1, 2, checked=False), on_server_down=OnServerDown.KEEP)
    b = Bench(before)
    ends = of(End, b.configure(replace(web(2, checked=False), on_server_down=OnServerDown.EXPIRE)))
    assert [(one.service, one.server) for one in ends] == [(before, server(1))]
    assert of(End, b.configure())[0].server == server(2)


def test_server_that_only_gets_another_name_keeps_its_connections() -> None:
    b = Bench(web(1, 2, checked=False))
    renamed = replace(web(1, 2), servers=(replace(server(1), name="other"), server(2)))
    assert of(End, b.configure(replace(renamed, checks=()))) == []


def test_new_holder_ends_what_the_former_one_may_have_left() -> None:
    b = Bench(web(1, 2, 3))
    b.hold(PEER)
    b.record(mode_record(WEB3, Administrative(Mode.MAINT, "op")))
    taken = b.hold(ME, TERM + 1)
    assert [end.server for end in of(End, taken)] == [server(3)]
    assert of(End, b.hold(PEER, TERM + 2)) == []


def test_node_that_does_not_hold_proposes_nothing_and_tells_the_others_what_it_sees() -> None:
    b = Bench(web(1, 2))
    b.hold(PEER)
    effects = b.sees(1, Operational.DOWN, tenure=None)
    assert of(Propose, effects) == []
    assert of(Seen, effects) == [Seen(b.target(1), View(Operational.DOWN, ok=False))]


def test_every_node_has_the_same_rotation_from_the_same_log() -> None:
    b = Bench(web(1, 2, 3))
    b.hold()
    b.all_up(1, 2, 3)
    b.commit(b.sees(3, Operational.DOWN))
    b.record(mode_record(WEB1, Administrative(Mode.DRAIN, "op", "new disk")))
    b.record(weight_record(WEB2, 5.0, by="op", at_s=0.0))
    late = Bench(node_id=PEER, state=b.state)  # starts with a snapshot, then reads the file
    late.take(late.health.restore(b.state.records, late.now, late.wall_s))
    late.take(late.health.hold(ME, TERM, late.now, late.wall_s))
    late.configure(web(1, 2, 3))
    assert late.rotations["web"] == b.rotations["web"] == (InRotation("web2", 5),)


def test_records_that_came_before_their_configuration_count_when_it_comes() -> None:
    b = Bench()
    b.hold()
    b.record(mode_record(WEB2, Administrative(Mode.MAINT, "op")))
    b.configure(web(1, 2, checked=False))
    assert b.clients == ["web1"]


def test_server_that_gets_a_check_stays_until_its_first_verdict_on_every_node() -> None:
    b = Bench(web(1, 2, checked=False))
    b.hold()
    proposed = b.configure(web(1, 2))
    assert b.clients == ["web1", "web2"]
    b.commit(proposed)
    late = Bench(web(1, 2), node_id=PEER)
    late.take(late.health.restore(b.state.records, late.now, late.wall_s))
    assert late.clients == ["web1", "web2"]
    b.commit(b.sees(1, Operational.DOWN))
    assert b.clients == ["web2"]


def test_what_is_known_of_a_server_that_is_gone_goes_from_the_log() -> None:
    b = Bench(web(1, 2))
    b.hold()
    b.all_up(1, 2)
    b.record(mode_record(WEB2, Administrative(Mode.DRAIN, "op")))
    b.commit(b.configure(web(1)))
    assert len(b.state.records) == 1  # the verdict of web1
    b.configure(web(1, 2))
    assert b.clients == ["web1"]  # web2 is unknown again, not up as before
    assert b.health.administrative(WEB2).mode is Mode.READY


def test_new_holder_starts_from_what_is_committed() -> None:
    b = Bench(web(1, 2, 3))
    b.hold()
    b.all_up(1, 2, 3)
    b.commit(b.sees(3, Operational.DOWN))
    b.hold(PEER, TERM + 1)
    assert b.clients == ["web1", "web2"]
    late = b.sees(1, Operational.DOWN, tenure=TERM)  # of the former tenure
    assert of(Propose, late) == []


def test_verdict_of_a_former_tenure_that_comes_late_counts_nowhere() -> None:
    b = Bench(web(1, 2))
    b.hold()
    b.all_up(1, 2)
    late = b.sees(1, Operational.DOWN)
    b.hold(PEER, TERM + 1)
    assert b.commit(late) == []
    assert b.clients == ["web1", "web2"]
    assert b.state.refused_records == 1


def test_blind_holder_hands_over_and_empties_no_pool() -> None:
    b = Bench(web(1, 2, 3))
    b.hold()
    b.all_up(1, 2, 3)
    b.take(b.health.eligible([PEER], b.now, b.wall_s))
    views = [(b.target(n), View(Operational.UP, ok=True)) for n in (1, 2, 3)]
    b.take(b.health.hear(PEER, views, b.now, b.wall_s))
    effects = [e for n in (1, 2, 3) for e in b.sees(n, Operational.DOWN)]
    (hand_over,) = of(HandOver, effects)
    assert hand_over.witness == PEER
    b.commit(effects)
    assert len(b.clients) >= 2


def test_drain_that_was_limited_in_time_ends_by_itself() -> None:
    b = Bench(web(1, 2, checked=False))
    b.hold()
    until = b.wall_s + 60
    b.record(mode_record(WEB1, Administrative(Mode.DRAIN, "op", until_s=until)))
    assert b.clients == ["web2"]
    due = b.health.due()
    assert due is not None
    assert due == pytest.approx(b.now + 60)
    b.now = due
    b.commit(b.take(b.health.tick(b.now, b.wall_s)))
    assert b.clients == ["web1", "web2"]
    assert b.health.due() is None


def test_server_that_comes_back_starts_slowly_beside_those_that_are_there() -> None:
    b = Bench(replace(web(1, 2), slow_start_s=100.0))
    b.hold()
    b.all_up(1, 2)
    b.commit(b.sees(1, Operational.DOWN))
    b.now += 1000.0
    b.health.tick(b.now, b.wall_s)
    b.commit(b.sees(1, Operational.UP))
    percents = []
    while (due := b.health.due()) is not None and due < b.now + 50:
        percents.append({one.name: one.percent for one in b.rotations["web"]}["web1"])
        b.now = max(due, b.now)
        b.take(b.health.tick(b.now, b.wall_s))
    assert percents[0] == 10
    assert sorted(set(percents)) == [*range(10, 101, 5)][: len(set(percents))]
    assert b.rotations["web"] == (InRotation("web1", 1), InRotation("web2", 1))


def test_of_many_servers_some_are_taken_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_health, "SLICE_SERVERS", 3)
    services = [replace(web(1, 2, checked=False), name=f"s{n}") for n in range(10)]
    b = Bench()
    b.take(b.health.configure(configuration(*services), b.now, b.wall_s))
    turns = 0
    while b.health.due() == 0.0:
        turns += 1
        b.take(b.health.tick(b.now, b.wall_s))
    assert turns >= 5
    assert list(b.rotations) == [*b.health.statuses] == [s.name for s in services]
    # Those that are the same objects are not looked at.
    changed = replace(services[3], servers=(server(3),))
    services[3] = changed
    assert list(of(Rotate, b.configure(*services))[0].rotations) == ["s3"]


def test_configuration_that_is_overtaken_by_another_leaves_no_service_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service_health, "SLICE_SERVERS", 3)
    services = [replace(web(1, 2, checked=False), name=f"s{n}") for n in range(10)]
    for turns in range(12):
        b = Bench()
        b.take(b.health.configure(configuration(*services), b.now, b.wall_s))
        for _ in range(turns):
            b.take(b.health.tick(b.now, b.wall_s))
        b.configure(*services[1:])
        assert [*b.health.statuses] == [s.name for s in services[1:]]
        assert b.rotations.keys() >= b.health.statuses.keys()


def test_ready_is_remembered_with_who_and_when() -> None:
    b = Bench(web(1, 2, checked=False))
    b.record(mode_record(WEB1, Administrative(Mode.DRAIN, "op", "disk", since_s=5.0)))
    ready = Administrative(Mode.READY, "eve", since_s=9.0)
    b.record(mode_record(WEB1, ready))
    assert b.clients == ["web1", "web2"]
    assert b.health.administrative(WEB1) == ready
    assert [mode_of(change).by for change in b.state.changes] == ["op", "eve"]


def test_weight_and_mode_that_an_agent_says_are_taken_from_the_holders_probe() -> None:
    b = Bench(web(1, 2))
    b.hold()
    b.all_up(1, 2)
    b.commit(b.sees(1, Operational.UP, percent=50, mode="drain"))
    assert b.clients == ["web2"]
    assert b.health.administrative(WEB1).by.startswith("check tcp 10.11.12.21:80")
    b.commit(b.sees(1, Operational.UP, percent=50, mode="ready"))
    assert b.clients == ["web1", "web2"]
    assert of(Propose, b.sees(1, Operational.UP, percent=50, mode="ready")) == []  # as before
    assert of(Propose, b.sees(2, Operational.UP, tenure=None, percent=10)) == []  # not the holder


def test_agent_does_not_undo_what_an_operator_did() -> None:
    b = Bench(web(1, 2))
    b.hold()
    b.all_up(1, 2)
    b.record(mode_record(WEB1, Administrative(Mode.MAINT, "op")))
    b.commit(b.sees(1, Operational.UP, mode="ready"))
    b.commit(b.sees(1, Operational.UP, mode="drain"))
    assert b.health.administrative(WEB1).mode is Mode.MAINT
    b.record(weight_record(WEB2, 0.5, by="op", at_s=0.0))
    b.commit(b.sees(2, Operational.UP, percent=100))
    b.record(weight_record(WEB2, 0.5, by="op", at_s=0.0))
    b.commit(b.sees(2, Operational.UP, percent=100))  # said before: the operator's word is newer
    assert b.rotations["web"] == (InRotation("web2", 1),)
    assert of(Propose, b.sees(2, Operational.UP, percent=10)) != []


def test_changes_of_servers_are_told_in_words() -> None:
    b = Bench(web(1, 2))
    b.hold()
    b.all_up(1, 2)
    b.commit(b.sees(1, Operational.DOWN))
    until = 1_000_000_000.0
    drain = Administrative(Mode.DRAIN, "op", "new disk", since_s=5.0, until_s=until)
    b.record(mode_record(WEB2, drain))
    b.record(weight_record(WEB2, 0.5, by="op", at_s=7.0))
    told = changes_of(b.state.changes, b.health.users, {ME: "r1"})
    assert [change.what for change in told] == ["verdict"] * 3 + ["mode", "weight"]
    assert told[2].servers == ("web/web1",)
    assert told[2].text.endswith(
        "(web/web1) is down: connection refused, 3 times in a row, says r1"
    )
    assert told[3].text == (
        "web/web2 gets no new clients (drain), by op: new disk (until 2001-09-09T01:46:40+00:00)"
    )
    assert told[4].text == "web/web2 gets 50 % of its weight, by op"
    assert [change.at_s for change in told[3:]] == [5.0, 7.0]
