"""A backend that says what it is told, and a client for both kinds of socket."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp

from hanat.api.backend import Shown, Wanted
from hanat.config.settings import TcpListen, UnixListen
from hanat.core.check_view import CheckView, ProbeView
from hanat.core.lookup import no_such
from hanat.core.probing import Operational
from hanat.core.rotation import ServiceState
from hanat.core.server_facts import Administrative, Mode, ServerId
from hanat.core.service_view import Condition, ServerView, ServiceView
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
from hanat.core.totals import NOTHING, Figures, Totals
from hanat.errors import NoSuchError

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

WEB1 = ServerView(
    name="web1",
    place="10.11.12.101:8080",
    condition=Condition.SERVING,
    weight=2,
    factor=1.0,
    effective_weight=2,
    share_percent=100.0,
    administrative=Administrative(),
    operational=Operational.UP,
    checks=(
        CheckView(
            "http 10.11.12.101:8080 3f2a9c01",
            Operational.UP,
            for_s=60.0,
            answer="200 OK",
            in_a_row=2,
            decided_by="r1",
            probe=ProbeView(ok=True, answer="200 OK", in_a_row=9, latency_s=0.25, ago_s=1.0),
        ),
    ),
    why="",
    connections=3,
    figures=Figures(
        1_800_000_000, Totals(5, 50, 5000, 40, 100_000), 0.5, has_bytes=True, age_s=0.25
    ),
)
WEB2 = replace(
    WEB1,
    name="web2",
    place="10.11.12.102:8080",
    condition=Condition.DOWN,
    weight=1,
    effective_weight=1,
    share_percent=0.0,
    operational=Operational.DOWN,
    checks=(CheckView("http 10.11.12.102:8080 3f2a9c01", Operational.DOWN, for_s=1.0),),
    why="web/web2 gets no clients: it is down",
    connections=2,
    figures=Figures(None, NOTHING, 0.0, has_bytes=True, age_s=0.25),
)
WEB = ServiceView(
    name="web",
    state=ServiceState.DEGRADED,
    why="web: 1 of 2 servers are healthy (1 down)",
    scheduler="wrr",
    listens=("203.0.113.10 tcp/80",),
    candidates=2,
    healthy=1,
    min_healthy_percent=0,
    servers=(WEB1, WEB2),
    refused={"deny": 7, "new_per_second": 120},
    figures=Figures(
        1_700_000_000, Totals(7, 70, 7000, 60, 1_234_567), 12.34, has_bytes=True, age_s=0.25
    ),
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
SERVER_CHANGES: list[dict[str, Any]] = [{"what": kind} for kind in ("weight", "mode", "verdict")]


@dataclass
class FakeBackend:
    """Answers `current`; a switchover ends with `outcome` and is noted in `asked`.

    What operators make of servers is noted in `made`, and done to the views of `shown`.
    """

    current: NodeStatus = HOLDER
    shown: tuple[ServiceView, ...] = (WEB,)
    made: list[tuple[Any, ...]] = field(default_factory=list)
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

    def server_history(self, limit: int) -> list[dict[str, Any]]:
        return SERVER_CHANGES[-limit:] if limit else []

    def services(self) -> tuple[ServiceView, ...]:
        return self.shown

    def service(self, name: str) -> ServiceView:
        found = next((view for view in self.shown if view.name == name), None)
        if found is None:
            raise NoSuchError(no_such("service", name, [view.name for view in self.shown]))
        return found

    async def administer(
        self, server: ServerId, *, mode: Mode, reason: str, for_s: float | None, by: str
    ) -> ServiceView:
        self.made.append((server, mode, reason, for_s, by))
        record = Administrative(mode, by, reason)
        return self._changed(server, administrative=record)

    async def weigh(self, server: ServerId, factor: float, by: str) -> ServiceView:
        self.made.append((server, factor, by))
        return self._changed(server, factor=factor)

    def _changed(self, server: ServerId, **facts: Any) -> ServiceView:  # noqa: ANN401 of a view
        if isinstance(self.outcome, Exception):
            raise self.outcome
        service = self.service(server.service)
        changed = replace(service.server(server.server), **facts)
        servers = tuple(changed if s.name == changed.name else s for s in service.servers)
        return replace(service, servers=servers)

    async def finish_upgrade(self) -> int:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return 6

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
