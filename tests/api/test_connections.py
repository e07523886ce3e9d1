"""Connections are looked up by anybody, ended over the Unix socket only."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from hanat.api.backend import Wanted
from hanat.errors import RefusedError
from tests.api.conftest import Served
from tests.api.helpers import ask

CLIENT = ip_address("2001:db8::7")


async def test_everything_is_wanted_by_default(served: Served) -> None:
    answer = await ask(served.unix, "/v1/connections")
    assert answer.status == 200
    assert answer.document == {"count": 1, "connections": [{"service": "web"}]}
    assert served.backend.wanted == [(Wanted(), False)]


async def test_parameters_choose(served: Served) -> None:
    query = "service=web&protocol=tcp&client=2001:db8::7&server=10.0.0.1&limit=5"
    await ask(served.unix, f"/v1/connections?{query}")
    expected = Wanted("web", "tcp", CLIENT, ip_address("10.0.0.1"), 5)
    assert served.backend.wanted == [(expected, False)]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("colour=red", "unknown parameter 'colour'"),
        ("limit=5&limit=6", "'limit' is there twice"),
        ("limit=-1", "limit '-1' is not a number from 0 to 2000"),
        ("limit=2001", "limit '2001' is not a number"),
        ("limit=", "limit '' is not a number"),
        ("limit=%C2%B2", "limit '\\xb2' is not a number"),
        ("client=web1", "client 'web1' is not an IPv4 or IPv6 address"),
        ("server=web1", "names are not looked up"),
        ("protocol=sctp", "protocol 'sctp' is none of tcp, udp"),
        ("x" * 3000, "unknown parameter"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_wrong_parameters_are_refused(
    served: Served, method: str, query: str, sentence: str
) -> None:
    answer = await ask(served.unix, f"/v1/connections?{query}", method=method)
    assert answer.status == 400
    assert sentence in answer.document["error"]
    assert answer.document["exit_code"] == 2
    assert served.backend.wanted == []


async def test_connections_are_ended_over_the_unix_socket(served: Served) -> None:
    answer = await ask(served.unix, "/v1/connections?service=web", method="DELETE")
    assert (answer.status, answer.document) == (200, {"killed": 1})
    assert served.backend.wanted == [(Wanted(service="web"), True)]


async def test_connections_are_not_ended_over_tcp(served: Served) -> None:
    answer = await ask(served.tcp, "/v1/connections", method="DELETE")
    assert answer.status == 403
    assert served.backend.wanted == []


async def test_what_the_backend_refuses_is_said(served: Served) -> None:
    served.backend.outcome = RefusedError("no service 'x'")
    answer = await ask(served.unix, "/v1/connections?service=x")
    assert (answer.status, answer.document["error"]) == (409, "no service 'x'")
