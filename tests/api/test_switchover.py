"""The one path that writes."""

from __future__ import annotations

import pytest

from hanat.errors import KernelError, NoQuorumError, RefusedError
from tests.api.conftest import Served
from tests.api.helpers import ask


@pytest.mark.parametrize(
    ("body", "asked"), [(b'{"to": "r2"}', "r2"), (b'{"to": null}', None), (b' {"to":"r3"}\n', "r3")]
)
async def test_switchover_answers_with_the_new_holder(
    served: Served, body: bytes, asked: str | None
) -> None:
    answer = await ask(served.unix, "/v1/switchover", method="POST", body=body)
    assert (answer.status, answer.document) == (200, {"holder": "r2"})
    assert served.backend.asked == [asked]


@pytest.mark.parametrize(
    ("outcome", "status", "exit_code"),
    [
        (RefusedError("r2 is the holder, ask there"), 409, 4),
        (NoQuorumError("no majority within 2 s"), 503, 3),
        (KernelError(operation="add x", target="eth0", found="ENODEV"), 500, 1),
    ],
)
async def test_what_the_backend_refuses_comes_back_as_its_sentence(
    served: Served, outcome: Exception, status: int, exit_code: int
) -> None:
    served.backend.outcome = outcome
    answer = await ask(served.unix, "/v1/switchover", method="POST", body=b'{"to": null}')
    assert answer.status == status
    assert answer.document == {"error": str(outcome), "exit_code": exit_code}


async def test_a_bug_is_logged_and_answered_without_its_details(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    served.backend.outcome = RuntimeError("secret detail")
    answer = await ask(served.unix, "/v1/switchover", method="POST", body=b'{"to": null}')
    assert answer.status == 500
    assert answer.document["exit_code"] == 1
    assert "secret" not in answer.body
    assert "secret detail" in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"r2"',
        b"{}",
        b'{"to": 2}',
        b'{"to": true}',
        b'{"to": ["r2"]}',
        b'{"to": {}}',
        b'{"to": ""}',
        b'{"to": "r2\\nr3"}',
        b'{"to": "\\ud800"}',
        b'{"to": "' + b"r" * 256 + b'"}',
        b'{"to": "r2", "force": true}',
        b'{"\\ud800": 1}',
        b'{"to": "r2"} {}',
        b"\xff\xfe",
        b"\x1f\x8b\x08\x00",
        b"[" * 60_000,
        b"1" * 60_000,
    ],
    ids=lambda body: repr(body[:20]),
)
async def test_a_body_of_another_form_is_refused_and_not_asked(served: Served, body: bytes) -> None:
    answer = await ask(served.unix, "/v1/switchover", method="POST", body=body)
    assert answer.status == 400
    assert answer.document["exit_code"] == 2
    assert answer.document["error"].startswith('the body must be {"to": "NAME"} or {"to": null}')
    assert served.backend.asked == []


async def test_a_refused_body_is_told_what_is_wrong_with_it(served: Served) -> None:
    answer = await ask(served.unix, "/v1/switchover", method="POST", body=b'{"node": "r2"}')
    assert answer.document["error"].endswith("; 'node' is unknown")
    answer = await ask(served.unix, "/v1/switchover", method="POST", body=b'{"to": false}')
    assert answer.document["error"].endswith('; "to" is true or false')


async def test_a_body_of_more_than_64_kib_is_refused(served: Served) -> None:
    body = b'{"to": "r2"}' + b" " * 64 * 1024
    answer = await ask(served.unix, "/v1/switchover", method="POST", body=body)
    assert answer.status == 413
    assert answer.document == {"error": "the body is larger than 65536 bytes", "exit_code": 2}
    assert served.backend.asked == []


async def test_over_tcp_nothing_is_written(served: Served) -> None:
    answer = await ask(served.tcp, "/v1/switchover", method="POST", body=b'{"to": "r2"}')
    assert answer.status == 403
    assert answer.document["exit_code"] == 4
    assert "Unix socket" in answer.document["error"]
    assert served.backend.asked == []


async def test_finished_upgrade_is_answered_with_its_level(served: Served) -> None:
    path = "/v1/cluster/finish-upgrade"
    answer = await ask(served.unix, path, method="POST", body=b"{}")
    assert (answer.status, answer.document) == (200, {"level": 6})
    served.backend.outcome = RefusedError("upgrade not finished: upgrade r3 first")
    answer = await ask(served.unix, path, method="POST", body=b"{}")
    assert (answer.status, answer.document["exit_code"]) == (409, 4)
    assert (await ask(served.tcp, path, method="POST", body=b"{}")).status == 403
