"""``hanat service``."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hanat.core.service_view import Datagrams
from hanat.errors import EXIT_FAILED, EXIT_REFUSED
from tests.api.helpers import WEB
from tests.cli.helpers import Node, call

LIST = {"services": [WEB.to_document(checks=False)]}


def test_list_is_a_table_of_states(node: Node) -> None:
    node.answers(LIST)

    result = call("service", "list", "--api", node.api)

    assert node.asked == [("GET", "/v1/services", None)]
    assert (result.exit_code, result.stdout) == (
        0,
        """\
SERVICE  STATE     LISTEN               SCHEDULER  HEALTHY  CONNECTIONS  NEW/S  TOTAL  IN       OUT
web      degraded  203.0.113.10 tcp/80  wrr        1 of 2   5            12.34  7      7.00 kB  1.23 MB
""",  # noqa: E501 - what is printed
    )


def test_empty_list_still_has_its_head(node: Node) -> None:
    node.answers({"services": []})

    assert call("service", "list", "--api", node.api).stdout.split()[0] == "SERVICE"


def test_show_says_why_and_what_of_each_server(node: Node) -> None:
    node.answers(WEB.to_document())

    result = call("service", "show", "web", "--api", node.api)

    assert node.asked == [("GET", "/v1/services/web", None)]
    assert (result.exit_code, result.stdout) == (
        0,
        """\
web
state       degraded
why         web: 1 of 2 servers are healthy (1 down)
listen      203.0.113.10 tcp/80
scheduler   wrr
healthy     1 of 2 that should serve; panic below 0 %
connections 5
refused     7 deny, 120 new_per_second (by this node)
new         12.34 a second; 7 since 2023-11-14T22:13:20+00:00
traffic     in 7.00 kB in 70 packets, out 1.23 MB in 60 packets

SERVER  ADDRESS            CHECKS  MODE   WEIGHT  SHARE  CONNECTIONS  NEW/S  TOTAL  IN       OUT     NEW CLIENTS
web1    10.11.12.101:8080  up      ready  2       100 %  3            0.5    5      5.00 kB  100 kB  yes
web2    10.11.12.102:8080  down    ready  1       0 %    2            0      0      0 B      0 B     no: down

web/web2 gets no clients: it is down
""",  # noqa: E501 - what is printed
    )


def test_show_says_why_bytes_are_not_known_and_how_old_sums_are(node: Node) -> None:
    assert WEB.figures is not None
    old = replace(WEB.figures, has_bytes=False, age_s=90.0)
    node.answers(replace(WEB, figures=old).to_document())

    page = call("service", "show", "web", "--api", node.api).stdout

    assert "traffic     not known: net.netfilter.nf_conntrack_acct is not 1 on the holder\n" in page
    assert "counted     1 min 30 s ago; the holder says nothing newer\n" in page


@pytest.mark.parametrize(
    ("arguments", "document"),
    [(("list",), LIST), (("show", "web"), WEB.to_document())],
)
def test_json_is_the_answer(node: Node, arguments: tuple[str, ...], document: object) -> None:
    node.answers(document)

    result = call("service", *arguments, "--json", "--api", node.api)

    assert json.loads(result.stdout) == json.loads(json.dumps(document))


def test_names_are_sent_as_one_part_of_the_path(node: Node) -> None:
    node.answers(WEB.to_document())

    for name, path in (("a/b?c", "a%2Fb%3Fc"), ("..", "%2E%2E"), ("é", "%C3%A9")):
        call("service", "show", name, "--api", node.api)
        assert node.asked.pop() == ("GET", f"/v1/services/{path}", None)


def test_a_service_that_is_not_there_ends_with_the_nodes_sentence(node: Node) -> None:
    error = "no service 'wbe'; the nearest name is web; there are web"
    node.answers({"error": error, "exit_code": EXIT_REFUSED}, status=404)

    result = call("service", "show", "wbe", "--api", node.api)

    assert (result.exit_code, result.stderr) == (EXIT_REFUSED, f"hanat: {error}\n")


@pytest.mark.parametrize("answer", [[], {}, {"services": 1}, {"services": [1]}, "web"])
def test_an_answer_that_makes_no_sense_is_a_failure(node: Node, answer: object) -> None:
    node.answers(answer)

    result = call("service", "list", "--api", node.api)

    assert (result.exit_code, len(result.stderr.splitlines())) == (EXIT_FAILED, 1)


def test_a_document_of_another_version_still_makes_a_page(node: Node) -> None:
    odd = {"name": "web", "listen": 5, "servers": [{"name": "web1", "why": 5}, 7], "state": None}
    node.answers(odd)

    result = call("service", "show", "web", "--api", node.api)

    assert result.exit_code == 0
    assert (
        "web1    -        -       -     -       -      -            -      -      -   -    -\n"
        in result.stdout
    )


def test_control_characters_do_not_reach_the_terminal(node: Node) -> None:
    document = WEB.to_document() | {"why": "\x1b]0;owned\x07"}
    node.answers(document)

    result = call("service", "show", "web", "--api", node.api)

    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout


def test_service_of_datagrams_says_how_many(node: Node) -> None:
    servers = tuple(
        replace(server, datagrams=Datagrams(n, n - 1)) for n, server in enumerate(WEB.servers, 7)
    )
    node.answers(replace(WEB, servers=servers).to_document())

    page = call("service", "show", "web", "--api", node.api).stdout
    assert "datagrams   15 to servers, 13 to clients (by this node)\n" in page

    node.answers(servers[0].to_document())
    page = call("server", "show", "web/web1", "--api", node.api).stdout
    assert "datagrams   7 to servers, 6 to clients (by this node)\n" in page

    node.answers(WEB.servers[0].to_document())
    assert "datagrams" not in call("server", "show", "web/web1", "--api", node.api).stdout


def test_service_without_limits_says_nothing_of_them(node: Node) -> None:
    node.answers({**WEB.to_document(), "refused": {}})

    assert "refused" not in call("service", "show", "web", "--api", node.api).stdout
