"""Services in a status: made once for a configuration, and in slices."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from hanat.config import parse_cluster
from hanat.core.configuration import PROTOCOL_NUMBERS, Protocol, VirtualService
from hanat.core.flows import ServerKey
from hanat.core.status import ServiceStatus
from hanat.daemon import shown_services
from hanat.daemon.shown_services import SLICE, ShownServices
from tests.config.helpers import EVERYTHING
from tests.core.examples import EDGE, PUBLIC
from tests.core.test_steps import services

MANY = replace(EDGE, services=services(1000))


def test_services_are_made_once_and_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    in_a_turn: list[int] = []
    make = shown_services._shown

    def counted(service: VirtualService) -> ServiceStatus:
        made.append(service.name)
        return make(service)

    monkeypatch.setattr(shown_services, "_shown", counted)
    shown = ShownServices()

    async def prepare() -> None:
        preparing = asyncio.ensure_future(shown.prepare(MANY))
        while not preparing.done():
            before = len(made)
            await asyncio.sleep(0)
            in_a_turn.append(len(made) - before)

    asyncio.run(prepare())
    assert len(made) == len(MANY.services)
    assert max(in_a_turn) <= SLICE

    asyncio.run(shown.prepare(MANY))
    assert len(shown.of(MANY, {})) == len(MANY.services)
    assert len(made) == len(MANY.services)


def test_health_of_a_node_does_not_make_them() -> None:
    assert ShownServices().of(MANY, {}) == ()
    assert len(ShownServices().of(EDGE, {})) == len(EDGE.services)


def test_flows_are_added_to_those_that_have_some() -> None:
    shown = ShownServices()
    asyncio.run(shown.prepare(MANY))
    service = MANY.services[7]
    key = ServerKey(
        PROTOCOL_NUMBERS[Protocol.TCP], PUBLIC.packed, service.listens[0].first_port,
        service.servers[3].address.packed,
    )  # fmt: skip
    found = shown.of(MANY, {key: 5})
    assert [s.flows for s in found if s.flows] == [5]
    assert found[7].servers[3].flows == 5
    assert sum(server.flows for server in found[7].servers) == 5


def test_checks_options_and_priorities_are_shown() -> None:
    configuration = parse_cluster(EVERYTHING, file="it")
    web, dns = ShownServices().of(configuration, {})
    assert [check.partition(" ")[0] for check in web.checks] == [
        "http", "https", "tcp", "tls", "ping", "script", "agent",
    ]  # fmt: skip
    assert web.checks[4] == ("ping 1000 bytes, 3 requests, every 2 s, timeout 1 s, fall 3, rise 2")
    assert (web.scheduler, web.options[0]) == ("mh", "by address and port")
    assert "sorry server 10.11.12.200:8080" in web.options
    assert [server.priority for server in dns.servers] == [1, 2]
    assert ShownServices().of(EDGE, {})[0].checks == ()
