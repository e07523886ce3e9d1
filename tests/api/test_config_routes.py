"""``/v1/config``: the replicated configuration, read and replaced."""

from __future__ import annotations

import json

import pytest

from hanat.errors import (
    ConfigError,
    NoQuorumError,
    OutcomeUnknownError,
    Problem,
    RefusedError,
    StaleRevisionError,
)
from tests.api.conftest import Served
from tests.api.helpers import SHOWN, Answer, ask

TEXT = SHOWN.text.encode()
IF_3 = {"If-Match": '"3"'}


async def put(
    served: Served, body: bytes = TEXT, *, query: str = "", headers: dict[str, str] | None = None
) -> Answer:
    sent = IF_3 if headers is None else headers
    return await ask(served.unix, f"/v1/config{query}", method="PUT", body=body, headers=sent)


async def test_text_comes_as_it_was_written_with_its_revision_as_etag(served: Served) -> None:
    answer = await ask(served.unix, "/v1/config")
    assert (answer.status, answer.body) == (200, SHOWN.text)
    assert answer.headers["Content-Type"] == "application/toml; charset=utf-8"
    assert answer.headers["Etag"] == '"3"'


async def test_json_says_who_has_it_in_force(served: Served) -> None:
    answer = await ask(served.unix, "/v1/config", headers={"Accept": "application/json"})
    assert answer.headers["Etag"] == '"3"'
    assert answer.document == {
        "revision": 3,
        "profile_in_force": "default",
        "nodes": [{"node": "r1", "revision": 3, "state": "in force"}],
        "text": SHOWN.text,
    }


@pytest.mark.parametrize(
    ("query", "dry_run"), [("", False), ("?dry_run=false", False), ("?dry_run=true", True)]
)
async def test_change_is_passed_on_with_the_revision_it_is_based_on(
    served: Served, query: str, *, dry_run: bool
) -> None:
    answer = await put(served, query=query)
    assert answer.status == 200
    assert served.backend.changes == [(SHOWN.text, 3, dry_run)]
    assert not served.backend.forced
    assert answer.headers["Etag"] == ('"3"' if dry_run else '"4"')


@pytest.mark.parametrize(
    ("outcome", "status", "exit_code"),
    [
        (StaleRevisionError(based_on=3, current=5), 412, 4),
        (RefusedError("r2 is the leader, ask there"), 409, 4),
        (NoQuorumError("no majority"), 503, 3),
        (OutcomeUnknownError(revision=4, waited_s=5.0), 504, 1),
        (ConfigError((Problem("f", "vip[0]", "no"), Problem("f", "vip[1]", "no"))), 422, 5),
    ],
)
async def test_refusals_have_a_status_a_sentence_and_an_exit_code(
    served: Served, outcome: Exception, status: int, exit_code: int
) -> None:
    served.backend.outcome = outcome
    answer = await put(served)
    assert answer.status == status
    assert (answer.document["error"], answer.document["exit_code"]) == (str(outcome), exit_code)


async def test_stale_revision_is_told_with_the_newer_one_and_what_to_do(served: Served) -> None:
    served.backend.outcome = StaleRevisionError(based_on=14, current=15)
    document = (await put(served)).document
    assert document["revision"] == 15
    assert document["error"] == (
        "configuration not applied: it is based on revision 14, the cluster has 15; "
        'run "hanat config show" and try again'
    )


async def test_all_problems_come_one_by_one_for_programs(served: Served) -> None:
    served.backend.outcome = ConfigError((Problem("f", "a", "x"), Problem("f", "b", "y")))
    problems = (await put(served)).document["problems"]
    assert problems == [{"path": "a", "text": "x"}, {"path": "b", "text": "y"}]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 428),
        ({"If-Match": "*"}, 400),
        ({"If-Match": "3"}, 400),
        ({"If-Match": 'W/"3"'}, 400),
        ({"If-Match": '"3", "4"'}, 400),
        ({"If-Match": '"-3"'}, 400),
        ({"If-Match": '"' + "9" * 40 + '"'}, 400),
    ],
    ids=json.dumps,
)
async def test_change_without_a_plain_revision_is_not_asked_for(
    served: Served, headers: dict[str, str], status: int
) -> None:
    answer = await put(served, headers=headers)
    assert (answer.status, answer.document["exit_code"]) == (status, 2)
    assert 'If-Match: "REVISION"' in answer.document["error"]
    assert served.backend.changes == []


@pytest.mark.parametrize(
    "query",
    ["?dry_run", "?dry_run=yes", "?force=yes", "?dry_run=true&a=b", "?force=true&force=true"],
)
async def test_other_parameters_are_refused(served: Served, query: str) -> None:
    answer = await put(served, query=query)
    assert answer.status == 400
    assert served.backend.changes == []


@pytest.mark.parametrize(
    ("body", "status"), [(b"a = '\xff'", 400), (b"#" * (2 << 20) + b"\n", 413)], ids=["utf", "size"]
)
async def test_body_that_is_no_text_or_too_long_is_refused(
    served: Served, body: bytes, status: int
) -> None:
    assert (await put(served, body)).status == status
    assert served.backend.changes == []


async def test_text_of_half_a_mebibyte_is_taken(served: Served) -> None:
    assert (await put(served, b"#" * (1 << 19))).status == 200


async def test_over_tcp_nothing_is_written(served: Served) -> None:
    answer = await ask(served.tcp, "/v1/config", method="PUT", body=TEXT, headers=IF_3)
    assert answer.status == 403
    assert served.backend.changes == []
