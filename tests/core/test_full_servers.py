"""Servers with as many connections as they may have: when they leave, and when they are back."""

from __future__ import annotations

from dataclasses import replace

from hanat.core.configuration import Scheduler, VirtualService
from hanat.core.full_servers import OUT_S_MIN, FullServers, counted
from hanat.core.levelling import PERIOD_S, Load
from hanat.core.server_facts import ServerId
from tests.core.examples import WEB

SERVERS = tuple(
    replace(server, max_conn=most) for server, most in zip(WEB.servers, (100, 5, 1, 0), strict=True)
)
BOUNDED = replace(WEB, servers=SERVERS)


def load(service: VirtualService = BOUNDED, **counts: int) -> dict[ServerId, Load]:
    return {ServerId(service.name, name): Load(count) for name, count in counts.items()}


class Rounds(FullServers):
    """Looks at all services in one round, and tells who is full."""

    def __init__(self) -> None:
        super().__init__()
        self.full: set[ServerId] = set()

    def round(
        self, services: list[VirtualService], loads: dict[ServerId, Load], now: float
    ) -> frozenset[ServerId]:
        self.begin()
        for service in services:
            came, went = self.look([service], loads, now)
            self.full = (self.full | set(came)) - set(went)
        self.full -= set(self.end())
        return frozenset(self.full)

    def clear(self) -> None:
        super().clear()
        self.full = set()


def names(full: frozenset[ServerId]) -> set[str]:
    return {server.server for server in full}


def test_server_is_full_with_as_many_as_it_may_have_and_others_never_are() -> None:
    full = Rounds()

    assert names(full.round([BOUNDED], {}, 0.0)) == set()
    found = full.round([BOUNDED], load(web1=99, web2=5, web3=2, web6=10_000), 0.25)
    assert names(found) == {"web2", "web3"}
    assert names(full.round([BOUNDED], load(web1=100, web2=5, web3=1), 0.5)) == {
        "web1",
        "web2",
        "web3",
    }


def test_it_comes_back_with_a_tenth_less_and_not_at_once() -> None:
    full = Rounds()
    full.round([BOUNDED], load(web1=130, web2=5, web3=1), 10.0)

    for now in (10.25, 10.5, 10.75):
        assert len(full.round([BOUNDED], {}, now)) == 3
    late = 10.0 + OUT_S_MIN
    assert len(full.round([BOUNDED], load(web1=91, web2=5, web3=1), late)) == 3
    assert names(full.round([BOUNDED], load(web1=90, web2=4, web3=1), late)) == {"web3"}
    assert names(full.round([BOUNDED], load(web1=99, web2=4), late)) == set()


def test_server_at_its_limit_comes_and_goes_with_a_tenth_not_with_each_connection() -> None:
    """One ends in each period; when it is back, more come than end."""
    full, count, changes, was = Rounds(), 100, 0, False
    for look in range(240):
        found = bool(full.round([BOUNDED], load(web1=count), look * PERIOD_S))
        changes += found is not was
        was, count = found, count - 1 if found else min(100, count + 5)
    assert changes == 2 * 240 / (10 + 2)


def test_server_that_is_gone_or_has_no_limit_any_more_is_not_full() -> None:
    full = Rounds()
    full.round([BOUNDED], load(web1=100, web2=5), 0.0)

    fewer = replace(BOUNDED, servers=(replace(SERVERS[0], max_conn=0), *SERVERS[2:]))
    assert full.round([fewer], load(web1=100, web2=5), 0.1) == frozenset()
    assert full.round([], {}, 0.2) == frozenset()


def test_new_holder_begins_with_what_it_counts() -> None:
    full = Rounds()
    full.round([BOUNDED], load(web1=100), 0.0)
    full.clear()

    assert names(full.round([BOUNDED], load(web2=5), 0.0)) == {"web2"}


def test_connections_are_looked_at_where_somebody_needs_them() -> None:
    level = replace(WEB, scheduler=Scheduler.LC)

    assert counted((WEB, BOUNDED, level)) == (BOUNDED, level)
