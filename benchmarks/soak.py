"""Half an hour of churn with a takeover every minute: ``python -m benchmarks.soak``.

Connections are opened and reset all the time, some stay idle, a few hundred real ones speak.
Every minute the holder is switched, killed, or loses its flow worker, in turn. At the end: how
many real connections died, whether all routers have the same connections, and how much memory
the processes had at half time, when there are as many connections as later, and at the end.
Needs root and conntrack.

Exit codes: 0 nothing died, the tables are equal; 1 not so; 2 this machine is not fit.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import time
from collections.abc import Mapping
from types import FrameType
from typing import NoReturn

from benchmarks import flood
from benchmarks.failover import machine
from benchmarks.flood import PUBLIC, Loaded
from benchmarks.flows import memory_of
from chaos.lab.lab import Lab, require_machine
from chaos.lab.lab_error import LabError, UsageError
from chaos.lab.netns import entered
from chaos.lab.topology import CLIENT

SEGMENT_S = 5.0
SEGMENTS_KEPT = 4  # then their connections are reset; every eighth stays idle instead
IDLE_EVERY = 8
CONNECTIONS = 200
ANSWER_S_MAX = 10.0
TAKEOVERS = ("switchover", "kill", "worker")
SETTLE_S_MAX = 60.0


class Talkers:
    """Real TCP connections to the echo service."""

    def __init__(self, lab: Lab, count: int) -> None:
        self._sockets: list[socket.socket] = []
        self._number = 0
        self.dead = 0
        with entered(lab.topology.namespace(CLIENT)):
            for _ in range(count):
                opened = socket.create_connection((PUBLIC, 7), ANSWER_S_MAX)
                self._sockets.append(opened)

    def talk(self) -> None:
        """Say something on every connection, and wait for all answers."""
        self._number += 1
        word = self._number.to_bytes(8, "big")
        living: list[socket.socket] = []
        for opened in self._sockets:
            try:
                opened.sendall(word)
                living.append(opened)
            except OSError:
                self._lose(opened)
        self._sockets = [opened for opened in living if self._answered(opened, word)]

    def _answered(self, opened: socket.socket, word: bytes) -> bool:
        got = b""
        try:
            while len(got) < len(word) and (part := opened.recv(len(word) - len(got))):
                got += part
        except OSError:
            got = b""
        if got != word:
            self._lose(opened)
        return got == word

    def _lose(self, opened: socket.socket) -> None:
        self.dead += 1
        opened.close()


class Churn:
    """Opens and resets connections, segment by segment."""

    def __init__(self, lab: Lab, rate: float) -> None:
        self._lab, self._rate = lab, rate
        self._segment = 0
        self.opened = 0

    def step(self, holder: str) -> None:
        """Open a segment's connections, reset those of an older one."""
        count = int(self._rate * SEGMENT_S)
        number, old = self._segment, self._segment - SEGMENTS_KEPT
        flood.open_flows(
            self._lab, holder, first=self._first(number, count), count=count, rate=self._rate
        )
        self.opened += count
        if old >= 0 and old % IDLE_EVERY:
            first = self._first(old, count)
            flood.open_flows(self._lab, holder, first=first, count=count, reset=True)
        self._segment += 1

    @staticmethod
    def _first(segment: int, count: int) -> int:
        return segment * count % 600_000


def take_over(lab: Lab, kind: str) -> str:
    """Change the holder, or hurt it; return what was done."""
    holder = lab.wait_for_holder()
    if kind == "switchover":
        backups = [name for name in lab.nodes if name != holder]
        lab.wait_for(lambda: complete(lab), SETTLE_S_MAX, "all flows on all nodes")
        code, answer = lab.switchover(backups[0])
        if code != 200:
            raise LabError(f"the switchover was refused: {answer}")
        return f"switchover from {holder}"
    lab.wait_for(lambda: complete(lab), SETTLE_S_MAX, "all flows on all nodes")
    if kind == "kill":
        lab.kill_node(holder)
        lab.wait_for(lambda: lab.holder() not in {None, holder}, 15, "another holder")
        lab.start_node(holder)
        return f"killed {holder}"
    lab.nodes[holder].signal_flow_worker(signal.SIGKILL)
    return f"killed the flow worker of {holder}"


def complete(lab: Lab) -> bool:
    """Say whether every node has all flows."""
    statuses = lab.statuses().values()
    return all(s is not None and s["flows"]["complete"] for s in statuses)


def tables(lab: Lab) -> dict[str, set[str]]:
    """Return the established connections of the load in each router's table."""
    found: dict[str, set[str]] = {}
    for name in lab.nodes:
        command = ["conntrack", "-L", "-p", "tcp", "--state", "ESTABLISHED", "-d", PUBLIC]
        lines = lab.exec_in(name, command, 60).stdout.splitlines()
        found[name] = {" ".join(w for w in line.split() if "=" in w) for line in lines}
    return found


def settled(lab: Lab) -> dict[str, set[str]]:
    """Return the tables as soon as they are equal, or after a minute."""
    deadline = time.monotonic() + SETTLE_S_MAX
    while True:
        found = tables(lab)
        equal = len({frozenset(table) for table in found.values()}) == 1
        if equal or time.monotonic() >= deadline:
            return found
        time.sleep(1.0)


def run(options: argparse.Namespace) -> bool:
    """Do it; return whether all is well."""
    system = Loaded(options.prefix, options.profile, 0)
    with system.lab as lab:
        system.start()
        talkers, churn = Talkers(lab, CONNECTIONS), Churn(lab, options.rate)
        began = time.monotonic()
        half: dict[str, Mapping[str, float]] = {}
        minute = 0
        while time.monotonic() - began < 60 * options.minutes:
            churn.step(lab.wait_for_holder())
            talkers.talk()
            if time.monotonic() - began >= 60 * (minute + 1):
                minute += 1
                if not half and minute >= options.minutes / 2:
                    half = {name: memory_of(lab, name) for name in lab.nodes}
                done = take_over(lab, TAKEOVERS[minute % len(TAKEOVERS)])
                print(f"{minute:3} min: {done}; {talkers.dead} died", file=sys.stderr, flush=True)
        lab.wait_for(lambda: complete(lab), SETTLE_S_MAX, "all flows on all nodes")
        found = settled(lab)
        talkers.talk()
        last = {name: memory_of(lab, name) for name in lab.nodes}
        equal = len({frozenset(table) for table in found.values()}) == 1
        sizes = ", ".join(f"{name} {len(table)}" for name, table in found.items())
        print(
            f"{churn.opened} connections opened in {options.minutes:g} minutes, {minute} takeovers"
        )
        print(f"real connections that died: {talkers.dead} of {CONNECTIONS}")
        print(f"tables equal: {'yes' if equal else 'NO'} ({sizes})")
        for name in lab.nodes:
            words = [
                f"{kind} {half.get(name, {}).get(kind, 0):.0f} to {size:.0f} MiB"
                for kind, size in sorted(last[name].items())
            ]
            print(f"memory of {name} from half time to the end: {', '.join(words)}")
        return equal and not talkers.dead


def _interrupted(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Run and judge."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=2000, help="opens a second (default: 2000)")
    parser.add_argument("--profile", default="default")
    parser.add_argument("--prefix", default="hanat-soak", help="of the lab (default: %(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        require_machine()
        good = run(options)
    except UsageError as error:
        print(f"benchmarks.soak: {error}", file=sys.stderr)
        return error.exit_code
    except LabError as error:
        print(f"benchmarks.soak: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks.soak: interrupted; everything was removed", file=sys.stderr)
        return 130
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
