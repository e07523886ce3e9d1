"""Services as the daemon shows them, without any check."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hanat.core.checks import HttpCheck, ServiceCheck
from hanat.core.configuration import OnServerDown
from hanat.core.flows import ServerKey
from hanat.core.probing import Check, Operational
from hanat.core.rotation import ServiceState
from hanat.core.service_view import Condition
from hanat.daemon.service_views import ServiceViews, checked
from hanat.errors import NoSuchError
from tests.core.examples import EDGE, MEDIA, PUBLIC, WEB

CHECK = ServiceCheck(HttpCheck(), Check(interval_s=1.0, timeout_s=0.5))
VIEWS = ServiceViews(1, {1: "r1"})


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
    plain = ServiceViews._view

    def noted(self: ServiceViews, *arguments: object) -> object:
        made.append("one")
        return plain(self, *arguments)  # type: ignore[arg-type] # as they came

    monkeypatch.setattr(ServiceViews, "_view", noted)
    views = VIEWS.all(EDGE, {}, 0.0)
    assert made == []
    next(views)
    assert made == ["one"]


def test_connections_are_those_of_the_services_own_servers() -> None:
    key = ServerKey(6, PUBLIC.packed, 80, WEB.servers[0].address.packed)
    view = VIEWS.one("web", EDGE, {key: 5}, 0.0)
    assert [server.connections for server in view.servers] == [5, 0, 0, 0]
    assert [v.connections for v in VIEWS.all(EDGE, {key: 5}, 0.0)] == [5, 0, 0]


def test_server_with_a_check_is_unknown_and_gets_clients_as_before() -> None:
    configuration = replace(EDGE, services=(replace(WEB, checks=(CHECK,)),))
    server = VIEWS.one("web", configuration, {}, 0.0).server("web1")
    assert (server.operational, server.condition) == (Operational.UNKNOWN, Condition.SERVING)
    assert server.why == "web/web1 gets clients as before: its checks have no verdict yet"
    assert [check.target for check in server.checks] == [CHECK_TARGET]


CHECK_TARGET = replace(WEB, checks=(CHECK,)).targets_of(WEB.servers[0])[0].name


def test_service_that_is_not_configured_is_refused() -> None:
    with pytest.raises(NoSuchError, match="no service 'wob'; the nearest name is web"):
        VIEWS.one("wob", EDGE, {}, 0.0)


def test_what_becomes_of_connections_depends_on_the_protocol_unless_it_is_said() -> None:
    assert checked(WEB).on_server_down is OnServerDown.RESET
    assert checked(MEDIA).on_server_down is OnServerDown.EXPIRE
    kept = replace(WEB, on_server_down=OnServerDown.KEEP, min_healthy_percent=30)
    assert checked(kept).on_server_down is OnServerDown.KEEP
    assert checked(kept).min_healthy_percent == 30
