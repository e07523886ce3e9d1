"""What is too much for a node is told by `config check`, and what is allowed fits."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from hanat.config import parse_cluster
from hanat.config.document import PROBLEMS_MAX, TEXT_BYTES_MAX
from hanat.config.limits import CLUSTER_LIMITS, CLUSTER_TOTALS, OPS_SERVERS_MAX, TARGETS_MAX
from hanat.errors import ConfigError, Problem
from hanat.raft.replica import ENTRY_BYTES_MAX
from hanat.raft.state import NewConfiguration, encode
from hanat.supervisor.last_will import MESSAGE_BYTES_MAX, LastWill, Route
from tests.config.helpers import SMALL, changed, checked


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as found:
        parse_cluster(text, file="cluster.toml")
    return found.value.problems


def vips(count: int) -> str:
    return SMALL + "".join(
        f'[[vip]]\nname = "v{i}"\ninterface = "private"\n'
        f'address = ["10.{i // 65536}.{i // 256 % 256}.{i % 256}/8"]\n'
        for i in range(256, 256 + count)
    )


def services(count: int, servers: int, checks: int = 0) -> str:
    return SMALL + "".join(
        f'[[service]]\nname = "s{i}"\nlisten = ["vip:public tcp/{2000 + i}"]\n'
        + "".join(
            f'[[service.server]]\nname = "x{j}"\n'
            f'address = "10.11.12.{j % 250 + 2}:{j // 250 + 80}"\n'
            for j in range(servers)
        )
        + "".join(f'[[service.check]]\nkind = "tcp"\nport = {j + 1}\n' for j in range(checks))
        for i in range(count)
    )


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        (lambda: vips(5_000), "vip", "entries, at most 2000"),
        (lambda: services(2_001, 1), "service", "entries, at most 2000"),
        (lambda: services(1, 257), "service[0].server", "has 257 entries, at most 256"),
        (lambda: services(201, 100), "service", "service.server has 20100 entries in all"),
        (lambda: services(1, 1, 9), "service[0].check", "has 9 entries, at most 8"),
        (
            lambda: services(1_001, 10, 1),
            "service",
            "checks of all servers are 10010 in all, at most 10000 are possible",
        ),
        (
            lambda: checked(f'kind = "script"\nname = "x"\narguments = {["x"] * 17}'),
            "service[0].check[0].arguments",
            "has 17 entries, at most 16",
        ),
    ],
)
def test_too_much_is_told(text: Callable[[], str], path: str, said: str) -> None:
    found = problems(text())
    assert any(problem.path == path and said in problem.text for problem in found), found


def test_what_was_tried_in_service_is_allowed() -> None:
    configuration = parse_cluster(vips(998), file="it")
    assert sum(len(vip.addresses) for vip in configuration.vips) >= 1_000
    found = parse_cluster(services(1_000, 10, 1), file="it").services
    assert sum(len(s.checks) * len(s.servers) for s in found) == TARGETS_MAX


def test_servers_of_services_with_ops_have_a_limit() -> None:
    text = services(OPS_SERVERS_MAX // 10, 10).replace("tcp/", "udp/").replace(':80"', '"')
    with_ops = text.replace("listen =", "ops = true\nlisten =")

    assert len(parse_cluster(with_ops, file="it").services) == OPS_SERVERS_MAX // 10
    more = changed(with_ops, "[[service.server]]", '[[service.server]]\nname = "more"\n'
                   'address = "10.99.0.1"\n[[service.server]]')  # fmt: skip
    (problem,) = problems(more)
    assert str(problem).endswith(
        "servers of services with ops are 2001 in all, at most 2000 are possible; leave ops out "
        "of some"
    )
    assert len(parse_cluster(more.replace("ops = true\n", ""), file="it").services) == 200


def test_each_list_of_the_file_has_a_limit() -> None:
    """A list that somebody adds to the models needs one, too."""
    from hanat.config.models import ClusterFile

    def lists(model: type, at: tuple[str, ...]) -> set[tuple[str, ...]]:
        found = set()
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            here = (*at, field.alias or name)
            if "list[" not in str(field.annotation):
                continue
            found.add(here)
            inner = _models_in(field.annotation)
            for other in inner:
                found |= lists(other, (*here, "*"))
        return found

    assert lists(ClusterFile, ()) == set(CLUSTER_LIMITS)


def _models_in(annotation: object) -> list[type]:
    import typing

    if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        return [annotation]
    return [m for argument in typing.get_args(annotation) for m in _models_in(argument)]


def test_largest_will_fits_a_message() -> None:
    most = CLUSTER_TOTALS["vip", "*", "address"]
    address = "2001:db8:1111:2222:3333:4444:5555:6666/128"
    routes = tuple(Route(address, (address,) * 8) for _ in range(8))
    devices = [f"\u00fc{'x' * 12}{i % 64:02d}" for i in range(most)]
    will = LastWill(bytes(64), 7412, routes, tuple((device, address) for device in devices), 0.2)
    message = will.encode()
    assert len(message) <= MESSAGE_BYTES_MAX
    assert sorted(LastWill.decode(message).addresses) == sorted(will.addresses)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        near.send(message, socket.MSG_DONTWAIT)
        assert far.recv(MESSAGE_BYTES_MAX) == message


def test_largest_text_fits_an_entry() -> None:
    command = NewConfiguration(1, "\u20ac" * (TEXT_BYTES_MAX // 3))
    assert len(encode(command)) <= ENTRY_BYTES_MAX


def test_text_that_is_too_long_is_refused_before_it_is_read() -> None:
    (found,) = problems(SMALL + "#" * TEXT_BYTES_MAX)
    assert "is longer than 2 MiB" in found.text


def test_of_many_problems_the_first_are_told() -> None:
    text = services(200, 100).replace("10.11.12.", "10.11.12,")
    assert len(problems(text)) == PROBLEMS_MAX
