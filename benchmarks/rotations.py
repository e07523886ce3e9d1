"""How soon a rotation is in the kernel: ``python -m benchmarks.rotations``.

In a network namespace of its own a thousand services of ten servers are installed, in the thread
that a node has for it; then, again and again, some of them get another rotation, a server more or
less. Measured is the time from `RulesetInstaller.rotate` until it is told that the rotation is in
force: rendering, nft, the kernel's transaction, and the way to the thread and back. Meanwhile
another thread arms the gate as a holder does; how long that takes at most is what a rotation can
cost the lease. Printed as a Markdown table. Needs root.

Exit codes: 0 measured, 2 this machine or the command line is not fit.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_interface

from benchmarks.failover import machine
from hanat.core.configuration import (
    PROFILES,
    Configuration,
    FloatingAddress,
    Listen,
    Protocol,
    RealServer,
    Scheduler,
    VirtualService,
)
from hanat.core.control_traffic import ControlTraffic
from hanat.core.outcomes import Done, Failed
from hanat.core.schedulers import InRotation, level, slots
from hanat.core.services import Rotation
from hanat.core.shares import Slots
from hanat.daemon.background import Background
from hanat.daemon.gate_change import GateChange
from hanat.daemon.realtime import SWITCH_S, prepare, step_back
from hanat.daemon.ruleset_installer import RulesetInstaller
from hanat.kernel.addresses import KernelAddresses
from hanat.kernel.firewall import KernelFirewall
from hanat.kernel.timeout_gate import KernelGate

CLONE_NEWNET = 0x40000000  # linux/sched.h
DEVICES = {"public": "eth0", "private": "eth1"}
VIP = ip_interface("203.0.113.10/24")
SERVERS = 10
GAP_S = 0.02  # between two rotations
ARM_S = 0.002  # between two renewals
LASTS_S = 10.0


@dataclass(frozen=True, slots=True)
class Case:
    """So many services of a scheduler get another rotation at once, or another table."""

    scheduler: Scheduler
    changed: int
    levels: bool = False


CASES = (
    Case(Scheduler.WRR, 1),
    Case(Scheduler.WRR, 50),
    Case(Scheduler.WLC, 1),
    Case(Scheduler.WLC, 1, levels=True),
    Case(Scheduler.WLC, 50, levels=True),
    Case(Scheduler.SH, 1),
    Case(Scheduler.SH, 50),
)


def configuration(case: Case, count: int) -> Configuration:
    """Return a configuration of so many services; those that change have the scheduler."""
    services = tuple(
        VirtualService(
            f"s{n}",
            (Listen(VIP.ip, Protocol.TCP, 20_000 + n, 20_000 + n),),
            case.scheduler if n < case.changed else Scheduler.WRR,
            tuple(
                RealServer(f"w{k}", ip_address(f"10.11.{20 + n // 250}.{k + 1}"), 80, weight=1)
                for k in range(SERVERS)
            ),
        )
        for n in range(count)
    )
    vips = (
        FloatingAddress("public", "public", (VIP,)),
        FloatingAddress("private", "private", (ip_interface("10.11.0.1/16"),)),
    )
    return Configuration("any", PROFILES["default"], vips, (), services)


class Renewals:
    """Arms the gate all the time, in a thread of its own."""

    def __init__(self, gate: KernelGate) -> None:
        self._gate, self._ends = gate, threading.Event()
        self.took_ms: list[float] = []
        self._thread = threading.Thread(target=self._arm)

    def __enter__(self) -> Renewals:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _arm(self) -> None:
        while not self._ends.wait(ARM_S):
            began = time.perf_counter()
            self._gate.permit(LASTS_S)
            self._gate.arm(DEVICES.values(), answers_s=LASTS_S, carries_s=LASTS_S)
            self.took_ms.append(1000 * (time.perf_counter() - began))


async def measure(case: Case, count: int, rounds: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds of each rotation, and of each renewal."""
    gate, firewall = KernelGate(), KernelFirewall()
    background = Background("rulesets", after=lambda: None, begin=step_back)
    wanted = configuration(case, count)
    rulesets = RulesetInstaller(
        DEVICES,
        conversation=ControlTraffic((), (), 7411, 7412, ()),
        gate=GateChange(gate, KernelAddresses(), DEVICES.values()),
        firewall=firewall,
        background=background,
        known=("", replace(wanted, services=())),
    )
    loop = asyncio.get_running_loop()
    try:
        installed: asyncio.Future[Done | Failed] = loop.create_future()
        rulesets.install(wanted, lambda outcome, _kept: installed.set_result(outcome))
        if isinstance(outcome := await installed, Failed):
            raise OSError(outcome.detail)
        took_ms = []
        with Renewals(gate) as renewals:
            for number in range(rounds):
                done: asyncio.Future[str | None] = loop.create_future()
                names = [f"s{n}" for n in range(case.changed)]
                rotation, table = _rotation(number), _table(number)
                began = time.perf_counter()
                if case.levels:
                    rulesets.level({(name, 4): table for name in names}, done.set_result)
                else:
                    rulesets.rotate(dict.fromkeys(names, rotation), done.set_result)
                if error := await done:
                    raise OSError(error)
                took_ms.append(1000 * (time.perf_counter() - began))
                await asyncio.sleep(GAP_S)
        return took_ms, renewals.took_ms
    finally:
        background.close()
        firewall.close()
        gate.close()


def _leave_network() -> None:
    """Put this thread, and those it starts, into a new network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot make a network namespace: {os.strerror(number)}")


def _rotation(number: int) -> Rotation:
    """Return all servers but one, another one each time."""
    return tuple(InRotation(f"w{k}") for k in range(SERVERS) if k != number % SERVERS)


def _table(number: int) -> Slots:
    """Return a table by counts of all servers, of which one had some more connections."""
    servers = tuple(InRotation(f"w{k}") for k in range(SERVERS))
    before = slots(Scheduler.WLC, servers)
    return level(Scheduler.WLC, servers, {f"w{number % SERVERS}": 3}, before, arriving=0)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the smallest value that so many percent of all do not exceed."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rotations", description=__doc__)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument(
        "--real-time",
        action="store_true",
        help="with the priority of a node, which disturbs others",
    )
    return parser.parse_args(arguments)


def main() -> int:
    """Measure and print."""
    options = parse()
    if options.real_time:
        prepare()
    else:
        sys.setswitchinterval(SWITCH_S)
    print("| rotations in force, ms | median | 99 % | worst | renewal 99 % | renewal worst |")
    print(f"|{' --- |' * 6}")
    for case in CASES:
        try:
            _leave_network()
            rotations, renewals = asyncio.run(measure(case, options.services, options.rounds))
        except OSError as error:
            print(f"benchmarks.rotations: {error}", file=sys.stderr)
            return 2
        figures = (
            statistics.median(rotations),
            percentile(rotations, 99),
            max(rotations),
            percentile(renewals, 99),
            max(renewals),
        )
        what = f"{case.changed} of {options.services} services, {case.scheduler.value}"
        what += ", another table" if case.levels else ""
        print(f"| {what} | {' | '.join(f'{figure:.1f}' for figure in figures)} |")
    where = ", ".join(f"{key} {value}" for key, value in machine().items())
    print(f"\n{where}, {os.cpu_count()} cores.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
