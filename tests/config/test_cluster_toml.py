"""``cluster.toml``: what it becomes, and every way it can be wrong."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from enum import Enum
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from hanat.config import load_cluster, parse_cluster
from hanat.core.configuration import (
    PROFILES,
    Configuration,
    FloatingAddress,
    Forward,
    Listen,
    Masquerade,
    Protocol,
    RealServer,
    Replicate,
    Scheduler,
    Transit,
)
from hanat.errors import EXIT_CONFIG_INVALID, ConfigError
from tests.config.helpers import CLUSTER, EXAMPLES, SMALL, changed, problems_of, service

PUBLIC_4, PUBLIC_6 = ip_address("203.0.113.10"), ip_address("2001:db8::10")


def parse(text: str) -> Configuration:
    return parse_cluster(text, file="cluster.toml")


def test_the_example_becomes_values() -> None:
    configuration = load_cluster(EXAMPLES / "cluster.toml")

    assert configuration.name == "edge1"
    assert configuration.profile == PROFILES["default"]
    assert configuration.vips[0] == FloatingAddress(
        "public", "public", (ip_interface("203.0.113.10/24"),)
    )
    assert configuration.interfaces == ("private", "public")
    assert configuration.masquerades == (
        Masquerade((ip_network("10.11.12.0/24"),), (PUBLIC_4,), "public"),
    )
    web, dns = configuration.services
    assert web.listens == (Listen(PUBLIC_4, Protocol.TCP, 80, 80),)
    assert web.scheduler is Scheduler.WRR
    assert web.servers[0] == RealServer("web1", ip_address("10.11.12.101"), 8080, 2)
    assert dns.servers[0].port is None
    assert dns.servers[0].weight == 1


def test_no_pydantic_type_leaves_the_package() -> None:
    def walk(value: object) -> None:
        kind = type(value)
        assert not kind.__module__.startswith("pydantic"), kind
        if isinstance(value, tuple):
            for item in value:
                walk(item)
        elif is_dataclass(value):
            for field in fields(value):
                walk(getattr(value, field.name))
        else:
            assert isinstance(value, Enum) or kind.__module__ in {"builtins", "ipaddress"}, kind

    walk(load_cluster(EXAMPLES / "cluster.toml"))


def test_equal_texts_become_equal_values() -> None:
    assert parse(CLUSTER) == parse(CLUSTER + "\n# a comment\n")


def test_a_cluster_needs_no_service() -> None:
    assert parse(SMALL).services == ()
    assert parse(SMALL).profile == PROFILES["default"]


def test_a_vip_stands_for_each_family_with_servers() -> None:
    both = parse(SMALL + service("vip:public tcp/80", "10.11.12.101", "2001:db8:1::1")).services[0]
    one = parse(SMALL + service("vip:public tcp/80", "10.11.12.101")).services[0]

    assert [listen.address for listen in both.listens] == [PUBLIC_4, PUBLIC_6]
    assert [listen.address for listen in one.listens] == [PUBLIC_4]


def test_a_listen_may_name_a_floating_address_and_a_range() -> None:
    text = SMALL + service("203.0.113.10 udp/8000-8010", "10.11.12.101")

    assert parse(text).services[0].listens == (Listen(PUBLIC_4, Protocol.UDP, 8000, 8010),)


@pytest.mark.parametrize(
    ("written", "address", "port"),
    [
        ("10.11.12.101:8080", "10.11.12.101", 8080),
        ("10.11.12.101", "10.11.12.101", None),
    ],
)
def test_a_server_without_a_port_keeps_the_clients(
    written: str, address: str, port: int | None
) -> None:
    server = parse(SMALL + service("vip:public tcp/80-90", written)).services[0].servers[0]

    assert (server.address, server.port) == (ip_address(address), port)


@pytest.mark.parametrize(
    ("written", "port"),
    [("[2001:db8:1::1]:8080", 8080), ("[2001:db8:1::1]", None), ("2001:db8:1::1", None)],
)
def test_a_server_may_be_ipv6(written: str, port: int | None) -> None:
    server = parse(SMALL + service("vip:public tcp/80", written)).services[0].servers[0]

    assert (server.address, server.port) == (ip_address("2001:db8:1::1"), port)


def test_masquerade_takes_the_vips_addresses_of_the_networks_families() -> None:
    table = '[[masquerade]]\nfrom = ["10.11.12.0/24", "2001:db8:1::/64"]\nto = "vip:public"\n'

    assert parse(SMALL + table).masquerades[0].sources == (PUBLIC_4, PUBLIC_6)


def test_every_problem_is_reported_at_once_in_the_order_of_the_file() -> None:
    text = changed(CLUSTER, "schema = 1", "schema = 2")
    text = changed(text, '"vip:public tcp/80"', '"vip:publik tcp/80", "vip:public icmp/80"')
    text = changed(text, 'address = ["10.11.12.1/24"]', 'address = ["10.11.12.300/24"]')
    text = changed(text, "weight = 2", "wieght = 2")
    text = changed(text, 'address = "10.11.12.102:8080"', 'address = "203.0.113.10:8080"')
    text = changed(text, 'scheduler = "sh"', 'scheduler = "lblc"')

    # Among them the unknown vip and the server on a floating address, which are
    # only seen when values are compared: a wrong value elsewhere does not hide them.
    assert [line.partition(": ")[0] for line in problems_of(text)] == [
        "schema",
        "vip[1].address[0]",
        "service[0].listen[0]",
        "service[0].listen[1]",
        "service[0].server[0].wieght",
        "service[0].server[1].address",
        "service[1].scheduler",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"established"', Replicate()),
        ('"none"', Replicate(established=False)),
        ('"all"', Replicate(unassured=True)),
        ('{ min_age = "2s" }', Replicate(min_age_s=2.0)),
    ],
)
def test_service_says_which_flows_are_replicated(text: str, expected: Replicate) -> None:
    text = changed(CLUSTER, 'scheduler = "sh"', f'scheduler = "sh"\nreplicate = {text}')
    assert [service.replicate for service in parse(text).services] == [Replicate(), expected]


@pytest.mark.parametrize("text", ['"some"', "5", "{ age = 3 }", '{ min_age = "soon" }', "[]"])
def test_unknown_replication_is_refused_with_what_is_known(text: str) -> None:
    text = changed(CLUSTER, 'scheduler = "sh"', f'scheduler = "sh"\nreplicate = {text}')
    (problem,) = problems_of(text)
    assert problem.startswith("service[1].replicate")


def test_a_reference_to_a_vip_is_checked_only_when_all_vips_are_sound() -> None:
    text = changed(SMALL, 'name = "private"', 'name = "Private"')

    problems = problems_of(text + service("vip:private tcp/80", "10.11.12.101"))

    assert [line.partition(": ")[0] for line in problems] == ["vip[1].name"]


def test_an_unknown_key_is_answered_with_the_nearest() -> None:
    assert problems_of(changed(CLUSTER, "profile =", "profil =")) == [
        'cluster.profil: unknown key; did you mean "profile"?'
    ]
    assert problems_of(SMALL + "[[servcie]]\n") == ['servcie: unknown key; did you mean "service"?']
    assert problems_of(SMALL + "[zzz]\n") == [
        "zzz: unknown key; known are cluster, masquerade, schema, service, transit, vip"
    ]


def test_wrong_syntax_is_reported_with_its_line() -> None:
    (problem,) = problems_of("schema = 1\n[cluster\n")

    assert problem.startswith("line 2, column 9: is not TOML: Expected ']'")
    assert problem.endswith("; complete or correct it, or put a # before the line")


def test_text_that_breaks_off_is_reported_with_its_last_line() -> None:
    (problem,) = problems_of("schema = 1\nlist = [1\n\n")

    assert problem.startswith("line 2, column 10: is not TOML: Unclosed array; the file ends here;")


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("", "vip: there must be at least one [[vip]]"),
        ('[[vip]]\nname="a"\naddress=[]\ninterface="x"\n', "vip[0].address: needs at least one"),
        (
            '[[vip]]\nname="a"\naddress=["192.0.2.1"]\ninterface="x"\n',
            'vip[0].address[0]: "192.0.2.1" has no prefix length',
        ),
        (
            '[[vip]]\nname="a"\naddress=["192.0.2.0/24"]\ninterface="x"\n',
            'vip[0].address[0]: "192.0.2.0/24" is the network itself',
        ),
        (
            '[[vip]]\nname="a"\naddress=["192.0.2.255/24"]\ninterface="x"\n',
            'vip[0].address[0]: "192.0.2.255/24" is the broadcast address',
        ),
        (
            '[[vip]]\nname="a"\naddress=["127.0.0.5/8"]\ninterface="x"\n',
            'vip[0].address[0]: "127.0.0.5" is a loopback address',
        ),
        (
            '[[vip]]\nname="a"\naddress=["fe80::1%eth0/64"]\ninterface="x"\n',
            'vip[0].address[0]: "fe80::1%eth0/64" has a zone',
        ),
        (
            '[[vip]]\nname="a"\naddress=["192.0.2.1/24","192.0.2.2/24"]\ninterface="x"\n',
            "vip[0].address[1]: a vip has at most one IPv4 address",
        ),
        (
            '[[vip]]\nname="a"\naddress=["192.0.2.1/24"]\ninterface="x"\n'
            '[[vip]]\nname="b"\naddress=["192.0.2.1/25"]\ninterface="x"\n',
            'vip[1].address[0]: vip "a" has 192.0.2.1 already',
        ),
        (
            '[[vip]]\nname="a"\naddress=["192.0.2.1/24"]\ninterface="x"\n'
            '[[vip]]\nname="a"\naddress=["192.0.2.2/24"]\ninterface="x"\n',
            'vip[1].name: another vip is named "a"',
        ),
        ('[vip]\nname="a"\n', "vip: must be a list, found a table"),
    ],
)
def test_wrong_vips_are_refused(table: str, expected: str) -> None:
    empty = "vip = []\n" if not table else ""
    (problem,) = problems_of(f'schema = 1\ncluster = {{ name = "edge1" }}\n{empty}{table}')

    assert problem.startswith(expected)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('to = "vip:privat"', 'to: there is no vip "privat"; did you mean "private"?'),
        ('to = "public"', 'to: "public" names no floating address: write "vip:NAME"'),
        ('to = "vip:private"', 'from[1]: 2001:db8:1::/64 is IPv6, vip "private" has no such'),
    ],
)
def test_wrong_masquerades_are_refused(line: str, expected: str) -> None:
    table = f'[[masquerade]]\nfrom = ["10.11.12.0/24", "2001:db8:1::/64"]\n{line}\n'

    (problem,) = problems_of(SMALL + table)

    assert problem.startswith(f"masquerade[0].{expected}")


def test_a_network_with_bits_behind_its_prefix_is_refused() -> None:
    table = '[[masquerade]]\nfrom = ["10.11.12.7/24"]\nto = "vip:public"\n'

    assert problems_of(SMALL + table) == [
        'masquerade[0].from[0]: "10.11.12.7/24" has bits behind its prefix: '
        'is "10.11.12.0/24" meant?'
    ]


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("vip:public", '"vip:public" is not a listen'),
        ("vip:public tcp", '"vip:public tcp" is not a listen'),
        ("vip:public icmp/1", '"icmp" is not a protocol; they are tcp, udp'),
        ("vip:public tcp/0", '"0" is not a port'),
        ("vip:public tcp/65536", '"65536" is not a port'),
        ("vip:public tcp/90-80", '"90-80" is not a port range'),
        ("vip:public tcp/80-", '"" is not a port'),
        ("vip:other tcp/80", 'there is no vip "other"'),
        ("203.0.113.11 tcp/80", "203.0.113.11 is not a floating address; they are 203.0.113.10"),
        ("203.0.113.300 tcp/80", '"203.0.113.300" is not an IPv4 or IPv6 address'),
        ("2001:db8::10 tcp/80", "this service has no IPv6 server"),
    ],
)
def test_wrong_listens_are_refused(listen: str, expected: str) -> None:
    (problem,) = problems_of(SMALL + service(listen, "10.11.12.101"))

    assert problem.startswith(f"service[0].listen[0]: {expected}")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("web1.example.org:80", '"web1.example.org:80" is not a server\'s address'),
        ("10.11.12.101:http", '"http" is not a port'),
        ("10.11.12.101:", '"" is not a port'),
        ("[10.11.12.101]:80", '"[10.11.12.101]:80": brackets are for IPv6'),
        ("127.0.0.1:80", '"127.0.0.1" is a loopback address'),
        ("224.0.0.1:80", '"224.0.0.1" is not the address of one machine'),
        ("203.0.113.10:80", '203.0.113.10 is the floating address of vip "public"'),
        ("::ffff:10.0.0.1", '"::ffff:10.0.0.1" is an IPv4 address: write "10.0.0.1"'),
    ],
)
def test_wrong_server_addresses_are_refused(address: str, expected: str) -> None:
    (problem,) = problems_of(SMALL + service("vip:public tcp/80", address))

    assert problem.startswith(f"service[0].server[0].address: {expected}")


@pytest.mark.parametrize("weight", ["-1", "65536", "1.5", '"2"', "true", "9" * 4000])
def test_wrong_weights_are_refused(weight: str) -> None:
    text = SMALL + service("vip:public tcp/80", "10.11.12.101") + f"weight = {weight}\n"

    (problem,) = problems_of(text)

    assert problem.startswith("service[0].server[0].weight: must be ")


def test_a_server_that_no_listen_reaches_is_refused() -> None:
    text = SMALL + service("vip:private tcp/80", "10.11.12.101", "2001:db8:1::1")

    assert problems_of(text) == [
        "service[0].server[1].address: 2001:db8:1::1 is IPv6, "
        "this service listens on no such address"
    ]


def test_servers_of_a_service_differ_in_name_and_in_place() -> None:
    text = SMALL + service("vip:public tcp/80", "10.11.12.101:80", "10.11.12.101:80")
    renamed = changed(text, '"web-1"', '"web-0"')
    other_port = changed(renamed, '.101:80"\n[[', '.101:81"\n[[')

    assert problems_of(text) == [
        'service[0].server[1].address: server "web-0" of this service has this address and port'
    ]
    assert problems_of(other_port) == [
        'service[0].server[1].name: another server of this service is named "web-0"'
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("vip:public tcp/80", "vip:public tcp/80"),
        ("vip:public tcp/80", "203.0.113.10 tcp/80"),
        ("vip:public tcp/8000-8010", "vip:public tcp/8010-8020"),
        ("vip:public tcp/1-65535", "vip:public tcp/443"),
        ("vip:public tcp/443", "vip:public tcp/1-65535"),
    ],
)
def test_overlapping_listens_are_refused_naming_both(first: str, second: str) -> None:
    text = SMALL + service(first, "10.11.12.101", name="a")

    (problem,) = problems_of(text + service(second, "10.11.12.102", name="b"))

    assert problem.startswith("service[1].listen[0]: ")
    assert 'of service "a"' in problem
    assert 'of service "b"' in problem


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("vip:public tcp/80", "vip:public udp/80"),
        ("vip:public tcp/80", "vip:private tcp/80"),
        ("vip:public tcp/8000-8010", "vip:public tcp/8011"),
    ],
)
def test_listens_that_differ_in_one_thing_do_not_overlap(first: str, second: str) -> None:
    text = SMALL + service(first, "10.11.12.101", name="a")

    assert len(parse(text + service(second, "10.11.12.102", name="b")).services) == 2


def test_a_range_that_spans_two_other_listens_is_reported_against_both() -> None:
    text = SMALL + service(
        "vip:public tcp/1-100, vip:public tcp/10, vip:public tcp/20", "10.11.12.101"
    )

    paths = [line.partition(": ")[0] for line in problems_of(text)]

    assert paths == ["service[0].listen[1]", "service[0].listen[2]"]


def test_a_service_needs_servers_and_listens() -> None:
    table = '[[service]]\nname = "web"\nlisten = []\nserver = []\n'

    assert problems_of(SMALL + table) == [
        "service[0].listen: needs at least one address and port",
        "service[0].server: needs at least one server",
    ]


def test_missing_keys_are_named() -> None:
    assert problems_of("") == ["schema: is missing", "cluster: is missing", "vip: is missing"]


def test_an_unreadable_file_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"schema = 1\n# caf\xe9\n")

    for name, expected in [
        ("absent.toml", "absent.toml: cannot be read: No such file or directory"),
        (".", ": cannot be read: Is a directory"),
        ("latin.toml", "latin.toml: line 2: is not UTF-8 text"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load_cluster(tmp_path / name)
        assert str(caught.value).endswith(expected)
        assert caught.value.exit_code == EXIT_CONFIG_INVALID


def test_what_passes_is_told_by_forward_from_and_transit() -> None:
    text = changed(SMALL, 'name = "edge1"', 'name = "edge1", forward = "open"')
    text += changed(
        service("vip:private tcp/80", "10.11.12.101"),
        'name = "web"',
        'name = "web"\nfrom = ["public", "private"]',
    )
    text += '[[transit]]\nname = "vpn"\nnetwork = ["10.99.0.0/16", "fd00:99::/64"]\n'

    found = parse(text)

    assert found.forward is Forward.OPEN
    assert found.services[0].sources == ("public", "private")
    networks = (ip_network("10.99.0.0/16"), ip_network("fd00:99::/64"))
    assert found.transits == (Transit("vpn", networks),)
    plain = parse(SMALL)
    assert (plain.forward, plain.transits) == (Forward.SERVICES, ())


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            'name = "edge1"',
            'name = "edge1", forward = "all"',
            'cluster.forward: "all" is not known: write "services" for what is published and '
            'masqueraded, or "open" for everything that the routers have a route for',
        ),
        (
            'from = ["public"]',
            'from = ["10.0.0.0/8"]',
            'service[0].from[0]: "10.0.0.0/8" is not the name of an interface as vips have; '
            'clients come by interfaces: write from = ["public", "private"]',
        ),
        (
            'from = ["public"]',
            'from = ["pubic"]',
            'service[0].from[0]: no vip is on interface "pubic"; did you mean "public"?',
        ),
        (
            'from = ["public"]',
            "from = []",
            "service[0].from: names no interface; leave it out for that of the vip",
        ),
        ("10.99.0.0/16", "10.99.0.1/16", "transit[0].network[0]: "),
        (
            "10.99.0.0/16",
            "10.11.0.0/16",
            'transit[0].network[0]: 10.11.0.0/16 contains 10.11.12.101 of server "web-0" of '
            'service "web", which is not left alone',
        ),
        (
            "10.99.0.0/16",
            "203.0.113.0/24",
            'transit[0].network[0]: 203.0.113.0/24 contains 203.0.113.10 of vip "public", which '
            "is not left alone",
        ),
        ('"10.99.0.0/16"', "", "transit[0].network: needs at least one network"),
    ],
)
def test_what_passes_is_refused_if_it_makes_no_sense(old: str, new: str, expected: str) -> None:
    text = SMALL + changed(
        service("vip:public tcp/80", "10.11.12.101"),
        'name = "web"',
        'name = "web"\nfrom = ["public"]',
    )
    text += '[[transit]]\nname = "vpn"\nnetwork = ["10.99.0.0/16"]\n'

    (problem,) = problems_of(changed(text, old, new))

    assert problem.startswith(expected)
