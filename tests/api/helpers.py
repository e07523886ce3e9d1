"""A backend that says what it is told, and a client for both kinds of socket."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp

from hanat.api.ports import Shown, Wanted
from hanat.config.settings import TcpListen, UnixListen
from hanat.core.status import (
    FlowStatus,
    HistogramStatus,
    LogStatus,
    NodeStatus,
    PeerStatus,
    RefusedStatus,
    Role,
    ServerStatus,
    ServiceStatus,
    VipStatus,
)

HOLDER = NodeStatus(
    node="r1",
    node_id=1,
    cluster="edge1",
    version="0.1.0",
    profile="default",
    lease_s=0.1,
    role=Role.ACTIVE,
    role_s=12.5,
    reason="elected",
    term=7,
    leader="r1",
    holder="r1",
    quorum=True,
    lease_left_s=0.75,
    unsafe=(),
    hindrances=(),
    revision=3,
    uptime_s=99.0,
    vips=(
        VipStatus("public", "203.0.113.10/24", "eth0", held=True),
        VipStatus("private", "10.11.12.1/24", "eth1", held=True),
    ),
    peers=(
        PeerStatus("r2", 2, connected=True, heard_s=0.05, address="203.0.113.12"),
        PeerStatus("r3", 3, connected=False, heard_s=None, address=None),
    ),
    services=(
        ServiceStatus(
            "web",
            ("public tcp/80",),
            "wrr",
            5,
            (
                ServerStatus("web1", "10.11.12.101:8080", 2, 3),
                ServerStatus("web2", "10.11.12.102:8080", 1, 2),
            ),
        ),
    ),
    flows=FlowStatus(
        captured=100,
        committed=90,
        pending=10,
        installed=40,
        clashed=1,
        failed=2,
        dropped=3,
        overruns=4,
        lag_s=0.02,
        kernel_entries=123,
    ),
    log=LogStatus(commit_index=55, applied_index=54, last_index=56),
    late=HistogramStatus(max_s=0.25, sum_s=0.5, bounds_s=(0.001, 0.1), counts=(7, 2, 1)),
    commits=HistogramStatus(max_s=0.02, sum_s=0.1, bounds_s=(0.005,), counts=(99, 1)),
    refused=RefusedStatus(raft=5, mesh=6),
    transitions=(("elected", 2), ("lease_expired", 1)),
    restored=8,
    repairs=(("ruleset", 3),),
)

BACKUP = replace(
    HOLDER,
    node="r2",
    node_id=2,
    role=Role.BACKUP,
    lease_left_s=None,
    vips=tuple(replace(vip, held=False) for vip in HOLDER.vips),
    flows=FlowStatus(),
)


SHOWN = Shown(
    revision=3,
    text="# Grüße\nschema = 1\n",
    profile="default",
    nodes=({"node": "r1", "revision": 3, "state": "in force"},),
)


EVENTS: list[dict[str, Any]] = [{"term": term, "what": "took over"} for term in (1, 2, 3)]


@dataclass
class FakeBackend:
    """Answers `current`; a switchover ends with `outcome` and is noted in `asked`."""

    current: NodeStatus = HOLDER
    outcome: str | Exception = "r2"
    asked: list[str | None] = field(default_factory=list)
    wanted: list[tuple[Wanted, bool]] = field(default_factory=list)
    changes: list[tuple[str, int, bool]] = field(default_factory=list)

    def status(self) -> NodeStatus:
        return self.current

    async def refresh(self) -> None:
        await asyncio.sleep(0)

    async def connections(self, wanted: Wanted, *, kill: bool) -> dict[str, Any]:
        self.wanted.append((wanted, kill))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return {"count": 1, "connections": [{"service": "web"}]}

    def configuration(self) -> Shown:
        return SHOWN

    async def change(
        self, text: str, based_on: int, *, dry_run: bool, force: bool = False
    ) -> dict[str, Any]:
        self.changes.append((text, based_on, dry_run))
        self.forced = force
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return {"revision": based_on + (not dry_run), "changes": ["+ service web: ..."]}

    def history(self, limit: int) -> list[dict[str, Any]]:
        return EVENTS[-limit:] if limit else []

    async def switchover(self, to: str | None) -> str:
        self.asked.append(to)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: str
    headers: dict[str, str]

    @property
    def document(self) -> Any:  # noqa: ANN401  JSON is anything
        return json.loads(self.body)


async def ask(
    where: UnixListen | TcpListen,
    path: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """Make one request and return the whole answer."""
    if isinstance(where, UnixListen):
        connector: aiohttp.BaseConnector = aiohttp.UnixConnector(str(where.path))
        base = "http://hanat"
    else:
        connector = aiohttp.TCPConnector()
        base = f"http://{where.host}:{where.port}"
    content = None if body is None else BytesIO(body)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, base + path, data=content, headers=headers) as response,
    ):
        return Answer(response.status, await response.text(), dict(response.headers))


async def send_raw(where: TcpListen, data: bytes) -> bytes:
    """Send bytes, return what comes back until the server closes."""
    reader, writer = await asyncio.open_connection(where.host, where.port)
    try:
        writer.write(data)
        return await reader.read()
    finally:
        writer.close()


def unix_in(folder: Path) -> UnixListen:
    return UnixListen(folder / "api.sock")
