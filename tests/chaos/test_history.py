"""A history survives the disk, and a broken one is refused or cut, never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.lab.lab_error import LabError
from chaos.observe import run_history
from chaos.observe.replicated import Applied, Committed
from chaos.observe.run_history import AddressSeen, Fact
from tests.chaos.histories import connection, kill, request, speaks, stream

FACTS: list[Fact] = [
    kill(5),
    *speaks("r1", 0, 20),
    AddressSeen(3, "r1", "10.11.12.1", present=True),
    stream("udp-in", 100, (20, 40)),
    connection("tcp", 100),
    request(4),
    Committed(5, "r1", 7, 2, "0a"),
    Applied(6, "r2", 7, 2, "0a"),
]


def test_every_kind_of_fact_is_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    with path.open("w") as file:
        for fact in FACTS:
            run_history.write(file, fact)
    assert run_history.read(path) == FACTS


def test_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    with path.open("w") as file:
        for fact in FACTS[:2]:
            run_history.write(file, fact)
    path.write_text(path.read_text()[:-9])
    assert run_history.read(path) == FACTS[:1]


@pytest.mark.parametrize("line", ["x", "[]", "{}", '{"kind": "fault"}', '{"kind": "new", "a": 1}'])
def test_line_that_is_no_fact_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(LabError, match=r"h\.jsonl:1: not a fact"):
        run_history.read(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="No such file"):
        run_history.read(tmp_path / "none.jsonl")


def test_facts_are_ordered_by_time() -> None:
    sorted_history = run_history.History.of([*reversed(FACTS), kill(1)])
    assert [f.t_ns for f in sorted_history.faults] == [1_000_000, 5_000_000]
    assert [f.t_ns for f in sorted_history.arp] == sorted(f.t_ns for f in sorted_history.arp)
