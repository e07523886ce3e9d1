"""Sums between the flow worker, three nodes and people."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, cast

import pytest

from hanat.core.accounting import Place
from hanat.core.configuration import RealServer
from hanat.core.server_facts import ServerId
from hanat.core.totals import OF_SERVICE, TOLD_S, Figures, Told, Totals
from hanat.core.view_exchange import Slice
from hanat.daemon import totals_keeper
from hanat.daemon.server_messages import views_of, views_to_bytes
from hanat.daemon.servers import QUEUED_BYTES_MAX
from hanat.daemon.totals_keeper import (
    MESSAGE_GAP_S,
    TELL_S,
    Message,
    TotalsKeeper,
    from_bytes,
    to_bytes,
)
from hanat.raft.guard import Guard
from hanat.raft.replica import Replica
from hanat.raft.state import State
from tests.core.examples import EDGE, MEDIA, PUBLIC, PUBLIC_V6, WEB

WEB1, EVERY = ServerId("web", "web1"), ServerId("web", OF_SERVICE)
ONE = Totals(1, 10, 1000, 9, 9000)
TCP, UDP = 6, 17
STEP_S = 1.1 * MESSAGE_GAP_S


def place(server: str = "10.11.12.101", port: int = 8080, *, protocol: int = TCP) -> Place:
    listen = PUBLIC if ":" not in server else PUBLIC_V6
    return Place(protocol, listen.packed, 80, ip_address(server).packed, port)


class Node:
    """A node that is connected with the others while `connected` says so."""

    def __init__(self, node_id: int, nodes: dict[int, Node]) -> None:
        self.node_id, self._nodes = node_id, nodes
        self.state, self.leading = State(), False
        self.connections: dict[int, int] = {}
        self.wire = self
        self.heard_views: list[bytes] = []
        self.sent: list[Message] = []
        self.now = 100.0
        self.waiting_bytes = 0
        self.on_views: Callable[[int, bytes], None] = self._hear_views
        itself = cast("Any", self)
        self.keeper = TotalsKeeper(
            cast(Guard, itself), cast(Replica, itself), wall=lambda: 1_700_000_000.0
        )
        self.keeper.begin()
        self.keeper.configure(EDGE)

    def _hear_views(self, _peer: int, data: bytes) -> None:
        self.heard_views.append(data)

    def clock(self) -> float:
        return self.now

    def queued(self, _peer: int) -> int:
        return self.waiting_bytes

    def send(self, peer: int, message: dict[str, Any]) -> None:
        assert message["type"] == "views"
        found = from_bytes(message["views"])
        assert found is not None
        self.sent.append(found)
        self._nodes[peer].on_views(self.node_id, message["views"])

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.now += STEP_S
            self.keeper.look(self.now)

    def sums(self, name: ServerId = WEB1) -> Totals | None:
        figures = self.keeper.figures(name)
        return None if figures is None else figures.totals


class Cluster:
    """Three nodes that hear each other at once."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.nodes |= {number: Node(number, self.nodes) for number in (1, 2, 3)}
        for node in self.nodes.values():
            node.connections = {n: 1 for n in self.nodes if n != node.node_id}

    def hold(self, term: int, by: int) -> Node:
        for node in self.nodes.values():
            node.state.term, node.state.holder = term, by
            node.leading = node.node_id == by
        return self.nodes[by]

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            for node in self.nodes.values():
                node.look()

    def sums(self, name: ServerId = WEB1) -> list[Totals | None]:
        return [node.sums(name) for node in self.nodes.values()]


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster()
    made.hold(1, by=1)
    made.look(int(2 * TELL_S / STEP_S))  # all know that nothing was counted yet
    return made


def test_every_node_answers_for_the_cluster(cluster: Cluster) -> None:
    cluster.nodes[1].keeper.count({place(): ONE}, True)
    cluster.look()
    assert cluster.sums() == cluster.sums(EVERY) == [ONE, ONE, ONE]
    assert cluster.sums(ServerId("web", "web2")) == [Totals()] * 3
    backup = cluster.nodes[2]
    backup.now += 3
    figures = backup.keeper.figures(WEB1)
    assert isinstance(figures, Figures)
    assert (round(figures.age_s), figures.has_bytes, figures.since_s) == (3, True, 1_700_000_000)


def test_next_holder_goes_on(cluster: Cluster) -> None:
    cluster.nodes[1].keeper.count({place(): ONE}, True)
    cluster.look()
    third = cluster.hold(2, by=3)
    cluster.look()
    third.keeper.count({place(): ONE}, True)
    cluster.look()
    assert cluster.sums() == [ONE.plus(ONE)] * 3


def test_holder_that_missed_something_is_told_of_it(cluster: Cluster) -> None:
    cluster.nodes[1].connections = {2: 1}
    cluster.nodes[1].keeper.count({place(): ONE}, True)
    cluster.look()
    assert cluster.sums() == [ONE, ONE, Totals()]
    cluster.hold(2, by=3)
    cluster.look(2)
    assert cluster.sums() == [ONE] * 3


def test_node_that_comes_back_is_told_everything(cluster: Cluster) -> None:
    cluster.nodes[1].keeper.count({place(): ONE}, True)
    cluster.look()
    cluster.nodes[2] = Node(2, cluster.nodes)
    cluster.nodes[2].state = cluster.nodes[3].state
    cluster.nodes[2].connections = {1: 2, 3: 2}
    for number in (1, 3):
        cluster.nodes[number].connections = {**cluster.nodes[number].connections, 2: 2}
    cluster.look(2)
    assert cluster.sums() == [ONE] * 3


def test_what_was_counted_at_the_end_of_a_tenure_is_not_lost(cluster: Cluster) -> None:
    cluster.hold(2, by=2)
    cluster.look()
    cluster.nodes[1].keeper.count({place(): ONE}, True)
    cluster.look(2)
    assert cluster.sums() == [ONE] * 3


def test_node_that_starts_shows_no_sum_before_it_was_told_all(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 0, or what it counted itself, would be less than it showed before."""
    cluster.nodes[1].keeper.count({place(): ONE}, True)
    cluster.look()
    monkeypatch.setattr(totals_keeper, "SUMS_A_MESSAGE", 1)
    cluster.nodes[2] = Node(2, cluster.nodes)
    cluster.nodes[2].state = cluster.nodes[3].state
    cluster.nodes[2].connections = {1: 2, 3: 2}
    for number in (1, 3):
        cluster.nodes[number].connections = {**cluster.nodes[number].connections, 2: 2}
    shown = []
    for _ in range(10):
        cluster.look()
        shown.append((cluster.nodes[2].sums(), cluster.nodes[2].sums(EVERY)))
    assert (None, None) in shown
    assert set(shown) == {(None, None), (ONE, ONE)}
    assert shown[-1] == (ONE, ONE)


def test_next_holder_that_was_just_started_shows_no_sum_before_it_was_told_all(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.nodes[1].keeper.count({place(): ONE}, True)
    cluster.look()
    monkeypatch.setattr(totals_keeper, "SUMS_A_MESSAGE", 1)
    fresh = cluster.nodes[2] = Node(2, cluster.nodes)
    fresh.connections = {1: 2, 3: 2}
    for number in (1, 3):
        cluster.nodes[number].connections = {**cluster.nodes[number].connections, 2: 2}
    cluster.hold(2, by=2)
    fresh.look()
    fresh.keeper.count({place(): ONE}, True)
    shown = [(fresh.sums(), fresh.sums(EVERY))]
    for _ in range(10):
        cluster.look()
        shown.append((fresh.sums(), fresh.sums(EVERY)))
    both = ONE.plus(ONE)
    assert (None, None) in shown
    assert set(shown) == {(None, None), (both, both)}
    cluster.look(int(TELL_S / STEP_S))
    assert cluster.sums() == cluster.sums(EVERY) == [both] * 3


def test_holder_does_not_wait_for_ever_for_peers_of_an_older_version() -> None:
    node = Cluster().hold(1, by=1)  # the others say nothing
    node.look()
    node.keeper.count({place(): ONE}, True)
    assert node.sums() is None
    node.look(int(TOLD_S / STEP_S) + 1)
    assert node.sums() == ONE


def test_peer_whose_connection_is_full_is_told_later(cluster: Cluster) -> None:
    holder = cluster.nodes[1]
    holder.waiting_bytes = QUEUED_BYTES_MAX + 1
    holder.sent.clear()
    holder.keeper.count({place(): ONE}, True)
    cluster.look(30)
    assert holder.sent == []
    holder.waiting_bytes = 0
    cluster.look()
    assert cluster.sums() == [ONE] * 3


def test_book_that_is_full_is_told_once(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hanat.core.totals.ACCOUNTS_MAX", 2)
    holder = cluster.nodes[1]
    holder.keeper.count({place(): ONE, place("10.11.12.102"): ONE}, True)
    holder.look(5)
    (line,) = caplog.messages
    assert line == "totals=2 action=none_for_more"


def test_only_what_changed_is_told(cluster: Cluster) -> None:
    holder = cluster.nodes[1]
    holder.keeper.count({place(): ONE}, True)
    cluster.look(3)
    holder.sent.clear()
    holder.keeper.count({place("10.11.12.102"): ONE}, True)
    cluster.look(3)
    assert [sorted(t.name.server for t in message.told) for message in holder.sent] == [
        ["", "web2"], ["", "web2"],
    ]  # fmt: skip


def test_holder_that_counts_nothing_is_still_heard(cluster: Cluster) -> None:
    holder = cluster.nodes[1]
    holder.sent.clear()
    cluster.look(int(3 / STEP_S))
    assert len(holder.sent) == pytest.approx(2 * 3, abs=2)
    assert {len(message.told) for message in holder.sent} == {0}


def test_much_is_told_in_slices(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals_keeper, "SUMS_A_MESSAGE", 4)
    servers = tuple(
        RealServer(f"s{i}", ip_address(f"10.0.0.{i}"), 80, weight=1) for i in range(1, 31)
    )
    many = replace(EDGE, services=(replace(WEB, servers=servers),))
    for node in cluster.nodes.values():
        node.keeper.configure(many)
    holder = cluster.nodes[1]
    holder.sent.clear()
    holder.keeper.count({place(f"10.0.0.{i}", 80): ONE for i in range(1, 31)}, True)
    cluster.look(4)
    assert max(len(message.told) for message in holder.sent) == 4
    assert cluster.sums(EVERY)[1] is not None
    cluster.look(10)
    assert [cluster.nodes[2].sums(ServerId("web", s.name)) for s in servers] == [ONE] * 30
    assert cluster.sums(EVERY) == [Totals(*(30 * n for n in ONE))] * 3


def test_sums_of_a_server_that_is_gone_go_and_those_of_its_service_stay(
    cluster: Cluster,
) -> None:
    cluster.nodes[1].keeper.count({place(): ONE}, True)
    cluster.look()
    without = replace(EDGE, services=(replace(WEB, servers=WEB.servers[1:]), MEDIA))
    for node in cluster.nodes.values():
        node.keeper.configure(without)
    cluster.look(2)
    assert cluster.sums() == [Totals()] * 3
    cluster.nodes[1].keeper.count({place(): ONE}, True)  # its connections go on
    cluster.look()
    assert cluster.sums() == [Totals()] * 3
    assert cluster.sums(EVERY) == [ONE.plus(ONE)] * 3


def test_node_that_was_started_again_does_not_take_itself_for_the_holder() -> None:
    node = Node(1, {})
    node.state.term, node.state.holder = 7, 1  # as its log says
    node.connections = {2: 1}
    node.look(100)
    assert node.sent == []


# ----------------------------------------------------------------------- servers


@pytest.mark.parametrize(
    ("server", "port", "name"),
    [
        ("10.11.12.101", 8080, "web1"),
        ("10.11.12.101", 8081, "twin"),
        ("10.11.12.101", 9, None),
        ("10.11.12.101", 0, None),
        ("10.11.12.102", 8080, "web2"),
        ("10.99.0.1", 8080, None),
    ],
)
def test_servers_that_share_an_address_are_told_apart_by_their_ports(
    cluster: Cluster, server: str, port: int, name: str | None
) -> None:
    twin = RealServer("twin", ip_address("10.11.12.101"), 8081, weight=1)
    node = cluster.nodes[1]
    node.keeper.configure(replace(EDGE, services=(replace(WEB, servers=(*WEB.servers, twin)),)))
    node.keeper.count({place(server, port): ONE}, True)
    assert node.sums(EVERY) == ONE
    found = [s for s in ("web1", "web2", "twin") if node.sums(ServerId("web", s)) == ONE]
    assert found == ([] if name is None else [name])


@pytest.mark.parametrize(
    ("address", "port", "name"),
    [("10.11.12.101", 0, "any"), ("10.11.12.102", 5000, "one"), ("10.11.12.102", 0, "one")],
)
def test_port_may_be_that_which_the_client_asked_for(
    cluster: Cluster, address: str, port: int, name: str
) -> None:
    node = cluster.nodes[1]
    asked = Place(UDP, PUBLIC.packed, 5000, ip_address(address).packed, port)
    node.keeper.count({asked: ONE}, True)
    assert node.sums(ServerId("media", name)) == ONE


# ---------------------------------------------------------------------- messages

MESSAGE = Message(
    7, before=False, has_bytes=True,
    told=[Told(WEB1, 1_700_000_000, ONE), Told(EVERY, 5, Totals())],
)  # fmt: skip


def test_messages_come_back_as_they_were() -> None:
    for is_all in (None, False, True):
        message = MESSAGE._replace(is_all=is_all)
        assert from_bytes(to_bytes(message)) == message


def test_newer_node_may_tell_more() -> None:
    document = json.loads(to_bytes(MESSAGE))
    for row in document["totals"]["sums"]:
        row.append("more")
    document["totals"]["more"] = 1
    assert from_bytes(json.dumps(document).encode()) == MESSAGE


def test_older_node_takes_them_for_no_views() -> None:
    assert views_of(to_bytes(MESSAGE)) == Slice((), anew=False, more=False)


def test_views_of_others_are_left_to_whom_they_are_for(cluster: Cluster) -> None:
    node = cluster.nodes[1]
    told = [views_to_bytes(Slice((), anew=anew, more=False)) for anew in (True, False)]
    for data in (*told, b"{}", b""):
        node.on_views(2, data)
        assert node.heard_views.pop() == data
    node.on_views(2, to_bytes(MESSAGE))
    assert node.heard_views == []


@pytest.mark.parametrize(
    "change",
    [
        {"term": -1}, {"term": "7"}, {"term": None}, {"sums": None}, {"sums": [["web"]]},
        *(
            {"sums": [["web", "web1", 0, 1, 2, 3, 4, *last]]}
            for last in ((), (-5,), (1.5,), (True,), ("5",), (None,))
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_ignored(
    cluster: Cluster, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    document = json.loads(to_bytes(MESSAGE))
    document["totals"] |= change
    data = json.dumps(document, separators=(",", ":")).encode()
    assert from_bytes(data) is None
    cluster.nodes[2].on_views(1, data)
    assert "peer=1 totals=unreadable action=ignored" in caplog.text
    assert cluster.nodes[2].sums() == Totals()
