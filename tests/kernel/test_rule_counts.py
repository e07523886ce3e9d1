"""What limits refused is read from the kernel's counters, of many services in slices."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

import pytest

from hanat.core.configuration import Configuration, Limits
from hanat.core.ruleset import render_ruleset
from hanat.daemon.rule_counts import RuleCounts
from hanat.kernel.counters import KernelCounters
from hanat.kernel.firewall import KernelFirewall
from tests.core.examples import CONVERSATION, DEVICES, EDGE
from tests.core.test_steps import services

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("inside")]

ALL = Limits(1000, 1000, 20, 20, 100)


@pytest.fixture
def firewall(inside: object) -> Iterator[KernelFirewall]:  # noqa: ARG001 - the namespace first
    opened = KernelFirewall()
    yield opened
    opened.close()


@pytest.fixture
def counters(inside: object) -> Iterator[KernelCounters]:  # noqa: ARG001 - the namespace first
    opened = KernelCounters()
    yield opened
    opened.close()


def limited(count: int) -> Configuration:
    """Return so many services with every limit there is, but for the last."""
    networks = tuple(map(ip_network, ("192.0.2.0/24", "2001:db8:2::/48")))
    *some, last = services(count)
    found = (replace(s, allow=networks, deny=networks[:1], limits=ALL) for s in some)
    return replace(EDGE, services=(*found, last))


def test_each_limit_of_each_service_has_its_count(
    firewall: KernelFirewall, counters: KernelCounters
) -> None:
    configuration = limited(200)
    text = render_ruleset(configuration, DEVICES, CONVERSATION)
    firewall.apply(text)
    # As if packets had come: a counter is made with what it has counted.
    firewall.apply("add table inet hanat\ndelete table inet hanat\n")
    firewall.apply(
        text.replace("counter limits/s7/deny {\n", "counter limits/s7/deny {\npackets 3 bytes 9\n")
    )
    counted = RuleCounts(counters)

    asyncio.run(counted.refresh(configuration))

    assert len(counted.refused) == 199
    assert list(counted.refused["s7"].items()) == [
        ("deny", 3),
        ("allow", 0),
        ("new_per_second_per_client", 0),
        ("connections_per_client", 0),
        ("new_per_second", 0),
    ]
    assert sum(sum(counts.values()) for counts in counted.refused.values()) == 3


def test_loop_turns_while_many_counters_are_read_and_two_may_ask_at_once(
    firewall: KernelFirewall, counters: KernelCounters
) -> None:
    configuration = limited(1000)
    firewall.apply(render_ruleset(configuration, DEVICES, CONVERSATION))
    counted, turns = RuleCounts(counters), 0

    async def read() -> None:
        nonlocal turns
        asked = asyncio.gather(*(counted.refresh(configuration) for _ in range(2)))
        while not asked.done():
            turns += 1
            await asyncio.sleep(0)
        await asked

    asyncio.run(read())
    assert turns > 2 * 999 * 5 / 500
    assert len(counted.refused) == 999


def test_reading_that_is_cancelled_leaves_nothing_for_the_next(
    firewall: KernelFirewall, counters: KernelCounters
) -> None:
    configuration = limited(300)
    firewall.apply(render_ruleset(configuration, DEVICES, CONVERSATION))
    counted = RuleCounts(counters)

    async def cancel() -> None:
        task = asyncio.ensure_future(counted.refresh(configuration))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await counted.refresh(configuration)

    asyncio.run(cancel())
    assert len(counted.refused) == 299


def test_without_rules_what_was_counted_stays_and_a_limit_that_goes_is_forgotten(
    firewall: KernelFirewall, counters: KernelCounters
) -> None:
    configuration = limited(3)
    text = render_ruleset(configuration, DEVICES, CONVERSATION)
    firewall.apply(
        text.replace("counter limits/s1/deny {\n", "counter limits/s1/deny {\npackets 3 bytes 9\n")
    )
    counted = RuleCounts(counters)
    asyncio.run(counted.refresh(configuration))

    firewall.apply("delete table inet hanat\n")
    asyncio.run(counted.refresh(configuration))
    assert counted.refused["s1"]["deny"] == 3

    fewer = replace(configuration, services=configuration.services[:1])
    asyncio.run(counted.refresh(fewer))
    assert counted.refused.keys() == {"s0"}
    asyncio.run(counted.refresh(replace(fewer, services=())))
    assert counted.refused == {}
