"""Clients in the kernel's sets, written and read."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address

import pytest

from hanat.core import persistence
from hanat.core.configuration import Persistence
from hanat.core.persistence import sticky_services
from hanat.core.ruleset import render_ruleset
from hanat.core.stick_table import StickTable
from hanat.core.sticky import Told, Wanted
from hanat.errors import AbsentObjectError, KernelError, NoRoomError
from hanat.kernel.client_sets import KernelClientSets
from hanat.kernel.firewall import KernelFirewall
from hanat.worker import client_set_sync
from hanat.worker.client_set_sync import SetWriter
from tests.core.examples import CONVERSATION, DEVICES, EDGE, WEB
from tests.kernel.namespaces import run, until

pytestmark = pytest.mark.kernel

TIMEOUT_S = 600.0
STICKY = replace(EDGE, services=(replace(WEB, persistence=Persistence(TIMEOUT_S)),))
FOUR, SIX = (service.servers[0].set_name for service in sticky_services(STICKY))
CLIENTS = {
    FOUR: [ip_address(f"198.51.{i >> 8}.{i & 255}").packed for i in range(2000)],
    SIX: [ip_address(f"2001:db8::{i:x}").packed for i in range(2000)],
}
FAMILIES = pytest.mark.parametrize("name", [FOUR, SIX], ids=["v4", "v6"])
JITTER_MS = 10_000  # a busy machine


@pytest.fixture
def sets(inside: str) -> Iterator[KernelClientSets]:  # noqa: ARG001 - the namespace first
    install()
    opened = KernelClientSets()
    yield opened
    opened.close()


def install() -> None:
    firewall = KernelFirewall()
    firewall.apply(render_ruleset(STICKY, DEVICES, CONVERSATION))
    firewall.close()


def read(sets: KernelClientSets, name: str) -> dict[bytes, int]:
    return {client: left for some in sets.walk(name) for client, left in some}


@FAMILIES
def test_clients_are_there_for_as_long_as_is_said(sets: KernelClientSets, name: str) -> None:
    sets.write(name, put=[Wanted(c, 300_000) for c in CLIENTS[name][:250]], gone=[])
    found = read(sets, name)
    assert sorted(found) == sorted(CLIENTS[name][:250])
    assert all(300_000 - JITTER_MS < left <= 300_000 for left in found.values())


@FAMILIES
def test_what_is_there_gets_another_time_and_what_is_not_may_go(
    sets: KernelClientSets, name: str
) -> None:
    """The kernel alone would keep the time, and refuse to delete what is not there."""
    first, second, third, fourth = CLIENTS[name][:4]
    sets.write(name, put=[Wanted(first, 300_000), Wanted(second, 300_000)], gone=[])
    longer = [Wanted(first, 500_000), Wanted(third, 100_000)]
    sets.write(name, put=longer, gone=[second, fourth])
    found = read(sets, name)
    assert found.keys() == {first, third}
    assert found[first] > 500_000 - JITTER_MS
    sets.write(name, put=[Wanted(first, 50_000)], gone=[])
    assert read(sets, name)[first] <= 50_000


@FAMILIES
def test_many_clients_are_read_in_slices(sets: KernelClientSets, name: str) -> None:
    for first in range(0, 2000, 250):
        some = CLIENTS[name][first : first + 250]
        sets.write(name, put=[Wanted(client, 300_000) for client in some], gone=[])
    assert len([some for some in sets.walk(name) if some]) > 1
    # One may come twice or not at all while the kernel makes its table larger.
    until(lambda: read(sets, name).keys() == set(CLIENTS[name]), "a walk through all clients")


def test_elements_of_packets_are_read_too(sets: KernelClientSets) -> None:
    """They may have a time of their own beside the expiry."""
    run(f"nft add element inet hanat {FOUR} {{ 198.51.100.1 timeout 90s }}")
    run(f"nft add element inet hanat {FOUR} {{ 198.51.100.2 }}")
    found = read(sets, FOUR)
    assert {str(ip_address(client)): left // 99_000 for client, left in found.items()} == {
        "198.51.100.1": 0,
        "198.51.100.2": 6,
    }


def test_set_that_is_not_there_is_said(sets: KernelClientSets) -> None:
    with pytest.raises(AbsentObjectError):
        sets.write("persist/gone", put=[Wanted(CLIENTS[FOUR][0], 1000)], gone=[])
    with pytest.raises(AbsentObjectError):
        read(sets, "persist/gone")
    sets.write(FOUR, put=[Wanted(CLIENTS[FOUR][0], 90_000)], gone=[])
    assert read(sets, FOUR)


def test_full_set_takes_nothing_of_a_transaction(
    inside: str,  # noqa: ARG001 - the namespace
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(persistence, "CLIENTS_MAX", 3)
    install()
    (name, *_) = re.findall(r"set (persist/web/web1/\S+)", run("nft list sets inet"))
    sets = KernelClientSets()
    few = CLIENTS[FOUR][:3]
    sets.write(name, put=[Wanted(client, 300_000) for client in few], gone=[])
    sets.write(name, put=[Wanted(client, 400_000) for client in few], gone=[])  # as full as before
    with pytest.raises(KernelError):
        sets.write(name, put=[Wanted(client, 300_000) for client in CLIENTS[FOUR][2:5]], gone=[])
    assert sorted(read(sets, name)) == few
    sets.write(name, put=[Wanted(CLIENTS[FOUR][3], 300_000)], gone=few[:1])  # who goes makes room
    assert sorted(read(sets, name)) == CLIENTS[FOUR][1:4]
    sets.close()


def test_client_that_is_not_in_a_full_set_may_go(
    inside: str,  # noqa: ARG001 - the namespace
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To delete it, it is added first, for which there is no room."""
    monkeypatch.setattr(persistence, "CLIENTS_MAX", 3)
    install()
    (name, *_) = re.findall(r"set (persist/web/web1/\S+)", run("nft list sets inet"))
    sets = KernelClientSets()
    first, second, third, absent, other = CLIENTS[FOUR][:5]
    few = [Wanted(client, 300_000) for client in (first, second, third)]
    sets.write(name, put=few, gone=[])
    sets.write(name, put=[], gone=[absent])
    sets.write(name, put=[Wanted(other, 300_000)], gone=[absent, first])
    assert sorted(read(sets, name)) == [second, third, other]
    with pytest.raises(NoRoomError):
        sets.write(name, put=[few[0], Wanted(absent, 300_000)], gone=[second])
    assert sorted(read(sets, name)) == [third, other]
    sets.close()


async def test_full_set_costs_a_slice_and_no_sweep(
    inside: str,  # noqa: ARG001 - the namespace
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(persistence, "CLIENTS_MAX", 3)
    monkeypatch.setattr(client_set_sync, "SLICE", 2)
    install()
    services = sticky_services(STICKY)
    table = StickTable()
    table.configure(services, {})
    first, second, _ = (server.set_name for server in services[0].servers)
    some = CLIENTS[FOUR][:8]
    told = Told("web", 4, 32, services[0].servers[0].name, some, [0] * len(some))
    table.learn(told, 1.0)
    sets, refused = KernelClientSets(), []
    sets.write(first, put=[Wanted(client, 300_000) for client in CLIENTS[FOUR][9:12]], gone=[])
    writer = SetWriter(sets, table, lambda: 1.0, refused=lambda: refused.append(True))
    writer.write(first, some[:2] + CLIENTS[FOUR][9:12])
    writer.write(second, CLIENTS[FOUR][:1])
    for _ in range(20):
        await asyncio.sleep(0)
    assert refused == []
    assert table.refused == 2
    assert read(sets, first) == {}  # what came after the slice was done
    sets.close()


class Counted(KernelClientSets):
    """Counts transactions."""

    done = 0

    def write_all(self, parts: Sequence[tuple[str, Sequence[Wanted], Sequence[bytes]]]) -> None:
        self.done += 1
        super().write_all(parts)


async def test_clients_of_several_sets_are_one_transaction(
    inside: str,  # noqa: ARG001 - the namespace
) -> None:
    install()
    services = sticky_services(STICKY)
    table, sets = StickTable(), Counted()
    table.configure(services, {})
    writer = SetWriter(sets, table, lambda: 1.0, refused=lambda: None)
    places = [(service, server) for service in services for server in service.servers]
    clients = dict(zip((place[1].set_name for place in places), range(10), strict=False))
    for service, server in places:
        own = CLIENTS[FOUR if service.version == 4 else SIX][clients[server.set_name]]
        table.learn(Told("web", service.version, service.prefix, server.name, [own], [0]), 1.0)
        writer.write(server.set_name, [own])
    for _ in range(20):
        await asyncio.sleep(0)
    assert sets.done == 1
    assert [len(read(sets, name)) for name in clients] == [1] * len(places)
    run(f"nft flush set inet hanat {FOUR}")
    writer.write("persist/gone", [CLIENTS[FOUR][0]])
    writer.write(FOUR, [CLIENTS[FOUR][0]])
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(read(sets, FOUR)) == 1
    sets.close()


def test_nothing_to_write_is_nothing(sets: KernelClientSets) -> None:
    sets.write(FOUR, put=[], gone=[])
    assert read(sets, FOUR) == {}
