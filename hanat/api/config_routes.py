"""``/v1/config``: the replicated configuration, as text with its revision as ETag.

A change names the revision it is based on (RFC 9110, section 13.1.1, ``If-Match``), so
that nobody overwrites what he has not seen.
"""

from __future__ import annotations

import re
from typing import Final

from aiohttp import web

from hanat.api.answers import json_answer, read_body
from hanat.api.backend import Backend
from hanat.api.request_errors import BadRequestError
from hanat.config.document import TEXT_BYTES_MAX

TEXT_TYPE: Final = "application/toml"
_REVISION = re.compile(r'"(\d{1,18})"')
_NO_ETAG = 'say which revision this is based on, the ETag of GET /v1/config: If-Match: "REVISION"'


class ConfigurationRoutes:
    """The handlers of one path."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def add_to(self, app: web.Application) -> None:
        """Bind the path."""
        app.router.add_get("/v1/config", self._show)
        app.router.add_put("/v1/config", self._change)

    async def _show(self, request: web.Request) -> web.StreamResponse:
        """Answer with the text, or as JSON, for who asks for that, with who has it in force."""
        shown = self._backend.configuration()
        if "application/json" in request.headers.get("Accept", ""):
            document = {
                "revision": shown.revision,
                "profile_in_force": shown.profile,
                "nodes": list(shown.nodes),
                "text": shown.text,
            }
            answer = json_answer(200, document)
        else:
            answer = web.Response(text=shown.text, content_type=TEXT_TYPE, charset="utf-8")
        answer.headers["ETag"] = f'"{shown.revision}"'
        answer.headers["Vary"] = "Accept"
        return answer

    async def _change(self, request: web.Request) -> web.StreamResponse:
        dry_run, force = _flags(request)
        based_on = _based_on(request)
        body = await read_body(request, bytes_max=TEXT_BYTES_MAX)
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            sentence = f"the body must be a cluster file in UTF-8; byte {error.start} is none of it"
            raise BadRequestError(sentence) from None
        outcome = await self._backend.change(text, based_on, dry_run=dry_run, force=force)
        answer = json_answer(200, outcome)
        answer.headers["ETag"] = f'"{outcome["revision"]}"'
        return answer


def _based_on(request: web.Request) -> int:
    given = request.headers.get("If-Match")
    if given is None:
        raise BadRequestError(_NO_ETAG, status=428)  # RFC 6585 section 3
    found = _REVISION.fullmatch(given.strip())
    if found is None:
        raise BadRequestError(f"{_NO_ETAG}; it is {given[:80]!a}")
    return int(found[1])


def _flags(request: web.Request) -> tuple[bool, bool]:
    """Return whether it is a dry run, and whether it is forced."""
    values = {"true": True, "false": False}
    found = {"dry_run": False, "force": False}
    given = list(request.query.items())
    known = all(name in found and value in values for name, value in given)
    if not known or len(dict(given)) < len(given):
        raise BadRequestError("the only parameters are dry_run and force, each true or false")
    found |= {name: values[value] for name, value in given}
    return found["dry_run"], found["force"]
