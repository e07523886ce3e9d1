"""What is measured, as the trials see it: hanat here, keepalived in its own module.

A system lives in a lab, which gives it network, servers and instruments, and is removed
with it. How the holder is found may ask the system itself: that decides what is done to whom,
never what came of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError
from chaos.lab.node import Node
from chaos.lab.node_files import cluster_toml

SETTLE_S = {"fast": 2.5, "default": 2.5, "calm": 5.0}
"""By profile, how long after a fault it must work again: TCP needs its retransmissions."""


class System(Protocol):
    """A cluster under test, in a lab that was built.

    Attributes:
        lab: The network, the servers and what else is in it.
        nodes: Those that take part, by the name of their router.
        settle_s: How long to watch after a fault.
    """

    lab: Lab
    nodes: Mapping[str, Node]
    settle_s: float

    def start(self) -> str:
        """Start all nodes; return the holder as soon as the others follow it."""
        ...

    def holder(self) -> str | None:
        """Return who holds the addresses now, None if nobody does or two do."""
        ...

    def hand_over(self, holder: str) -> None:
        """Make another node the holder in good order."""
        ...


def other_build(command: Sequence[str]) -> list[str]:
    """Return what runs a hanat that is not this repository's.

    Processes of a lab find this repository's packages first, by an environment variable. The
    program of another checkout would run our code: builds would be compared with themselves.
    """
    return ["env", "-u", "PYTHONPATH", *command]


class Hanat:
    """Three nodes of hanat; implements `System`.

    Args:
        prefix: Of the lab.
        profile: Of the cluster.
        command: The hanat to run; None: the one of this repository.
    """

    def __init__(self, prefix: str, profile: str, command: Sequence[str] | None = None) -> None:
        self.lab = Lab(
            prefix, cluster_toml=cluster_toml(profile=profile, checked=False), hanat=command
        )
        self.nodes: Mapping[str, Node] = self.lab.nodes
        self.settle_s = SETTLE_S[profile]

    def start(self) -> str:
        """See `System.start`."""
        self.lab.start()
        return self.lab.wait_for_holder()

    def holder(self) -> str | None:
        """See `System.holder`."""
        return self.lab.holder()

    def hand_over(self, holder: str) -> None:
        """See `System.hand_over`."""
        to = next(name for name in self.nodes if name != holder)
        code, answer = self.lab.switchover(to)
        if code != 200:
            raise LabError(f"the switchover to {to} was refused: {code} {answer}")
