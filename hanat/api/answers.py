"""What the handlers of the API share: who may write, bodies, answers."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, Final

from aiohttp import web

from hanat.api.errors import BadRequestError
from hanat.errors import (
    ConfigError,
    HanatError,
    NoQuorumError,
    OutcomeUnknownError,
    RefusedError,
    StaleRevisionError,
)

BODY_BYTES_MAX: Final = 64 * 1024
BODY_WAIT_S: Final = 5.0


class RefusedOverTcpError(RefusedError):
    """A write came over TCP, where nobody proves who he is."""

    def __str__(self) -> str:
        return (
            "not changed: this TCP address has no authentication and is read-only; "
            "send the request over the Unix socket of a node"
        )


def demand_unix_socket(request: web.Request) -> None:
    """Refuse a request that came over TCP."""
    transport = request.transport
    connection = None if transport is None else transport.get_extra_info("socket")
    if connection is None or connection.family != socket.AF_UNIX:
        raise RefusedOverTcpError


async def read_body(request: web.Request, *, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """Return the body of a request.

    Raises:
        BadRequestError: It is too large, or slow.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WAIT_S):
            while part := await request.content.readany():
                body += part
                if len(body) > bytes_max:
                    sentence = f"the body is larger than {bytes_max} bytes"
                    raise BadRequestError(sentence, status=413)
    except TimeoutError:
        sentence = f"the body did not arrive within {BODY_WAIT_S:g} s"
        raise BadRequestError(sentence, status=408) from None
    return bytes(body)


def refusal_of(error: HanatError) -> web.Response:
    """Return the answer for what hanat refused."""
    more: dict[str, Any] = {}
    match error:
        case RefusedOverTcpError():
            status = 403
        case StaleRevisionError():
            status = 412  # RFC 9110 section 13.1.1: If-Match evaluates to false
            more = {"revision": error.current}
        case RefusedError():
            status = 409
        case ConfigError(problems=problems):
            status = 422
            more = {"problems": [{"path": p.path, "text": p.text} for p in problems]}
        case NoQuorumError():
            status = 503
        case OutcomeUnknownError():
            status = 504
        case _:
            status = 500
    return json_answer(status, {"error": str(error), "exit_code": error.exit_code, **more})


def error_answer(status: int, sentence: str, *, exit_code: int) -> web.Response:
    """Return the answer for any other error."""
    return json_answer(status, {"error": sentence, "exit_code": exit_code})


def json_answer(status: int, document: dict[str, Any]) -> web.Response:
    """Return a document."""
    body = json.dumps(document, separators=(",", ":")).encode()
    return web.Response(status=status, body=body, content_type="application/json")
