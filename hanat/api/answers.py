"""What the handlers of the API share: who may ask, bodies, answers."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from dataclasses import asdict, replace
from ipaddress import ip_address
from typing import Any, Final

from aiohttp import web

from hanat.api.request_errors import BadRequestError
from hanat.core.status import NodeStatus
from hanat.errors import (
    ConfigError,
    HanatError,
    NoQuorumError,
    NoSuchError,
    OutcomeUnknownError,
    RefusedError,
    StaleRevisionError,
)

BODY_BYTES_MAX: Final = 64 * 1024
BODY_WAIT_S: Final = 5.0
HOST_CHARS_SHOWN: Final = 60
HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?")


# What load balancers and monitors ask; nothing in it tells of addresses or connections of users.
OPEN_PATHS: Final = ("/livez", "/readyz", "/leader", "/standby", "/metrics")
SLICE: Final = 20  # of ten servers each, 2 ms


class RefusedOverTcpError(RefusedError):
    """Something else than health came over TCP, where nobody proves who he is."""

    def __str__(self) -> str:
        return (
            "refused: a TCP address has no authentication and answers "
            f"{', '.join(OPEN_PATHS)}; send the request over the Unix socket of a node"
        )


class StrangeHostError(RefusedError):
    """A request that came over TCP is for a name that is not this node's.

    A page in somebody's browser may let its name stand for our address (DNS rebinding); what
    it then sends carries that name.
    """

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self._host = host[:HOST_CHARS_SHOWN]

    def __str__(self) -> str:
        return (
            f"refused: {self._host!a} is no name of this node; use its address, "
            "or add the name to hosts in [api]"
        )


def demand_open(request: web.Request, names: frozenset[str]) -> None:
    """Refuse what came over TCP and is not for everybody.

    Args:
        request: Any.
        names: Of this node, in lower case; addresses need not be among them.
    """
    transport = request.transport
    connection = None if transport is None else transport.get_extra_info("socket")
    if connection is not None and connection.family == socket.AF_UNIX:
        return
    host = request.headers.get("Host", "")
    if host and not _is_ours(host, names):
        raise StrangeHostError(host)
    if request.path not in OPEN_PATHS:
        raise RefusedOverTcpError


def _is_ours(host: str, names: frozenset[str]) -> bool:
    """Say whether a Host header has an address (which no name server gives away) or our name."""
    match = HOST.fullmatch(host)
    if match is None:
        return False
    name = (match[1] or match[2]).lower().rstrip(".")
    if name in names:
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


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
        case StrangeHostError():
            status = 421  # RFC 9110 section 15.5.20
        case StaleRevisionError():
            status = 412  # RFC 9110 section 13.1.1: If-Match evaluates to false
            more = {"revision": error.current}
        case NoSuchError():
            status = 404
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


def kind_of(value: object) -> str:
    """Name a JSON value's type in JSON's words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"


def error_answer(status: int, sentence: str, *, exit_code: int) -> web.Response:
    """Return the answer for any other error."""
    return json_answer(status, {"error": sentence, "exit_code": exit_code})


def json_answer(status: int, document: dict[str, Any]) -> web.Response:
    """Return a document."""
    return web.Response(
        status=status, body=compact(document).encode(), content_type="application/json"
    )


async def status_answer(status: NodeStatus) -> web.Response:
    """Return a status as JSON; the loop turns after every `SLICE` vips or services.

    A thousand services of ten servers take 100 ms, which is most of a lease.
    """
    document = replace(status, vips=(), services=()).to_document()
    parts = []
    for key, items in (("vips", status.vips), ("services", status.services)):
        del document[key]
        texts: list[str] = []
        for first in range(0, len(items), SLICE):
            texts += (compact(asdict(item)) for item in items[first : first + SLICE])
            await asyncio.sleep(0)
        parts.append(f'"{key}":[{",".join(texts)}]')
    body = f"{compact(document)[:-1]},{','.join(parts)}}}".encode()
    return web.Response(status=200, body=body, content_type="application/json")


def compact(document: dict[str, Any]) -> str:
    """Return a document as text, without spaces."""
    return json.dumps(document, separators=(",", ":"))
