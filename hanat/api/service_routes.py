"""``/v1/services``: who gets the clients of each service, and what operators make of a server.

What is asked of one server is JSON: ``{"mode": "drain", "reason": "new kernel", "for": "30m"}``,
or ``{"weight": 0.5}``, a factor on the configured weight. Both become records of the replicated
log with the name of who did it: what the client says in ``by``, else its user's number, and this
node's name. The one who can open the socket may do all this anyway, so the name is not proven.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import struct
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from hanat.api.answers import compact, json_answer, kind_of, read_body
from hanat.api.backend import Backend
from hanat.api.request_errors import BadRequestError
from hanat.config.fields import parse_duration
from hanat.core.server_facts import Mode, ServerId
from hanat.core.service_view import FACTOR_MAX, ServiceView

SLICE: Final = 50  # servers, 3 ms
ORDER_BYTES_MAX: Final = 4096
REASON_CHARS_MAX: Final = 200
BY_CHARS_MAX: Final = 63
FOR_S_MAX: Final = 366 * 86_400.0

_MODES: Final = {mode.value: mode for mode in Mode}
_WANTED: Final = (
    'the body must be {"mode": "ready", "drain" or "maint", "reason": "TEXT", "for": "30m"} '
    'or {"weight": FACTOR}'
)
_CREDENTIALS: Final = struct.Struct("iII")  # pid, uid, gid: unix(7), SO_PEERCRED


@dataclass(frozen=True, slots=True)
class Administer:
    """What an operator wants to make of a server; see `Backend.administer`."""

    mode: Mode
    reason: str
    for_s: float | None
    by: str | None


@dataclass(frozen=True, slots=True)
class Weigh:
    """What part of its weight an operator wants a server to have; see `Backend.weigh`."""

    factor: float
    by: str | None


class ServiceRoutes:
    """The handlers of the paths that begin with ``/v1/services``."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def add_to(self, app: web.Application) -> None:
        """Bind the paths."""
        server = "/v1/services/{service}/servers/{server}"
        app.router.add_get("/v1/services", self._list)
        app.router.add_get("/v1/services/{service}", self._service)
        app.router.add_get(server, self._server)
        app.router.add_post(server, self._change)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        """Answer with all services, without each check."""
        _demand_no_parameters(request)
        await self._backend.refresh()
        views = in_slices(self._backend.services())
        parts = [compact(view.to_document(checks=False)) async for view in views]
        body = f'{{"services":[{",".join(parts)}]}}'.encode()
        return web.Response(status=200, body=body, content_type="application/json")

    async def _service(self, request: web.Request) -> web.StreamResponse:
        _demand_no_parameters(request)
        await self._backend.refresh()
        return json_answer(200, self._backend.service(request.match_info["service"]).to_document())

    async def _server(self, request: web.Request) -> web.StreamResponse:
        _demand_no_parameters(request)
        await self._backend.refresh()
        asked = _server_of(request)
        view = self._backend.service(asked.service).server(asked.server)
        return json_answer(200, {"service": asked.service, **view.to_document()})

    async def _change(self, request: web.Request) -> web.StreamResponse:
        """Do what the body says, answer with the server as it is then."""
        _demand_no_parameters(request)
        asked = _server_of(request)
        order = order_of(await read_body(request, bytes_max=ORDER_BYTES_MAX))
        by = f"{order.by or _user(request)} on {self._backend.status().node}"
        if isinstance(order, Weigh):
            service = await self._backend.weigh(asked, order.factor, by)
        else:
            service = await self._backend.administer(
                asked, mode=order.mode, reason=order.reason, for_s=order.for_s, by=by
            )
        view = service.server(asked.server)
        return json_answer(200, {"service": asked.service, **view.to_document()})


async def in_slices(views: Iterable[ServiceView]) -> AsyncIterator[ServiceView]:
    """Return the same services; the loop turns after every `SLICE` servers."""
    servers = 0
    for view in views:
        yield view
        servers += len(view.servers)
        if servers >= SLICE:
            servers = 0
            await asyncio.sleep(0)


def _server_of(request: web.Request) -> ServerId:
    return ServerId(request.match_info["service"], request.match_info["server"])


def _demand_no_parameters(request: web.Request) -> None:
    if request.query_string:
        raise BadRequestError(f"{request.path[:200]!a} takes no parameters")


def _user(request: web.Request) -> str:
    """Return who is at the other end of a Unix socket; names may need a server to be found."""
    transport = request.transport
    connection = None if transport is None else transport.get_extra_info("socket")
    if connection is None:
        return "somebody"
    option = socket.SO_PEERCRED
    given = connection.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(given)
    return f"uid {uid}"


# ------------------------------------------------------------------------------- orders


def order_of(body: bytes) -> Administer | Weigh:
    """Return what a body asks for.

    Raises:
        BadRequestError: It is anything else; the sentence says what is wrong.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):  # not UTF-8, not JSON, or nested without end
        raise BadRequestError(f"{_WANTED}; it is not JSON") from None
    if not isinstance(document, dict):
        raise BadRequestError(f"{_WANTED}; it is {kind_of(document)}")
    if "mode" in document and "weight" in document:
        raise BadRequestError(f'{_WANTED}; it has both "mode" and "weight"')
    if "weight" in document:
        _demand_known(document, {"weight", "by"})
        return Weigh(_factor(document["weight"]), _by(document))
    _demand_known(document, {"mode", "reason", "for", "by"})
    if "mode" not in document:
        raise BadRequestError(f'{_WANTED}; "mode" is missing')
    mode, for_s = _mode(document["mode"]), _for_s(document.get("for"))
    if mode is Mode.READY and for_s is not None:
        raise BadRequestError(f'{_WANTED}; "for" does not go with "ready", which has no end')
    return Administer(mode, _text(document, "reason", REASON_CHARS_MAX) or "", for_s, _by(document))


def _demand_known(document: dict[str, Any], known: set[str]) -> None:
    if unknown := sorted(document.keys() - known):
        raise BadRequestError(f"{_WANTED}; {unknown[0][:BY_CHARS_MAX]!a} is unknown")


def _mode(value: object) -> Mode:
    if not isinstance(value, str):
        raise BadRequestError(f'{_WANTED}; "mode" is {kind_of(value)}')
    if value not in _MODES:
        raise BadRequestError(f'{_WANTED}; "mode" is {value[:BY_CHARS_MAX]!a}')
    return _MODES[value]


def _for_s(value: object) -> float | None:
    """Return a duration in seconds, None for null."""
    if value is None:
        return None
    try:
        for_s = parse_duration(value)
    except ValueError as error:
        raise BadRequestError(f'{_WANTED}; "for": {error}') from None
    if not 0 < for_s <= FOR_S_MAX:
        raise BadRequestError(f'{_WANTED}; "for" is more than 0 and at most 366 days')
    return for_s


def _factor(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadRequestError(f'{_WANTED}; "weight" is {kind_of(value)}')
    if not 0 <= value <= FACTOR_MAX or not math.isfinite(value):
        raise BadRequestError(
            f'{_WANTED}; "weight" is a factor from 0 to {FACTOR_MAX:g}, 0.5 for half of what is '
            "configured"
        )
    return float(value)


def _by(document: dict[str, Any]) -> str | None:
    return _text(document, "by", BY_CHARS_MAX)


def _text(document: dict[str, Any], key: str, chars_max: int) -> str | None:
    """Return a line of text; None if there is none."""
    value = document.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise BadRequestError(f'{_WANTED}; "{key}" is {kind_of(value)}')
    if len(value) > chars_max or not value.isprintable():
        raise BadRequestError(
            f'{_WANTED}; "{key}" is one line of at most {chars_max} printable characters'
        )
    return value.strip() or None
