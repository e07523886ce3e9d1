"""What is counted of a server's death, and whose configuration it is."""

from __future__ import annotations

import pytest

from benchmarks.deaths import CHECKS, LONG_S, Felt, Outage, configuration, felt, row
from chaos.observe.run_history import Outcome, Request
from hanat.config import parse_cluster

S = 1_000_000_000
DEATH = Outage("s3", "killed", 10 * S, 20 * S, 30 * S)


def asks(at_s: float, took_s: float = 0.01, how: Outcome = "ok", server: str = "s1") -> Request:
    return Request("http", round(at_s * S), round((at_s + took_s) * S), how, server, None)


def test_clients_with_errors_and_those_that_waited_are_counted_from_the_death_on() -> None:
    requests = [
        asks(5, how="fail"),  # before
        asks(9.5, took_s=1.2, server="s3"),  # under way when it died
        asks(9.7, took_s=0.1, how="fail"),  # over before it died
        asks(11, how="fail"),
        asks(12, took_s=2.5, how="info"),
        asks(13, took_s=LONG_S + 0.1),
        asks(14, took_s=LONG_S - 0.1),
        asks(21),
        asks(22, took_s=0.5, server="s3"),
        asks(23, how="fail"),
    ]

    found = felt(DEATH, requests)

    assert found == Felt(errors=2, waited=2, last_s=3.0, back_s=2.5, late=1)


def test_death_that_nobody_felt() -> None:
    assert felt(DEATH, [asks(12)]) == Felt(errors=0, waited=0, last_s=0.0, back_s=None, late=0)


def test_row_has_the_worst_of_the_rounds() -> None:
    rounds = [Felt(1, 9, 2.0, 3.0, 0), Felt(5, 2, 1.0, 4.0, 1)]
    assert row("killed", "default", rounds) == (
        "| the process ends | default | 5 | 9 | 2.0 | 4.0 | 1 |"
    )


@pytest.mark.parametrize("check", CHECKS)
def test_check_is_a_default_one_but_for_its_pace(check: str) -> None:
    parsed = parse_cluster(configuration(CHECKS[check]), file="cluster.toml")
    (web,) = (service for service in parsed.services if service.name == "web")
    (found,) = web.checks
    fast_s = 0.5 if check == "fast" else None
    timing = found.timing
    assert (timing.interval_s, timing.timeout_s, timing.fall, timing.rise) == (2.0, 1.0, 3, 2)
    assert timing.fast_interval_s == fast_s
