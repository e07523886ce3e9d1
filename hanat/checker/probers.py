"""Make one probe, of any kind, and say how it ended.

Whatever a server, a script or a library does, a probe ends within its timeout and becomes a
`Reply`. The libraries of a kind are loaded when a target of that kind is configured: without
HTTP checks a checker has a third of the memory.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from hanat.checker import plain, tls
from hanat.checker.attempt import Attempt, ProbeError, describe
from hanat.checker.scripts import ScriptProber
from hanat.core.checks import (
    AgentCheck,
    DnsCheck,
    HttpCheck,
    PingCheck,
    ScriptCheck,
    Target,
    TcpCheck,
    TlsCheck,
    UdpCheck,
)
from hanat.core.probing import Reply

if TYPE_CHECKING:
    from hanat.checker.http import HttpProber


class Probers:
    """Makes probes.

    Args:
        scripts: Runs those of kind `script`.
    """

    def __init__(self, scripts: ScriptProber) -> None:
        self._scripts = scripts
        self._http: HttpProber | None = None

    def prepare(self, targets: Iterable[Target]) -> None:
        """Load what these targets need: it would take time from the first probes."""
        kinds = {type(target.kind) for target in targets}
        if HttpCheck in kinds:
            self._load_http()
        if DnsCheck in kinds:
            importlib.import_module("hanat.checker.dns")

    async def close(self) -> None:
        """Release what the libraries have."""
        if self._http is not None:
            await self._http.close()

    async def probe(self, target: Target, timeout_s: float) -> Reply:
        """Make one probe; never raises but when cancelled."""
        attempt = Attempt(target, timeout_s)
        started_at = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._make(attempt)
        except TimeoutError:
            reply = attempt.timed_out()
        except ProbeError as error:
            reply = Reply(ok=False, answer=str(error))
        except Exception as error:  # noqa: BLE001 - what a server sends must end no checker
            reply = Reply(ok=False, answer=describe(error))
        return replace(reply, latency_s=time.monotonic() - started_at)

    async def _make(self, attempt: Attempt) -> Reply:  # noqa: PLR0911 - one for each kind
        match attempt.target.kind:
            case TcpCheck() as check:
                return await plain.probe_tcp(attempt, check)
            case UdpCheck() as check:
                return await plain.probe_udp(attempt, check)
            case TlsCheck() as check:
                return await tls.probe_tls(attempt, check)
            case HttpCheck() as check:
                return await self._load_http().probe(attempt, check)
            case DnsCheck() as check:
                from hanat.checker.dns import probe_dns

                return await probe_dns(attempt, check)
            case PingCheck() as check:
                return await plain.probe_ping(attempt, check)
            case ScriptCheck() as check:
                return await self._scripts.probe(attempt, check)
            case AgentCheck() as check:
                return await plain.probe_agent(attempt, check)

    def _load_http(self) -> HttpProber:
        if self._http is None:
            from hanat.checker.http import HttpProber

            self._http = HttpProber()
        return self._http
