"""The demonstration does what an operator would do."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from chaos import demo
from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError
from chaos.lab.node_api import Status
from hanat.core.status import PeerStatus


class Rejoining(Lab):
    """r2 holds; r1 has come back, and comes to have all flows after some looks.

    Args:
        prefix: Of namespaces that are never made.
        refusals: What a switchover is answered with before it is granted.
        lacking: What its holder says that r1 lacks, a word for each look.
    """

    def __init__(self, prefix: str, refusals: list[int], lacking: list[str]) -> None:
        super().__init__(prefix)
        self.refusals, self.lacking = refusals, lacking
        self.moved = False

    def status(self, name: str) -> Status | None:
        """What the node says."""
        holds = name == ("r1" if self.moved else "r2")
        lacks = self.lacking.pop(0) if self.lacking and name == "r2" else ""
        has = {word: word != lacks for word in ("connected", "fit", "complete")}
        peer = PeerStatus("r1", 1, has["connected"], None, None)
        # Of the real document's class, so that a word that it loses is missed here.
        told = asdict(replace(peer, fit=has["fit"], complete=has["complete"]))
        return {"role": "ACTIVE" if holds else "BACKUP", "peers": [told]}

    def statuses(self) -> dict[str, Status | None]:
        """What all say."""
        roles = {True: "ACTIVE", False: "BACKUP"}
        holder = "r1" if self.moved else "r2"
        return {name: {"role": roles[name == holder]} for name in self.nodes}

    def switchover(self, to: str, timeout_s: float = 10.0) -> tuple[int, object]:
        """Refuse it as often as was asked for."""
        del timeout_s
        if self.refusals:
            return self.refusals.pop(0), {"error": "not now"}
        self.moved = True
        return 200, {"holder": to}


def test_switchover_waits_until_the_target_may_be_counted_on(prefix: str) -> None:
    said: list[str] = []
    run = demo.Run(said.append)
    lab = Rejoining(prefix, [409, 409], ["connected", "fit", "complete"])
    demo._switch_over(lab, run, "r1")
    waits = [line for line in said if line.startswith("waiting until r1 may be counted on: ")]
    assert [line.partition(": ")[2] for line in waits] == [
        "r1 is not connected to r2",
        "r1 is not fit to hold, says r2",
        "r1 has not all flows, says r2",
        "409 {'error': 'not now'}",
    ]
    assert lab.moved
    assert [(fault.f, fault.node) for fault in run.faults] == [("switchover", "r1")]


def test_switchover_that_fails_for_another_reason_ends_the_demo(prefix: str) -> None:
    run = demo.Run(lambda _line: None)
    with pytest.raises(LabError, match="refused: 503"):
        demo._switch_over(Rejoining(prefix, [503], []), run, "r1")
    assert run.faults == []
