"""All rules are flushed while thousands of flows begin: in the end each of them is translated."""

from __future__ import annotations

import re
import resource
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from chaos.lab import topology
from chaos.lab.lab import Lab
from chaos.lab.netns import entered
from tests.cluster.conftest import PUBLIC, PUBLIC_V6, hand_over
from tests.cluster.test_drift import wait_for_tables

pytestmark = pytest.mark.cluster

FLOWS, PER_S = 4000, 4000
FLUSH_AFTER = 1500
BATCH = 200  # what is asked together: an echo server has room for so many
LOOK_S = 0.02
ANSWERED_S_MAX = 20.0  # bounds a test that hangs
ASKED = b"hanat"
SERVER = topology.SERVERS[0]
DIRECTIONS = (
    (topology.CLIENT, (PUBLIC, 53)),
    (SERVER, ("203.0.113.100", 5353)),
    (topology.CLIENT, (PUBLIC_V6, 53)),
    (SERVER, ("2001:db8:113::100", 5353)),
)
PORTS = {port for _, (_, port) in DIRECTIONS}
ENDS = re.compile(r"src=(\S+) dst=(\S+) sport=\d+ dport=(\d+) .*src=(\S+) dst=(\S+)")


class Flows:
    """UDP flows of clients to a service and of a server to the outside, in both families."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._after = ExitStack()
        self._poll = select.epoll()
        self._after.callback(self._poll.close)
        self.silent: dict[int, socket.socket] = {}  # those without an answer of the latest round
        self._every: dict[int, socket.socket] = {}

    def __enter__(self) -> Flows:
        return self

    def __exit__(self, *_: object) -> None:
        self._after.close()

    def begin(self, number: int, *, flush: str, at: int) -> None:
        """Begin so many at their rate; at one of them begin to flush a router's rules."""
        command = ["nft", "flush", "ruleset"]
        each = number // len(DIRECTIONS)
        made = [self._sockets(place, to, each) for place, to in DIRECTIONS]
        flushes = []
        began = time.monotonic()
        for index, sockets in enumerate(zip(*made, strict=True)):
            if index * len(DIRECTIONS) == at:
                with entered(self._lab.topology.namespace(flush)):
                    flushes.append(subprocess.Popen(command))
            for opened in sockets:
                self._ask(opened)
            due = began + (index + 1) * len(DIRECTIONS) / PER_S
            self._hear(max(0.0, due - time.monotonic()))
        assert [done.wait(10) for done in flushes] == [0]

    def _sockets(self, place: str, to: tuple[str, int], number: int) -> list[socket.socket]:
        family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
        with entered(self._lab.topology.namespace(place)):
            found = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(number)]
        for opened in found:
            self._after.callback(opened.close)
            opened.setblocking(False)  # noqa: FBT003 - the library's signature
            opened.connect(to)
            self._poll.register(opened, select.EPOLLIN)
            self._every[opened.fileno()] = opened
        return found

    def ask_again(self) -> int:
        """Ask those that were not answered; return how many are still silent."""
        waiting = list(self.silent.values())
        for first in range(0, len(waiting), BATCH):
            for opened in waiting[first : first + BATCH]:
                self._ask(opened)
            self._hear(LOOK_S)
        return len(self.silent)

    def forget_answers(self) -> None:
        """Demand another answer of each: what came before may be of before the flush."""
        while self._hear(LOOK_S):
            pass
        self.silent = dict(self._every)

    def _ask(self, opened: socket.socket) -> None:
        self.silent[opened.fileno()] = opened
        with suppress(OSError):  # what an ICMP message said of the datagram before
            opened.send(ASKED)

    def _hear(self, timeout_s: float) -> int:
        """Take the answers of a while; return how many there were."""
        until, heard = time.monotonic() + timeout_s, 0
        while True:
            ready = self._poll.poll(max(0.0, until - time.monotonic()), maxevents=BATCH)
            for descriptor, _ in ready:
                with suppress(OSError):
                    if self._every[descriptor].recv(16) == ASKED:
                        self.silent.pop(descriptor, None)
                        heard += 1
            if time.monotonic() >= until:
                return heard


@contextmanager
def many_descriptors() -> Iterator[None]:
    """Let this process have a socket for each flow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, FLOWS + 1000), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def entries(lab: Lab, node: str) -> list[tuple[str, bool]]:
    """Return the entries of these flows in a node's kernel, and whether each is translated."""
    found = []
    ports = [port for router in lab.topology.routers for port in router.ports]
    probing = {a.partition("/")[0] for port in ports for a in (port.address, port.address_v6)}
    for family in ("ipv4", "ipv6"):
        command = ["conntrack", "-L", "-p", "udp", "-f", family]
        for line in lab.exec_in(node, command).stdout.splitlines():
            ends = ENDS.search(line)
            assert ends is not None, line
            source, target, port, back, to = ends.groups()
            # Others are of the nodes', tracked while there are no rules, as are their probes.
            if int(port) in PORTS and source not in probing:
                found.append((line, (source, target) != (to, back)))
    return found


def all_translated(lab: Lab, flows: Flows) -> None:
    """Check that each flow is answered, and how the holder's kernel has it."""
    flows.forget_answers()
    lab.wait_for(lambda: not flows.ask_again(), ANSWERED_S_MAX, "an answer to each flow")
    found = entries(lab, lab.wait_for_holder())
    assert found
    assert [line for line, translated in found if not translated] == []


def test_flush_under_four_thousand_new_flows_a_second_leaves_none_untranslated(lab: Lab) -> None:
    holder = lab.wait_for_holder()
    wait_for_tables(lab, holder)
    with many_descriptors(), Flows(lab) as flows:
        flows.begin(FLOWS, flush=holder, at=FLUSH_AFTER)
        wait_for_tables(lab, holder)
        all_translated(lab, flows)
        if lab.wait_for_holder() == holder:
            return
        # It gave up, having nothing that tells it how long: what it let through is still there.
        hand_over(lab, holder)
        all_translated(lab, flows)
