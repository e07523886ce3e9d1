"""Which clients a service takes: ``allow``, ``deny``, ``limits`` and ``max_conn``."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from hanat.config import parse_cluster
from hanat.core.configuration import Limits
from tests.config.helpers import EVERYTHING, SMALL, problems_of, service
from tests.config.test_service_section import DNS, WEB, parsed, with_keys

V6 = service("vip:public tcp/80", "[2001:db8::80]:80")


def test_every_key_becomes_its_value() -> None:
    web, dns = parse_cluster(EVERYTHING, file="it").services

    assert web.allow == (ip_network("198.51.100.0/24"), ip_network("2001:db8:2::/48"))
    assert web.deny == (ip_network("198.51.100.128/25"),)
    assert web.limits == Limits(1000, 2000, 20, 40, 100, 24, 56)
    assert [server.max_conn for server in web.servers] == [0, 500]
    assert (dns.allow, dns.deny, dns.limits) == ((), (), Limits())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{ new_per_second = 5 }", Limits(5, 5)),
        ("{ new_per_second = 5, burst = 1 }", Limits(5, 1)),
        ("{ new_per_second_per_client = 7 }", Limits(0, 0, 7, 7)),
        ("{ connections_per_client = 9 }", Limits(connections_per_client=9)),
        (
            "{ connections_per_client = 9, netmask = 24, netmask6 = 128 }",
            Limits(connections_per_client=9, netmask=24, netmask6=128),
        ),
    ],
)
def test_as_many_come_at_once_as_in_a_second_and_a_client_is_an_address(
    text: str, expected: Limits
) -> None:
    assert parsed(f"limits = {text}").limits == expected


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("allow = []", "allow: names no network; leave it out for clients from anywhere"),
        ('allow = "10.0.0.0/8"', 'allow: must be a list, found "10.0.0.0/8"'),
        (
            'allow = ["10.0.0.0/8", "10.1.2.3"]',
            'allow[1]: "10.1.2.3" has no prefix length: write "10.1.2.3/32" for one address',
        ),
        (
            'deny = ["10.0.0.1/8"]',
            'deny[0]: "10.0.0.1/8" has bits behind its prefix: is "10.0.0.0/8" meant?',
        ),
        ("deny = [7]", "deny[0]: must be text in quotes, found 7"),
        (
            'deny = ["2001:db8::/32"]',
            "deny[0]: 2001:db8::/32 is IPv6, this service listens on no such address",
        ),
        (
            'deny = ["10.0.0.0/8", "10.0.0.0/8"]',
            "deny[1]: 10.0.0.0/8 is in this list already",
        ),
        (
            'allow = ["192.0.2.0/24", "10.1.0.0/16"]\ndeny = ["10.0.0.0/8"]',
            "allow[1]: 10.1.0.0/16 is in 10.0.0.0/8 of deny, and who is denied is refused although "
            "it is allowed; leave it out here, or name smaller networks in deny",
        ),
        (
            "limits = {}",
            "limits: limits nothing: write new_per_second, new_per_second_per_client or "
            "connections_per_client",
        ),
        ("limits = 5", "limits: must be a table, found 5"),
        (
            "limits = { new_per_second = 0 }",
            "limits.new_per_second: must be from 1 to 1000000, found 0",
        ),
        (
            "limits = { connections_per_client = 10001 }",
            "limits.connections_per_client: must be from 1 to 10000, found 10001",
        ),
        (
            "limits = { new_per_second = 1, brst = 9 }",
            'limits.brst: unknown key; did you mean "burst"?',
        ),
        (
            "limits = { new_per_second = 9, burst_per_client = 1 }",
            "limits.burst_per_client: is how many may come at once beside "
            "new_per_second_per_client; add that",
        ),
        (
            "limits = { connections_per_client = 9, burst = 1 }",
            "limits.burst: is how many may come at once beside new_per_second; add that",
        ),
        (
            "limits = { new_per_second = 9, netmask = 24 }",
            "limits.netmask: says which addresses are one client, and no limit is of one; add "
            "new_per_second_per_client or connections_per_client, or leave it out",
        ),
    ],
)
def test_what_is_wrong_is_told(keys: str, expected: str) -> None:
    assert problems_of(with_keys(keys)) == [f"service[0].{expected}"]


def test_networks_of_one_family_are_for_a_service_that_listens_there() -> None:
    assert problems_of(with_keys('allow = ["10.0.0.0/8"]', V6)) == [
        "service[0].allow[0]: 10.0.0.0/8 is IPv4, this service listens on no such address"
    ]


def test_a_smaller_network_may_be_denied_of_one_that_is_allowed() -> None:
    found = parsed('allow = ["10.0.0.0/8"]\ndeny = ["10.1.0.0/16", "192.0.2.0/24"]')

    assert (len(found.allow), len(found.deny)) == (1, 2)


@pytest.mark.parametrize(("value", "most"), [("1", 1), ("10000000", 10_000_000)])
def test_max_conn_is_of_a_server(value: str, most: int) -> None:
    text = SMALL + WEB + f"max_conn = {value}\n"

    first, second = parse_cluster(text, file="it").services[0].servers
    assert (first.max_conn, second.max_conn) == (0, most)


@pytest.mark.parametrize("value", ["0", '"5"', "10000001"])
def test_max_conn_is_a_number_from_1(value: str) -> None:
    (problem,) = problems_of(SMALL + WEB + f"max_conn = {value}\n")

    assert problem.startswith("service[0].server[1].max_conn: must be ")


def test_what_is_not_counted_cannot_be_limited() -> None:
    assert problems_of(with_keys('replicate = "none"') + "max_conn = 5\n") == [
        "service[0].server[1].max_conn: counts connections that are replicated, and this service "
        'has replicate = "none"; leave one of them out'
    ]
    text = with_keys("ops = true\nlimits = { connections_per_client = 5 }", DNS) + "max_conn = 5\n"
    assert [line.partition(": ") for line in problems_of(text)] == [
        (
            f"service[0].{key}",
            ": ",
            "counts connections, and with ops there are none; leave it out",
        )
        for key in ("limits.connections_per_client", "server[1].max_conn")
    ]


def test_a_wrong_network_conflicts_with_nothing() -> None:
    keys = 'allow = ["10.1.0.0/16"]\ndeny = ["10.0.0.0/33"]\nlimits = { new_per_second = 0 }'

    assert [line.partition(": ")[0] for line in problems_of(with_keys(keys))] == [
        "service[0].deny[0]",
        "service[0].limits.new_per_second",
    ]
