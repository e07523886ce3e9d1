"""One trial: a lab of its own, established flows, a fault, and what the packets say about it.

Trials share nothing: each builds its network, starts its cluster and opens its flows anew, so none
inherits what another one broke. Every wait has a deadline, and a trial watches for a fixed
time after the fault: what is not back by then never came back.
"""

from __future__ import annotations

import random
import time

from benchmarks.cases import Case, Stage
from benchmarks.figures import Figures, Streams, measure
from benchmarks.systems import System
from chaos.judge.checkers import Window
from chaos.lab.lab_error import LabError
from chaos.lab.switch import Net
from chaos.lab.topology import FLOATING
from chaos.observe.run_history import History
from chaos.observe.traffic import SYN, TCP, UDP, Traffic

WARM_UP_S = 4.0  # clients start, then a UDP flow counts as established after two seconds
OTHER_S = 15.0  # keepalived with adverts of a second takes four
# Faults do not wait for a beacon: they come at any phase of the slowest timer compared here.
PHASE_S = 1.0
TAIL_S = 0.2  # answers to the last probes of the window come from behind it

ONE_TCP_EACH_WAY = (TCP[0], TCP[2])
WORKLOADS = (*UDP, *SYN, *ONE_TCP_EACH_WAY)
STREAMS = Streams(
    udp=[w.name for w in UDP], new=[w.name for w in SYN], tcp=[w.name for w in ONE_TCP_EACH_WAY]
)


def run(system: System, case: Case) -> Figures:
    """Run a trial in a lab that is built for it and removed afterwards.

    Raises:
        LabError: It could not be measured: the cluster did not come up, a step of the case
            failed, or an instrument has nothing to tell.
    """
    with system.lab:
        holder = system.start()
        traffic = Traffic(system.lab, WORKLOADS)
        traffic.start()
        time.sleep(WARM_UP_S + random.uniform(0, PHASE_S))
        if system.holder() != holder:
            raise LabError(f"{holder} lost the addresses before the fault")
        stage = Stage(
            system=system,
            net=Net(system.lab.topology),
            holder=holder,
            wait=time.sleep,
            wait_for_other=lambda: _wait_for_other(system, holder),
            now_ns=time.monotonic_ns,
        )
        case.prepare(stage)
        start_ns = case.act(stage)
        end_ns = start_ns + int((system.settle_s + case.extra_s) * 1e9)
        time.sleep(max(0.0, (end_ns - time.monotonic_ns()) / 1e9) + TAIL_S)
        traffic.stop()
        history = History.of(traffic.facts())
    window = Window(case.label, start_ns, end_ns, moves_holder=True)
    return measure(history, window, STREAMS, unheard=stage.unheard)


def _wait_for_other(system: System, holder: str) -> None:
    # By the addresses on the devices: after a fault there may be two holders, or none to ask.
    others = [name for name in system.nodes if name != holder]
    system.lab.wait_for(
        lambda: any(_holds(system, name) for name in others), OTHER_S, "another holder"
    )


def _holds(system: System, name: str) -> bool:
    return len(system.lab.addresses(name)) >= len(FLOATING)  # of IPv4: keepalived has no others
