"""How exactly a right ends: ``python -m benchmarks.endings``.

On the networks of `benchmarks.packets` small datagrams of one established flow go through a router,
one after the other, each some 20 us, while both rights of the router run out. Told is by how much
the last that passed came after the end of the right, at most: a datagram is handled before the
call that sends it returns, and the clock is read then; negative is before. An ending at which this
process was interrupted between the two is repeated. For a gate with a deadline and one with
timeouts, by turns. Needs root.

Exit codes: 0 measured, 1 the lab failed, 2 this machine or the command line is not fit.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import struct
import sys
import time
from collections.abc import Sequence

from benchmarks.failover import machine
from benchmarks.flood import PUBLIC, SERVER_ADDRESS
from benchmarks.packets import FIRST_PORT, Wire, cables, configuration, nft
from chaos.lab.lab import require_machine
from chaos.lab.lab_error import LabError, UsageError
from chaos.lab.netns import entered
from chaos.lab.topology import DEVICES
from hanat.core.configuration import GateKind
from hanat.core.control_traffic import ControlTraffic
from hanat.core.gate_rules import render_gate
from hanat.core.rights import MARK_MASK, Enforcement
from hanat.core.ruleset import render_ruleset
from hanat.kernel.deadline_gate import KernelDeadlineGate
from hanat.kernel.timeout_gate import KernelGate

PREFIX = "hanat-endings"
RIGHT_S, AFTER_S = 0.020, 0.015
EXACT_S = 0.0001
_STAMP = struct.Struct("=Q")


def clock() -> float:
    """Seconds of CLOCK_BOOTTIME."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Gate:
    """A router's gate of one kind."""

    def __init__(self, wire: Wire, kind: GateKind) -> None:
        self._wire = wire
        wanted = configuration(1)
        script = render_gate(wanted, DEVICES, Enforcement(kind))
        nft(wire.router, "flush ruleset")
        nft(wire.router, script + render_ruleset(wanted, DEVICES, ControlTraffic((), (), 1, 2, ())))
        with entered(wire.router):
            if kind is GateKind.DEADLINE:
                self._gate: KernelGate | KernelDeadlineGate = KernelDeadlineGate(
                    DEVICES.values(), MARK_MASK
                )
                self._gate.attach()
            else:
                self._gate = KernelGate()

    def grant(self, seconds: float) -> float:
        """Grant both rights; return when they end, at the latest that a lease would allow."""
        with entered(self._wire.router):
            if isinstance(self._gate, KernelDeadlineGate):
                until = clock() + seconds
                self._gate.grant(answers_until=until, carries_until=until)
                return until
            self._gate.permit(1.0)
            now = clock()
            self._gate.arm(DEVICES.values(), answers_s=seconds, carries_s=seconds)
            return now + seconds

    def close(self) -> None:
        """Take it away."""
        with entered(self._wire.router):
            self._gate.close()


def endings(wire: Wire, kind: GateKind, count: int) -> list[float]:
    """Return by how many seconds the last datagram came after the end of each right, at most."""
    gate = Gate(wire, kind)
    found: list[float] = []
    try:
        with wire.open_socket(wire.client) as near, wire.open_socket(wire.server) as far:
            far.bind((SERVER_ADDRESS, FIRST_PORT))
            far.settimeout(5)
            near.connect((PUBLIC, FIRST_PORT))
            near.settimeout(5)
            gate.grant(30.0)
            near.send(b"?")
            far.sendto(b"!", far.recvfrom(1)[1])
            near.recv(1)
            far.setblocking(False)  # noqa: FBT003 - the library's signature
            while len(found) < count:
                late = _ending(gate, near, far)
                if late is not None:
                    found.append(late)
    finally:
        gate.close()
    return found


def _ending(gate: Gate, near: socket.socket, far: socket.socket) -> float | None:
    """Return by how much the last datagram was late; None if that cannot be told exactly."""
    until = gate.grant(RIGHT_S)
    begun: list[float] = []
    sent: list[float] = []
    last = -1
    while not sent or sent[-1] < until + AFTER_S:
        begun.append(clock())
        near.send(_STAMP.pack(len(sent)))
        sent.append(clock())
        try:
            while True:
                (last,) = _STAMP.unpack(far.recv(_STAMP.size))
        except BlockingIOError:
            continue
    if last < 0:
        raise LabError("no datagram passed although both rights were granted")
    return sent[last] - until if sent[last] - begun[last] <= EXACT_S else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endings", description=__doc__)
    parser.add_argument("--endings", type=int, default=1_000, help="of each kind (default: 1000)")
    parser.add_argument("--turns", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--prefix", default=PREFIX, help="of namespaces (default: %(default)s)")
    options = parser.parse_args(arguments)
    found: dict[GateKind, list[float]] = {kind: [] for kind in GateKind}
    try:
        require_machine()
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        with cables(options.prefix) as wire:
            for _ in range(options.turns):
                for kind in found:
                    found[kind] += endings(wire, kind, options.endings // options.turns)
    except UsageError as error:
        print(f"benchmarks.endings: {error}", file=sys.stderr)
        return error.exit_code
    except LabError as error:
        print(f"benchmarks.endings: {error}", file=sys.stderr)
        return 1
    print("| gate | endings | last packet after the end, ms: median | 99 % | at most |")
    print("| --- | --- | --- | --- | --- |")
    for kind, late in found.items():
        late.sort()
        figures = (statistics.median(late), late[int(len(late) * 0.99)], late[-1])
        shown = " | ".join(f"{1000 * figure:.3f}" for figure in figures)
        print(f"| {kind.value} | {len(late)} | {shown} |")
    print(f"\n{', '.join(f'{key} {value}' for key, value in machine().items())}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
