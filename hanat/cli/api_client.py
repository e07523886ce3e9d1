"""Ask a node over its API, with nothing but the standard library."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any

import click

from hanat.cli.command_errors import CommandError
from hanat.errors import EXIT_FAILED

API_DEFAULT = "unix:/run/hanat/api.sock"
ANSWER_BYTES_MAX = 16 << 20
EXIT_CODE_MAX = 125  # shells use the codes above themselves

api_option = click.option(
    "--api",
    envvar="HANAT_API",
    default=API_DEFAULT,
    show_default=True,
    show_envvar=True,
    metavar="unix:/PATH|HOST:PORT",
    help="Where the node listens.",
)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, *, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def request(
    api: str,
    method: str,
    path: str,
    *,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float,
) -> Any:  # noqa: ANN401  JSON
    """Send a request and return the answer's JSON.

    Args:
        api: ``unix:/path``, ``host:port`` or ``[v6]:port``.
        method: ``GET``, ``POST``, ``PUT`` or ``DELETE``.
        path: Of the API, ``/v1/status``.
        body: Sent as JSON, bytes as they are; None sends no body.
        headers: More than the usual ones.
        timeout_s: For connecting and for each wait on the socket.

    Raises:
        CommandError: Nobody answers, the answer makes no sense, or it is an error; then with
            the exit code that the API gives.
    """
    connection = _connection(api, timeout_s=timeout_s)
    sent = {"Accept": "application/json", **(headers or {})}
    content = None
    if isinstance(body, bytes):
        content = body
    elif body is not None:
        content = json.dumps(body).encode()
        sent["Content-Type"] = "application/json"
    try:
        connection.request(method, path, body=content, headers=sent)
        answer = connection.getresponse()
        status, text = answer.status, answer.read(ANSWER_BYTES_MAX)
    except TimeoutError:
        raise CommandError(f"asked {api}: no answer within {timeout_s:g} s") from None
    except OSError as error:
        raise CommandError(_unreachable(api, error)) from None
    except http.client.HTTPException as error:
        found = f"{type(error).__name__} {error}".strip()
        raise CommandError(f"asked {api}: the answer is not HTTP ({found})") from None
    finally:
        connection.close()
    return _document(api, status, text)


def _connection(api: str, *, timeout_s: float) -> http.client.HTTPConnection:
    if api.startswith("unix:") or api.startswith("/"):
        return _UnixConnection(api.removeprefix("unix:"), timeout_s=timeout_s)
    host, _, port = api.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    plausible = host.isascii() and host.isprintable() and " " not in host
    if not host or not plausible or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise click.BadParameter(
            f'"{api}" is neither "unix:/path" nor "host:port"', param_hint="--api"
        )
    if ":" in host and not bracketed:
        raise click.BadParameter(
            f'"{api}": write an IPv6 address in brackets, "[::1]:7480"', param_hint="--api"
        )
    return http.client.HTTPConnection(host.strip("[]"), int(port), timeout=timeout_s)


def _unreachable(api: str, error: OSError) -> str:
    found = error.strerror or str(error)
    match error:
        case FileNotFoundError():
            hint = 'is hanat running? "hanat run" makes this socket; --api names another'
        case ConnectionRefusedError():
            hint = "is hanat running? nobody listens there"
        case PermissionError():
            hint = "run as root or join the group of the socket"
        case _:
            hint = "is hanat running, and is this the address in api.listen?"
    return f"cannot connect to {api}: {found}; {hint}"


def _document(api: str, status: int, text: bytes) -> Any:  # noqa: ANN401  JSON
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise CommandError(f"asked {api}: answer {status} is not JSON") from None
    if status < 400:
        return document
    if not isinstance(document, dict) or not isinstance(document.get("error"), str):
        raise CommandError(f"asked {api}: answer {status} without an error text")
    code = document.get("exit_code")
    if not isinstance(code, int) or isinstance(code, bool) or not 0 < code <= EXIT_CODE_MAX:
        code = EXIT_FAILED
    raise CommandError(document["error"], code)
