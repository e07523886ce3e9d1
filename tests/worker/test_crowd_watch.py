"""Who tells the kernel which clients have too many connections, and how much at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from ipaddress import ip_address

import pytest

from hanat.core.crowds import CLIENTS_MAX, Crowd
from hanat.core.sticky import Wanted
from hanat.errors import AbsentObjectError, KernelError, NotPermittedError
from hanat.worker import crowd_watch
from hanat.worker.client_set_sync import SLICE, Part
from hanat.worker.crowd_watch import CrowdWatch

VIP = ip_address("203.0.113.10").packed
TURNS_MAX = 1_000


def crowd(port: int) -> Crowd:
    return Crowd(f"p{port}", 1, 32, 6, VIP, port, port)


def flow(client: int, port: int) -> bytes:
    """Return the key of a flow."""
    ports = (40_000).to_bytes(2, "big") + port.to_bytes(2, "big")
    return packed(client) + VIP + ports + bytes([0, 0, 6])


def packed(client: int) -> bytes:
    return bytes([10, 0]) + client.to_bytes(2, "big")


class Site:
    """Flows, and sets that note what was written; the next look comes when it is asked for."""

    def __init__(self) -> None:
        self.flows: list[bytes] = []
        self.known = True
        self.refuses: type[KernelError] | None = None
        self.has: dict[str, set[bytes]] = {}
        self.writes: list[tuple[int, str, int]] = []  # turn, set, elements
        self.turn = 0
        self.watch = CrowdWatch(lambda: list(self.flows), self, whole=lambda: self.known)

    def write(self, name: str, *, put: Sequence[Wanted], gone: Sequence[bytes]) -> None:
        if self.refuses is not None:
            raise self.refuses(operation="write clients", target=name, found="no")
        self.writes.append((self.turn, name, len(put) + len(gone)))
        self.has.setdefault(name, set()).update(client for client, _ in put)
        assert self.has[name].issuperset(gone)
        self.has[name].difference_update(gone)

    def write_all(self, parts: Sequence[Part]) -> None:
        pytest.fail(f"{parts}")

    def walk(self, name: str) -> Iterator[list[Wanted]]:
        pytest.fail(name)

    async def settle(self) -> list[tuple[int, str, int]]:
        """Let the look that is under way end; return what was written."""
        self.writes = []
        for _ in range(TURNS_MAX):
            self.turn += 1
            await asyncio.sleep(0)
        return self.writes

    async def look(self) -> list[tuple[int, str, int]]:
        """Have the next look, at once."""
        self.watch._again()
        return await self.settle()


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(crowd_watch, "PERIOD_S", 60.0)  # nothing happens by itself
    monkeypatch.setattr(crowd_watch, "REST", 0)
    found = Site()
    yield found
    found.watch.end()


async def test_few_clients_are_told_in_a_turn(site: Site) -> None:
    ports = (80, 81, 82)
    site.flows = [flow(n, port) for port in ports for n in range(CLIENTS_MAX)]
    site.watch.configure(tuple(map(crowd, ports)))
    site.watch.begin()
    writes = await site.settle()

    assert max(elements for _, _, elements in writes) <= SLICE
    turns = [turn for turn, _, _ in writes]
    assert len(set(turns)) == len(turns)
    assert {name: len(has) for name, has in site.has.items()} == {
        f"p{port}": CLIENTS_MAX for port in ports
    }


async def test_next_look_tells_the_differences_alone(site: Site) -> None:
    site.flows = [flow(n, 80) for n in range(1_000)]
    site.watch.begin()
    site.watch.configure((crowd(80),))
    await site.settle()
    await site.look()  # what rules that were just installed did not have

    assert await site.look() == []
    site.flows = [flow(n, 80) for n in range(10, 1_003)]
    assert sorted(elements for _, _, elements in await site.look()) == [3, 10]
    assert site.has["p80"] == set(map(packed, range(10, 1_003)))


async def test_who_stays_is_told_again_before_the_kernel_forgets_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.flows = [flow(1, 80)]
    site.watch.begin()
    site.watch.configure((crowd(80),))
    await site.settle()
    await site.look()
    assert await site.look() == []
    monkeypatch.setattr(crowd_watch, "RENEWED_PERIODS", crowd_watch.KEPT_PERIODS + 1)
    assert [elements for _, _, elements in await site.look()] == [1]


async def test_other_configuration_looks_at_what_is_new_alone(site: Site) -> None:
    site.flows = [flow(n, port) for n in range(9) for port in (80, 81)]
    site.watch.begin()
    site.watch.configure((crowd(80),))
    await site.settle()
    await site.look()

    site.watch.configure((crowd(80), crowd(81)))
    assert [(name, n) for _, name, n in await site.settle()] == [("p81", 9)]
    # The sets of rules that were installed anew may be empty.
    assert [(name, n) for _, name, n in await site.look()] == [("p80", 9), ("p81", 9)]


async def test_nobody_is_told_while_not_all_flows_are_known(site: Site) -> None:
    site.flows = [flow(1, 80)]
    site.watch.configure((crowd(80),))
    site.known = False
    site.watch.begin()
    assert await site.settle() == []
    site.known = True
    assert len(await site.look()) == 1


@pytest.mark.parametrize("error", [AbsentObjectError, NotPermittedError])
async def test_all_of_a_set_that_was_refused_are_told_again(
    site: Site, error: type[KernelError]
) -> None:
    site.flows = [flow(n, 80) for n in range(3 * SLICE)]
    site.watch.configure((crowd(80),))
    site.refuses = error
    site.watch.begin()
    assert await site.settle() == []
    site.refuses = None
    assert [elements for _, _, elements in await site.look()] == [SLICE] * 3
