"""The faults of the table: what is done to the holder, and what the window begins with.

A case has two parts. `prepare` is done before the window, where a fault has to be there before
its end can be measured; `act` is what the window begins with. Faults are black box,
by the lab's switch and by signals; `chaos.faults.faults` says exactly what each does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.systems import System
from chaos.faults.faults import (
    CutOff,
    DaemonKilled,
    Fault,
    Frozen,
    Killed,
    Partitioned,
    PoweredOff,
    Unplugged,
)
from chaos.lab.switch import Net, complete_grudge

FROZEN_S = 3.0
RETURN_S = 4.0  # a daemon that was started again has to load, join and catch up
APART_S = 2.0  # how long the other node has held when the old holder comes back


@dataclass(slots=True)
class Stage:
    """A running trial, as a case sees it.

    Attributes:
        holder: Who held the addresses at the beginning.
        wait: Lets the traffic flow for so many seconds.
        wait_for_other: Waits until another node holds.
        unheard: Filled in by a case: routers whose frames get nowhere, and since when.
    """

    system: System
    net: Net
    holder: str
    wait: Callable[[float], None]
    wait_for_other: Callable[[], None]
    now_ns: Callable[[], int]
    unheard: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the table.

    Attributes:
        label: For people.
        act: Does it and returns the instant before, monotonic ns.
        prepare: Done, and waited for, before the window.
        extra_s: How much longer the window is than the system needs to settle.
    """

    label: str
    act: Callable[[Stage], int]
    prepare: Callable[[Stage], None] = lambda _: None
    extra_s: float = 0.0


def _starting(make: Callable[[Stage], Fault]) -> Callable[[Stage], int]:
    return lambda stage: make(stage).start()


def _silencing(make: Callable[[Stage], Fault]) -> Callable[[Stage], int]:
    """Like `_starting`, for a fault after which nobody hears the old holder."""

    def act(stage: Stage) -> int:
        instant_ns = make(stage).start()
        stage.unheard[stage.holder] = stage.now_ns()
        return instant_ns

    return act


def _replaced(make: Callable[[Stage], Fault]) -> Callable[[Stage], None]:
    def prepare(stage: Stage) -> None:
        make(stage).start()
        stage.wait_for_other()
        stage.wait(APART_S)

    return prepare


def _freeze_and_thaw(stage: Stage) -> int:
    fault = Frozen(stage.system.nodes[stage.holder])
    instant_ns = fault.start()
    stage.wait(FROZEN_S)
    fault.stop()
    return instant_ns


def _hand_over(stage: Stage) -> int:
    instant_ns = stage.now_ns()
    stage.system.hand_over(stage.holder)
    return instant_ns


def _cut(stage: Stage) -> Fault:
    return CutOff(stage.net, stage.holder)


def _killed(stage: Stage) -> Fault:
    return Killed(stage.system.nodes[stage.holder])


def _unplugged(network: str) -> Callable[[Stage], Fault]:
    return lambda stage: Unplugged(stage.system.lab.topology, stage.holder, network)


def _powered_off(stage: Stage) -> Fault:
    node = stage.system.nodes[stage.holder]
    return PoweredOff(stage.system.lab.topology, stage.net, stage.holder, node)


def _peers_apart(stage: Stage) -> Fault:
    others = [r.name for r in stage.system.lab.topology.routers if r.name != stage.holder]
    return Partitioned(stage.net, complete_grudge([[stage.holder], others]))


CASES: Mapping[str, Case] = {
    "none": Case("none: the noise of this machine", lambda stage: stage.now_ns()),
    "cut": Case("all links silently cut", _silencing(_cut)),
    "power-loss": Case("power loss", _silencing(_powered_off)),
    "carrier-public": Case("carrier of the public link lost", _starting(_unplugged("public"))),
    "carrier-private": Case("carrier of the private link lost", _starting(_unplugged("private"))),
    "kill-daemon": Case(
        "SIGKILL of the daemon alone",
        _starting(lambda stage: DaemonKilled(stage.system.nodes[stage.holder])),
    ),
    "kill": Case("SIGKILL of all its processes", _starting(_killed)),
    "pause": Case(
        f"SIGSTOP of all its processes for {FROZEN_S:.0f} s", _freeze_and_thaw, extra_s=FROZEN_S
    ),
    "deaf": Case(
        "can send but not receive",
        _starting(lambda stage: CutOff(stage.net, stage.holder, "in")),
    ),
    "mute": Case(
        "can receive but not send",
        _silencing(lambda stage: CutOff(stage.net, stage.holder, "out")),
    ),
    "partition": Case("cut off from its peers, not from the hosts", _starting(_peers_apart)),
    "switchover": Case("switchover", _hand_over),
    "return": Case(
        "old holder comes back (killed before)",
        lambda stage: _killed(stage).stop(),
        _replaced(_killed),
        RETURN_S,
    ),
    "heal": Case(
        "partition heals (all links were cut)", lambda stage: _cut(stage).stop(), _replaced(_cut)
    ),
}
"""By the name on the command line, in the order of the table."""
