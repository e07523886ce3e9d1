"""What an operator is told when nobody holds the addresses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hanat.core import inputs as told
from hanat.core.nobody import Circumstances, why_nobody
from hanat.core.status import PeerStatus
from tests.core.test_node import Harness

LEFT = PeerStatus("r2", 2, connected=True, heard_s=0.0, address=None, fit=True, handicap=0)
KNOWN = Circumstances("r1", quorum=True, can_vote=True, leader=None, peers=(LEFT,))


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        (replace(KNOWN, quorum=False, peers=(replace(LEFT, connected=False),)),
         "r1 sees no majority: no connection to r2"),
        (KNOWN, "no leader: an election is under way, or no node can win one"),
        (replace(KNOWN, leader="r2"), "r2 leads, but does not hold the addresses: see its status"),
        (replace(KNOWN, leader="r2", peers=(replace(LEFT, handicap=None),)),
         "nothing is heard of r2, which led: another node stands when its promise to it is over"),
        (replace(KNOWN, leader="r1"),
         "r1 leads without a lease: no majority answers its beacons in time"),
        (replace(KNOWN, can_vote=False), "r1 cannot vote: no space left"),
        (replace(KNOWN, peers=(replace(LEFT, fit=False, unsafe=True),)),
         "r2 cannot take over: it is unsafe; see its status"),
    ],
)  # fmt: skip
def test_each_cause_is_told(known: Circumstances, sentence: str) -> None:
    h = Harness()
    h.tell(told.JournalObserved("no space left"))
    assert sentence in why_nobody(h.node.snapshot(), known, 1.0)


def test_leader_that_must_not_hold_says_why() -> None:
    h = Harness()
    h.tell(told.SafetyObserved("clock", "too fast"))
    h.elect()
    (first, *_) = why_nobody(h.node.snapshot(), replace(KNOWN, leader="r1"), 1.0)
    assert first == "r1 leads and must not hold: too fast"


def test_node_that_cannot_vote_because_it_is_unsafe_says_so() -> None:
    h = Harness()
    h.tell(told.SafetyObserved("clock", "too fast"))
    said = why_nobody(h.node.snapshot(), replace(KNOWN, can_vote=False), 1.0)
    assert "r1 cannot vote: too fast" in said
