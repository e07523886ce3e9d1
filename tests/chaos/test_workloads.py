"""Clients and observer record what happens in a network without hanat."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from chaos.history import History, read
from chaos.lab import Lab
from chaos.processes import python_module, send_signal
from chaos.workloads.tcp import payload

STAND_IN = [sys.executable, str(Path(__file__).with_name("stand_in.py"))]


def test_payloads_differ_by_connection_and_number() -> None:
    assert len({payload(n, i) for n in ("a", "b") for i in range(100)}) == 200
    assert payload("a", 7) == payload("a", 7)


@pytest.mark.kernel
def test_clients_record_every_operation(prefix: str) -> None:
    with Lab(prefix, hanat=STAND_IN) as lab:
        outs = {}
        for kind, port, period in (("udp", 5353, "1"), ("tcp", 9000, "5"), ("http", 8080, "20")):
            outs[kind] = lab.folder / f"{kind}.jsonl"
            command = python_module(
                "chaos.client", kind, kind, f"203.0.113.100:{port}", "--period-ms", period,
                "--seconds", "1", "--out", str(outs[kind]),
            )  # fmt: skip
            lab.spawn_in("r1", kind, command)
        lab.wait_for(lambda: all(out.exists() for out in outs.values()), 20, "the clients")
        seen = History.of(fact for out in outs.values() for fact in read(out))
    for probes in seen.probes:
        assert len(probes.sent) > 50
        assert all(probes.answered)
        assert probes.corrupt == 0
    assert [(c.error, c.payload_errors) for c in seen.connections] == [(None, 0)]
    assert {(r.outcome, r.server) for r in seen.requests} == {("ok", "c1")}


@pytest.mark.kernel
def test_connection_cut_by_a_closed_port_is_recorded(prefix: str) -> None:
    with Lab(prefix, hanat=STAND_IN) as lab:
        out = lab.folder / "tcp.jsonl"
        command = python_module(
            "chaos.client", "tcp", "tcp", "203.0.113.100:1", "--period-ms", "5", "--out", str(out)
        )
        lab.spawn_in("r1", "tcp", command)
        lab.wait_for(out.exists, 20, "the client")
        (connection,) = History.of(read(out)).connections
    assert connection.opened_ns is None
    assert "ConnectionRefused" in str(connection.error)


@pytest.mark.kernel
def test_observer_sees_who_answers_and_which_addresses_come_and_go(prefix: str) -> None:
    address = ["203.0.113.10/24", "dev", "eth0"]
    with Lab(prefix, hanat=STAND_IN) as lab:
        out = lab.folder / "observer.jsonl"
        command = python_module("chaos.observer", "--prefix", prefix, "--out", str(out))
        assert lab.exec_in("r2", ["ip", "addr", "add", *address]).returncode == 0
        observer = lab.spawn_in("sw", "observer", command)
        neighbours = ["ip", "neigh", "show", "203.0.113.250"]
        lab.wait_for(lambda: lab.exec_in("r2", neighbours).stdout, 10, "the observer to ask")
        assert lab.exec_in("r2", ["ip", "addr", "del", *address]).returncode == 0
        send_signal(observer.identity, signal.SIGTERM)
        lab.wait_for(out.exists, 10, "the observer's history")
        seen = History.of(read(out))
    assert {(a.router, a.network, a.address) for a in seen.arp} == {
        ("r2", "public", "203.0.113.10")
    }
    assert [(a.router, a.present) for a in seen.addresses] == [("r2", True), ("r2", False)]
