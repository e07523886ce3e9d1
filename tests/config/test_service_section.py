"""The keys of a service: what each becomes, and every way it can be wrong."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from hanat.config import parse_cluster
from hanat.core.configuration import (
    OnServerDown,
    Persistence,
    Replicate,
    Scheduler,
    Sorry,
    Unavailable,
    VirtualService,
)
from tests.config.helpers import EVERYTHING, SMALL, changed, problems_of, service

WEB = service("vip:public tcp/80", "10.11.12.101:80", "10.11.12.102:80")
DNS = service("vip:public udp/53", "10.11.12.101", "10.11.12.102", name="dns")
CHECK = '[[service.check]]\nkind = "tcp"\n'


def with_keys(keys: str, table: str = WEB) -> str:
    """Return a cluster file with keys added to its service."""
    return SMALL + changed(table, "listen =", f"{keys}\nlisten =")


def parsed(keys: str, table: str = WEB) -> VirtualService:
    return parse_cluster(with_keys(keys, table), file="it").services[0]


def test_every_key_becomes_its_value() -> None:
    web, dns = parse_cluster(EVERYTHING, file="it").services

    assert (web.scheduler, web.hash_port, web.slow_start_s) == (Scheduler.MH, True, 30.0)
    assert (web.min_healthy_percent, web.on_server_down) == (30, OnServerDown.EXPIRE)
    assert web.sorry == (
        Sorry(ip_address("10.11.12.200"), 8080),
        Sorry(ip_address("2001:db8:1::200"), None),
    )
    assert (web.unavailable, web.ops) == (Unavailable.DROP, False)
    assert web.persistence == Persistence(600.0, 24, 64)
    assert [server.tier for server in dns.servers] == [0, 1]
    assert dns.sorry == (Sorry(ip_address("10.11.12.200"), None),)
    assert (dns.ops, dns.replicate) == (True, Replicate(established=False))


def test_a_service_that_says_nothing_has_the_defaults_of_the_core() -> None:
    found = parsed("")

    assert found == VirtualService(found.name, found.listens, Scheduler.WRR, found.servers)


@pytest.mark.parametrize("scheduler", Scheduler)
def test_each_scheduler_has_its_name(scheduler: Scheduler) -> None:
    assert parsed(f'scheduler = "{scheduler.value}"').scheduler is scheduler


@pytest.mark.parametrize(("text", "ports"), [("source", False), ("source-port", True)])
@pytest.mark.parametrize("scheduler", ["sh", "mh"])
def test_hash_is_of_the_address_or_of_the_port_too(
    scheduler: str, text: str, *, ports: bool
) -> None:
    assert parsed(f'scheduler = "{scheduler}"\nhash = "{text}"').hash_port is ports


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{ timeout = "10m" }', Persistence(600.0, 32, 128)),
        ('{ timeout = "1s", netmask = 1, netmask6 = 1 }', Persistence(1.0, 1, 1)),
        ('{ timeout = "168h", netmask6 = 128 }', Persistence(604800.0, 32, 128)),
    ],
)
def test_persistence_has_a_time_and_masks(text: str, expected: Persistence) -> None:
    assert parsed(f"persistence = {text}").persistence == expected


@pytest.mark.parametrize(("text", "percent"), [("0%", 0), ("30%", 30), ("100%", 100)])
def test_min_healthy_is_a_percentage(text: str, percent: int) -> None:
    assert parsed(f'min_healthy = "{text}"', WEB + CHECK).min_healthy_percent == percent


@pytest.mark.parametrize("scheduler", Scheduler)
def test_slow_start_goes_with_each_scheduler(scheduler: Scheduler) -> None:
    text = f'slow_start = "30s"\nscheduler = "{scheduler.value}"'

    assert parsed(text).slow_start_s == 30.0


def test_ops_goes_with_what_needs_no_flow() -> None:
    for keys in ("", 'scheduler = "sh"\nhash = "source-port"', 'unavailable = "drop"'):
        assert parsed(f"ops = true\n{keys}", DNS).ops
    assert not parsed('ops = false\nreplicate = "all"\nscheduler = "lc"', DNS).ops


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            'scheduler = "lblc"',
            'scheduler: "lblc" is not a scheduler; they are rr, wrr, random, sh, mh, lc, wlc, '
            "sed, nq, fo",
        ),
        (
            'scheduler = "sh"\nhash = "ip"',
            'hash: "ip" is not known: write "source" for the client\'s address, or "source-port" '
            "for address and port",
        ),
        (
            'hash = "source"',
            'hash: scheduler "wrr" does not choose by the client; write scheduler = "sh" or '
            '"mh", or leave hash out',
        ),
        ('slow_start = "500ms"', 'slow_start: must be from 1s to 1h, found "500ms"'),
        ('slow_start = "2h"', 'slow_start: must be from 1s to 1h, found "2h"'),
        (
            "slow_start = 30",
            'slow_start: a duration carries its unit: write "100ms", "2s" or "1m", not a bare '
            "number",
        ),
        (
            "min_healthy = 30",
            'min_healthy: a percentage carries its sign: write "30%", not 30',
        ),
        ('min_healthy = "101%"', 'min_healthy: "101%" is not a percentage: write "0%" to "100%"'),
        (
            'min_healthy = "30%"',
            "min_healthy: without a check all servers are healthy; add a [[service.check]], or "
            "leave it out",
        ),
        (
            'min_healthy = "30%"\ncheck = []',
            "min_healthy: without a check all servers are healthy; add a [[service.check]], or "
            "leave it out",
        ),
        (
            'on_server_down = "kill"',
            'on_server_down: "kill" is not known: write "keep", "expire" (the next packet gets '
            'another server) or "reset" (the client of a TCP connection is told)',
        ),
        (
            'unavailable = "refuse"',
            'unavailable: "refuse" is not known: write "reject" (the client is told) or "drop" '
            "(silence)",
        ),
        (
            'sorry = "sorry.example.org:80"',
            'sorry: "sorry.example.org:80" is not a server\'s address: write "10.11.12.101:8080" '
            'or "[2001:db8::1]:8080", or leave the port out to keep the client\'s; names are not '
            "resolved",
        ),
        (
            "sorry = []",
            "sorry: names no server; leave it out, then unavailable applies",
        ),
        (
            'sorry = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]',
            "sorry: has 3 servers, at most 2 are possible: one IPv4, one IPv6",
        ),
        (
            'sorry = ["10.0.0.1", "10.0.0.2"]',
            "sorry: has two IPv4 servers; one per family is possible",
        ),
        (
            'sorry = "203.0.113.10:80"',
            'sorry: 203.0.113.10 is the floating address of vip "public"; write that of a machine',
        ),
        (
            'sorry = "10.11.12.102:80"',
            'sorry: is server "web-1" of this service, and there are clients for it only when no '
            "server can take them; write another address or port",
        ),
        (
            'sorry = "[2001:db8:1::1]:80"',
            "sorry: 2001:db8:1::1 is IPv6, this service listens on no such address",
        ),
        ('persistence = "10m"', 'persistence: must be a table, found "10m"'),
        ("persistence = { netmask = 24 }", "persistence.timeout: is missing"),
        (
            'persistence = { timeout = "0s" }',
            'persistence.timeout: must be from 1s to 168h, found "0s"',
        ),
        (
            'persistence = { timeout = "1m", netmask = 33 }',
            "persistence.netmask: must be from 1 to 32, found 33",
        ),
        (
            'persistence = { timeout = "1m", netmask6 = 0 }',
            "persistence.netmask6: must be from 1 to 128, found 0",
        ),
        (
            'persistence = { timeout = "1m", mask = 24 }',
            'persistence.mask: unknown key; did you mean "netmask"?',
        ),
        ('ops = "yes"', 'ops: must be true or false, found "yes"'),
        (
            "ops = true",
            "ops: is for UDP, where a datagram can be all there is, and this service listens on "
            "TCP; give its UDP ports a service of their own",
        ),
    ],
)
def test_wrong_keys_of_a_service_are_refused(keys: str, expected: str) -> None:
    assert problems_of(with_keys(keys)) == [f"service[0].{expected}"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            'on_server_down = "reset"',
            'on_server_down: only TCP has a reset, and this service is UDP; write "expire"',
        ),
        (
            'ops = true\npersistence = { timeout = "1m" }',
            "persistence: keeps a client at a server, and ops sends each datagram by itself; leave "
            'one of them out, or write scheduler = "sh" instead of persistence',
        ),
        (
            'ops = true\nscheduler = "wlc"',
            'scheduler: "wlc" counts connections, and with ops there are none; write wrr, rr, '
            "random, sh, mh or fo",
        ),
        (
            'ops = true\nreplicate = "established"',
            'replicate: with ops there are no flows to replicate; leave it out, or write "none"',
        ),
        (
            'ops = true\nreplicate = { min_age = "2s" }',
            'replicate: with ops there are no flows to replicate; leave it out, or write "none"',
        ),
        (
            'ops = true\non_server_down = "expire"',
            "on_server_down: with ops there are no connections to end; leave it out",
        ),
    ],
)
def test_what_udp_cannot_have_is_refused(keys: str, expected: str) -> None:
    assert problems_of(with_keys(keys, DNS)) == [f"service[0].{expected}"]


def test_reset_is_for_a_service_that_has_tcp_too() -> None:
    both = service("vip:public udp/53, vip:public tcp/53", "10.11.12.101")

    assert parsed('on_server_down = "reset"', both).on_server_down is OnServerDown.RESET


@pytest.mark.parametrize("value", ["0", "257", '"1"', "true"])
def test_priority_is_a_number_from_1(value: str) -> None:
    text = with_keys('scheduler = "fo"') + f"priority = {value}\n"

    (problem,) = problems_of(text)

    assert problem.startswith("service[0].server[1].priority: must be ")


def test_priority_is_of_fo_alone() -> None:
    assert problems_of(SMALL + WEB + "priority = 1\n") == [
        'service[0].server[1].priority: is of scheduler "fo", and this service has "wrr"; write '
        'scheduler = "fo", or divide the clients by weight'
    ]


def test_conflicts_are_not_looked_for_in_what_is_wrong_already() -> None:
    keys = 'scheduler = "lblc"\nhash = "source"\nops = true\non_server_down = "kill"'

    assert [line.partition(": ")[0] for line in problems_of(with_keys(keys, DNS))] == [
        "service[0].scheduler",
        "service[0].on_server_down",
    ]


def test_every_problem_of_a_service_is_reported_at_once() -> None:
    keys = 'hash = "source"\nslow_start = "0s"\nmin_healthy = "30%"\nsorry = "203.0.113.10"'
    text = with_keys(keys, changed(WEB, "tcp/80", "tcp/80-90")) + "priority = 3\n"
    text += '[[service.check]]\nkind = "ping"\npath = "/"\ninterval = "1ms"\n'
    text += '[[service.check]]\nkind = "pong"\n'

    assert [line.partition(": ")[0] for line in problems_of(text)] == [
        "service[0].hash",
        "service[0].slow_start",
        "service[0].sorry",
        "service[0].server[1].priority",
        "service[0].check[0].path",
        "service[0].check[0].interval",
        "service[0].check[1].kind",
    ]


def test_a_sorry_server_is_translated_and_so_in_no_transit() -> None:
    transit = '[[transit]]\nname = "vpn"\nnetwork = ["10.99.0.0/16"]\n'

    assert problems_of(with_keys('sorry = "10.99.0.1"') + transit) == [
        "transit[0].network[0]: 10.99.0.0/16 contains 10.99.0.1 of the sorry server of service "
        '"web", which is not left alone'
    ]


def test_a_sorry_server_may_be_another_port_of_a_server() -> None:
    assert parsed('sorry = "10.11.12.102:81"').sorry == (Sorry(ip_address("10.11.12.102"), 81),)
