"""A node's processes die while connections are opened at a rate: all nodes have all of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.flood import PUBLIC, Loaded, open_flows, silence
from chaos.lab.lab import Lab
from chaos.lab.netns import entered
from hanat.core.flows import key_of, mapping_of
from hanat.kernel.conntrack import KernelConntrack
from tests.cluster.conftest import complete

pytestmark = pytest.mark.cluster

COUNT, RATE = 12_000, 3000


@pytest.fixture
def lab() -> Iterator[Lab]:
    system = Loaded(f"hs{os.getpid()}", "default", 0)
    with system.lab as built:
        silence(built)
        system.start()
        yield built


@pytest.mark.parametrize("victim", ["daemon of a backup", "worker of a backup", "worker"])
def test_tables_are_equal_although_a_process_died_while_connections_were_opened(
    lab: Lab, victim: str
) -> None:
    holder = lab.wait_for_holder()
    lab.wait_for(lambda: complete(lab), 30, "all flows on all nodes")
    backup = next(name for name in lab.nodes if name != holder)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(open_flows, lab, holder, first=0, count=COUNT, rate=RATE)
        lab.wait_for(lambda: flows(lab, holder) > COUNT // 3, 30, "a third of them")
        if victim == "daemon of a backup":
            lab.kill_daemon(backup)
        else:
            hurt = holder if victim == "worker" else backup
            lab.nodes[hurt].signal_flow_worker(signal.SIGKILL)
        loading.result()

    lab.wait_for(lambda: complete(lab), 60, "all flows on all nodes")
    lab.wait_for(lambda: len(set(map(frozenset, tables(lab)))) == 1, 30, "equal tables")
    assert len(tables(lab)[0]) == COUNT
    assert lab.holder() == holder


def test_holders_daemon_dies_while_connections_are_opened(lab: Lab) -> None:
    holder = lab.wait_for_holder()
    lab.wait_for(lambda: complete(lab), 30, "all flows on all nodes")
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(open_flows, lab, holder, first=0, count=COUNT, rate=RATE)
        lab.wait_for(lambda: flows(lab, holder) > COUNT // 3, 30, "a third of them")
        before = flows(lab, holder)
        lab.kill_daemon(holder)
        lab.wait_for(lambda: (lab.holder() or "").replace(holder, ""), 10, "another node to hold")
        loading.result()  # what comes after is for nobody: the other has another address

    lab.wait_for(lambda: complete(lab), 60, "all flows on all nodes")
    lab.wait_for(lambda: len(set(map(frozenset, tables(lab)))) == 1, 30, "equal tables")
    assert len(tables(lab)[0]) > before // 2


def flows(lab: Lab, name: str) -> int:
    status = lab.status(name)
    return 0 if status is None else int(status["flows"]["flows"])


def tables(lab: Lab) -> list[set[bytes]]:
    """Return what identifies each connection of the load, and how it is translated, by router."""
    found = []
    public = bytes(map(int, PUBLIC.split(".")))
    for name in lab.nodes:
        with entered(lab.topology.namespace(name)):
            records = KernelConntrack().dump()
        found.append({key_of(r) + mapping_of(r) for r in records if r[4:8] == public})
    return found
