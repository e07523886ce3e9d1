"""The history is fetched from all nodes as they tell it, until they agree or time is over."""

from __future__ import annotations

import json
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chaos.lab.lab import Lab
from chaos.observe import node_history
from chaos.observe.run_history import MS, EventTold, Fact, HistoryAsked, Injection, read, write
from tests.chaos.runs import NODES, fault

OFFSET_NS = 1_700_000_000 * 10**9
DAY_S = 86_400
EVENT = {
    "at": "2023-11-14T22:13:25.000Z", "at_s": 1_700_000_005.5, "term": 3, "node": "r2",
    "node_id": 2, "what": "took over", "why": "silence", "found": "", "previous": "r1",
    "silent_s": [0.12, None], "without_s": 0.03, "elected_s": 0.02, "announcements": 8,
    "flows": 12, "complete": True, "held_s": None, "text": "took over: <b>",
}  # fmt: skip


@contextmanager
def telling(path: Path, answers: list[tuple[int, Any]]) -> Iterator[None]:
    """An API that gives these answers, the last again and again."""

    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            assert self.rfile.readline().startswith(b"GET /v1/history ")
            code, document = answers.pop(0) if len(answers) > 1 else answers[0]
            body = json.dumps(document).encode()
            self.wfile.write(f"HTTP/1.1 {code} x\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            self.wfile.write(body)

    path.parent.mkdir(exist_ok=True)
    with socketserver.ThreadingUnixStreamServer(str(path), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def fetched(
    answers: dict[str, list[tuple[int, Any]]],
) -> tuple[dict[str, HistoryAsked], list[EventTold]]:
    """Fetch from nodes that answer so; of others nobody listens."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        lab = Lab("never-built", folder=Path(name))
        for node, each in answers.items():
            stack.enter_context(telling(lab.nodes[node].socket, each))
        facts = node_history.fetch(lab, [], OFFSET_NS)
    asked = {f.node: f for f in facts if isinstance(f, HistoryAsked)}
    return asked, [f for f in facts if isinstance(f, EventTold)]


def test_event_is_fetched_as_a_fact_and_nodes_that_agree_are_seen_to(tmp_path: Path) -> None:
    older = [(200, {"events": []}), (200, {"events": [EVENT]})]
    asked, told = fetched({n: list(older) if n == "r3" else older[1:] for n in NODES})
    assert {a.digest for a in asked.values()} == {asked["r1"].digest}
    assert [(a.code, a.events, a.problem) for a in asked.values()] == [(200, 1, "")] * 3
    (event,) = told
    assert event.t_ns == pytest.approx(5500 * MS, abs=1000)
    assert (event.node, event.previous, event.without_ns) == ("r2", "r1", 30 * MS)
    assert (event.held_ns, event.clock_wrong, event.number) == (None, False, 0)
    facts: list[Fact] = [*told, *asked.values()]
    with (tmp_path / "history.jsonl").open("w") as file:
        for fact in facts:
            write(file, fact)
    assert read(tmp_path / "history.jsonl") == facts


def test_nodes_that_never_agree_or_do_not_answer_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_history, "AGREE_S", 0.0)
    strange = {k: v for k, v in EVENT.items() if k != "term"}
    asked, told = fetched(
        {"r1": [(200, {"events": [EVENT]})], "r2": [(200, {"events": [strange]})]}
    )
    assert len(told) == 1
    assert asked["r1"].digest != asked["r2"].digest
    assert "event 0 is none: KeyError('term')" in asked["r2"].problem
    assert (asked["r3"].code, asked["r3"].events) == (None, 0)
    asked, told = fetched({n: [(404, {"error": "no such resource"})] for n in NODES})
    assert ({a.code for a in asked.values()}, told) == ({404}, [])


def stepped(offset_s: int, heal_ms: float | None = 3000) -> Injection:
    detail = f"r1+r2 {offset_s:+d} s"
    return replace(fault(1000, heal_ms, nodes=()), nemesis="clock", detail=detail)


@pytest.mark.parametrize(
    ("node", "at_s", "wrong"),
    [
        ("r2", 2 - DAY_S, True),  # told while it was stepped
        ("r1", 2 - DAY_S, True),
        ("r2", 2, True),  # told just before or after; which, cannot be known
        ("r2", 20, False),
        ("r3", 2, False),
    ],
)
def test_time_by_a_clock_that_was_stepped_is_marked(
    node: str,
    at_s: float,
    wrong: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    steps = node_history.stepped([stepped(-DAY_S)])
    event = node_history.event({**EVENT, "node": node, "at_s": at_s}, 0, 0, steps)
    assert event.clock_wrong is wrong


def test_clock_that_was_never_set_right_stays_wrong() -> None:
    steps = node_history.stepped([stepped(10, heal_ms=None)])
    assert node_history.event({**EVENT, "at_s": 500}, 0, 0, steps).clock_wrong
