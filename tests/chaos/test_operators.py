"""Whoever was to change the configuration is heard, or it is said that nobody was."""

from __future__ import annotations

import os
import signal
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chaos.campaign import Campaign, Settings
from chaos.faults.operators import Operators
from chaos.judge.verdicts import judge
from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError
from chaos.observe.run_history import MS, Fact, HistoryAsked
from tests.chaos.runs import NODES, holds
from tests.chaos.test_lab import STAND_IN
from tests.chaos.test_told import asked


@contextmanager
def answering(path: Path, status: str) -> Iterator[None]:
    """An API that has one answer to everything."""

    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    path.unlink(missing_ok=True)
    with socketserver.ThreadingUnixStreamServer(str(path), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def verdicts(*more: Fact, configured: bool) -> dict[str, object]:
    campaign = Campaign(Settings(1, (), 20, "default"), print)
    campaign.facts = [*holds("r1", 0, 1000), *more]
    campaign.end_ns, campaign.configured = 1000 * MS, configured
    return {v.name: v.valid for v in judge(campaign, NODES, []).verdicts}


def test_operators_that_did_nothing_leave_the_configuration_unknown() -> None:
    assert verdicts(configured=True)["configuration"] == "unknown"
    assert "configuration" not in verdicts(configured=False)


def test_history_is_left_out_only_where_every_node_says_that_it_keeps_none() -> None:
    assert verdicts(configured=False)["history"] == "unknown"
    gone = [HistoryAsked(0, name, 404, 0, "", "HTTP 404") for name in NODES]
    assert "history" not in verdicts(*gone, configured=False)
    assert verdicts(*gone[1:], *asked()[:1], configured=False)["history"] == "unknown"


@pytest.mark.kernel
def test_only_an_api_without_configuration_keeps_operators_away(prefix: str) -> None:
    with Lab(prefix, hanat=STAND_IN) as lab:
        (lab.folder / "history").mkdir()
        with answering(lab.nodes["r1"].socket, "404 Not Found"):
            assert not Operators(lab, seed=1, limit_s=10).start("r1")
        with answering(lab.nodes["r1"].socket, "503 Service Unavailable"):
            assert Operators(lab, seed=1, limit_s=10).start("r1")


@pytest.mark.kernel
def test_operator_that_was_killed_is_noticed(prefix: str) -> None:
    with Lab(prefix, hanat=STAND_IN) as lab:
        (lab.folder / "history").mkdir()
        operators = Operators(lab, seed=1, limit_s=30)
        assert operators.start("r1")  # nobody listens: for them to see
        (victim, *_) = operators.pids
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(LabError, match="ended with exit code -9"):
            operators.stop()
