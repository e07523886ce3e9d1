"""Answers that grow with the configuration: the loop turns while they are made."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from hanat.api.answers import SLICE, status_answer
from hanat.api.metrics import Metrics
from hanat.api.server import serve
from hanat.api.service_metrics import SAMPLES_MAX, SERVICES_SLICE, service_families
from hanat.api.service_routes import SLICE as SERVERS_SLICE
from hanat.cli.api_client import ANSWER_BYTES_MAX
from hanat.core.status import ServerStatus, ServiceStatus
from tests.api.helpers import HOLDER, WEB, WEB1, WEB2, Answer, FakeBackend, ask, unix_in

Found = TypeVar("Found")
MANY = tuple(
    ServiceStatus(
        f"s{n}", (f"203.0.113.10 tcp/{n}",), "wrr", 10 * n,
        tuple(ServerStatus(f"w{k}", f"10.11.12.{k + 1}:80", 1, n) for k in range(10)),
    )
    for n in range(1000)
)  # fmt: skip


async def turns_of(work: Awaitable[Found]) -> tuple[Found, int]:
    """Await something; return its result, and how often the loop turned meanwhile."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    found = await asyncio.ensure_future(work)
    counting.cancel()
    return found, turns


def test_status_of_a_thousand_services_is_made_in_slices() -> None:
    status = replace(HOLDER, services=MANY)

    async def ask() -> tuple[web.Response, int]:
        return await turns_of(status_answer(status))

    answer, turns = asyncio.run(ask())
    assert turns >= len(MANY) / SLICE
    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body) == json.loads(json.dumps(status.to_document()))


SUMS = ("connections_opened", "bytes_in", "bytes_out", "packets_in", "packets_out")
VIEWS = tuple(
    replace(
        WEB, name=f"s{n}",
        servers=tuple(replace(WEB1 if k else WEB2, name=f"w{k}") for k in range(10)),
    )
    for n in range(1000)
)  # fmt: skip


def test_metrics_of_a_thousand_services_are_made_in_slices() -> None:
    async def ask() -> tuple[bytes, int]:
        return await turns_of(Metrics(lambda: HOLDER, lambda: VIEWS).render())

    text, turns = asyncio.run(ask())
    assert turns >= 18 * len(VIEWS) / SERVICES_SLICE + 10 * len(VIEWS) / SERVERS_SLICE
    families = {f.name: f for f in text_string_to_metric_families(text.decode())}
    count = {
        name: len(family.samples) for name, family in families.items() if "_serv" in family.name
    }
    assert count == {
        "hanat_service_up": 1000,
        "hanat_service_servers": 2000,
        "hanat_service_connections": 1000,
        "hanat_service_refused": 2000,
        "hanat_server_weight": 10_000,
        "hanat_server_in_rotation": 10_000,
        "hanat_server_connections": 10_000,
        "hanat_server_datagrams": 0,
        "hanat_server_full": 0,
        "hanat_server_up": 10_000,
        "hanat_server_check_latency_seconds": 9000,
        **{f"hanat_service_{what}": 1000 for what in SUMS},
        **{f"hanat_server_{what}": 10_000 for what in SUMS},
    }
    assert text.count(b"# TYPE hanat_server_weight ") == 1


def test_metrics_of_large_services_are_made_in_slices() -> None:
    """What takes time is a sample, of which a service can have 256 in a family."""
    sizes = (253,) * 79 + (1,) * 79
    services = tuple(
        replace(WEB, name=f"s{n}", servers=tuple(replace(WEB1, name=f"w{k}") for k in range(size)))
        for n, size in enumerate(sizes)
    )
    parts = [f for f in service_families(services) if f.name == "hanat_server_weight"]
    assert max(len(family.samples) for family in parts) <= SAMPLES_MAX
    names = [sample.labels["service"] for family in parts for sample in family.samples]
    assert list(dict.fromkeys(names)) == [service.name for service in services]
    assert len(names) == sum(sizes)


def test_list_of_a_thousand_services_is_made_in_slices(tmp_path: Path) -> None:
    async def ask_all() -> tuple[Answer, int]:
        backend = FakeBackend(shown=VIEWS)
        api = await serve([unix_in(tmp_path)], backend)
        (unix,) = api.listens
        try:
            return await turns_of(ask(unix, "/v1/services"))
        finally:
            await api.close()

    answer, turns = asyncio.run(ask_all())
    assert turns >= 10 * len(VIEWS) / SERVERS_SLICE
    assert len(answer.document["services"]) == len(VIEWS)
    assert len(answer.body) < ANSWER_BYTES_MAX / 2
