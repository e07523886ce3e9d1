"""What services carried, counted by one holder after the other."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.lab import topology
from chaos.lab.lab import Lab
from tests.cluster.conftest import PUBLIC, Echo, hand_over
from tests.cluster.test_servers import show

pytestmark = pytest.mark.cluster

SUMS = ("connections", "packets_in", "bytes_in", "packets_out", "bytes_out")
WALK_S_MAX = 30.0  # the holder looks at flows that go on each 10 s
EXCHANGES, EXCHANGE_BYTES = 100, 16


class Watch:
    """Asks all nodes for the sums of a service, and sees that none ever goes back."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.known: dict[str, dict[str, int]] = {}  # by node: service and servers, each number

    def look(self) -> None:
        for name in self._lab.nodes:
            if self._lab.status(name) is not None:
                now = sums_of(show(self._lab, name, "tcp-echo"))
                was = self.known.get(name, {})
                lower = {key: (n, now.get(key)) for key, n in was.items() if now.get(key, 0) < n}
                assert not lower, f"{name}: {lower}"
                self.known[name] = now

    def wait(self, least: dict[str, int]) -> None:
        """Wait until every node that runs knows of so much."""

        def reached() -> bool:
            self.look()
            running = [name for name, node in self._lab.nodes.items() if node.running]
            return all(
                self.known.get(name, {}).get(key, 0) >= count
                for name in running
                for key, count in least.items()
            )

        self._lab.wait_for(reached, WALK_S_MAX, f"all nodes to know of {least}")


def sums_of(service: dict[str, Any]) -> dict[str, int]:
    """Return the sums of a service, and of each of its servers."""
    shown = {"": service["totals"]} | {s["name"]: s["totals"] for s in service["servers"]}
    return {
        f"{name} {key}": totals[key]
        for name, totals in shown.items()
        if totals is not None
        for key in SUMS
        if totals[key] is not None
    }


def exchange(echo: Echo) -> dict[str, int]:
    """Send and get some; return what the service carried at least."""
    for _ in range(EXCHANGES):
        echo.exchange()
    return {" bytes_in": EXCHANGES * EXCHANGE_BYTES, " bytes_out": EXCHANGES * EXCHANGE_BYTES}


def more(sums: dict[str, int], added: dict[str, int]) -> dict[str, int]:
    return sums | {key: sums[key] + count for key, count in added.items()}


def test_sums_never_go_back_and_go_on_at_the_next_holder(lab: Lab) -> None:
    watch = Watch(lab)
    with Echo(lab, topology.CLIENT, PUBLIC, 7) as one:
        watch.wait({" connections": 1, **exchange(one)})
        before = lab.wait_for_holder()
        known = watch.known[before]
        lab.kill_node(before)
        lab.wait_for(lambda: lab.holder() not in {None, before}, 10, "a new holder")
        watch.wait(more(known, exchange(one)))
        with Echo(lab, topology.CLIENT, PUBLIC, 7) as two:
            two.exchange()
            watch.wait(more(known, {" connections": 1}))
        lab.start_node(before)
        del watch.known[before]  # it knows nothing at first
        watch.wait(more(known, {" connections": 1}))


def test_daemon_that_is_started_again_learns_the_sums(lab: Lab) -> None:
    watch = Watch(lab)
    with Echo(lab, topology.CLIENT, PUBLIC, 7) as one:
        watch.wait({" connections": 1, **exchange(one)})
        before = lab.wait_for_holder()
        known = watch.known.pop(before)
        lab.kill_daemon(before)  # its kernel carries on meanwhile
        watch.wait(more(known, exchange(one)))


def test_switchover_loses_no_byte(lab: Lab) -> None:
    watch = Watch(lab)
    with Echo(lab, topology.CLIENT, PUBLIC, 7) as one:
        sent = exchange(one)
        first = lab.wait_for_holder()
        hand_over(lab, next(name for name in lab.nodes if name != first))
        watch.wait({" connections": 1, **sent})
