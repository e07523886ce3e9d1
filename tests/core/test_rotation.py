"""Which servers get clients, and why the others do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.core.configuration import OnServerDown, Protocol
from hanat.core.probing import Operational
from hanat.core.rotation import (
    ConnectionsEnd,
    Event,
    Facts,
    Rotations,
    ServiceChanged,
    ServiceState,
    ServiceStatus,
)
from hanat.core.server_facts import (
    WEIGHT_MAX,
    Administrative,
    Cause,
    CheckedServer,
    CheckedService,
    Mode,
    ServerId,
    default_policy,
    scaled,
)
from hanat.core.verdicts import Verdict

UP, DOWN, UNKNOWN = Operational.UP, Operational.DOWN, Operational.UNKNOWN
WEB1, WEB2 = ServerId("web", "web1"), ServerId("web", "web2")
DRAIN, MAINT = Administrative(Mode.DRAIN), Administrative(Mode.MAINT)


def server(number: int, *targets: str, weight: int = 1) -> CheckedServer:
    return CheckedServer(f"web{number}", f"10.0.0.{number} 80", weight, targets)


def web(*servers: CheckedServer, percent: int = 0) -> CheckedService:
    return CheckedService("web", servers, percent)


class Site:
    """One service, and the verdicts that count for it."""

    def __init__(self, *servers: CheckedServer, percent: int = 0, **verdicts: Operational) -> None:
        self.verdicts = {target: Verdict(state, 0.0, "no", 3) for target, state in verdicts.items()}
        self.rotations = Rotations(self.verdicts)
        self.rotations.configure([web(*servers, percent=percent)])

    def say(self, **verdicts: Operational) -> tuple[Event, ...]:
        self.verdicts.update((t, Verdict(s, 0.0, "no", 3)) for t, s in verdicts.items())
        return self.rotations.reconsider(verdicts)

    @property
    def status(self) -> ServiceStatus:
        return self.rotations.statuses["web"]

    @property
    def names(self) -> str:
        return " ".join(name for name, _ in self.status.rotation)


# ---------------------------------------------------------------------- three facts


def test_server_without_a_check_is_up() -> None:
    site = Site(server(1), server(2, weight=0))
    assert (site.names, site.status.state) == ("web1", ServiceState.UP)
    assert site.rotations.why(WEB1) == ""
    assert site.rotations.why(WEB2) == "web/web2 gets no clients: its weight is 0"


@pytest.mark.parametrize(
    ("a", "b", "state"),
    [
        (UP, UP, UP), (UP, UNKNOWN, UNKNOWN), (UP, DOWN, DOWN), (UNKNOWN, DOWN, DOWN),
        (DOWN, UP, DOWN), (UNKNOWN, UNKNOWN, UNKNOWN),
    ],
)  # fmt: skip
def test_all_checks_of_a_server_must_hold(
    a: Operational, b: Operational, state: Operational
) -> None:
    site = Site(server(1, "a", "b"), a=a, b=b)
    assert site.status.servers[0].operational is state
    assert site.names == ("web1" if state is UP else "")


def test_server_that_is_added_with_a_check_is_out_until_its_first_verdict() -> None:
    site = Site(server(1))
    site.rotations.configure([web(server(1), server(2, "a"))])
    assert (site.names, site.status.state) == ("web1", ServiceState.DEGRADED)
    assert site.rotations.why(WEB2) == (
        "web/web2 gets no clients: nothing is known of it yet (no verdict of a)"
    )
    (change,) = site.say(a=UP)
    assert isinstance(change, ServiceChanged)
    assert change.rotates_anew
    assert site.names == "web1 web2"


def test_server_in_rotation_stays_when_a_check_is_added_until_its_first_verdict() -> None:
    site = Site(server(1), server(2, "a"), a=UP)
    site.rotations.configure([web(server(1), server(2, "a"), server(3))])
    assert site.rotations.facts.stays == frozenset()  # those that are known need not stay
    checked = [web(server(1, "b"), server(2, "a", "c"))]
    site.rotations.configure([web(server(1), server(2, "a"))])
    (change,) = site.rotations.configure(checked)
    assert isinstance(change, ServiceChanged)
    assert not change.rotates_anew
    assert (site.names, site.status.state) == ("web1 web2", ServiceState.UP)
    assert site.rotations.why(WEB1) == (
        "web/web1 gets clients as before: its checks have no verdict yet"
    )
    assert site.rotations.configure(checked) == ()  # another revision, and it still stays
    site.say(b=DOWN, c=UP)
    assert site.names == "web2"
    assert site.rotations.facts.stays == frozenset()


@pytest.mark.parametrize(
    "out", [server(1, weight=0), server(1, "x"), replace(server(1), place="10.0.0.9 80")]
)
def test_server_that_was_not_in_rotation_does_not_stay(out: CheckedServer) -> None:
    site = Site(out)
    site.rotations.configure([web(server(1, "a"))])
    assert site.names == ""


def test_drained_server_to_which_a_check_is_added_needs_a_verdict() -> None:
    site = Site(server(1))
    site.rotations.administer(WEB1, DRAIN)
    site.rotations.configure([web(server(1, "a"))])
    site.rotations.administer(WEB1, Administrative())
    assert site.names == ""


def test_drain_and_maintenance_say_by_whom_until_when_and_why() -> None:
    site = Site(server(1), server(2))
    site.rotations.administer(WEB1, Administrative(Mode.DRAIN, "alice", "new kernel", 0.0, 86400.0))
    site.rotations.administer(WEB2, MAINT)
    assert (site.names, site.status.state) == ("", ServiceState.DOWN)
    assert site.rotations.why(WEB1) == (
        "web/web1 gets no clients: it is drained by alice until 1970-01-02 00:00:00+00:00 "
        "(new kernel)"
    )
    assert site.rotations.why(WEB2) == "web/web2 gets no clients: it is in maintenance"
    site.rotations.administer(WEB1, Administrative(Mode.READY, "bob"))
    assert site.names == "web1"


def test_all_causes_are_in_one_sentence() -> None:
    site = Site(server(1, "a"), a=DOWN)
    site.rotations.administer(WEB1, DRAIN)
    assert site.status.servers[0].causes == (Cause.DRAIN, Cause.DOWN)
    assert site.rotations.why(WEB1, "verdicts are frozen") == (
        "web/web1 gets no clients: it is drained and it is down (a: no, 3 in a row); "
        "verdicts are frozen"
    )


@pytest.mark.parametrize("until_s", [-1.0, 1e12, float("nan"), float("inf")])
def test_time_that_no_calendar_has_is_refused(until_s: float) -> None:
    with pytest.raises(ValueError, match="not a time"):
        Administrative(Mode.DRAIN, until_s=until_s)


def test_records_go_with_their_server_and_survive_everything_else() -> None:
    site = Site(server(1), server(2))
    site.rotations.administer(WEB1, DRAIN)
    site.rotations.weigh(WEB1, 0.5)
    site.rotations.configure([web(server(1, weight=8), server(2))])
    assert site.status.servers[0].weight == 4
    assert site.names == "web2"
    site.rotations.configure([web(server(2))])
    assert site.rotations.administer(WEB1, DRAIN) == ()
    assert site.rotations.weigh(WEB1, 0.5) == ()
    site.rotations.configure([web(server(1, weight=8), server(2))])
    assert site.status.rotation == (("web1", 8), ("web2", 1))


def test_half_of_the_usual_weight_is_half() -> None:
    site = Site(server(1), server(2), server(3, weight=2))
    before = site.status
    assert site.rotations.weigh(WEB1, 0.5) != ()
    assert site.status.rotation == (("web1", 50), ("web2", 100), ("web3", 200))
    assert site.status.rotation != before.rotation
    assert site.status.servers[0].weight == 1
    site.rotations.weigh(WEB1, 1.0)
    assert site.status.rotation == before.rotation
    large = Site(server(1), server(2, weight=65_535))
    large.rotations.weigh(WEB1, 0.5)
    assert large.status.rotation == (("web1", 1), ("web2", 65_535))


def test_runtime_weight_is_a_factor() -> None:
    assert [scaled(10, f) for f in (0.0, 0.01, 0.5, 1.0, 2.5)] == [0, 1, 5, 10, 25]
    assert (scaled(0, 5.0), scaled(3, 1e308), scaled(1, 5e-324)) == (0, WEIGHT_MAX, 1)
    site = Site(server(1))
    site.rotations.weigh(WEB1, 0.0)
    assert site.rotations.why(WEB1) == "web/web1 gets no clients: its runtime weight is 0"
    for factor in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="web/web1"):
            site.rotations.weigh(WEB1, factor)


# ------------------------------------------------------------------- panic and state


def test_service_with_too_few_healthy_servers_uses_all_that_should_serve() -> None:
    site = Site(
        server(1, "a"), server(2, "b"), server(3, "c"), server(4, "d"), server(5, "e"),
        server(6, "f", weight=0), percent=50, a=UP, b=UP, c=DOWN, d=UP, e=DOWN, f=DOWN,
    )  # fmt: skip
    site.rotations.administer(ServerId("web", "web4"), DRAIN)
    assert (site.names, site.status.state) == ("web1 web2", ServiceState.DEGRADED)  # 2 of 4
    events = site.say(b=DOWN)
    assert (site.names, site.status.state) == ("web1 web2 web3 web5", ServiceState.PANIC)
    assert len(events) == 1
    assert site.rotations.why(WEB2) == (
        "web/web2 gets clients although it is down (b: no, 3 in a row): "
        "only 1 of 4 servers are healthy, fewer than 50 %"
    )
    site.rotations.administer(WEB2, MAINT)
    site.rotations.administer(ServerId("web", "web3"), DRAIN)
    assert site.names == "web1"  # 1 of 2 is no panic
    assert Site(server(1, "a"), percent=0, a=DOWN).names == ""
    assert Site(server(1, weight=0), percent=100).status.state is ServiceState.DOWN


@pytest.mark.parametrize(
    ("a", "b", "state"),
    [
        (UP, UP, ServiceState.UP), (UP, DOWN, ServiceState.DEGRADED),
        (UP, UNKNOWN, ServiceState.DEGRADED), (DOWN, DOWN, ServiceState.DOWN),
        (UNKNOWN, UNKNOWN, ServiceState.DOWN),
    ],
)  # fmt: skip
def test_state_of_a_service_is_the_worst_that_matters(
    a: Operational, b: Operational, state: ServiceState
) -> None:
    site = Site(server(1, "a"), server(2, "b"), server(3, "c", weight=0), a=a, b=b, c=DOWN)
    assert site.status.state is state


# -------------------------------------------------------------- connections that end


def ended(events: tuple[Event, ...]) -> list[str]:
    return [str(event.server) for event in events if isinstance(event, ConnectionsEnd)]


def test_policy_depends_on_the_protocol() -> None:
    assert default_policy(Protocol.TCP) is OnServerDown.RESET
    assert default_policy(Protocol.UDP) is OnServerDown.EXPIRE


def test_connections_end_when_a_server_is_down_in_maintenance_or_removed() -> None:
    site = Site(server(1, "a"), server(2), server(3), server(4), a=UP)
    (_, end) = site.say(a=DOWN)
    assert end == ConnectionsEnd(WEB1, "10.0.0.1 80", OnServerDown.RESET)
    assert ended(site.rotations.administer(WEB1, MAINT)) == []  # they did
    assert ended(site.rotations.administer(WEB2, DRAIN)) == []
    assert ended(site.rotations.administer(WEB2, MAINT)) == ["web/web2"]
    assert ended(site.rotations.weigh(ServerId("web", "web3"), 0.0)) == []
    moved = replace(server(4), place="10.0.0.9 80")
    assert ended(site.rotations.configure([web(server(2), moved)])) == ["web/web3", "web/web4"]
    assert ended(site.rotations.configure([])) == ["web/web4"]


def test_connections_of_a_server_that_panic_uses_end_with_the_panic() -> None:
    site = Site(server(1, "a"), server(2, "b"), percent=50, a=UP, b=UP)
    assert ended(site.say(a=DOWN, b=DOWN)) == []
    assert ended(site.say(a=UP)) == ["web/web2"]


def test_target_that_services_share_counts_for_each() -> None:
    verdicts = {"a": Verdict(UP)}
    rotations = Rotations(verdicts)
    mail = CheckedService("mail", (CheckedServer("m", "p", 1, ("a",)),))
    rotations.configure([web(server(1, "a")), mail, CheckedService("dns", ())])
    verdicts["a"] = Verdict(DOWN)
    events = rotations.reconsider(["a", "unused"])
    assert [e.name for e in events if isinstance(e, ServiceChanged)] == ["mail", "web"]
    assert rotations.reconsider(["a"]) == ()


# ----------------------------------------------------------------------- properties

NAMES, CHECKS = ("web1", "web2", "web3", "web4"), ("a", "b", "c")
SERVERS = st.builds(
    CheckedServer,
    name=st.sampled_from(NAMES),
    place=st.sampled_from(("here", "here", "there")),
    weight=st.integers(0, 2),
    targets=st.lists(st.sampled_from(CHECKS), unique=True, max_size=2).map(tuple),
)
SERVICES = st.lists(
    st.builds(
        CheckedService,
        name=st.sampled_from(("web", "mail")),
        servers=st.lists(SERVERS, unique_by=lambda s: s.name, max_size=4).map(tuple),
        min_healthy_percent=st.sampled_from((0, 30, 50, 100)),
    ),
    unique_by=lambda s: s.name,
)
IDS = st.builds(ServerId, st.sampled_from(("web", "mail")), st.sampled_from(NAMES))
STEPS = st.one_of(
    st.tuples(st.just("configure"), SERVICES),
    st.tuples(st.just("administer"), IDS, st.sampled_from((DRAIN, MAINT, Administrative()))),
    st.tuples(st.just("weigh"), IDS, st.sampled_from((0.0, 0.5, 1.0))),
    st.tuples(st.just("verdict"), st.sampled_from(CHECKS), st.sampled_from((UP, DOWN))),
)


def take(rotations: Rotations, verdicts: dict[str, Verdict], step: tuple[Any, ...]) -> None:
    name, *given_values = step
    if name == "verdict":
        target, state = given_values
        verdicts[target] = Verdict(state)
        rotations.reconsider([target])
        return
    getattr(rotations, name)(*given_values)


def check_status(rotations: Rotations, verdicts: dict[str, Verdict]) -> None:
    facts = rotations.facts
    for service in facts.services:
        status = rotations.statuses[service.name]
        names = dict(status.rotation)
        up = 0
        candidates = 0
        for one in service.servers:
            me = ServerId(service.name, one.name)
            mode = facts.administrative.get(me, Administrative()).mode
            no_weight = one.weight * facts.factors.get(me, 1.0) == 0
            states = [verdicts[t].state if t in verdicts else UNKNOWN for t in one.targets]
            if mode is not Mode.READY or no_weight:
                assert one.name not in names  # also in panic
                continue
            candidates += 1
            up += DOWN not in states and (UNKNOWN not in states or me in facts.stays)
        panic = candidates > 0 and up / candidates < service.min_healthy_percent / 100
        assert (status.candidates, status.healthy, status.is_panic) == (candidates, up, panic)
        assert len(names) == (candidates if panic else up)
        assert (status.state is ServiceState.DOWN) is (not names)
        for one in service.servers:
            silent = rotations.why(ServerId(service.name, one.name)) == ""
            assert not silent or one.name in names


@given(st.lists(STEPS, max_size=30))
def test_rotation_follows_from_the_facts_and_counters_equal_a_recount(
    steps: list[tuple[Any, ...]],
) -> None:
    verdicts: dict[str, Verdict] = {}
    rotations = Rotations(verdicts)
    for step in steps:
        before = rotations.facts
        serving = {
            ServerId(name, s.name): s.place
            for name, status in rotations.statuses.items()
            for s in status.servers
            if not s.causes
        }
        take(rotations, verdicts, step)
        check_status(rotations, verdicts)
        for one in rotations.facts.stays - before.stays:
            assert one in serving
        # A snapshot of the facts and the verdicts is enough for another node.
        assert Rotations(verdicts, rotations.facts).statuses == rotations.statuses


@given(st.lists(STEPS, max_size=20))
def test_events_are_all_that_changed(steps: list[tuple[Any, ...]]) -> None:
    verdicts: dict[str, Verdict] = {}
    rotations = Rotations(verdicts)
    shown: dict[str, ServiceStatus] = {}
    for name, *values in steps:
        if name == "verdict":
            verdicts[values[0]] = Verdict(values[1])
            events = rotations.reconsider([values[0]])
        else:
            events = getattr(rotations, name)(*values)
        for event in events:
            if isinstance(event, ServiceChanged):
                assert shown.pop(event.name, None) == event.was
                shown |= {event.name: event.now} if event.now else {}
        assert shown == dict(rotations.statuses)


def test_snapshot_of_nothing_is_nothing() -> None:
    assert Rotations({}).facts == Facts()
