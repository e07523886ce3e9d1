"""What is left out, and what notices: the checks of the simulation can fail.

Two lists. `ABLATIONS` are parts that the invariant "at most one node answers" rests on;
random seeds must notice each of them. Each repair of the library is left out by a guard of
`repairs`, and has a directed schedule that shows the fault, because random seeds of this
length do not need most of them. That none is without its schedule is checked here;
`python -m tests.sim --ablate NAME` counts the seeds that notice it nevertheless.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from hanat.core.lease import Promise
from hanat.core.node import Node
from hanat.raft import promises
from tests.sim.ablations import Forgotten, GreedyLease, ReceiptLease
from tests.sim.process import Process
from tests.sim.repairs import BROKEN
from tests.sim.run import run_seed

DOCUMENT = Path(__file__).parents[2] / "docs/simulation.md"
SCHEDULES = sorted(Path(__file__).parent.glob("test_*.py"))

Patch = pytest.MonkeyPatch


def lease_longer_than_the_promise(patch: Patch) -> None:
    patch.setattr(promises, "Lease", GreedyLease)


def lease_from_receipt(patch: Patch) -> None:
    patch.setattr(promises, "Lease", ReceiptLease)


def promises_ignored(patch: Patch) -> None:
    patch.setattr(Promise, "binds", lambda _promise, **_: False)


def gate_not_enforced(patch: Patch) -> None:
    patch.setattr(Process, "gate_enforced", False)


def refused_withdrawal_taken_for_done(patch: Patch) -> None:
    patch.setattr(Node, "_gate_until", Forgotten(), raising=False)


# What is left out, and seeds of which one must show two nodes that answer at one instant.
ABLATIONS: tuple[tuple[Callable[[Patch], None], range], ...] = (
    (lease_longer_than_the_promise, range(1, 31)),
    (lease_from_receipt, range(111, 191)),  # about one in twenty
    (promises_ignored, range(1, 61)),
    (gate_not_enforced, range(1, 11)),
    (refused_withdrawal_taken_for_done, range(1, 61)),
)


@pytest.mark.parametrize(
    ("leave_out", "seeds"), ABLATIONS, ids=[leave_out.__name__ for leave_out, _ in ABLATIONS]
)
def test_random_seeds_notice_what_is_left_out(
    leave_out: Callable[[Patch], None], seeds: range, monkeypatch: Patch
) -> None:
    leave_out(monkeypatch)
    assert any(two_answer(seed) for seed in seeds)


def two_answer(seed: int) -> bool:
    """Say whether a seed shows two nodes that answer."""
    violations = run_seed(seed).violations
    return any(text.partition(" ")[2].startswith("two answer") for text in violations)


def schedules_of(name: str) -> list[str]:
    """Return the tests that run with the guard and without one of its repairs."""
    return [
        f"{path.name}::{test.name}"
        for path in SCHEDULES
        for test in ast.walk(ast.parse(path.read_text()))
        if isinstance(test, ast.FunctionDef)
        and any(ast.unparse(d) == f"with_and_without(repairs.{name})" for d in test.decorator_list)
    ]


@pytest.mark.parametrize("broken", sorted(BROKEN))
def test_each_repair_has_a_schedule_that_shows_what_it_is_for(broken: str) -> None:
    assert schedules_of(BROKEN[broken].__name__)
    assert f"`{broken}`" in DOCUMENT.read_text()
