"""Services, servers and checks in words: readable, and never the same for different values."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.config import parse_cluster
from hanat.core.checks import (
    AgentCheck,
    DnsCheck,
    HttpCheck,
    Kind,
    Pattern,
    PingCheck,
    ScriptCheck,
    ServiceCheck,
    TcpCheck,
    TlsCheck,
    UdpCheck,
)
from hanat.core.configuration import (
    Limits,
    OnServerDown,
    Persistence,
    Replicate,
    Scheduler,
    Sorry,
    Unavailable,
    VirtualService,
)
from hanat.core.descriptions import describe_check, describe_server, describe_service
from hanat.core.probing import Check
from tests.config.helpers import EVERYTHING
from tests.core.examples import WEB

OFTEN = Check(2.0, 1.0)
TIMING = "every 2 s, timeout 1 s, fall 3, rise 2"
V4, V6 = ip_address("10.0.0.1"), ip_address("2001:db8::1")

NETWORKS = [
    (),
    (ip_network("10.0.0.0/8"),),
    *(tuple(ip_network(f"10.{n}.{i}.0/24") for i in range(5)) for n in range(2)),
]
LIMITS = [
    Limits(),
    Limits(1, 1),
    Limits(1, 2),
    Limits(0, 0, 1, 1),
    Limits(0, 0, 1, 2, 3),
    Limits(connections_per_client=3),
    Limits(connections_per_client=3, netmask=24),
    Limits(connections_per_client=3, netmask6=48),
]
texts = st.text(max_size=3)
patterns = st.none() | st.builds(Pattern, texts, st.booleans())
tls = st.builds(TlsCheck, texts, st.booleans(), st.integers(0, 2))
ranges = st.lists(st.tuples(st.integers(200, 202), st.integers(203, 205)), min_size=1, max_size=2)
kinds: st.SearchStrategy[Kind] = st.one_of(
    st.builds(TcpCheck, st.binary(max_size=2), st.binary(max_size=2), patterns),
    st.builds(UdpCheck, st.binary(max_size=2), st.binary(max_size=2), patterns),
    tls,
    st.builds(
        HttpCheck,
        st.sampled_from(["GET", "HEAD"]),
        texts,
        texts,
        st.just(()) | st.tuples(st.tuples(st.sampled_from("ab"), st.sampled_from("cd"))),
        st.just(((200, 399),)) | ranges.map(tuple),
        patterns,
        st.sampled_from(["", "0a"]),
        st.none() | tls,
    ),
    st.builds(
        DnsCheck,
        st.sampled_from([".", "a."]),
        st.sampled_from(["A", "SOA"]),
        st.sampled_from(["NOERROR", "REFUSED"]),
        texts,
        st.booleans(),
    ),
    st.builds(PingCheck, st.integers(55, 57), st.integers(1, 3)),
    st.builds(ScriptCheck, texts, st.lists(texts, max_size=2).map(tuple)),
    st.builds(AgentCheck, st.binary(max_size=2)),
)
checks = st.builds(
    ServiceCheck,
    kinds,
    st.builds(
        Check,
        st.sampled_from([1.0, 2.0]),
        st.sampled_from([0.5, 1.0]),
        st.integers(1, 2),
        st.integers(1, 2),
        st.sampled_from([None, 0.5]),
    ),
    st.sampled_from([None, V4, V6]),
    st.sampled_from([None, 80]),
    st.sampled_from([None, V4, V6]),
    st.integers(0, 1),
)
services = st.builds(
    replace,
    st.just(WEB),
    scheduler=st.sampled_from(Scheduler),
    replicate=st.sampled_from(
        [
            Replicate(),
            Replicate(established=False),
            Replicate(unassured=True),
            Replicate(min_age_s=2.0),
        ]
    ),
    sources=st.sampled_from([(), ("public",)]),
    min_healthy_percent=st.sampled_from([0, 30]),
    on_server_down=st.none() | st.sampled_from(OnServerDown),
    sorry=st.sampled_from([(), (Sorry(V4, None),), (Sorry(V4, 80), Sorry(V6, 80))]),
    unavailable=st.sampled_from(Unavailable),
    slow_start_s=st.sampled_from([0.0, 30.0]),
    persistence=st.sampled_from([None, Persistence(600.0), Persistence(600.0, 24, 64)]),
    hash_port=st.booleans(),
    ops=st.booleans(),
    allow=st.sampled_from(NETWORKS),
    deny=st.sampled_from(NETWORKS),
    limits=st.sampled_from(LIMITS),
)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (TcpCheck(), ""),
        (TcpCheck(b"PING\r\n", b"+PONG"), 'send "PING\\r\\n", expect "+PONG", '),
        (UdpCheck(b"\xff\x00", pattern=Pattern("^x", is_regex=True)),
         'send hex:ff00, expect matches "^x", '),
        (TlsCheck("a.example.org", verify=True, warn_days=14),
         'name "a.example.org", certificate verified, warn 14 days before its end, '),
        (HttpCheck(), 'GET "/", '),
        (
            HttpCheck("GET", "/health", "www", (("A", "b"),), ((200, 299), (401, 401)),
                      Pattern("ok"), "0a", TlsCheck()),
            'GET "/health", host "www", header A (3e23e816), status 200-299 401, body has "ok", '
            "digest 0a, ",
        ),
        (DnsCheck("a.org.", "A", "NOERROR", "192.0.2.1", tcp=True),
         'A of a.org., NOERROR, answer "192.0.2.1", over UDP and TCP, '),
        (PingCheck(), ""),
        (PingCheck(1000, 3), "1000 bytes, 3 requests, "),
        (ScriptCheck("probe.sh", ("-v", "")), '"probe.sh" "-v" "", '),
        (AgentCheck(b"web\n"), 'send "web\\n", '),
    ],
)  # fmt: skip
def test_each_kind_has_its_words(kind: Kind, words: str) -> None:
    assert describe_check(ServiceCheck(kind, OFTEN)) == words + TIMING


def test_place_and_pace_of_a_check_are_told() -> None:
    timing = replace(OFTEN, fast_interval_s=0.25)
    check = ServiceCheck(PingCheck(), timing, address=V6, port=80, source=V4, mark=7)

    assert describe_check(check) == (
        f"at 2001:db8::1, port 80, by 10.0.0.1, mark 7, {TIMING}, every 0.25 s in doubt"
    )


def test_a_service_is_told_by_what_is_not_the_default() -> None:
    web, dns = parse_cluster(EVERYTHING, file="it").services

    assert describe_service(WEB) == ("wrr",)
    assert describe_service(web) == (
        "mh",
        "by address and port",
        "slow start in 30 s",
        "persistent for 600 s (/24, /64)",
        "only clients from 198.51.100.0/24, 2001:db8:2::/48",
        "no clients from 198.51.100.128/25",
        "at most 1000 new connections a second, 2000 at once",
        "of a client at most 20 new connections a second, 40 at once",
        "of a client at most 100 connections",
        "a client is a /24, /56",
        "all servers used below 30 % healthy",
        "connections of a server that is down expire",
        "sorry server 10.11.12.200:8080",
        "sorry server [2001:db8:1::200]",
        "dropped without a server",
    )
    assert describe_service(dns) == (
        "fo",
        "not replicated",
        "each datagram by itself",
        "connections of a server that is down kept",
        "sorry server 10.11.12.200",
    )
    assert describe_server(web.servers[1]) == ("[2001:db8:1::102] weight 2 at most 500 connections")
    assert [describe_server(server) for server in dns.servers] == [
        "10.11.12.101 weight 1",
        "10.11.12.102 weight 1 priority 2",
    ]


@given(checks, checks)
def test_different_checks_have_different_words(one: ServiceCheck, other: ServiceCheck) -> None:
    told = [
        (type(check.kind), _is_tls(check.kind), describe_check(check)) for check in (one, other)
    ]
    assert (told[0] == told[1]) is (one == other)


def _is_tls(kind: Kind) -> bool:
    return isinstance(kind, HttpCheck) and kind.tls is not None


@given(services, services)
def test_different_services_have_different_words(
    one: VirtualService, other: VirtualService
) -> None:
    assert (describe_service(one) == describe_service(other)) is (one == other)


def test_values_of_headers_are_not_told() -> None:
    check = ServiceCheck(HttpCheck(headers=(("Authorization", "Bearer s3cret00"),)), OFTEN)

    assert "s3cret00" not in describe_check(check)


def test_words_are_printable_whatever_a_file_has() -> None:
    check = ServiceCheck(TcpCheck("\x1b[31m\u2028é".encode()), OFTEN)

    assert describe_check(check).isprintable()
