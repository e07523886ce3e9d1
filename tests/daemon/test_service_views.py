"""Services as the daemon shows them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hanat.core.checks import HttpCheck, ServiceCheck
from hanat.core.configuration import Configuration, VirtualService
from hanat.core.flows import ServerKey
from hanat.core.probing import Check, Operational
from hanat.core.rotation import ServiceState
from hanat.core.service_health import ServiceHealth
from hanat.core.service_view import Knowledge, ServiceView, view_of
from hanat.daemon import service_views
from hanat.daemon.rule_counts import RuleCounts
from hanat.daemon.service_views import ServiceViews
from hanat.errors import NoSuchError, RefusedError
from hanat.kernel.counters import KernelCounters
from tests.core.examples import EDGE, PUBLIC, WEB

CHECK = ServiceCheck(HttpCheck(), Check(interval_s=1.0, timeout_s=0.5))


def views_of(configuration: Configuration) -> ServiceViews:
    health = ServiceHealth(1)
    health.configure(configuration, 0.0, 0.0)
    while health.due() is not None:
        health.tick(0.0, 0.0)
    return ServiceViews(health, {1: "r1"}, RuleCounts(KernelCounters()))


VIEWS = views_of(EDGE)


def test_services_come_in_the_order_of_the_configuration() -> None:
    views = list(VIEWS.all(EDGE, {}, 0.0))
    assert [view.name for view in views] == [service.name for service in EDGE.services]
    states = {view.name: view.state for view in views}
    assert states == {
        "web": ServiceState.UP, "media": ServiceState.UP, "off": ServiceState.DOWN,
    }  # fmt: skip


def test_services_are_made_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the loop can turn between them."""
    made: list[str] = []
    plain = view_of

    def noted(service: VirtualService, known: Knowledge) -> ServiceView:
        made.append("one")
        return plain(service, known)

    monkeypatch.setattr(service_views, "view_of", noted)
    views = VIEWS.all(EDGE, {}, 0.0)
    assert made == []
    next(views)
    assert made == ["one"]


def test_connections_are_those_of_the_services_own_servers() -> None:
    key = ServerKey(6, PUBLIC.packed, 80, WEB.servers[0].address.packed)
    view = VIEWS.one("web", EDGE, {key: 5}, 0.0)
    assert [server.connections for server in view.servers] == [5, 0, 0, 0]
    assert [v.connections for v in VIEWS.all(EDGE, {key: 5}, 0.0)] == [5, 0, 0]


def test_server_with_a_check_is_unknown_until_somebody_probed_it() -> None:
    configuration = replace(EDGE, services=(replace(WEB, checks=(CHECK,)),))
    server = views_of(configuration).one("web", configuration, {}, 0.0).server("web1")
    assert server.operational is Operational.UNKNOWN
    assert server.why.startswith("web/web1 gets no clients: nothing is known of it yet")
    assert [check.target for check in server.checks] == [CHECK_TARGET]


def test_service_that_is_just_coming_into_force_is_not_shown_yet() -> None:
    views = ServiceViews(ServiceHealth(1), {1: "r1"}, RuleCounts(KernelCounters()))
    assert [*views.all(EDGE, {}, 0.0)] == []
    with pytest.raises(RefusedError, match="service web is just coming into force; ask again"):
        views.one("web", EDGE, {}, 0.0)


CHECK_TARGET = replace(WEB, checks=(CHECK,)).targets_of(WEB.servers[0])[0].name


def test_service_that_is_not_configured_is_refused() -> None:
    with pytest.raises(NoSuchError, match="no service 'wob'; the nearest name is web"):
        VIEWS.one("wob", EDGE, {}, 0.0)
