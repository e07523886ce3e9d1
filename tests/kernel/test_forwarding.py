"""Chains of other programs that drop what is forwarded."""

from __future__ import annotations

import asyncio

import pytest

from hanat.core.inputs import ForwardObserved, Input
from hanat.daemon.forward_watch import ForwardWatch
from hanat.kernel.forwarding import KernelForwarding
from hanat.kernel.ruleset_watch import KernelRulesetWatch
from tests.kernel.namespaces import run

pytestmark = pytest.mark.kernel

OWN = ("hanat", "hanat_gate")


def chain(family: str, table: str, hook: str, policy: str) -> str:
    return (
        f"nft add table {family} {table}; nft add chain {family} {table} C "
        f"'{{ type filter hook {hook} priority 0; policy {policy}; }}'"
    )


def test_only_foreign_chains_of_forwarded_packets_that_drop_count(inside: str) -> None:
    for words in (
        chain("ip", "a", "forward", "accept"),
        chain("ip6", "b", "input", "drop"),
        chain("inet", "hanat", "forward", "drop"),
    ):
        run(f'sh -c "{words}"', inside)
    assert KernelForwarding(OWN).droppers() == ()

    run(f'sh -c "{chain("ip", "filter", "forward", "drop")}"', inside)
    run(f'sh -c "{chain("inet", "fw", "forward", "drop")}"', inside)
    assert KernelForwarding(OWN).droppers() == ("ip filter C", "inet fw C")


async def test_watch_tells_what_appears_and_what_goes(inside: str) -> None:
    heard: asyncio.Queue[Input] = asyncio.Queue()
    watch = ForwardWatch(KernelRulesetWatch(), KernelForwarding(OWN), heard.put_nowait)
    watch.begin(asyncio.get_running_loop())

    run(f'sh -c "{chain("ip", "filter", "forward", "drop")}"', inside)
    async with asyncio.timeout(10):
        found = await heard.get()
        run("nft delete table ip filter", inside)
        gone = await heard.get()
    watch.close()

    assert found == ForwardObserved("forward: chain ip filter C drops by default")
    assert gone == ForwardObserved("")
