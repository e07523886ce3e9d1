"""Which client goes to which server, beside a second and simpler implementation."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.core import stick_table
from hanat.core.configuration import Listen, Persistence, Protocol, RealServer
from hanat.core.flows import Flow, Tuple5
from hanat.core.persistence import sticky_services
from hanat.core.reconcile import Rules, rules_of
from hanat.core.stick_table import TICKS, StickTable
from hanat.core.sticky import NOBODY, StickyService, Told, Wanted
from tests.core.examples import DEVICES, EDGE, MEDIA, PUBLIC, PUBLIC_V6, WEB

TIMEOUT_S = 640.0  # a refresh is told after 40 s
TCP, UDP, SYN_SENT, ESTABLISHED, CLOSE_WAIT = 6, 17, 1, 3, 5
FOUR, SIX = ("web", 4), ("web", 6)


def rules(persistence: Persistence | None = None, **others: object) -> Rules:
    """Return those of a sticky example; `others` of its service are different."""
    web = replace(WEB, persistence=persistence or Persistence(TIMEOUT_S), **others)  # type: ignore[arg-type]  # any field
    return rules_of(replace(EDGE, services=(web, *EDGE.services[1:])), DEVICES, ())


def table(of: Rules | None = None) -> StickTable:
    made = StickTable()
    configure(made, of or rules())
    return made


def configure(made: StickTable, of: Rules) -> None:
    made.configure(of.sticky, {place: [p[:2] for p in some] for place, some in of.listens.items()})


def opened(
    client: str,
    server: str = "10.11.12.101",
    *,
    port: int = 80,
    server_port: int = 8080,
    protocol: int = TCP,
    state: int = ESTABLISHED,
) -> bytes:
    """Return the record of a connection."""
    asked = PUBLIC if ip_address(client).version == 4 else PUBLIC_V6
    return Flow(
        protocol=protocol,
        original=Tuple5(ip_address(client), asked, 40_000, port),
        reply=Tuple5(ip_address(server), ip_address(client), server_port, 40_000),
        status=0x2E,
        timeout_s=60,
        tcp_state=state if protocol == TCP else 0,
    ).to_record()


def packed(address: str) -> bytes:
    return ip_address(address).packed


def servers(of: StickTable, client: str, service: StickyService) -> list[str]:
    """Return the servers whose sets are to have a client."""
    wanted = [packed(client)]
    return [s.name for s in service.servers if of.wanted(s.set_name, wanted, 0.0)]


def test_connection_makes_an_entry_of_its_client_and_server() -> None:
    made = table()
    (change,) = made.note([opened("198.51.100.7", "10.11.12.102")], 0.0)
    assert (change.key, change.client, change.former) == (FOUR, packed("198.51.100.7"), NOBODY)
    (web, web6) = rules().sticky
    assert servers(made, "198.51.100.7", web) == ["web2"]
    assert (web.version, web6.version, [s.name for s in web6.servers]) == (4, 6, ["web6"])
    assert len(made) == 1


def test_connection_of_ipv6_makes_one_too() -> None:
    made = table()
    (change,) = made.note([opened("2001:db8:9::7", "fd00:12::101")], 0.0)
    assert (change.key, change.client) == (SIX, packed("2001:db8:9::7"))


@pytest.mark.parametrize(
    "record",
    [
        opened("198.51.100.7", port=81),
        opened("198.51.100.7", protocol=UDP),
        opened("198.51.100.7", "10.11.12.200"),
        opened("198.51.100.7", server_port=8081),
        opened("198.51.100.7", state=CLOSE_WAIT),
        opened("198.51.100.7", state=SYN_SENT),
        opened("198.51.100.7", port=5050, server_port=5050, protocol=UDP),
    ],
    ids=[
        "port",
        "protocol",
        "sorry server",
        "server's port",
        "goodbye",
        "handshake",
        "other service",
    ],
)
def test_other_connections_make_none(record: bytes) -> None:
    assert table().note([record], 0.0) == []


def test_single_port_is_none_of_the_range_around_it() -> None:
    """Ports 5000 of TCP and 5000 to 5099 of UDP are listened on; 5042 is another service's."""
    media = replace(MEDIA, persistence=Persistence(60.0))
    own = Listen(PUBLIC, Protocol.UDP, 5042, 5042)
    other = replace(WEB, listens=(own,), servers=MEDIA.servers)
    of = rules_of(replace(EDGE, services=(media, other)), DEVICES, ())
    made = table(of)
    ports = (5000, 5041, 5042, 5099, 5100)
    found = [
        made.note(
            [opened(f"198.51.100.{port % 250}", port=port, server_port=port, protocol=UDP)], 0.0
        )
        for port in ports
    ]
    assert [bool(changes) for changes in found] == [True, True, False, True, False]


def test_server_without_a_port_has_that_of_the_client() -> None:
    both = (
        RealServer("any", ip_address("10.11.12.101"), None, weight=1),
        RealServer("own", ip_address("10.11.12.102"), 9000, weight=1),
    )
    made = table(rules(servers=both))
    made.note([opened("198.51.100.1", server_port=80)], 0.0)
    made.note([opened("198.51.100.2", "10.11.12.102", server_port=9000)], 0.0)
    (web,) = rules(servers=both).sticky
    assert [servers(made, f"198.51.100.{i}", web) for i in (1, 2)] == [["any"], ["own"]]


def test_servers_on_one_machine_are_told_apart_by_their_ports() -> None:
    both = tuple(
        RealServer(f"s{port}", ip_address("10.11.12.101"), port, weight=1) for port in (1, 2)
    )
    made, (web,) = table(rules(servers=both)), rules(servers=both).sticky
    made.note([opened("198.51.100.1", server_port=2)], 0.0)
    assert servers(made, "198.51.100.1", web) == ["s2"]


@pytest.mark.parametrize(
    ("persistence", "one", "other", "server"),
    [
        (Persistence(TIMEOUT_S, netmask=20), "198.51.100.7", "198.51.111.250", "10.11.12.101"),
        (
            Persistence(TIMEOUT_S, netmask6=60),
            "2001:db8:0:10::7",
            "2001:db8:0:1f::9",
            "fd00:12::101",
        ),
    ],
)
def test_clients_of_one_network_are_one(
    persistence: Persistence, one: str, other: str, server: str
) -> None:
    made = table(rules(persistence))
    (change,) = made.note([opened(one, server)], 0.0)
    assert made.note([opened(other, server)], 1.0) == []
    assert len(made) == 1
    length = persistence.netmask if ip_address(one).version == 4 else persistence.netmask6
    assert change.client == ip_network(f"{one}/{length}", strict=False).network_address.packed


def test_client_that_comes_to_another_server_leaves_the_first() -> None:
    made, (web, _) = table(), rules().sticky
    made.note([opened("198.51.100.7")], 0.0)
    (change,) = made.note([opened("198.51.100.7", "10.11.12.102")], 0.1)
    assert (web.servers[change.server].name, web.servers[change.former].name) == ("web2", "web1")
    assert servers(made, "198.51.100.7", web) == ["web2"]
    assert len(made) == 1


def test_refresh_is_told_when_it_is_worth_it() -> None:
    made = table()
    for now, worth in ((0.0, True), (39.9, False), (40.0, True), (60.0, False), (80.1, True)):
        assert bool(made.note([opened("198.51.100.7")], now)) is worth, now
    (web, _) = rules().sticky
    (wanted,) = made.wanted(web.servers[0].set_name, [packed("198.51.100.7")], 80.1)
    assert wanted.left_ms == 640_000


def test_entry_ends_with_its_time() -> None:
    made, (web, _) = table(), rules().sticky
    name, client = web.servers[0].set_name, packed("198.51.100.7")
    made.note([opened("198.51.100.7")], 100.0)
    assert made.wanted(name, [client], 739.5) == [Wanted(client, 500)]
    assert made.wanted(name, [client], 740.0) == []
    assert made.tell([(FOUR, client)], 740.0) == []
    made.note([opened("198.51.100.8")], 800.0)
    assert list(made.everything()) == [(FOUR, packed("198.51.100.8"))]
    assert len(made) == 1


def test_other_node_learns_what_is_told() -> None:
    ours, theirs, (web, _) = table(), table(), rules().sticky
    ours.note([opened("198.51.100.7"), opened("198.51.100.8", "10.11.12.102")], 1000.0)
    told = ours.tell(ours.everything(), 1040.0)
    changes = [change for one in told for change in theirs.learn(one, 5.0)]
    assert {(c.client, c.former) for c in changes} == {
        (packed(f"198.51.100.{i}"), NOBODY) for i in (7, 8)
    }
    (wanted,) = theirs.wanted(web.servers[0].set_name, [packed("198.51.100.7")], 5.0)
    assert wanted.left_ms == 600_000
    assert [c for one in told for c in theirs.learn(one, 5.3)] == []  # told once more


def test_what_is_told_last_is_true() -> None:
    """Ages have the log's delays in them."""
    made, (web, _) = table(), rules().sticky
    client = packed("198.51.100.7")
    made.learn(Told("web", 4, 32, "web2", [client], [0]), 10.0)
    (change,) = made.learn(Told("web", 4, 32, "web1", [client], [2 * TICKS]), 10.0)
    assert (change.server, change.former) == (0, 1)
    assert servers(made, "198.51.100.7", web) == ["web1"]


def test_what_is_told_late_changes_nothing_that_is_newer() -> None:
    made, (web, _) = table(), rules().sticky
    moved, older = packed("198.51.100.7"), packed("198.51.100.8")
    made.learn(Told("web", 4, 32, "web2", [moved, older], [0, 90 * TICKS]), 100.0)
    late = Told("web", 4, 32, "web1", [moved, older], [20 * TICKS, 20 * TICKS])
    (change,) = made.learn(late, 100.0, late=True)
    assert change.client == older
    assert servers(made, "198.51.100.7", web) == ["web2"]


@pytest.mark.parametrize(
    "told",
    [
        Told("gone", 4, 32, "web1", [packed("198.51.100.7")], [0]),
        Told("web", 4, 32, "gone", [packed("198.51.100.7")], [0]),
        Told("web", 4, 24, "web1", [packed("198.51.100.0")], [0]),
        Told("web", 4, 32, "web1", [packed("198.51.100.7")], [640 * TICKS]),
    ],
    ids=["service", "server", "shorter prefix", "expired"],
)
def test_what_means_nothing_here_is_not_learnt(told: Told) -> None:
    assert table().learn(told, 1000.0) == []


def test_client_of_a_longer_prefix_is_learnt_as_its_network() -> None:
    made = table(rules(Persistence(TIMEOUT_S, netmask=24)))
    (change,) = made.learn(Told("web", 4, 32, "web1", [packed("198.51.100.7")], [0]), 0.0)
    assert change.client == packed("198.51.100.0")


def test_entries_outlive_other_configurations() -> None:
    made = table()
    made.note([opened("198.51.100.7"), opened("198.51.100.8", "10.11.12.102")], 100.0)
    made.note([opened("198.51.100.9")], 130.0)
    # web1 is gone and web3 comes first: numbers are others. The time is another, too.
    others = rules(Persistence(320.0), servers=(WEB.servers[2], WEB.servers[1]))
    configure(made, others)
    (web,) = others.sticky
    assert [servers(made, f"198.51.100.{i}", web) for i in (7, 8, 9)] == [[], ["web2"], []]
    assert len(made) == 1
    (wanted,) = made.wanted(web.servers[1].set_name, [packed("198.51.100.8")], 110.0)
    assert wanted.left_ms == 310_000


def test_server_that_is_added_is_no_work_for_each_client(monkeypatch: pytest.MonkeyPatch) -> None:
    made = table(rules(servers=WEB.servers[:2]))
    made.note([opened("198.51.100.7"), opened("198.51.100.8", "10.11.12.102")], 100.0)
    more = rules(Persistence(320.0), servers=(*WEB.servers[:2], replace(WEB.servers[0], name="x")))
    with monkeypatch.context() as patch:
        patch.setattr(StickTable, "_put", None)
        configure(made, more)
    (web,) = more.sticky
    assert [servers(made, f"198.51.100.{i}", web) for i in (7, 8)] == [["web1"], ["web2"]]
    assert len(made) == 2
    monkeypatch.setattr(stick_table, "CLIENTS_MAX", 1)
    assert not made.note([opened("198.51.100.9", "10.11.12.102")], 100.0)  # it has one


def test_shorter_prefix_joins_clients_and_the_newest_counts() -> None:
    made = table()
    made.note([opened("198.51.100.7", "10.11.12.102")], 100.0)
    made.note([opened("198.51.100.8")], 99.0)
    wide = rules(Persistence(TIMEOUT_S, netmask=24))
    configure(made, wide)
    assert servers(made, "198.51.100.0", wide.sticky[0]) == ["web2"]
    assert len(made) == 1

    configure(made, rules())  # nobody knows who it was
    assert len(made) == 0


def test_service_without_persistence_has_no_entries() -> None:
    made = table()
    made.note([opened("198.51.100.7")], 0.0)
    configure(made, replace(rules(), sticky=()))
    assert len(made) == 0
    assert made.note([opened("198.51.100.7")], 0.0) == []
    assert sticky_services(EDGE) == ()


def test_full_server_takes_nobody_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stick_table, "CLIENTS_MAX", 3)
    made = table()
    noted = [bool(made.note([opened(f"198.51.100.{i}")], 10.0 + i)) for i in range(5)]
    assert noted == [True, True, True, False, False]
    assert made.note([opened("198.51.100.9", "10.11.12.102")], 20.0)
    assert made.note([opened("198.51.100.0")], 60.0)  # who is there is refreshed
    assert not made.note([opened("198.51.100.4")], 650.5)
    assert made.note([opened("198.51.100.4")], 652.0)  # one has expired


def test_full_table_takes_nobody_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stick_table, "ENTRIES_MAX", 2)
    made = table()
    assert len(made.note([opened(f"198.51.100.{i}") for i in range(3)], 0.0)) == 2
    assert made.note([opened("198.51.100.0", "10.11.12.102")], 1.0)  # who is there may move


def test_full_table_forgets_what_expired_of_any_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stick_table, "ENTRIES_MAX", 2)
    made, (web, _) = table(), rules().sticky
    made.note([opened(f"198.51.100.{i}") for i in (1, 2, 3)], 1000.0)
    assert made.refused == 1
    assert made.expected(web.servers[0].set_name, 1641.0)[web.servers[0].set_name] == []
    assert made.note([opened("2001:db8:9::7", "fd00:12::101")], 1641.0)
    assert len(made) == 1
    assert made.refused == 1


NEWER_AND_OLDER = [
    Wanted(packed("198.51.100.7"), 600_000),  # older: it moved since
    Wanted(packed("198.51.100.8"), 639_000 + 3_000),  # packets moved it
    Wanted(packed("198.51.100.6"), 100_000),  # nobody told
]


@pytest.mark.parametrize("udp", [True, False])
def test_set_that_packets_filled_is_believed_if_it_is_newer(*, udp: bool) -> None:
    """Always of services of UDP; of others when a worker knows nothing yet, or lost events."""
    listens = (*WEB.listens, Listen(PUBLIC, Protocol.UDP, 80, 80)) if udp else WEB.listens
    made, (web, _) = table(rules(listens=listens)), rules(listens=listens).sticky
    name = web.servers[1].set_name
    made.note([opened("198.51.100.7"), opened("198.51.100.8"), opened("198.51.100.9")], 1000.0)
    found = made.compare(name, NEWER_AND_OLDER, 1002.0, packets=True, believe=not udp)
    assert found.strange == [packed("198.51.100.7")]
    assert found.outdated == []
    assert [(c.client, c.former) for c in found.changes] == [
        (packed("198.51.100.8"), 0),
        (packed("198.51.100.6"), NOBODY),
    ]
    (wanted,) = made.wanted(name, [packed("198.51.100.6")], 1002.0)
    assert wanted.left_ms == 100_000


def test_holders_set_of_a_service_of_tcp_is_not_believed_and_left_alone() -> None:
    """Anybody begins a handshake, from any address; the next packet may finish it."""
    made, (web, _) = table(), rules().sticky
    name = web.servers[1].set_name
    made.note([opened("198.51.100.7"), opened("198.51.100.8")], 1000.0)
    made.note([opened("198.51.100.9", "10.11.12.102")], 1000.0)
    present = [*NEWER_AND_OLDER, Wanted(packed("198.51.100.9"), 300_000)]
    found = made.compare(name, present, 1002.0, packets=True, believe=False)
    assert found.changes == []
    assert found.strange == [packed("198.51.100.7")]
    assert found.outdated == [packed("198.51.100.9")]
    assert len(made) == 3
    assert servers(made, "198.51.100.8", web) == ["web1"]


def test_sets_fill_no_more_than_half_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    made, (web, _) = table(), rules().sticky
    for limit, least in (("ENTRIES_MAX", 6), ("CLIENTS_MAX", 10)):
        monkeypatch.setattr(stick_table, limit, least)
    first, second, _ = (server.set_name for server in web.servers)

    def believed(name: str, *numbers: int) -> int:
        present = [Wanted(packed(f"198.51.100.{i}"), 600_000) for i in numbers]
        return len(made.compare(name, present, 0.0, packets=True, believe=True).changes)

    assert believed(first, 1, 2, 3, 4) == 3
    assert believed(second, 5) == 0
    assert made.note([opened(f"198.51.100.{i}") for i in (6, 7, 8)], 0.0)
    assert len(made) == 6
    monkeypatch.setattr(stick_table, "ENTRIES_MAX", 100)
    assert believed(first, 9) == 0  # it has 6 of 10
    assert believed(second, 9) == 1


def test_set_of_a_backup_is_mended() -> None:
    made, (web, _) = table(), rules().sticky
    name = web.servers[0].set_name
    made.note([opened("198.51.100.7"), opened("198.51.100.8"), opened("198.51.100.9")], 1000.0)
    present = [
        Wanted(packed("198.51.100.7"), 635_000),  # as good as right
        Wanted(packed("198.51.100.8"), 100_000),
        Wanted(packed("198.51.100.6"), 640_000),
    ]
    found = made.compare(name, present, 1000.0, packets=False, believe=False)
    assert (found.changes, found.strange, found.outdated) == (
        [],
        [packed("198.51.100.6")],
        [packed("198.51.100.8")],
    )
    expected = made.expected(name, 1000.0)
    assert sorted(expected[name]) == [packed(f"198.51.100.{i}") for i in (7, 8, 9)]
    assert {server.set_name for server in web.servers} == expected.keys()


def test_document_of_rules_has_services_with_persistence() -> None:
    of = rules(Persistence(TIMEOUT_S, netmask=24, netmask6=56))
    assert Rules.from_document(of.to_document()) == of
    assert [service.prefix for service in of.sticky] == [24, 56]


connections = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from((1, 2)), st.floats(0, 60)), max_size=40
)


@given(connections)
def test_two_nodes_and_a_dumb_list_agree(many: list[tuple[int, int, float]]) -> None:
    """Each connection is told at once; both nodes say what a list of all connections says."""
    ours, theirs, (web, _) = table(), table(), rules().sticky
    seen: list[tuple[int, int, float]] = []
    now = 1000.0
    for client, server, after in many:
        now += after
        record = opened(f"198.51.100.{client}", f"10.11.12.10{server}")
        for change in ours.note([record], now):
            for told in ours.tell([(change.key, change.client)], now):
                theirs.learn(told, now - 990.0)
        seen.append((client, server, now))
    newest = {client: (server, at) for client, server, at in seen}
    for client, (server, at) in newest.items():
        address = packed(f"198.51.100.{client}")
        for number in (1, 2):
            name = web.servers[number - 1].set_name
            for wanted in (
                ours.wanted(name, [address], now),
                theirs.wanted(name, [address], now - 990.0),
            ):
                left_s = at + TIMEOUT_S - now
                assert bool(wanted) is (number == server and left_s > 0.1) or left_s < 41
                assert all(left_s - 40.1 <= one.left_ms / 1000 <= left_s + 0.1 for one in wanted)
