"""Answers that grow with the configuration: the loop turns while they are made."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from dataclasses import replace
from typing import TypeVar

from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from hanat.api.answers import SLICE, status_answer
from hanat.api.metrics import SERVICES_SLICE, Metrics
from hanat.core.status import NodeStatus, ServerStatus, ServiceStatus
from tests.api.helpers import HOLDER

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


def test_metrics_of_a_thousand_services_are_made_in_slices() -> None:
    def status() -> NodeStatus:
        return replace(HOLDER, services=MANY)

    async def ask() -> tuple[bytes, int]:
        return await turns_of(Metrics(status).render())

    text, turns = asyncio.run(ask())
    assert turns >= 3 * len(MANY) / SERVICES_SLICE
    families = {f.name: f for f in text_string_to_metric_families(text.decode())}
    assert len(families["hanat_server_weight"].samples) == 10 * len(MANY)
    assert len(families["hanat_service_connections"].samples) == len(MANY)
    assert text.count(b"# TYPE hanat_server_weight ") == 1
