"""Bytes and packets of services, as a real kernel counts them, beside what was sent."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from hanat.core.accounting import Place
from hanat.core.flows import key_of
from hanat.core.totals import NOTHING, Totals
from hanat.worker import traffic_counter
from tests.contract.flows import TCP, UDP
from tests.kernel.holders import WAIT_S_MAX, Holder, holding
from tests.kernel.namespaces import run
from tests.kernel.network import (
    SERVER,
    SERVER_PORT,
    SERVER_V6,
    SERVICE_PORT,
    VIP,
    VIP_V6,
    Network,
    Router,
    family_of,
    read_exactly,
)

pytestmark = pytest.mark.kernel

FAMILIES = pytest.mark.parametrize(
    ("server", "vip"), [(SERVER, VIP), (SERVER_V6, VIP_V6)], ids=["v4", "v6"]
)
COUNT, QUESTION, ANSWER = 20, 100, 300
UDP_HEADER, TCP_INFO_SEGMENTS = 8, 136  # offset in struct tcp_info (linux/tcp.h)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("READ_S", "TELL_S", "WALK_S"):
        monkeypatch.setattr(traffic_counter, name, 0.02)
    monkeypatch.setattr(traffic_counter, "WALK_SHARE", 1.0)


class Counting:
    """The sums that a holder tells."""

    def __init__(self, holder: Holder) -> None:
        self.sums: dict[Place, Totals] = {}
        self.has_bytes: bool | None = None
        holder.worker.accounting.tell = self._add

    def _add(self, added: traffic_counter.Added, has_bytes: bool) -> None:  # noqa: FBT001 - a callback
        self.has_bytes = has_bytes
        for place, totals in added.items():
            self.sums[place] = self.sums.get(place, NOTHING).plus(totals)

    async def until(self, wanted: dict[Place, Totals]) -> None:
        try:
            await until(lambda: self.sums == wanted)
        except TimeoutError:
            assert self.sums == wanted


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while not condition():  # noqa: ASYNC110 - the kernel sets no event
            await asyncio.sleep(0.01)


@dataclass
class Talk:
    """Datagrams of one socket, each answered."""

    network: Network
    server: str
    vip: str

    def __post_init__(self) -> None:
        family = family_of(self.server)
        self._echo = self.network.open_socket("server", family, socket.SOCK_DGRAM)
        self._echo.bind((self.server, SERVER_PORT))
        self._near = self.network.open_socket("client", family, socket.SOCK_DGRAM)

    def exchange(self) -> Totals:
        """Ask and answer; return what the service carried."""
        for _ in range(COUNT):
            self._near.sendto(bytes(QUESTION), (self.vip, SERVICE_PORT))
            _, peer = self._echo.recvfrom(2 * QUESTION)
            self._echo.sendto(bytes(ANSWER), peer)
            assert len(self._near.recv(2 * ANSWER)) == ANSWER
        header = UDP_HEADER + (40 if ":" in self.vip else 20)
        return Totals(0, COUNT, COUNT * (QUESTION + header), COUNT, COUNT * (ANSWER + header))

    @property
    def place(self) -> Place:
        return place(UDP, self.server, self.vip)


def place(protocol: int, server: str, vip: str) -> Place:
    listen, address = ip_address(vip).packed, ip_address(server).packed
    return Place(protocol, listen, SERVICE_PORT, address, SERVER_PORT)


def counts(router: Router, value: int = 1) -> None:
    run(f"sysctl -qw net.netfilter.nf_conntrack_acct={value}", router.namespace)


@pytest.fixture
async def holder(network: Network) -> AsyncIterator[Holder]:
    counts(network.r1)
    with holding(network, network.r1) as made:
        yield made


@FAMILIES
async def test_datagrams_are_counted_while_the_flow_goes_on_and_at_its_end(
    holder: Holder, server: str, vip: str
) -> None:
    counting, talk = Counting(holder), Talk(holder.network, server, vip)
    first = talk.exchange()
    await counting.until({talk.place: first})
    second = first.plus(talk.exchange())
    await counting.until({talk.place: second})
    assert counting.has_bytes

    third = second.plus(talk.exchange())
    holder.conntrack.delete(holder.conntrack.dump())

    await counting.until({talk.place: third.plus(Totals(1))})  # it was answered, and is over
    fourth = third.plus(talk.exchange())
    await counting.until({talk.place: fourth.plus(Totals(1))})


@FAMILIES
async def test_connection_counts_at_its_beginning_with_every_packet(
    holder: Holder, server: str, vip: str
) -> None:
    counting = Counting(holder)
    for end in ("client", "server"):  # else what is sent at once is one packet for the kernel
        run("ip link set eth0 gso_max_segs 1", holder.network.made[end])
    listener = holder.network.listener("server", server, SERVER_PORT)
    near, far = holder.network.connection(listener, "client", (vip, SERVICE_PORT))
    near.sendall(bytes(10_000))
    assert len(read_exactly(far, 10_000)) == 10_000
    far.sendall(bytes(50_000))
    assert len(read_exactly(near, 50_000)) == 50_000
    at = place(TCP, server, vip)

    def equal() -> bool:
        out, into = segments(near)
        found = counting.sums.get(at, NOTHING)
        return (found.packets_in, found.packets_out) == (out, into)

    await until(equal)
    (found,) = counting.sums.values()
    headers = 40 if ":" in vip else 20
    assert found.connections == 1
    assert 10_000 + found.packets_in * (headers + 20) <= found.bytes_in
    assert found.bytes_in <= 10_000 + found.packets_in * (headers + 60)
    assert 50_000 + found.packets_out * (headers + 20) <= found.bytes_out
    assert found.bytes_out <= 50_000 + found.packets_out * (headers + 60)


def segments(opened: socket.socket) -> tuple[int, int]:
    """Return how many segments a connection sent and got."""
    info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    found: tuple[int, int] = struct.unpack_from("=II", info, TCP_INFO_SEGMENTS)
    return found


async def test_next_holder_counts_from_its_first_packet_on(network: Network) -> None:
    listener = network.listener("server", SERVER, SERVER_PORT)
    at = place(TCP, SERVER, VIP)
    for router in (network.r1, network.r2):
        counts(router)
    with holding(network, network.r1) as first:
        counting = Counting(first)
        near, far = network.connection(listener, "client", (VIP, SERVICE_PORT))
        await until(lambda: counting.sums.get(at, NOTHING).connections == 1)
        await first.flush()
        (record,) = first.conntrack.dump()
    network.pull(network.r1)
    before = segments(near)
    with network.r2.entered():
        second = Holder(network, network.r2)
        counting = Counting(second)
        second.worker.accounting.prepare()
        await until(lambda: not second.worker.accounting.walks)
        for batch in first.log:
            second.worker.install(batch)
        assert [key_of(r) for r in second.conntrack.dump()] == [key_of(record)]
        network.r2.take_over()
        second.worker.start_capture(2)
        near.sendall(bytes(1000))
        assert len(read_exactly(far, 1000)) == 1000

        def equal() -> bool:
            sent, got = (b - a for a, b in zip(before, segments(near), strict=True))
            found = counting.sums.get(at, NOTHING)
            return (found.packets_in, found.packets_out) == (sent, got)

        await until(equal)
        assert counting.sums[at].connections == 0
        second.close()


async def test_kernel_that_does_not_count_leaves_connections(network: Network) -> None:
    counts(network.r1, 0)
    with holding(network, network.r1) as holder:
        counting, talk = Counting(holder), Talk(network, SERVER, VIP)
        talk.exchange()
        holder.conntrack.delete(holder.conntrack.dump())
        await counting.until({talk.place: Totals(1)})
        assert counting.has_bytes is False
