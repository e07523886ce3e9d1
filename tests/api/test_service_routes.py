"""``/v1/services``: what is shown, and what operators make of servers."""

from __future__ import annotations

import os
from typing import Any

import pytest

from hanat.core.server_facts import Mode, ServerId
from hanat.errors import NoQuorumError, RefusedError
from tests.api.conftest import Served
from tests.api.helpers import WEB, WEB1, Answer, ask

PATH = "/v1/services/web/servers/web1"
WEB1_ID = ServerId("web", "web1")
WANTED = 'the body must be {"mode": "ready", "drain" or "maint", '


async def post(served: Served, body: bytes, path: str = PATH) -> Answer:
    return await ask(served.unix, path, method="POST", body=body)


async def test_list_has_all_services_without_each_check(served: Served) -> None:
    answer = await ask(served.unix, "/v1/services")
    assert answer.status == 200
    assert answer.document == {"services": [WEB.to_document(checks=False)]}
    assert answer.document["services"][0]["state"] == "degraded"
    assert "checks" not in answer.document["services"][0]["servers"][0]["operational"]


async def test_service_and_server_have_each_check(served: Served) -> None:
    answer = await ask(served.unix, "/v1/services/web")
    assert (answer.status, answer.document) == (200, WEB.to_document())
    answer = await ask(served.unix, PATH)
    assert answer.document == {"service": "web", **WEB1.to_document()}
    assert answer.document["operational"]["checks"][0]["answer"] == "200 OK"


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/v1/services/wbe", "no service 'wbe'; the nearest name is web; there are web"),
        ("/v1/services/%C3%A9", "no service '\\xe9'; there are web"),
        ("/v1/services/" + "x" * 200, f"no service '{'x' * 63}'; there are web"),
        ("/v1/services/web%2Fweb1", "no service 'web/web1'; there are web"),
        ("/v1/services/web/servers/web3", "no server of web 'web3'; the nearest name is web2"),
        ("/v1/services/x/servers/web1", "no service 'x'; there are web"),
    ],
)
async def test_what_is_not_there_is_404_with_what_is(
    served: Served, path: str, sentence: str
) -> None:
    answer = await ask(served.unix, path)
    assert (answer.status, answer.document["exit_code"]) == (404, 4)
    assert answer.document["error"].startswith(sentence)
    answer = await post(served, b'{"mode": "drain"}', path)
    assert answer.status == (404 if "/servers/" in path else 405)


@pytest.mark.parametrize("path", ["/v1/services", "/v1/services/web", PATH])
async def test_there_are_no_parameters(served: Served, path: str) -> None:
    answer = await ask(served.unix, f"{path}?limit=1")
    assert (answer.status, answer.document["exit_code"]) == (400, 2)
    assert "takes no parameters" in answer.document["error"]


@pytest.mark.parametrize("path", ["/v1/services", "/v1/services/web", PATH])
async def test_over_tcp_no_server_is_drained(served: Served, path: str) -> None:
    answer = await ask(served.tcp, path, method="POST", body=b'{"mode": "drain"}')
    assert (answer.status, answer.document["exit_code"]) == (403, 4)
    assert served.backend.made == []


# ------------------------------------------------------------------------------- orders


@pytest.mark.parametrize(
    ("body", "made"),
    [
        (
            b'{"mode": "drain", "reason": "new kernel", "for": "30m", "by": "alice"}',
            (Mode.DRAIN, "new kernel", 1800.0, "alice on r1"),
        ),
        (b'{"mode": "ready", "by": "bob"}', (Mode.READY, "", None, "bob on r1")),
        (
            b'{"mode": "maint", "for": null, "reason": null, "by": "bob"}',
            (Mode.MAINT, "", None, "bob on r1"),
        ),
        (b'{"weight": 0.5, "by": "carol"}', (0.5, "carol on r1")),
        (b'{"weight": 0, "by": "carol"}', (0.0, "carol on r1")),
        (b'{"weight": 10, "by": "carol"}', (10.0, "carol on r1")),
    ],
)
async def test_order_is_handed_on_and_answered_with_the_server(
    served: Served, body: bytes, made: tuple[Any, ...]
) -> None:
    answer = await post(served, body)
    assert answer.status == 200
    assert served.backend.made == [(WEB1_ID, *made)]
    assert (answer.document["service"], answer.document["name"]) == ("web", "web1")
    if isinstance(made[0], Mode):
        assert answer.document["administrative"]["mode"] == made[0].value
        assert answer.document["administrative"]["by"] == made[-1]
    else:
        assert answer.document["runtime"]["factor"] == made[0]


@pytest.mark.parametrize("body", [b'{"mode": "drain"}', b'{"mode": "drain", "by": " "}'])
async def test_client_that_says_no_name_is_known_by_its_user(served: Served, body: bytes) -> None:
    await post(served, body)
    assert served.backend.made == [(WEB1_ID, Mode.DRAIN, "", None, f"uid {os.getuid()} on r1")]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"", "it is not JSON"),
        (b"{", "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
        (b"[" * 4000, "it is not JSON"),
        (b"null", "it is null"),
        (b'"drain"', "it is a string"),
        (b"[]", "it is a list"),
        (b"{}", '"mode" is missing'),
        (b'{"reason": "x"}', '"mode" is missing'),
        (b'{"mode": "drain", "weight": 1}', 'it has both "mode" and "weight"'),
        (b'{"mode": "drain", "until": 1}', "'until' is unknown"),
        (b'{"weight": 1, "reason": "x"}', "'reason' is unknown"),
        (b'{"\\ud800": 1}', "'\\ud800' is unknown"),
        (b'{"mode": "off"}', "\"mode\" is 'off'"),
        (b'{"mode": null}', '"mode" is null'),
        (b'{"mode": ["drain"]}', '"mode" is a list'),
        (b'{"mode": "drain", "reason": 1}', '"reason" is a number'),
        (b'{"mode": "drain", "reason": "a\\nb"}', '"reason" is one line of at most 200 printable'),
        (b'{"mode": "drain", "reason": "%s"}' % (b"x" * 201), '"reason" is one line of at most'),
        (b'{"mode": "drain", "by": "%s"}' % (b"x" * 64), '"by" is one line of at most 63'),
        (b'{"mode": "drain", "by": true}', '"by" is true or false'),
        (b'{"mode": "drain", "for": 30}', '"for": a duration carries its unit'),
        (b'{"mode": "drain", "for": "soon"}', '"for": "soon" is not a duration'),
        (b'{"mode": "drain", "for": "0s"}', '"for" is more than 0 and at most 366 days'),
        (b'{"mode": "drain", "for": "999999h"}', '"for" is more than 0 and at most 366 days'),
        (b'{"mode": "ready", "for": "1m"}', '"for" does not go with "ready"'),
        (b'{"weight": "50%"}', '"weight" is a string'),
        (b'{"weight": true}', '"weight" is true or false'),
        (b'{"weight": null}', '"weight" is null'),
        (b'{"weight": -0.1}', '"weight" is a factor from 0 to 10'),
        (b'{"weight": 50}', '"weight" is a factor from 0 to 10, 0.5 for half'),
        (b'{"weight": NaN}', '"weight" is a factor from 0 to 10'),
        (b'{"weight": 1e999}', '"weight" is a factor from 0 to 10'),
        (b'{"weight": 1%s}' % (b"0" * 4000), '"weight" is a factor from 0 to 10'),
    ],
    ids=lambda value: repr(value[:30]),
)
async def test_body_of_another_form_is_refused_and_nothing_done(
    served: Served, body: bytes, found: str
) -> None:
    answer = await post(served, body)
    assert (answer.status, answer.document["exit_code"]) == (400, 2)
    assert answer.document["error"].startswith(WANTED)
    assert f"; {found}" in answer.document["error"]
    assert served.backend.made == []


async def test_body_of_more_than_4_kib_is_refused(served: Served) -> None:
    answer = await post(served, b'{"mode": "drain"}' + b" " * 4096)
    assert (answer.status, answer.document["exit_code"]) == (413, 2)
    assert served.backend.made == []


@pytest.mark.parametrize("body", [b'{"mode": "drain"}', b'{"weight": 1}'])
@pytest.mark.parametrize(
    ("outcome", "status", "exit_code"),
    [
        (RefusedError("r2 is the leader, ask there"), 409, 4),
        (NoQuorumError("no majority within 2 s"), 503, 3),
    ],
)
async def test_what_the_backend_refuses_comes_back_as_its_sentence(
    served: Served, body: bytes, outcome: Exception, status: int, exit_code: int
) -> None:
    served.backend.outcome = outcome
    answer = await post(served, body)
    assert answer.status == status
    assert answer.document == {"error": str(outcome), "exit_code": exit_code}
