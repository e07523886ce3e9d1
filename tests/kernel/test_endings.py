"""Connections of a server that goes, in a real kernel: what its clients meet, and what it does."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address

import pytest

from hanat.core.configuration import (
    Configuration,
    Forward,
    OnServerDown,
    RealServer,
    Sorry,
    VirtualService,
)
from hanat.core.endings import Ended, Ending, ending_of
from hanat.core.flows import RESET_MARK, STATUS_FIXED_TIMEOUT, Flow
from hanat.core.health_effects import sorry_ends
from hanat.kernel.conntrack import KernelConntrack
from hanat.kernel.ctnetlink import RESET_TIMEOUT_S
from tests.contract.flows import TCP, UDP, inbound
from tests.kernel.conftest import gates_of_both_kinds
from tests.kernel.holders import Holder, holding
from tests.kernel.namespaces import run, until
from tests.kernel.network import (
    CLIENT,
    CLIENT_V6,
    CONFIGURATION,
    SERVER,
    SERVER_PORT,
    SERVER_V6,
    SERVICE_PORT,
    VIP,
    VIP_V6,
    Network,
    family_of,
    talk,
)

pytestmark = pytest.mark.kernel

OTHER_PORT = 8082
ABSENT = "10.11.12.199"
FOREIGN_MARK = 0x07
FAMILIES = pytest.mark.parametrize(
    ("server", "vip", "client"), [(SERVER, VIP, CLIENT), (SERVER_V6, VIP_V6, CLIENT_V6)],
    ids=["v4", "v6"],
)  # fmt: skip

ECHO, CLOSING = CONFIGURATION.services


@pytest.fixture
async def holder(network: Network) -> AsyncIterator[Holder]:
    with holding(network, network.r1) as made:
        yield made


def server_of(address: str, service: VirtualService = ECHO) -> RealServer:
    return next(s for s in service.servers if s.address == ip_address(address))


def ending(address: str, policy: OnServerDown | None = None) -> Ending:
    """Return the end of the connections of a server of the service."""
    return ending_of(ECHO, server_of(address), policy)


def elsewhere(address: str) -> Configuration:
    """Return a configuration in which clients of a server get the one beside it."""
    other = RealServer("other", ip_address(address), OTHER_PORT, weight=1)
    servers = tuple(replace(s, weight=0) for s in ECHO.servers)
    return replace(CONFIGURATION, services=(replace(ECHO, servers=(*servers, other)), CLOSING))


def datagram(network: Network, place: str, address: str, port: int = 0) -> socket.socket:
    opened = network.open_socket(place, family_of(address), socket.SOCK_DGRAM)
    opened.bind((address, port))
    return opened


def is_reset_when_it_sends(end: socket.socket) -> None:
    with pytest.raises(ConnectionResetError):
        _talk_to_the_end(end)


def _talk_to_the_end(end: socket.socket) -> None:
    end.sendall(b"?")
    while end.recv(1):
        pass  # what the other end said before


def entries(holder: Holder, protocol: int) -> list[Flow]:
    found = map(Flow.from_record, holder.conntrack.dump())
    return [flow for flow in found if flow.protocol == protocol]


def mark_new_flows(holder: Holder) -> None:
    """Do what another program of the router does with its part of the mark."""
    holder.router.firewall.apply(
        "add table inet other\n"
        "add chain inet other marks { type filter hook prerouting priority mangle; }\n"
        f"add rule inet other marks ct state new ct mark set {FOREIGN_MARK}\n"
    )


# ------------------------------------------------------------------------------- reset


@pytest.mark.parametrize("client_first", [True, False])
@FAMILIES
async def test_both_ends_meet_a_reset_at_their_next_packet(
    holder: Holder, server: str, vip: str, client: str, *, client_first: bool
) -> None:
    assert client
    listener = holder.network.listener("server", server, SERVER_PORT)
    near, far = holder.network.connection(listener, "client", (vip, SERVICE_PORT))
    talk(near, far)

    assert await holder.end(ending(server)) == [Ended(reset=1)]

    for end in (near, far) if client_first else (far, near):
        is_reset_when_it_sends(end)
    (entry,) = entries(holder, TCP)
    assert entry.mark == RESET_MARK
    assert entry.timeout_s > RESET_TIMEOUT_S - 60  # for an end that is silent for an hour
    assert await holder.end(ending(server)) == [Ended()]


@FAMILIES
async def test_client_that_connects_again_from_its_port_gets_another_server(
    holder: Holder, server: str, vip: str, client: str
) -> None:
    first, second = (
        holder.network.listener("server", server, port) for port in (SERVER_PORT, OTHER_PORT)
    )
    near, far = holder.network.connection(first, "client", (vip, SERVICE_PORT))
    port = near.getsockname()[1]
    holder.install(elsewhere(server))
    await holder.end(ending(server))
    is_reset_when_it_sends(near)
    near.close()

    again = holder.network.open_socket("client", family_of(vip), socket.SOCK_STREAM)
    again.bind((client, port))
    again.connect((vip, SERVICE_PORT))

    accepted, peer = second.accept()
    holder.network.keep(accepted)
    assert peer[:2] == (client, port)
    talk(again, accepted)
    far.setblocking(False)  # noqa: FBT003 - the library's signature
    with pytest.raises(BlockingIOError):
        far.recv(1)


@FAMILIES
async def test_client_that_waits_hears_of_the_end_when_the_server_answers_late(
    holder: Holder, server: str, vip: str, client: str
) -> None:
    """A server that was slow, or only cut off from the checks; the client itself is silent."""
    assert client
    listener = holder.network.listener("server", server, SERVER_PORT)
    near, far = holder.network.connection(listener, "client", (vip, SERVICE_PORT))
    await holder.end(ending(server))

    far.sendall(b"!")

    assert near.recv(1) == b"!"
    for end in (near, far):  # the first by its acknowledgement, the other by the first
        with pytest.raises(ConnectionResetError):
            end.recv(1)


async def test_reset_with_a_router_that_is_open(holder: Holder) -> None:
    holder.install(replace(CONFIGURATION, forward=Forward.OPEN))
    listener = holder.network.listener("server", SERVER, SERVER_PORT)
    near, far = holder.network.connection(listener, "client", (VIP, SERVICE_PORT))
    await holder.end(ending(SERVER))
    for end in (near, far):
        is_reset_when_it_sends(end)


@FAMILIES
async def test_client_beside_the_server_is_reset(
    holder: Holder, server: str, vip: str, client: str
) -> None:
    assert client
    listener = holder.network.listener("server", server, SERVER_PORT)
    near, far = holder.network.connection(listener, "server", (vip, SERVICE_PORT))
    talk(near, far)
    assert await holder.end(ending(server)) == [Ended(reset=1)]
    for end in (near, far):
        is_reset_when_it_sends(end)


async def test_program_of_the_holder_is_reset_by_the_next_server(holder: Holder) -> None:
    first, _ = (
        holder.network.listener("server", SERVER, port) for port in (SERVER_PORT, OTHER_PORT)
    )
    near, far = holder.network.connection(first, "r1", (VIP, SERVICE_PORT))
    talk(near, far)
    holder.install(elsewhere(SERVER))
    assert await holder.end(ending(SERVER)) == [Ended(expired=1)]
    is_reset_when_it_sends(near)


async def test_handshake_that_nobody_answers_goes_on_with_another_server(holder: Holder) -> None:
    gone = replace(server_of(SERVER), address=ip_address(ABSENT))
    holder.install(replace(CONFIGURATION, services=(replace(ECHO, servers=(gone,)), CLOSING)))
    listener = holder.network.listener("server", SERVER, OTHER_PORT)
    near = holder.network.open_socket("client", socket.AF_INET, socket.SOCK_STREAM)
    near.setblocking(False)  # noqa: FBT003 - the library's signature
    with suppress(BlockingIOError):
        near.connect((VIP, SERVICE_PORT))
    until(lambda: len(entries(holder, TCP)) == 1, "a SYN")
    holder.install(elsewhere(SERVER))

    assert await holder.end(ending_of(ECHO, gone)) == [Ended(expired=1)]

    far, _ = listener.accept()  # at the next SYN
    holder.network.keep(far)
    near.settimeout(5)
    talk(near, far)


async def test_marks_of_other_programs_stay(holder: Holder) -> None:
    mark_new_flows(holder)
    listener = holder.network.listener("server", SERVER, SERVER_PORT)
    near, _ = holder.network.connection(listener, "client", (VIP, SERVICE_PORT))

    await holder.end(ending(SERVER))

    (entry,) = entries(holder, TCP)
    assert entry.mark == RESET_MARK | FOREIGN_MARK
    is_reset_when_it_sends(near)


# --------------------------------------------------------------------- expire and keep


@FAMILIES
async def test_client_of_udp_reaches_another_server_from_the_same_port(
    holder: Holder, server: str, vip: str, client: str
) -> None:
    first, second = (
        datagram(holder.network, "server", server, port) for port in (SERVER_PORT, OTHER_PORT)
    )
    near = datagram(holder.network, "client", client)
    near.sendto(b"?", (vip, SERVICE_PORT))
    first.recv(1)
    holder.install(elsewhere(server))
    near.sendto(b"?", (vip, SERVICE_PORT))
    first.recv(1)  # as long as it sends

    assert await holder.end(ending(server)) == [Ended(expired=1)]

    near.sendto(b"?", (vip, SERVICE_PORT))
    assert second.recvfrom(1)[1][:2] == near.getsockname()[:2]


@FAMILIES
async def test_client_of_udp_leaves_the_sorry_server_from_the_same_port_and_tcp_does_not(
    holder: Holder, server: str, vip: str, client: str
) -> None:
    network, name = holder.network, server_of(server).name
    sorry = Sorry(ip_address(server), OTHER_PORT)
    down = tuple(replace(s, weight=0) for s in ECHO.servers)
    service = replace(ECHO, sorry=(sorry,))
    holder.install(replace(CONFIGURATION, services=(replace(service, servers=down), CLOSING)))
    near = datagram(network, "client", client)
    at_sorry = datagram(network, "server", server, OTHER_PORT)
    stays = network.connection(
        network.listener("server", server, OTHER_PORT), "client", (vip, SERVICE_PORT)
    )
    near.sendto(b"?", (vip, SERVICE_PORT))
    at_sorry.recv(1)
    holder.install(replace(CONFIGURATION, services=(service, CLOSING)))
    near.sendto(b"?", (vip, SERVICE_PORT))
    at_sorry.recv(1)  # as long as it sends

    (end,) = sorry_ends(service, (), {name})
    assert await holder.end(ending_of(end.service, end.server, end.policy)) == [Ended(expired=1)]

    back = datagram(network, "server", server, SERVER_PORT)
    near.sendto(b"?", (vip, SERVICE_PORT))
    assert back.recvfrom(1)[1][:2] == near.getsockname()[:2]
    talk(*stays)


@pytest.mark.parametrize("policy", OnServerDown)
async def test_tcp_of_one_server_ends_as_its_service_wants(
    holder: Holder, policy: OnServerDown
) -> None:
    listener = holder.network.listener("server", SERVER, SERVER_PORT)
    near, far = holder.network.connection(listener, "client", (VIP, SERVICE_PORT))
    ended = await holder.end(ending(SERVER, policy))

    if policy is OnServerDown.KEEP:
        assert ended == [Ended()]
        talk(near, far)
    elif policy is OnServerDown.EXPIRE:
        assert ended == [Ended(expired=1)]
        assert entries(holder, TCP) == []
    else:
        assert ended == [Ended(reset=1)]
        is_reset_when_it_sends(near)


async def test_other_servers_and_services_are_left_alone(holder: Holder) -> None:
    """Of the same machine, too."""
    network = holder.network
    one = network.listener("server", SERVER, SERVER_PORT)
    six = network.listener("server", SERVER_V6, SERVER_PORT)
    closing = network.listener("server", SERVER, 8090)
    gone, *others = (
        network.connection(one, "client", (VIP, SERVICE_PORT)),
        network.connection(six, "client", (VIP_V6, SERVICE_PORT)),
        network.connection(closing, "client", (VIP, 90)),
    )
    holder.install(elsewhere(SERVER))
    beside = network.listener("server", SERVER, OTHER_PORT)
    others.append(network.connection(beside, "client", (VIP, SERVICE_PORT)))
    out = network.listener("client", CLIENT, 7000)
    others.append(network.connection(out, "server", (CLIENT, 7000)))

    assert await holder.end(ending(SERVER)) == [Ended(reset=1)]

    for near, far in others:
        talk(near, far)
    is_reset_when_it_sends(gone[0])


# ------------------------------------------------------------------- many, and two nodes


async def test_ten_thousand_connections_end_in_steps(holder: Holder) -> None:
    stranger = KernelConntrack()
    ports = range(20_000, 30_000)
    flows = [inbound(port) for port in ports]
    flows += [inbound(port, protocol=UDP) for port in ports[:1000]]
    flows += [inbound(port, version=6) for port in ports[:1000]]
    stranger.install(flow.to_record() for flow in flows)
    stranger.close()
    await holder.flush()
    turns = 0
    told = asyncio.get_running_loop().create_task(holder.end(ending(SERVER)))
    while not told.done():
        turns += 1
        await asyncio.sleep(0)

    assert told.result() == [Ended(expired=1000, reset=10_000)]

    assert turns > 50
    left = [Flow.from_record(record) for record in holder.conntrack.dump()]
    assert len(left) == 11_000
    assert sum(flow.mark == RESET_MARK for flow in left) == 10_000
    assert {flow.original.source.version for flow in left if not flow.mark} == {6}


@FAMILIES
async def test_node_that_takes_over_resets_both_ends(
    network: Network, server: str, vip: str, client: str
) -> None:
    assert client
    listener = network.listener("server", server, SERVER_PORT)
    with holding(network, network.r1) as first:
        mark_new_flows(first)
        near, far = network.connection(listener, "client", (vip, SERVICE_PORT))
        talk(near, far)
        await first.end(ending(server))
        await first.flush()
    network.pull(network.r1)

    with holding(network, network.r2, first.log) as second:
        is_reset_when_it_sends(near)  # and leaves the entry ten seconds, until it is looked at
        async with asyncio.timeout(10):
            while not entries(second, TCP)[0].status & STATUS_FIXED_TIMEOUT:  # noqa: ASYNC110 - the kernel sets no event
                await asyncio.sleep(0)
        is_reset_when_it_sends(far)
        (entry,) = entries(second, TCP)

    assert entry.mark == RESET_MARK
    assert RESET_TIMEOUT_S - 60 < entry.timeout_s <= RESET_TIMEOUT_S


async def test_end_of_a_connection_that_was_to_be_reset_is_replicated(network: Network) -> None:
    listener = network.listener("server", SERVER, SERVER_PORT)
    with holding(network, network.r1) as first:
        network.connection(listener, "client", (VIP, SERVICE_PORT))
        await first.end(ending(SERVER))
        run("conntrack -D -p tcp", network.r1.namespace)
        await first.flush()
    network.pull(network.r1)

    with holding(network, network.r2, first.log) as second:
        assert entries(second, TCP) == []


# ------------------------------------------------------------------------- the gate


@gates_of_both_kinds
@pytest.mark.parametrize(
    ("right", "who"), [("carries", "client"), ("neither", "client"), ("neither", "server")]
)
@FAMILIES
async def test_node_that_must_not_answer_resets_nobody(
    holder: Holder, server: str, vip: str, client: str, *, right: str, who: str
) -> None:
    assert client
    listener = holder.network.listener("server", server, SERVER_PORT)
    near, far = holder.network.connection(listener, "client", (vip, SERVICE_PORT))
    talk(near, far)
    await holder.end(ending(server))
    gate = holder.router.gate
    (gate.withdraw if right == "carries" else gate.shut)()
    end = near if who == "client" else far

    end.sendall(b"?")
    until(_drops(holder, right), "the gate to drop")
    end.setblocking(False)  # noqa: FBT003 - the library's signature
    with pytest.raises(BlockingIOError):
        end.recv(1)

    holder.router.take_over()
    end.settimeout(10)  # it sends again what was not acknowledged
    with pytest.raises(ConnectionResetError):
        end.recv(1)


def _drops(holder: Holder, right: str) -> Callable[[], bool]:
    """Return whether something was dropped: what would have caused a reset, or a reset.

    The latter by the rules, or by the program at the device, which they left it to.
    """
    chain, rule = {
        "carries": ("leaving", r"counter packets ([1-9]\d*)"),
        "neither": ("guarded", r"^\s+counter packets ([1-9]\d*)"),
    }[right]

    def found_one() -> bool:
        listing = run(f"nft list chain inet hanat_gate {chain}", holder.router.namespace)
        return re.search(rule, listing, re.MULTILINE) is not None

    return found_one
