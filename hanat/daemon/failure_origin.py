"""Tell whose failure it is that the event loop reports.

An exception that nobody expected in the node's own code ends the node: it fences rather
than guesses. The API shares the loop, and whoever reaches it chooses what its library has
to parse. So a failure that passed no code of hanat but the API's is the API's: it is
logged and counted, and the node goes on.

The traceback tells it, not the task or its context: a turn of the node that the API woke
would inherit the context, and hide its failures behind the API for ever.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Mapping
from types import CoroutineType

from hanat.stderr_log import COMPLAINTS

complaints = logging.getLogger(COMPLAINTS)

_API = ("hanat.api", "aiohttp")


def _is_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def failure_of_node(context: Mapping[str, object]) -> BaseException | None:
    """Return the failure if it is the node's own; else complain of it and return None.

    Args:
        context: What the loop tells its exception handler.
    """
    error, message = context.get("exception"), str(context.get("message"))
    if not _ends_the_node(context):
        complaints.error("loop found=%r", f"{message}: {error!r}")
        return None
    return error if isinstance(error, BaseException) else RuntimeError(message)


def _ends_the_node(context: Mapping[str, object]) -> bool:
    error = context.get("exception")
    if not isinstance(error, BaseException):
        return not any(_is_in(module, _API) for module in _named(context))
    modules = [
        str(frame.f_globals.get("__name__", ""))
        for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    if any(_is_in(module, ("hanat",)) and not _is_in(module, _API) for module in modules):
        return True
    if any(_is_in(module, _API) for module in modules):
        return False
    # accept(2) passes on errors of the network; asyncio itself calls it.
    in_the_loop = bool(modules) and all(_is_in(module, ("asyncio", "socket")) for module in modules)
    return not (isinstance(error, OSError) and in_the_loop)


def _named(context: Mapping[str, object]) -> Iterator[str]:
    """Yield the modules of whatever a context without an exception names."""
    for key in ("protocol", "transport"):
        if context.get(key) is not None:
            yield type(context[key]).__module__
    for key in ("task", "future"):
        get_coro = getattr(context.get(key), "get_coro", None)
        coro = get_coro() if get_coro is not None else None
        if isinstance(coro, CoroutineType) and coro.cr_frame is not None:
            yield str(coro.cr_frame.f_globals.get("__name__", ""))
