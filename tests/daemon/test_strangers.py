"""Strangers are asked for once a device, however many floating addresses there are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, ip_interface
from pathlib import Path

import pytest

from chaos.lab.node_files import CLUSTER_TOML
from hanat.config import parse_cluster
from hanat.config.settings import NodeSettings, Peer
from hanat.core.configuration import FloatingAddress
from hanat.doctor import preflight
from hanat.errors import StartupError

MANY = tuple(
    FloatingAddress(
        f"v{n}", ("public", "private")[n % 2], (ip_interface(f"10.9.{n // 250}.{n % 250 + 1}/16"),)
    )
    for n in range(1000)
)
HOLDER, STRANGER = "02:00:00:00:00:01", "02:00:00:00:00:99"
PEER = IPv4Address("10.9.200.2")


class Network:
    """Answers for a peer, which holds all but one address, and counts the questions."""

    def __init__(self) -> None:
        self.questions: list[str] = []

    def who_answers(
        self, device: str, addresses: Iterable[IPv4Address]
    ) -> dict[IPv4Address, frozenset[str]]:
        self.questions.append(device)
        taken = MANY[998].addresses[0].ip
        return {a: frozenset({STRANGER if a == taken else HOLDER}) for a in addresses}


def test_a_thousand_addresses_are_one_question_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network()
    monkeypatch.setattr(preflight, "who_answers", network.who_answers)
    configuration = replace(parse_cluster(CLUSTER_TOML, file="it"), vips=MANY)
    here = Path("/nonexistent")
    interfaces = {"public": "eth0", "private": "eth1"}
    settings = NodeSettings("r1", 1, here, here, here, interfaces, (), (Peer("r1", 1, (PEER,)),))
    with pytest.raises(StartupError, match=STRANGER):
        asyncio.run(preflight.check_neighbours(settings, configuration))
    assert sorted(network.questions) == ["eth0", "eth1"]

    network.questions.clear()
    clean = replace(configuration, vips=MANY[:998])
    asyncio.run(preflight.check_neighbours(settings, clean))
    assert sorted(network.questions) == ["eth0", "eth1"]
