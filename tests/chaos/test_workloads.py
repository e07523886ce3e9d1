"""Clients and observer record what happens in a network without hanat."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from chaos.lab.lab import Lab
from chaos.lab.processes import python_module, send_signal
from chaos.observe.run_history import History, read
from chaos.workloads import syn
from chaos.workloads.tcp import payload

STAND_IN = [sys.executable, str(Path(__file__).with_name("stand_in.py"))]


def test_payloads_differ_by_connection_and_number() -> None:
    assert len({payload(n, i) for n in ("a", "b") for i in range(100)}) == 200
    assert payload("a", 7) == payload("a", 7)


def test_a_connection_is_asked_for_as_the_standard_writes_it() -> None:
    own, peer = "203.0.113.100", "203.0.113.10"
    assert syn.pseudo_header(own, peer) == bytes([203, 0, 113, 100, 203, 0, 113, 10, 0, 6, 0, 20])
    for ip, src, dst in ((IP, own, peer), (IPv6, "2001:db8:113::100", "2001:db8:113::10")):
        for number in (0, 1, 20_003, 2**32 - 1):
            segment = TCP(syn.syn(number, 80, syn.pseudo_header(src, dst)))
            # scapy is the second implementation here: it computes a checksum that is missing.
            again = ip(src=src, dst=dst) / TCP(
                sport=10_000 + number % 20_000, dport=80, seq=number, flags="S", window=1024
            )
            assert bytes(segment) == bytes(again)[-20:]


def test_the_answer_to_a_connection_names_it() -> None:
    def packet(number: int, flags: str, **more: int) -> bytes:
        fields = {"sport": 80, "dport": 10_000 + number % 20_000, "ack": (number + 1) % 2**32}
        return bytes(TCP(flags=flags, **(fields | more)))

    assert [syn.answered(packet(n, "SA"), 80) for n in (0, 41_000, 2**32 - 1)] == [
        0, 41_000, 2**32 - 1,
    ]  # fmt: skip
    refused = [
        packet(7, "RA"), packet(7, "A"), packet(7, "S"), packet(7, "SA", sport=81),
        packet(7, "SA", dport=10_008), packet(7, "SA")[:10],
    ]  # fmt: skip
    assert [syn.answered(p, 80) for p in refused] == [None] * len(refused)


@pytest.mark.kernel
def test_new_connections_are_answered_where_somebody_listens_and_only_there(prefix: str) -> None:
    with Lab(prefix, hanat=STAND_IN) as lab:
        outs = {}
        for name, target in (
            ("open", "203.0.113.100:9000"),
            ("closed", "203.0.113.100:9001"),
            ("open6", "[2001:db8:113::100]:9000"),
            ("closed6", "[2001:db8:113::100]:9001"),
        ):
            outs[name] = lab.folder / f"{name}.jsonl"
            command = python_module(
                "chaos.workloads", "syn", name, target, "--period-ms", "2",
                "--seconds", "1", "--out", str(outs[name]),
            )  # fmt: skip
            lab.spawn_in("r1", name, command)
        lab.wait_for(lambda: all(out.exists() for out in outs.values()), 20, "the clients")
        seen = {name: History.of(read(out)).probes[0] for name, out in outs.items()}
    for probes in seen.values():
        assert len(probes.sent) > 50
        assert probes.corrupt == 0
    for name, probes in seen.items():
        assert (all if name.startswith("open") else any)(probes.answered) is (
            name.startswith("open")
        )


@pytest.mark.kernel
@pytest.mark.parametrize("address", ["203.0.113.100", "[2001:db8:113::100]"])
def test_clients_record_every_operation(prefix: str, address: str) -> None:
    with Lab(prefix, hanat=STAND_IN) as lab:
        outs = {}
        for kind, port, period in (("udp", 5353, "1"), ("tcp", 9000, "5"), ("http", 8080, "20")):
            outs[kind] = lab.folder / f"{kind}.jsonl"
            command = python_module(
                "chaos.workloads", kind, kind, f"{address}:{port}", "--period-ms", period,
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
            "chaos.workloads",
            "tcp",
            "tcp",
            "203.0.113.100:1",
            "--period-ms",
            "5",
            "--out",
            str(out),
        )
        lab.spawn_in("r1", "tcp", command)
        lab.wait_for(out.exists, 20, "the client")
        (connection,) = History.of(read(out)).connections
    assert connection.opened_ns is None
    assert "ConnectionRefused" in str(connection.error)


@pytest.mark.kernel
def test_observer_sees_who_answers_and_which_addresses_come_and_go(prefix: str) -> None:
    addresses = [("203.0.113.10/24",), ("2001:db8:113::10/64", "nodad")]
    with Lab(prefix, hanat=STAND_IN) as lab:
        out = lab.folder / "observer.jsonl"
        command = python_module("chaos.observe.observer", "--prefix", prefix, "--out", str(out))
        for address in addresses:
            add = ["ip", "addr", "add", *address, "dev", "eth0"]
            assert lab.exec_in("r2", add).returncode == 0
        observer = lab.spawn_in("sw", "observer", command)
        for asker in ("203.0.113.250", "2001:db8:113::250"):
            neighbours = ["ip", "neigh", "show", asker]
            lab.wait_for(lambda: lab.exec_in("r2", neighbours).stdout, 10, "the observer to ask")  # noqa: B023
        for to, own in (
            ("203.0.113.100", "203.0.113.10"),
            ("2001:db8:113::100", "2001:db8:113::10"),
        ):
            connect = f"import socket; socket.create_connection(({to!r}, 9000), 5, ({own!r}, 0))"
            assert lab.exec_in("r2", [sys.executable, "-c", connect]).returncode == 0
        for address in addresses:
            remove = ["ip", "addr", "del", address[0], "dev", "eth0"]
            assert lab.exec_in("r2", remove).returncode == 0
        send_signal(observer.identity, signal.SIGTERM)
        lab.wait_for(out.exists, 10, "the observer's history")
        seen = History.of(read(out))
    assert {(a.router, a.network, a.address) for a in seen.arp} == {
        ("r2", "public", "203.0.113.10"),
        ("r2", "public", "2001:db8:113::10"),
    }
    assert [(a.router, a.network, a.version) for a in seen.admissions] == [
        ("r2", "public", 4),
        ("r2", "public", 6),
    ]
    for own in ("203.0.113.10", "2001:db8:113::10"):
        changes = [a.present for a in seen.addresses if a.address == own]
        assert (changes[0], changes[-1], changes.count(False)) == (True, False, 1)
    assert {a.router for a in seen.addresses} == {"r2"}
