"""What needs no server: words of agents, patterns, documents, the core's part of weights."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from ipaddress import ip_address
from typing import get_args

import pytest

from hanat.checker import answer_match
from hanat.checker.attempt import ProbeError
from hanat.checker.documents import (
    sighting_from_document,
    sighting_to_document,
    target_from_document,
    target_to_document,
)
from hanat.checker.plain import parse_agent_line
from hanat.core.checks import (
    AgentCheck,
    DnsCheck,
    HttpCheck,
    Kind,
    Pattern,
    PingCheck,
    ScriptCheck,
    Target,
    TcpCheck,
    TlsCheck,
    UdpCheck,
)
from hanat.core.probing import Check, Operational, Reply, Sighting

# ------------------------------------------------------------------------------- agent


# HAProxy's configuration manual, section 5.2, agent-check.
@pytest.mark.parametrize(
    ("line", "ok", "percent", "mode"),
    [
        ("up", True, None, ""),
        ("UP", True, None, ""),
        ("75%", True, 75, ""),
        ("up,100% ready", True, 100, "ready"),
        ("ready up 0%", True, 0, "ready"),
        ("drain", True, None, "drain"),
        ("maint", True, None, "maint"),
        ("maxconn:30", True, None, ""),
        ("75% maxconn:30", True, 75, ""),
        ("down", False, None, ""),
        ("down#disk full 99% up", False, None, ""),
        ("failed # cannot connect", False, None, ""),
        ("stopped\tready", False, None, "ready"),
        ("up surprise", True, None, ""),
    ],
)
def test_words_of_an_agent(line: str, ok: bool, percent: int | None, mode: str) -> None:  # noqa: FBT001
    assert parse_agent_line(line) == Reply(ok=ok, answer=line, percent=percent, mode=mode)


@pytest.mark.parametrize("line", ["hello", "%", "-5%", "1000000%", "7.5%", "# up", "upp"])
def test_line_without_a_word_of_an_agent_says_nothing(line: str) -> None:
    reply = parse_agent_line(line)
    assert not reply.counts
    assert line in reply.answer


def test_agent_that_says_nothing_at_all_is_a_failure() -> None:
    with pytest.raises(ProbeError):
        parse_agent_line("")


# ---------------------------------------------------------------------------- patterns


@pytest.mark.parametrize(
    ("pattern", "data", "occurs"),
    [
        (Pattern("ok"), b"it is ok", True),
        (Pattern("o."), b"it is ok", False),
        (Pattern("gr\u00fcn"), "alles gr\u00fcn".encode(), True),
        (Pattern("o.$", is_regex=True), b"it is ok", True),
        (Pattern("gr.n", is_regex=True), "alles gr\u00fcn".encode(), True),
        (Pattern("ok", is_regex=True), b"\xff\xfe\x00ok\xff", True),
        (Pattern("OK", is_regex=True), b"it is ok", False),
        (Pattern("(?i)OK", is_regex=True), b"it is ok", True),
    ],
)
def test_pattern(pattern: Pattern, data: bytes, occurs: bool) -> None:  # noqa: FBT001
    assert answer_match.occurs(pattern, data) is occurs


def test_regular_expression_does_not_backtrack() -> None:
    # Python's `re` takes longer than anybody can wait for 40 characters of this.
    assert not answer_match.occurs(Pattern("(a|a|aa)*(a+)+$", is_regex=True), b"a" * 65_000 + b"b")


@pytest.mark.parametrize("text", ["(", "a{2000}{2000}", r"(a)\1", "(?=a)"])
def test_what_is_no_regular_expression_is_said(text: str) -> None:
    with pytest.raises(ProbeError, match=r"cannot look for .*RE2 does not take it: "):
        answer_match.occurs(Pattern(text, is_regex=True), b"")


def test_without_re2_regular_expressions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_match._compiled.cache_clear()
    monkeypatch.setitem(sys.modules, "re2", None)
    with pytest.raises(ProbeError, match="google-re2"):
        answer_match.occurs(Pattern("a", is_regex=True), b"a")
    assert answer_match.occurs(Pattern("a"), b"a")


# --------------------------------------------------------------------------- documents

REGEX = Pattern("^a", is_regex=True)
KINDS: tuple[Kind, ...] = (
    TcpCheck(),
    TcpCheck(b"\0\xff", b"\n", REGEX),
    UdpCheck(b"\0", b"\xff", REGEX),
    TlsCheck("www.example.org", verify=True, warn_days=7),
    HttpCheck(),
    HttpCheck(
        method="POST",
        path="/a",
        host="b",
        headers=(("c", "d"), ("e", "f")),
        statuses=((200, 299), (401, 401)),
        body=REGEX,
        digest="00",
        tls=TlsCheck("g", verify=True),
    ),
    DnsCheck("a.", "MX", "NXDOMAIN", "10 b.", tcp=True),
    PingCheck(100, 3),
    ScriptCheck("a", ("b", "c")),
    AgentCheck(b"\xff"),
)


def test_every_kind_is_among_them() -> None:
    assert {type(kind) for kind in KINDS} == set(get_args(Kind))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_target_survives_the_way_to_the_checker(kind: Kind) -> None:
    target = Target(kind, Check(2.0, 1.0, 4, 5, 0.5), ip_address("fd00::1"), 80)
    told = replace(target, source=ip_address("192.0.2.1"), mark=7, service="a", server="b")
    for sent in (target, told):
        found = target_from_document(json.loads(json.dumps(target_to_document(sent))))
        assert found == sent
        assert found.name == sent.name


def test_sighting_survives_the_way_to_the_daemon() -> None:
    sent = Sighting(
        target="a",
        state=Operational.UP,
        since=1.5,
        ok=False,
        in_a_row=2,
        answer="no",
        latency_s=0.25,
        at=3.5,
        tenure=7,
        decided=Operational.DOWN,
        news=True,
        percent=50,
        mode="drain",
    )
    assert sighting_from_document(json.loads(json.dumps(sighting_to_document(sent)))) == sent
