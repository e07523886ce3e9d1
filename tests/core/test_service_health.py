"""Verdicts, rotations and what operators made of servers, as one node has them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from hanat.core.configuration import OnServerDown, Protocol, Sorry
from hanat.core.health_effects import Committed, End, Propose, Rotate, Seen
from hanat.core.probing import Operational
from hanat.core.schedulers import InRotation
from hanat.core.server_facts import Administrative, Mode
from hanat.core.server_history import changes_of
from hanat.core.server_records import (
    Record,
    deleted,
    is_sound,
    mode_of,
    mode_record,
    weight_record,
)
from hanat.core.verdicts import HandOver, Thawed
from hanat.core.view_exchange import Slice
from hanat.core.views import View
from tests.core.health_bench import (
    LISTEN,
    ME,
    PEER,
    TERM,
    WEB1,
    WEB2,
    WEB3,
    Bench,
    of,
    server,
    web,
)


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
    assert "connection refused" in b.why(web(1, 2, 3), "web2")


def test_connections_of_a_server_that_went_down_end_as_the_service_says() -> None:
    expire = replace(web(1, 2), on_server_down=OnServerDown.EXPIRE)
    b = Bench(expire)
    b.hold()
    b.all_up(1, 2)
    ends = of(End, b.commit(b.sees(1, Operational.DOWN)))
    assert ends == [End(expire, server(1), OnServerDown.EXPIRE)]


def test_connections_of_a_service_that_is_removed_end_as_it_said() -> None:
    before = replace(web(1, 2, checked=False), on_server_down=OnServerDown.EXPIRE)
    b = Bench(before)
    # Of a server alone: when the rules without it are in force, each flow is looked at.
    assert of(End, b.configure(replace(before, servers=before.servers[1:]))) == []
    ends = of(End, b.configure())
    assert [(one.server, one.policy) for one in ends] == [(server(2), OnServerDown.EXPIRE)]


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


def test_udp_of_the_sorry_server_ends_when_there_is_a_server_again() -> None:
    udp = replace(LISTEN, protocol=Protocol.UDP)
    sorry = Sorry(ip_address("10.11.12.99"), 8080)
    both = replace(web(1, 2), listens=(LISTEN, udp), sorry=(sorry,))
    b = Bench(both)
    b.hold()
    b.commit(b.sees(1, Operational.DOWN))
    (end,) = of(End, b.commit(b.sees(2, Operational.UP)))
    assert (end.server.address, end.server.port) == (sorry.address, 8080)
    assert (end.service.listens, end.policy) == ((udp,), OnServerDown.EXPIRE)
    assert of(End, b.commit(b.sees(1, Operational.UP))) == []  # one was there
    b.hold(PEER, TERM + 1)
    assert end in of(End, b.hold(ME, TERM + 2))  # the former holder may not have done it
    tcp = Bench(replace(both, listens=(LISTEN,)))
    tcp.hold()
    assert of(End, tcp.commit(tcp.sees(2, Operational.UP))) == []


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
    assert b.administrative(WEB2).mode is Mode.READY


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


def sure_of(b: Bench, *numbers: int, anew: bool = True, more: bool = False) -> Slice:
    """Return what a peer tells that is sure of some servers."""
    views = tuple((b.target(n), View(Operational.UP, ok=True)) for n in numbers)
    return Slice(views, anew, more)


def blind(b: Bench) -> Bench:
    """Let a holder be blind to three servers that its peer sees."""
    b.hold()
    b.all_up(1, 2, 3)
    b.take(b.health.eligible([PEER], b.now, b.wall_s))
    b.take(b.health.hear(PEER, sure_of(b, 1, 2, 3), b.now, b.wall_s))
    b.commit([effect for n in (1, 2, 3) for effect in b.sees(n, Operational.DOWN)])
    return b


def test_blind_holder_believes_its_witness_while_that_tells_all_anew() -> None:
    """The path between them changed; nothing else did."""
    b = blind(Bench(web(1, 2, 3)))
    clients = b.clients
    assert len(clients) >= 2
    for told in (sure_of(b, 1, more=True), sure_of(b, 2, anew=False, more=True)):
        assert b.take(b.health.hear(PEER, told, b.now, b.wall_s)) == []
    assert b.take(b.health.hear(PEER, sure_of(b, 3, anew=False), b.now, b.wall_s)) == []
    assert b.take(b.health.hear(PEER, sure_of(b, 1, 2, 3), b.now, b.wall_s)) == []
    assert b.clients == clients


def test_witness_that_tells_no_more_of_a_server_is_none_when_it_told_all() -> None:
    b = blind(Bench(web(1, 2, 3)))
    assert b.take(b.health.hear(PEER, sure_of(b, 1, more=True), b.now, b.wall_s)) == []
    last = b.take(b.health.hear(PEER, Slice((), anew=False, more=False), b.now, b.wall_s))
    assert of(Thawed, last) == [Thawed()]
    b.commit(last)
    b = blind(Bench(web(1, 2, 3)))
    nothing = Slice((), anew=True, more=False)  # it does not probe any more
    assert of(Thawed, b.take(b.health.hear(PEER, nothing, b.now, b.wall_s))) == [Thawed()]


def test_blind_holder_hands_over_and_empties_no_pool() -> None:
    b = Bench(web(1, 2, 3))
    b.hold()
    b.all_up(1, 2, 3)
    b.take(b.health.eligible([PEER], b.now, b.wall_s))
    told = sure_of(b, 1, 2, 3)
    b.take(b.health.hear(PEER, told, b.now, b.wall_s))
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


def test_drain_that_was_limited_in_time_ends_in_time_by_a_holder_whose_wall_clock_is_wrong() -> (
    None
):
    b = Bench(web(1, 2, checked=False))
    b.hold(PEER)
    wall_s = b.wall_s + 180  # of the node that took the order
    drained = Administrative(Mode.DRAIN, "op", since_s=wall_s, until_s=wall_s + 60)
    b.record(mode_record(WEB1, drained))
    b.now += 10
    b.hold(ME, TERM + 1)
    due = b.health.due()
    assert due == b.now + 50
    b.now = due
    b.commit(b.take(b.health.tick(b.now, b.wall_s)))
    assert b.clients == ["web1", "web2"]
    assert b.administrative(WEB1).since_s == wall_s + 60


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


def test_ready_is_remembered_with_who_and_when() -> None:
    b = Bench(web(1, 2, checked=False))
    b.record(mode_record(WEB1, Administrative(Mode.DRAIN, "op", "disk", since_s=5.0)))
    ready = Administrative(Mode.READY, "eve", since_s=9.0)
    b.record(mode_record(WEB1, ready))
    assert b.clients == ["web1", "web2"]
    assert b.administrative(WEB1) == ready
    assert [mode_of(change).by for change in b.state.changes] == ["op", "eve"]


def test_record_fits_the_log_whatever_a_server_or_an_operator_says() -> None:
    b = Bench(web(1, 2))
    b.hold()
    b.all_up(1, 2)
    b.commit(b.sees(1, Operational.DOWN, answer="\U0001f600" * 200))
    assert b.clients == ["web2"]
    for text in ("\U0001f600" * 200, "\0" * 200, '"' * 200, "\ud800" * 200):
        record = mode_record(WEB2, Administrative(Mode.DRAIN, text, text))
        assert is_sound(record)
        assert mode_of(record).mode is Mode.DRAIN
        assert is_sound(weight_record(WEB2, 1.0, by=text, at_s=0.0))


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1e308", "-1", "NaN", "true", '"x"', "[[]]"])
def test_record_that_makes_no_sense_ends_no_node(number: str) -> None:
    b = Bench(web(1, 2, checked=False))
    b.hold()
    values = (
        f'{{"factor":{number},"by":{number},"at":{number}}}',
        f'{{"mode":"drain","since":{number},"until":{number},"by":{number}}}',
        f'{{"state":"down","row":{number},"latency":{number},"node":1,"term":{number},"at":{number}}}',
    )
    for kind in b"wmvs":
        for value in values:
            b.record(Record(bytes((kind,)) + b"web/web1", value.encode()), term=TERM)
    changes_of(b.state.changes, b.health.users, {})
    restarted = Bench(web(1, 2, checked=False), node_id=PEER)
    restarted.take(restarted.health.restore(b.state.records, b.now, b.wall_s))
    assert restarted.rotations == b.rotations


def test_what_the_log_did_not_take_is_proposed_again() -> None:
    b = Bench(web(1, 2, checked=False))
    b.hold()
    lost = of(Propose, b.configure(web(1, 2)))
    assert [len(proposal.records) for proposal in lost] == [2]  # both stay
    b.now += 1.0
    again = b.take(b.health.tick(b.now, b.wall_s))
    assert of(Propose, again) == lost
    b.commit(again)
    b.now += 5.0
    assert of(Propose, b.take(b.health.tick(b.now, b.wall_s))) == []


def test_drain_that_is_over_is_proposed_once_a_second_not_at_each_call() -> None:
    b = Bench(web(1, 2, checked=False))
    b.hold()
    b.record(mode_record(WEB1, Administrative(Mode.DRAIN, "op", until_s=b.wall_s + 1)))
    b.now += 2.0
    told = [of(Propose, b.take(b.health.tick(b.now + n / 10, b.wall_s))) for n in range(8)]
    assert [len(some) for some in told] == [1] + [0] * 7
    due = b.health.due()  # nor is it waited for by looking all the time
    assert due is not None
    assert due > b.now + 0.7


def test_verdict_whose_record_is_deleted_is_unknown_again() -> None:
    b = Bench(web(1, 2))
    b.hold()
    b.all_up(1, 2)
    key = next(key for key in b.state.records if b.target(1).encode() in key)
    b.record(deleted(key), term=TERM)
    assert b.clients == ["web2"]


def test_checker_hears_what_the_log_has_of_a_target_that_is_new() -> None:
    """It tells a first failure that contradicts a verdict from one that does not."""
    b = Bench(web(1))
    b.hold()
    b.all_up(1)
    late = Bench(node_id=PEER)
    late.take(late.health.restore(b.state.records, late.now, late.wall_s))
    assert Committed(b.target(1), Operational.UP) in late.configure(web(1))


def test_full_server_gets_no_clients_and_starts_at_once_when_it_has_room() -> None:
    bounded = replace(web(1, 2, checked=False), slow_start_s=30.0)
    bounded = replace(bounded, servers=(replace(server(1), max_conn=9), server(2)))
    b = Bench(bounded)
    b.hold()
    assert b.health.counted == (bounded,)

    (rotated,) = of(Rotate, b.health.fill([WEB1], (), b.now))
    assert rotated.rotations == {"web": (InRotation("web2"),)}
    assert of(Rotate, b.health.fill((), (), b.now)) == []
    known = b.health.knowledge({}, {}, b.now)
    assert (known.full, known.filled) == ({WEB1}, {WEB1: 1})

    (rotated,) = of(Rotate, b.health.fill((), [WEB1], b.now))
    assert rotated.rotations == {"web": (InRotation("web1"), InRotation("web2"))}


def test_server_that_has_no_limit_any_more_is_in_rotation_again() -> None:
    before = replace(web(1, 2, checked=False), servers=(replace(server(1), max_conn=9), server(2)))
    b = Bench(before)
    b.health.fill([WEB1], (), b.now)

    after = replace(before, servers=(server(1), server(2)))
    (rotated,) = of(Rotate, b.configure(after))

    assert rotated.rotations == {"web": (InRotation("web1"), InRotation("web2"))}
