"""Without flows a server's address and port tell what its answers are about."""

from __future__ import annotations

import pytest

from hanat.config import parse_cluster
from tests.config.helpers import SMALL, changed, problems_of, service

TEXT = "without flows an answer has to tell by its server what was asked, "


def with_ops(table: str) -> str:
    return changed(table, "listen =", "ops = true\nlisten =")


@pytest.mark.parametrize(
    ("listen", "servers", "expected"),
    [
        (
            "vip:public udp/53, vip:public udp/5353",
            ("10.11.12.101:53",),
            'server "web-0" answers 203.0.113.10 udp/53 and 203.0.113.10 udp/5353 from '
            "10.11.12.101 udp/53; leave the port of the server out",
        ),
        (
            "vip:public udp/5000-5099",
            ("10.11.12.101", "10.11.12.102:5000"),
            'server "web-1" answers each port of 203.0.113.10 udp/5000-5099 from '
            "10.11.12.102 udp/5000; leave the port of the server out",
        ),
        (
            "vip:public udp/53, vip:private udp/53",
            ("10.11.12.101",),
            'server "web-0" answers 203.0.113.10 udp/53 and 10.11.12.1 udp/53 from '
            "10.11.12.101 udp/53; listen on one address of a family",
        ),
    ],
)
def test_answer_tells_what_was_asked(listen: str, servers: tuple[str, ...], expected: str) -> None:
    text = SMALL + with_ops(service(listen, *servers))

    assert problems_of(text) == [f"service[0].ops: {TEXT}and {expected}"]


@pytest.mark.parametrize("both", [True, False])
def test_no_other_service_has_the_server_s_port(both: bool) -> None:  # noqa: FBT001 - of the test
    one = service("vip:public udp/53", "10.11.12.101:53", name="one")
    two = with_ops(service("vip:public udp/54", "10.11.12.101:53", name="two"))

    assert problems_of(SMALL + (with_ops(one) if both else one) + two) == [
        f'service[1].ops: {TEXT}and service "one" has 10.11.12.101 udp/53, too (server '
        '"one-0"); give one of them another port'
    ]
    if not both:
        (problem,) = problems_of(SMALL + two + one)
        assert problem.startswith(f'service[0].ops: {TEXT}and service "one" has')


def test_sorry_server_s_port_is_the_service_s_own() -> None:
    one = with_ops(service("vip:public udp/53", "10.11.12.101:53", name="one"))
    two = with_ops(service("vip:public udp/54", "10.11.12.102:54", name="two"))
    two = changed(two, "listen =", 'sorry = "10.11.12.101:53"\nlisten =')

    (problem,) = problems_of(SMALL + one + two)

    assert problem.startswith(f'service[1].ops: {TEXT}and service "one" has')


@pytest.mark.parametrize(
    "tables",
    [
        (("vip:public udp/53", "10.11.12.101"), ("vip:public tcp/53", "10.11.12.101")),
        (("vip:public udp/53, vip:public udp/54", "10.11.12.101"),),
        (("vip:public udp/53", "10.11.12.101:53"), ("vip:public udp/54", "10.11.12.101:54")),
        (("vip:public udp/53", "10.11.12.101:53", "[2001:db8::9]:53"),),
    ],
)
def test_what_tells_it_is_accepted(tables: tuple[tuple[str, ...], ...]) -> None:
    made = [service(listen, *servers, name=f"s{n}") for n, (listen, *servers) in enumerate(tables)]
    text = SMALL + with_ops(made[0]) + "".join(made[1:])

    assert len(parse_cluster(text, file="it").services) == len(tables)


def test_services_by_flows_share_what_they_like() -> None:
    text = SMALL
    for port in (53, 54):
        text += service(f"vip:public udp/{port}", "10.11.12.101:53", name=f"s{port}")
    text += with_ops(service("vip:public udp/55", "10.11.12.101:55"))

    assert len(parse_cluster(text, file="it").services) == 3
