"""What each path answers.

Everything that does not write reads one snapshot and renders it; where flows are
counted, the flow worker is asked first, and nothing waits for it for long.
Requests are rendered one per turn of the event loop: thirty scrapes arriving
together must not stand between the daemon and the renewal of its lease, so what
a burst costs the others is one rendering, not thirty.

Every answer that is not a document is JSON with an ``error``, a sentence, and an
``exit_code``, what a command that shows it ends with (`hanat.errors`). There is
no authentication yet, hence over TCP only health and metrics are told; for anything
else one must be able to open the Unix socket.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from hanat.api.answers import (
    BODY_BYTES_MAX,
    demand_open,
    error_answer,
    json_answer,
    kind_of,
    read_body,
    refusal_of,
    status_answer,
)
from hanat.api.backend import Backend
from hanat.api.config_routes import ConfigurationRoutes
from hanat.api.metrics import CONTENT_TYPE, Metrics
from hanat.api.parameters import limit_of, wanted_of
from hanat.api.request_errors import BadRequestError
from hanat.api.service_routes import ServiceRoutes
from hanat.core.status import NodeStatus, Role
from hanat.errors import EXIT_FAILED, EXIT_USAGE, HanatError

NAME_CHARS_MAX: Final = 255

_COMPLAINTS = logging.getLogger("hanat.complaints")


class Routes:
    """The handlers of one server over one backend."""

    def __init__(self, backend: Backend, names: frozenset[str]) -> None:
        self._backend, self._names = backend, names
        self._metrics = Metrics(backend.status, backend.services)
        self._turn = asyncio.Lock()

    def application(self) -> web.Application:
        """Return the application with every path bound to its handler."""
        app = web.Application(middlewares=[self._answer], client_max_size=BODY_BYTES_MAX)
        app.router.add_get("/v1/status", self._status)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/leader", self._leader)
        app.router.add_get("/standby", self._standby)
        app.router.add_get("/metrics", self._render_metrics)
        app.router.add_post("/v1/switchover", self._switchover)
        app.router.add_post("/v1/cluster/finish-upgrade", self._finish_upgrade)
        app.router.add_get("/v1/history", self._history)
        ConfigurationRoutes(self._backend).add_to(app)
        ServiceRoutes(self._backend).add_to(app)
        app.router.add_get("/v1/connections", self._connections, allow_head=False)
        app.router.add_delete("/v1/connections", self._kill)
        return app

    @web.middleware
    async def _answer(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Turn whatever a handler raises into JSON; end the connection after the answer."""
        try:
            demand_open(request, self._names)
            if request.method == "GET" and request.path != "/v1/connections":
                # The lock is handed on, and everybody else gets the loop in between.
                async with self._turn:
                    response = await handler(request)
                    await asyncio.sleep(0)
            else:
                response = await handler(request)
        except web.HTTPException as error:
            response = _http_error(request, error)
        except BadRequestError as error:
            response = error_answer(error.status, str(error), exit_code=EXIT_USAGE)
        except HanatError as error:
            response = refusal_of(error)
        except Exception:  # noqa: BLE001  the top of a task
            _COMPLAINTS.exception("api method=%s path=%.80r", request.method, request.path)
            response = error_answer(
                500, "internal error; the log of hanat has it", exit_code=EXIT_FAILED
            )
        # One request per connection: a client cannot queue up work ahead of others.
        response.force_close()
        return response

    async def _status(self, _request: web.Request) -> web.StreamResponse:
        await self._backend.refresh()
        return await status_answer(self._backend.status())

    async def _connections(self, request: web.Request) -> web.StreamResponse:
        found = await self._backend.connections(wanted_of(request.url), kill=False)
        return json_answer(200, found)

    async def _kill(self, request: web.Request) -> web.StreamResponse:
        found = await self._backend.connections(wanted_of(request.url), kill=True)
        return json_answer(200, {"killed": found["count"]})

    async def _history(self, request: web.Request) -> web.StreamResponse:
        limit = limit_of(request.url)
        events, servers = self._backend.history(limit), self._backend.server_history(limit)
        return json_answer(200, {"events": events, "servers": servers})

    async def _livez(self, _request: web.Request) -> web.StreamResponse:
        return json_answer(200, {"alive": True})

    async def _readyz(self, _request: web.Request) -> web.StreamResponse:
        reasons = _not_ready(self._backend.status())
        return json_answer(503 if reasons else 200, {"ready": not reasons, "reasons": reasons})

    async def _leader(self, _request: web.Request) -> web.StreamResponse:
        status = self._backend.status()
        return json_answer(200 if status.role is Role.ACTIVE else 503, _who(status))

    async def _standby(self, _request: web.Request) -> web.StreamResponse:
        status = self._backend.status()
        reasons = _not_ready(status)
        if status.role is not Role.BACKUP:
            reasons = [f"{status.node} is {status.role.value}", *reasons]
        return json_answer(503 if reasons else 200, {**_who(status), "reasons": reasons})

    async def _render_metrics(self, _request: web.Request) -> web.StreamResponse:
        await self._backend.refresh()
        return web.Response(
            body=await self._metrics.render(), headers={"Content-Type": CONTENT_TYPE}
        )

    async def _switchover(self, request: web.Request) -> web.StreamResponse:
        to = _switchover_target(await read_body(request))
        return json_answer(200, {"holder": await self._backend.switchover(to)})

    async def _finish_upgrade(self, request: web.Request) -> web.StreamResponse:
        await read_body(request)
        return json_answer(200, {"level": await self._backend.finish_upgrade()})


def _not_ready(status: NodeStatus) -> list[str]:
    """Why this node cannot take part, empty when it can."""
    checks = (
        (status.quorum, "not in a quorum: less than a majority of the nodes is connected"),
        (status.leader is not None, "no leader known"),
        (status.revision >= 1, "no configuration in force yet"),
    )
    return [reason for fine, reason in checks if not fine]


def _who(status: NodeStatus) -> dict[str, Any]:
    return {
        "node": status.node,
        "role": status.role.value,
        "holder": status.holder,
        "leader": status.leader,
        "term": status.term,
    }


def _switchover_target(body: bytes) -> str | None:
    """Return the wanted holder from ``{"to": NAME or null}``.

    Raises:
        BadRequestError: The body is anything else.
    """
    wanted = 'the body must be {"to": "NAME"} or {"to": null}'
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):  # not UTF-8, not JSON, or nested without end
        raise BadRequestError(f"{wanted}; it is not JSON") from None
    if not isinstance(document, dict):
        raise BadRequestError(f"{wanted}; it is {kind_of(document)}")
    if unknown := sorted(document.keys() - {"to"}):
        raise BadRequestError(f"{wanted}; {unknown[0][:NAME_CHARS_MAX]!a} is unknown")
    if "to" not in document:
        raise BadRequestError(f'{wanted}; "to" is missing')
    to = document["to"]
    if to is None:
        return None
    if not isinstance(to, str):
        raise BadRequestError(f'{wanted}; "to" is {kind_of(to)}')
    if not 0 < len(to) <= NAME_CHARS_MAX or not to.isprintable():
        raise BadRequestError(f"{wanted}; {to[:NAME_CHARS_MAX]!a} is not the name of a node")
    return to


def _http_error(request: web.Request, error: web.HTTPException) -> web.Response:
    """Say in our form what aiohttp refused."""
    match error:
        case web.HTTPNotFound():
            sentence = f"there is no {request.path!r} here"
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            sentence = f"{request.method} is not possible on {request.path!r}, only {allowed}"
        case _:
            sentence = error.reason
    response = error_answer(error.status, sentence, exit_code=EXIT_USAGE)
    if isinstance(error, web.HTTPMethodNotAllowed):
        response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
    return response
