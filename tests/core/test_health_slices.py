"""What concerns thousands of servers or records is done in slices, with the loop between them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hanat.core import leftovers, service_health
from hanat.core.health_effects import Committed, End, Rotate
from hanat.core.leftovers import SLICE_ITEMS, Leftovers
from hanat.core.probing import Operational
from hanat.core.server_facts import Administrative, Mode, ServerId
from hanat.core.server_records import (
    Record,
    mode_record,
)
from tests.core.health_bench import (
    ME,
    PEER,
    TERM,
    Bench,
    configuration,
    of,
    server,
    web,
)


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


def test_what_is_not_taken_yet_of_a_configuration_is_not_deleted_from_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service_health, "SLICE_SERVERS", 2)
    services = [replace(web(1, 2), name=f"s{n}") for n in range(5)]
    b = Bench(*services)
    b.hold()
    maint = Administrative(Mode.MAINT, "op")
    b.record(*(mode_record(ServerId(s.name, "web1"), maint) for s in services))
    b.all_up(1, 2)
    known = dict(b.state.records)

    restarted = Bench(state=b.state)
    restarted.take(restarted.health.restore(b.state.records, b.now, b.wall_s))
    restarted.take(
        restarted.health.configure(configuration(*services), restarted.now, restarted.wall_s)
    )
    restarted.commit(restarted.hold(ME, TERM + 1))
    while restarted.health.is_coming:
        turn = restarted.take(restarted.health.tick(restarted.now, restarted.wall_s))
        restarted.commit(turn)
    assert restarted.state.records == known
    ended = {end.service.name for end in of(End, restarted.effects)}
    assert ended == {service.name for service in services}


def test_verdict_that_comes_while_a_configuration_is_taken_is_no_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service_health, "SLICE_SERVERS", 1)
    b = Bench(web(1, 2), replace(web(1, 2), name="z"))
    b.hold()
    b.all_up(1, 2)
    less = replace(web(1, 2), name="z", servers=(server(2),))
    b.take(b.health.configure(configuration(web(1, 2), less), b.now, b.wall_s))
    turns = 0
    while b.health.is_coming:
        turns += 1
        b.commit(b.sees(2, Operational.DOWN))
        b.take(b.health.tick(b.now, b.wall_s))
    assert turns >= 2
    assert b.rotations["z"] == ()
    assert b.clients == ["web1"]


def test_of_many_records_that_a_new_holder_looks_through_some_are_in_one_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at: list[int] = []
    some = Leftovers.some

    def counted(leftovers: Leftovers) -> list[End | Record]:
        found = some(leftovers)
        looked_at.append(len(found))
        return found

    monkeypatch.setattr(Leftovers, "some", counted)
    b = Bench(web(1, 2))
    gone = [mode_record(ServerId("old", f"s{n}"), Administrative(Mode.MAINT)) for n in range(2000)]
    b.record(*gone)
    effects = b.hold()
    while b.health.due() == 0.0:
        effects += b.take(b.health.tick(b.now, b.wall_s))
    assert looked_at[:4] == [SLICE_ITEMS - 2, SLICE_ITEMS, SLICE_ITEMS, SLICE_ITEMS]
    b.commit(effects)
    assert b.state.records == {}


def test_look_through_the_records_ends_with_the_tenure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "SLICE_ITEMS", 3)
    b = Bench(web(1, 2))
    gone = [mode_record(ServerId("old", f"s{n}"), Administrative(Mode.MAINT)) for n in range(9)]
    b.record(*gone)
    b.hold()
    assert b.health.due() == 0.0
    b.hold(PEER, TERM + 1)
    assert b.health.due() is None
    # A configuration brings some back before they were looked at.
    b.hold(ME, TERM + 2)
    again = replace(web(1, 2, checked=False), name="old")
    servers = tuple(replace(server(n), name=f"s{n}") for n in range(9))
    b.commit(b.configure(replace(again, servers=servers)))
    assert len(b.state.records) == 9


def test_of_a_snapshot_some_records_are_applied_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_health, "SLICE_SERVERS", 2)
    services = [replace(web(1, 2, 3), name=f"s{n}") for n in range(5)]
    b = Bench(*services)
    b.hold()
    b.all_up(1, 2)
    b.commit(b.sees(3, Operational.DOWN))
    for service in services:
        b.record(mode_record(ServerId(service.name, "web2"), Administrative(Mode.DRAIN, "op")))
    late = Bench(*services, node_id=PEER)
    told = late.take(late.health.restore(b.state.records, late.now, late.wall_s))
    assert late.health.is_coming
    # What the log says meanwhile is newer.
    ready = mode_record(ServerId("s4", "web2"), Administrative(Mode.READY, "op"))
    b.record(ready)
    late.take(late.health.apply([ready], late.now, late.wall_s))
    turns = 0
    while late.health.due() == 0.0:
        turns += 1
        told += late.take(late.health.tick(late.now, late.wall_s))
    assert turns >= 3
    assert late.rotations == b.rotations
    assert [one.name for one in late.rotations["s4"]] == ["web1", "web2"]
    states = {one.target: one.state for one in of(Committed, told)}
    assert states == {
        b.target(1): Operational.UP, b.target(2): Operational.UP, b.target(3): Operational.DOWN,
    }  # fmt: skip
    # The next snapshot has what is gone, and little else to look at.
    del b.state.records[ready.key]
    late.take(late.health.restore(b.state.records, late.now, late.wall_s))
    assert late.health.due() is None
    assert late.administrative(ServerId("s4", "web2")).by == ""
