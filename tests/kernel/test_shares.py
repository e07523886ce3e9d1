"""Which server gets which part of many connections, counted by the servers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import ip_address

import pytest

from hanat.core.configuration import Listen, Protocol, Scheduler
from hanat.core.rotation import Rotations
from hanat.core.schedulers import InRotation, level, slots
from hanat.core.server_facts import CheckedServer, CheckedService, ServerId
from hanat.core.shares import Slots
from tests.kernel.crowd import Client, Crowd, clients
from tests.kernel.network import Network

pytestmark = pytest.mark.kernel

COUNT = 10_000
POINTS = 200  # 2 % of them
WAYS = pytest.mark.parametrize(
    ("version", "protocol"),
    [(4, Protocol.TCP), (6, Protocol.TCP), (4, Protocol.UDP)],
    ids=["tcp4", "tcp6", "udp4"],
)
STATELESS = [Scheduler.RR, Scheduler.WRR, Scheduler.RANDOM, Scheduler.SH, Scheduler.MH]


@pytest.mark.parametrize("scheduler", STATELESS)
@WAYS
def test_10000_connections_are_shared_as_the_weights_say(
    network: Network, version: int, protocol: Protocol, scheduler: Scheduler
) -> None:
    weights = (1, 2, 3, 4)
    crowd = Crowd(network, version, weights=weights, scheduler=scheduler)
    crowd.follow()

    got = crowd.shares(clients(COUNT, version), protocol)

    alike = scheduler is Scheduler.RR
    wanted = {f"s{n}": COUNT // 4 if alike else COUNT * w // 10 for n, w in enumerate(weights)}
    assert got.total() == COUNT
    assert all(abs(got[name] - count) <= POINTS for name, count in wanted.items()), got
    if protocol is Protocol.TCP and scheduler in {Scheduler.RR, Scheduler.WRR}:
        assert got == wanted


@pytest.mark.parametrize("scheduler", [Scheduler.SH, Scheduler.MH])
@pytest.mark.parametrize("version", [4, 6])
def test_one_of_ten_servers_leaves_and_comes_back(
    network: Network, version: int, scheduler: Scheduler
) -> None:
    crowd = Crowd(network, version, weights=[1] * 10, scheduler=scheduler)
    crowd.follow()
    some = clients(COUNT, version)
    before = crowd.come(some)
    assert all(len(servers) == 1 for servers in before.values())

    crowd.follow(f"s{n}" for n in range(10) if n != 3)
    during = crowd.come(some)
    crowd.follow()
    after = crowd.come(some)

    moved = {client for client in before if before[client] != during[client]}
    its = {client for client, servers in before.items() if "s3" in servers}
    assert its <= moved
    if scheduler is Scheduler.SH:
        assert moved == its
    else:
        assert len(moved) <= 0.12 * COUNT
        assert len(moved - its) <= 0.02 * (COUNT - len(its))
    assert after == before


def test_clients_of_sh_by_port_are_spread_connection_by_connection(network: Network) -> None:
    crowd = Crowd(network, weights=[1] * 4, scheduler=Scheduler.SH, hash_port=True)
    crowd.follow()
    one = clients(1)[0].address

    got = crowd.shares(Client(one, port) for port in range(20_000, 24_000))

    assert all(abs(count - 1_000) <= 80 for count in got.values()), got


def test_weights_that_change_move_the_shares_of_the_next_connections(network: Network) -> None:
    crowd = Crowd(network, weights=(1, 1), scheduler=Scheduler.WRR)
    crowd.follow()
    some = clients(1_000)
    assert crowd.shares(some) == {"s0": 500, "s1": 500}
    for weights, wanted in (
        ((3, 1), {"s0": 750, "s1": 250}),
        ((0, 1), {"s1": 1_000}),
        ((1, 1), {"s0": 500, "s1": 500}),
    ):
        crowd.follow(InRotation(f"s{n}", weight) for n, weight in enumerate(weights))
        assert crowd.shares(some) == wanted


def test_runtime_weights_move_the_shares(network: Network) -> None:
    """An agent says 50 % of a server whose weight is 1, as it is by default."""
    checked = CheckedService("crowd", tuple(CheckedServer(f"s{n}", f"{n}", 1, ()) for n in (0, 1)))
    rotations = Rotations({})
    rotations.configure([checked])
    crowd = Crowd(network, weights=(1, 1), scheduler=Scheduler.WRR)
    for factor, wanted in ((1.0, 600), (0.5, 400), (0.1, 109), (1.0, 600)):
        rotations.weigh(ServerId("crowd", "s0"), factor)
        crowd.follow(InRotation(*one) for one in rotations.statuses["crowd"].rotation)
        assert abs(crowd.shares(clients(1_200))["s0"] - wanted) <= 1


def test_next_tier_of_fo_gets_clients_when_nobody_is_left_in_the_best(network: Network) -> None:
    crowd = Crowd(network, weights=(1, 1, 3, 1), scheduler=Scheduler.FO)
    tiers = {"s0": 0, "s1": 0, "s2": 1, "s3": 1}
    some = clients(400)

    def with_(*names: str) -> Counter[str]:
        weights = {server.name: server.weight for server in crowd.servers}
        crowd.follow(InRotation(name, weights[name], tier=tiers[name]) for name in names)
        return crowd.shares(some)

    assert with_("s0", "s1", "s2", "s3") == {"s0": 200, "s1": 200}
    assert with_("s1", "s2", "s3") == {"s1": 400}
    assert with_("s2", "s3") == {"s2": 300, "s3": 100}
    assert with_("s0", "s2", "s3") == {"s0": 400}


@pytest.mark.parametrize("version", [4, 6])
def test_lists_and_ranges_of_ports_arrive_at_the_same_ports_of_a_server(
    network: Network, version: int
) -> None:
    crowd = Crowd(network, version, weights=(1, 1))
    vip = ip_address(crowd.vip)
    listens = (
        *crowd.service.listens,
        Listen(vip, Protocol.TCP, 443, 443),
        Listen(vip, Protocol.UDP, 8000, 8010),
    )
    crowd.follow(listens=listens)
    tcp, udp = (dict.fromkeys(ports, protocol) for ports, protocol in (
        ((443, 444, 7998), Protocol.TCP),
        ((7999, 8000, 8005, 8010, 8011), Protocol.UDP),
    ))  # fmt: skip

    assert crowd.ports({**tcp, **udp}) == {443, 8000, 8005, 8010}

    servers = tuple(replace(server, port=8080) for server in crowd.service.servers)
    crowd.follow(servers=servers)
    assert crowd.ports({**tcp, **udp}) == {8080}


# ------------------------------------------------------------------------ by counts

WEIGHTS = (1, 2, 3, 4)
HAS = 60  # connections of the first server, before the others come into rotation
PERIOD = 30  # connections between two looks at the counts
PERIODS = 28
ENDING = 4


@pytest.mark.parametrize("scheduler", [s for s in Scheduler if s.by_counts])
def test_live_connections_level_although_some_end(network: Network, scheduler: Scheduler) -> None:
    """As far from the definition as 5 % of the mean, at most."""
    crowd = Crowd(network, weights=WEIGHTS, scheduler=scheduler)
    crowd.follow(["s0"])
    some = iter(clients(HAS + PERIOD * PERIODS))
    came = crowd.let(HAS, some)
    assert crowd.live() == {"s0": HAS}
    table: Slots = ()
    servers = tuple(InRotation(f"s{n}", weight) for n, weight in enumerate(WEIGHTS))
    for period in range(PERIODS):
        table = level(
            scheduler, servers, crowd.live(), table or slots(scheduler, servers), arriving=PERIOD
        )
        crowd.follow(levels={("crowd", 4): table})
        came += crowd.let(PERIOD, some)
        crowd.end(came[period * ENDING : (period + 1) * ENDING])

    live = crowd.live()
    total = HAS + PERIODS * (PERIOD - ENDING)
    assert live.total() == total
    alike = scheduler is Scheduler.LC
    for n, weight in enumerate(WEIGHTS):
        wanted = total / 4 if alike else total * weight / sum(WEIGHTS)
        assert abs(live[f"s{n}"] - wanted) <= 0.05 * total / 4, live


@pytest.mark.parametrize(("scheduler", "least"), [(Scheduler.SED, 0), (Scheduler.NQ, 1)])
def test_idle_slow_server_gets_a_connection_at_once_with_nq_alone(
    network: Network, scheduler: Scheduler, least: int
) -> None:
    """A server of weight 10 has 2 connections, one of weight 1 has none; 8 more come."""
    crowd = Crowd(network, weights=(10, 1), scheduler=scheduler)
    crowd.follow(["s0"])
    some = iter(clients(10))
    crowd.let(2, some)
    servers = (InRotation("s0", 10), InRotation("s1", 1))
    table = level(scheduler, servers, crowd.live(), slots(scheduler, servers), arriving=1)
    crowd.follow(levels={("crowd", 4): table})

    crowd.let(8, some)

    assert crowd.live()["s1"] == least, table.count("s1")
