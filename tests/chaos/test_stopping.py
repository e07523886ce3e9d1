"""What the demonstration tells of a server that stopped."""

from __future__ import annotations

import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from chaos import stopping
from chaos.faults.bounds import BACK_MS, DETECT_MS
from chaos.lab.lab import Lab
from chaos.lab.netns import entered
from chaos.lab.servers import TCP_PORT
from chaos.lab.topology import run_ip, server_addresses
from chaos.observe.observed import ServerOutage
from chaos.observe.run_history import MS, Outcome, Request
from tests.chaos.runs import of

STAND_IN = [sys.executable, str(Path(__file__).with_name("stand_in.py"))]
STOPPED = ServerOutage(1000 * MS, 5000 * MS, 5000 * MS, "s3", "stopped")


def asks(at_ms: float, *, server: str = "s1", took_ms: float = 2, how: Outcome = "ok") -> Request:
    error = None if how == "ok" else how
    end_ns = round((at_ms + took_ms) * MS)
    return Request("http", round(at_ms * MS), end_ns, how, server, error)


FINE = [asks(t) for t in range(0, 9000, 100)]
BACK = asks(5300, server="s3")
MET = asks(1200, server="s3", took_ms=2500, how="info")


def test_requests_that_failed_gave_up_or_waited_are_counted_and_timed() -> None:
    refused = asks(1500, how="fail")
    late = asks(1400, took_ms=1700)
    found = stopping.seen(of(STOPPED, *FINE, MET, refused, late, BACK))
    assert found is not None
    assert found.text == (
        "s3 stopped: of 43 HTTP requests 1 failed, 1 got no answer and gave up after 2.5 s, "
        "1 waited, 1700 ms at most; the last of these began 500 ms after the stop; it had "
        "clients again 302 ms after it went on"
    )
    assert found.met == 3
    assert stopping.judge(of(STOPPED, *FINE, MET, BACK)).valid is True


def test_server_that_nobody_noticed_or_that_stays_away_fails_the_demo() -> None:
    late = replace(MET, t_ns=round((1010 + DETECT_MS) * MS))
    assert stopping.judge(of(STOPPED, *FINE, late, BACK)).valid is False
    never = stopping.judge(of(STOPPED, *FINE, MET))
    assert (never.valid, "it had no clients again" in never.summary) == (False, True)
    slow = asks(5010 + BACK_MS, server="s3")
    assert stopping.judge(of(STOPPED, *FINE, MET, slow)).valid is False


def test_demo_that_ended_before_a_server_was_stopped_says_so() -> None:
    assert stopping.seen(of(*FINE)) is None
    assert stopping.judge(of(*FINE)).valid == "unknown"


@pytest.mark.kernel
@pytest.mark.parametrize("client", ["203.0.113.100", "2001:db8:113::100"])
def test_server_with_a_connection_of_the_client_is_not_stopped(prefix: str, client: str) -> None:
    with Lab(prefix, hanat=STAND_IN) as lab:
        # No router forwards here, so the client's address is one of the server's own.
        bits, family = (128, socket.AF_INET6) if ":" in client else (32, socket.AF_INET)
        run_ip(["-n", lab.topology.namespace("s3"), "addr", "add", f"{client}/{bits}", "dev", "lo"])
        address = server_addresses("s3")[bits == 128]
        with entered(lab.topology.namespace("s3")):
            asking, probe = (socket.socket(family, socket.SOCK_STREAM) for _ in range(2))
        with asking, probe:
            probe.connect((address, TCP_PORT))
            assert stopping.lasting(lab, "s3") == 0
            asking.bind((client, 0))
            asking.connect((address, TCP_PORT))
            assert stopping.lasting(lab, "s3") == 1
            assert stopping.lasting(lab, "s2") == 0
