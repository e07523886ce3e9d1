"""Clients stay at their servers, whichever router is the holder."""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest

from hanat.core.configuration import Configuration, Persistence, Replicate
from hanat.core.flow_scope import scope_of
from hanat.core.persistence import sticky_services
from hanat.core.reconcile import rules_of
from hanat.core.ruleset import render_ruleset
from hanat.kernel import conntrack
from hanat.kernel.client_sets import KernelClientSets
from hanat.kernel.conntrack import KernelConntrack
from hanat.kernel.firewall import KernelFirewall
from hanat.worker.flow_worker import FlowWorker
from tests.contract.flows import inbound
from tests.core.examples import CONVERSATION, DEVICES
from tests.fakes.kernel import FakeKernel, FakeRoutes
from tests.kernel.namespaces import run
from tests.kernel.network import (
    CONFIGURATION,
    SERVER,
    SERVER_V6,
    SERVICE_PORT,
    VIP,
    VIP_V6,
    Network,
    family_of,
)
from tests.kernel.sticky import PORTS, TIMEOUT_S, WAIT_S_MAX, Pair, sticky

pytestmark = pytest.mark.kernel

Opened = Callable[[Configuration], Awaitable[Pair]]
MANY = 12  # of each family: by chance all get the same server again once in 4 ** 24 times


@pytest.fixture
async def opened(network: Network) -> AsyncIterator[Opened]:
    made: list[Pair] = []

    async def start(configuration: Configuration) -> Pair:
        made.append(Pair(network, configuration))
        made[-1].a.hold(1)
        await made[-1].ready()
        return made[-1]

    yield start
    for one in made:
        one.close()


async def test_clients_reach_their_servers_after_a_takeover(opened: Opened) -> None:
    """Their connections ended before."""
    pair = await opened(sticky(Persistence(TIMEOUT_S)))
    before = pair.servers(pair.add_clients(MANY))
    assert set(before.values()) == set(PORTS)
    await pair.told(before)
    left = pair.b.left_ms()
    assert len(left) == 2 * MANY
    assert all(TIMEOUT_S * 900 < ms <= TIMEOUT_S * 1000 for ms in left.values())

    pair.take_over()
    assert pair.servers(list(before)) == before


async def test_clients_of_one_network_reach_its_server_after_a_takeover(opened: Opened) -> None:
    pair = await opened(sticky(Persistence(TIMEOUT_S, netmask=24, netmask6=64)))
    first, later = pair.add_clients(1), pair.add_clients(MANY, first=120)
    before = pair.servers(first)
    networks = {"203.0.113.0": before[first[0]], "2001:db8:1::": before[first[1]]}
    await pair.told(networks)

    pair.take_over()
    after = pair.servers(later)
    assert {after[client] for client in later if ":" not in client} == {before[first[0]]}
    assert {after[client] for client in later if ":" in client} == {before[first[1]]}


@pytest.mark.parametrize("first", ["rules", "clients"])
async def test_router_that_was_restarted_has_the_clients_when_it_takes_over(
    opened: Opened, first: str
) -> None:
    """It was not there when they came, and their connections had ended when it was."""
    pair = await opened(sticky(Persistence(TIMEOUT_S)))
    pair.b.worker.close()
    run("nft delete table inet hanat", pair.b.router.namespace)
    before = pair.servers(pair.add_clients(MANY))
    await pair.until(lambda: sum(map(len, pair.a.clients().values())) == 2 * MANY)

    pair.restart_b()
    if first == "clients":
        await pair.ready()
    pair.b.configure(pair.a.configuration)
    await pair.told(before)
    pair.take_over()
    assert pair.servers(list(before)) == before


async def test_client_stays_at_the_server_it_went_to_while_the_first_was_down(
    opened: Opened,
) -> None:
    """The first by name has an older entry of it, and must not get it back."""
    configuration = sticky(Persistence(TIMEOUT_S))
    pair = await opened(configuration)
    before = pair.servers(pair.add_clients(MANY))
    await pair.told(before)
    mine = [client for client, port in before.items() if port == PORTS[0]]
    others = tuple(s.name for s in configuration.services[0].servers if "8081" not in s.name)
    for node in (pair.a, pair.b):
        node.configure(configuration, echo=others)
    moved = pair.servers(mine)
    assert PORTS[0] not in moved.values()
    await pair.told(before | moved)
    await pair.until(lambda: not pair.a.clients().keys() & {"s8081", "s8081-v6"})

    for node in (pair.a, pair.b):
        node.configure(configuration)
    assert pair.servers(mine) == moved
    pair.take_over()
    assert pair.servers(mine) == moved


async def test_server_that_is_out_of_rotation_gets_nobody_after_a_takeover(opened: Opened) -> None:
    configuration = sticky(Persistence(TIMEOUT_S))
    pair = await opened(configuration)
    before = pair.servers(pair.add_clients(MANY))
    await pair.told(before)
    others = tuple(s.name for s in configuration.services[0].servers if "8082" not in s.name)
    pair.b.configure(configuration, echo=others)

    pair.take_over()
    after = pair.servers(list(before))
    assert PORTS[1] not in after.values()
    stayed = {client: port for client, port in before.items() if port != PORTS[1]}
    assert {client: after[client] for client in stayed} == stayed


async def test_clients_of_a_service_that_replicates_no_flows_are_told(opened: Opened) -> None:
    pair = await opened(sticky(Persistence(TIMEOUT_S), replicate=Replicate(established=False)))
    before = pair.servers(pair.add_clients(MANY))
    await pair.told(before)

    pair.take_over()
    assert pair.servers(list(before)) == before


@pytest.mark.parametrize(("vip", "server"), [(VIP, SERVER), (VIP_V6, SERVER_V6)], ids=["v4", "v6"])
async def test_client_of_one_datagram_is_told(opened: Opened, vip: str, server: str) -> None:
    """No event tells of it: it is read from the holder's set."""
    every = CONFIGURATION.services[0].listens
    pair = await opened(sticky(Persistence(TIMEOUT_S), listens=every))
    sockets = {}
    for port in PORTS:
        sockets[port] = pair.network.open_socket("server", family_of(vip), socket.SOCK_DGRAM)
        sockets[port].bind((server, port))
    clients = [client for client in pair.add_clients(4) if (":" in client) == (":" in vip)]

    def ask(client: str) -> int:
        asking = pair.network.open_socket("client", family_of(vip), socket.SOCK_DGRAM)
        asking.bind((client, 0))
        asking.sendto(b"x", (vip, SERVICE_PORT))
        (ready,), _, _ = select.select(list(sockets.values()), [], [], 5)
        ready.recv(8)
        port: int = ready.getsockname()[1]
        return port

    before = {client: ask(client) for client in clients}
    await pair.told(before)
    pair.take_over()
    assert {client: ask(client) for client in clients} == before


async def test_worker_that_died_finds_the_clients_in_its_kernel(opened: Opened) -> None:
    """It was the holder's; the other node lost what it knew, too."""
    pair = await opened(sticky(Persistence(TIMEOUT_S)))
    before = pair.servers(pair.add_clients(MANY))
    await pair.told(before)
    pair.b.worker.close()
    run("nft delete table inet hanat", pair.b.router.namespace)
    pair.kill_worker_of_a()

    pair.restart_b()
    pair.b.configure(pair.a.configuration)
    await pair.told(before)
    pair.take_over()
    assert pair.servers(list(before)) == before


async def test_who_never_finished_a_handshake_is_told_nobody(opened: Opened) -> None:
    """As a slow flood of SYN leaves them in the holder's sets, there they stay until their end."""
    configuration = sticky(Persistence(TIMEOUT_S))
    pair = await opened(configuration)
    before = pair.servers(pair.add_clients(MANY))
    await pair.told(before)
    services = sticky_services(configuration)
    first, last = services[0].servers[0].set_name, services[-1].servers[-1]
    inside = pair.a.router.namespace
    run(f"nft add element inet hanat {first} {{ 192.0.2.66 }}", inside)
    run(f"nft flush set inet hanat {last.set_name}", inside)
    lost = {client for client, port in before.items() if f"s{port}-v6" == last.name}
    lost &= {client for client in before if ":" in client}

    pair.a.installed()  # it is compared
    await pair.until(lambda: pair.a.clients().get(last.name, set()) == lost)
    added = pair.servers(pair.add_clients(1, first=200))
    await pair.told(before | added)
    assert "192.0.2.66" in pair.a.left_ms()


async def test_clients_outlive_a_change_of_their_timeout(opened: Opened) -> None:
    """The sets have other names then, on the holder and on the other node."""
    pair = await opened(sticky(Persistence(TIMEOUT_S)))
    before = pair.servers(pair.add_clients(MANY))
    await pair.told(before)
    names = pair.a.clients()
    for node in (pair.a, pair.b):
        node.configure(sticky(Persistence(TIMEOUT_S / 2)))
    await pair.until(lambda: pair.a.clients() == names)
    await pair.told(before)
    assert max(pair.a.left_ms().values()) <= TIMEOUT_S * 500
    assert pair.servers(list(before)) == before

    pair.take_over()
    assert pair.servers(list(before)) == before


async def test_clients_outlive_rules_that_somebody_flushed(opened: Opened) -> None:
    configuration = sticky(Persistence(TIMEOUT_S))
    pair = await opened(configuration)
    before = pair.servers(pair.add_clients(MANY))
    await pair.told(before)
    names = pair.a.clients()
    for node in (pair.a, pair.b):
        run("nft delete table inet hanat", node.router.namespace)
        node.ruleset = ""
        node.configure(configuration)
        node.installed()
    await pair.until(lambda: pair.a.clients() == names)
    await pair.told(before)

    assert pair.servers(list(before)) == before
    pair.take_over()
    assert pair.servers(list(before)) == before


async def test_service_may_get_persistence_while_it_runs(opened: Opened) -> None:
    plain = sticky(None)
    pair = await opened(plain)
    clients = pair.add_clients(MANY)
    pair.servers(clients)
    for node in (pair.a, pair.b):
        node.configure(sticky(Persistence(TIMEOUT_S)))
    before = pair.servers(clients)
    await pair.told(before)

    pair.take_over()
    assert pair.servers(clients) == before
    for node in (pair.a, pair.b):
        node.configure(plain)
    assert pair.b.clients() == {}


async def test_clients_whose_events_were_lost_are_found_in_the_sets(
    inside: str,  # noqa: ARG001 - the namespace
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conntrack, "CAPTURE_BUFFER_BYTES", 1 << 16)
    configuration = sticky(Persistence(TIMEOUT_S))
    (name, *_) = (server.set_name for server in sticky_services(configuration)[0].servers)
    firewall, sets = KernelFirewall(), KernelClientSets()
    ours, stranger = KernelConntrack(), KernelConntrack()
    firewall.apply(render_ruleset(configuration, DEVICES, CONVERSATION))
    worker = FlowWorker(
        ours,
        FakeRoutes(FakeKernel((), lambda: 0.0)),
        propose=lambda _term, _batch, _done: True,
        completed=lambda _complete: None,
        clock=partial(time.clock_gettime, time.CLOCK_BOOTTIME),
        client_sets=sets,
    )

    async def until(clients: int) -> None:
        async with asyncio.timeout(WAIT_S_MAX):
            while worker.status().clients != clients:  # noqa: ASYNC110 - the kernel sets no event
                await asyncio.sleep(0.01)

    worker.set_scope(scope_of(configuration))
    run(f"nft add element inet hanat {name} {{ 198.51.100.1 }}")
    worker.start_capture(1)
    worker.reconcile(rules_of(configuration, DEVICES, ()), lambda _counts: None)
    await until(1)

    run(f"nft add element inet hanat {name} {{ 198.51.100.2 }}")
    records = [inbound(port).to_record() for port in range(2000, 5000)]
    stranger.install(records)
    stranger.extend(records)
    await until(2)
    assert worker.status().overruns
    worker.stop_capture()
    worker.accounting.close()  # a walk would open a socket again
    async with asyncio.timeout(WAIT_S_MAX):  # so would a comparison of sets
        while worker._clients._sweeper._next is not None:  # noqa: ASYNC110 - it runs by timers
            await asyncio.sleep(0.01)
    for opened in (firewall, sets, ours, stranger):
        opened.close()
