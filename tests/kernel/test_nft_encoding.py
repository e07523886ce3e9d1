"""What is encoded here is what libnftables makes of the same script."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hanat.core.configuration import (
    Configuration,
    Listen,
    Persistence,
    Protocol,
    RealServer,
    Scheduler,
    Sorry,
)
from hanat.core.ruleset import render_rotations, render_ruleset
from hanat.core.schedulers import InRotation
from hanat.core.services import Rotations, Turns
from hanat.core.steps import steps
from hanat.errors import AbsentObjectError, KernelError
from hanat.kernel.firewall import KernelFirewall
from hanat.kernel.nft import NftLibrary
from hanat.kernel.nft_encoding import encoded
from tests.core.configurations import configurations, rotations
from tests.core.examples import CONVERSATION, DEVICES, EDGE, MEDIA, PUBLIC, WEB
from tests.core.test_one_packet import DNS
from tests.core.test_steps import services

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("inside")]


@pytest.fixture
def firewall(inside: object) -> Iterator[KernelFirewall]:  # noqa: ARG001 - the namespace first
    opened = KernelFirewall()
    yield opened
    opened.close()


def compared(
    firewall: KernelFirewall, configuration: Configuration, before: Rotations, after: Rotations
) -> list[bool]:
    """Follow the steps by libnftables and by both; say of each script whether it is encoded."""
    library = NftLibrary()
    start = render_ruleset(configuration, DEVICES, CONVERSATION, rotations=before)
    plan = steps(*render_rotations(configuration, Turns(before), Turns(after)))
    assert plan is not None
    scripts = list(filter(None, (*plan.builds, plan.switch, *plan.clears)))
    listings = []
    for apply in (lambda s: library.run(s, operation="a", target="b"), firewall.apply):
        library.run(start, operation="a", target="b")
        for script in scripts:
            apply(script)
        listings.append(library.run("list table inet hanat", operation="a", target="b"))
        listings[-1] += library.run("list ruleset", operation="a", target="b")
    assert listings[0] == listings[1]
    return [encoded(script) is not None for script in scripts]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configurations(), st.data())
def test_kernel_gets_what_libnftables_would_tell_it(
    firewall: KernelFirewall, configuration: Configuration, data: st.DataObject
) -> None:
    compared(
        firewall,
        configuration,
        data.draw(rotations(configuration)),
        data.draw(rotations(configuration)),
    )


SIX = replace(
    WEB,
    servers=tuple(
        RealServer(f"x{n}", ip_address(f"fd00:12::{n}"), port, 1)
        for n, port in enumerate((80, 81, None))
    ),
)
NO_PORT = replace(
    MEDIA, servers=tuple(replace(server, port=None) for server in MEDIA.servers), hash_port=True
)


@pytest.mark.parametrize(
    ("service", "names"),
    [
        (WEB, ("web1", "web2")),
        (WEB, ("web2",)),
        (WEB, ()),
        (SIX, ("x0", "x1")),
        (SIX, ("x2",)),
        (replace(WEB, scheduler=Scheduler.SH, hash_port=True), ("web1", "web2", "web6")),
        (NO_PORT, ()),
        (replace(WEB, persistence=Persistence(60.0)), ("web1", "web2")),
        (replace(WEB, persistence=Persistence(60.0, netmask=20, netmask6=60)), ("web2",)),
        (replace(SIX, persistence=Persistence(60.0, netmask6=64)), ("x0", "x2")),
        (SIX, ("x1", "x2")),
    ],
)
def test_usual_rotations_are_encoded(
    firewall: KernelFirewall, service: object, names: tuple[str, ...]
) -> None:
    configuration = replace(EDGE, services=(service,))  # type: ignore[arg-type]  # one of the above
    rotation = tuple(map(InRotation, names))
    name = configuration.services[0].name

    found = compared(firewall, configuration, {}, {name: rotation})
    assert all(found)
    assert len(found) == (3 if configuration.services[0].scheduler.by_source and names else 1)
    compared(firewall, configuration, {name: rotation}, {})


@pytest.mark.parametrize("scheduler", [s for s in Scheduler if not s.by_counts])
def test_rotation_of_single_datagrams_is_encoded(
    firewall: KernelFirewall, scheduler: Scheduler
) -> None:
    for sorry in (DNS.sorry, (Sorry(ip_address("10.11.12.200"), 99),)):
        dns = replace(DNS, scheduler=scheduler, sorry=sorry)
        configuration = replace(EDGE, services=(WEB, dns))
        for names in (("a", "b"), ("a",), ("six",)):
            rotation = {"dns": tuple(map(InRotation, names))}
            for before, after in (({}, rotation), (rotation, {})):
                found = compared(firewall, configuration, before, after)
                # A table by source of two servers is one of ranges, see `services.elements_of`.
                assert all(found) or scheduler.by_source or scheduler is Scheduler.RANDOM


def test_many_services_of_datagrams_come_and_go_in_slices(firewall: KernelFirewall) -> None:
    many = tuple(
        replace(s, listens=(Listen(PUBLIC, Protocol.UDP, 1000 + n, 1000 + n),), ops=True)
        for n, s in enumerate(services(200, port=None))
    )
    library = NftLibrary()
    few, all_ = (
        render_ruleset(replace(EDGE, services=some), DEVICES, CONVERSATION)
        for some in (many[:10], many)
    )
    listings = []
    for start, end in ((few, all_), (all_, few)):
        library.run(start, operation="a", target="b")
        plan = steps(start, end)
        assert plan is not None
        for script in (*plan.builds, plan.switch, *plan.clears):
            assert encoded(script) is not None
            assert len(script) < 150_000
            firewall.apply(script)
        listings.append(library.run("list table inet hanat", operation="a", target="b"))
        library.run(end, operation="a", target="b")
        wanted = library.run("list table inet hanat", operation="a", target="b")
        assert sorted(listings[-1].splitlines()) == sorted(wanted.splitlines())


@pytest.mark.parametrize("scheduler", Scheduler)
def test_rotation_of_every_scheduler_is_the_same(
    firewall: KernelFirewall, scheduler: Scheduler
) -> None:
    (service,) = services(1)
    for one in (service, replace(service, listens=(*service.listens, MEDIA.listens[0]))):
        configuration = replace(EDGE, services=(replace(one, scheduler=scheduler),))
        rotation = tuple(InRotation(server.name) for server in service.servers[:-1])
        found = compared(firewall, configuration, {}, {service.name: rotation})
        assert all(found) or scheduler is Scheduler.RANDOM, found


def test_what_the_kernel_refuses_is_an_error_and_changes_nothing(firewall: KernelFirewall) -> None:
    firewall.apply(render_ruleset(EDGE, DEVICES, CONVERSATION))
    before = firewall.table("inet", "hanat")
    add = "add element inet hanat listens_v4 {{ 203.0.113.10 . tcp . {} : goto {} }}\n"

    with pytest.raises(AbsentObjectError):
        firewall.apply(add.format(1, "service/web/v4/951bff29") + add.format(2, "service/none"))
    with pytest.raises(KernelError):
        firewall.apply(add.format(80, "service/off/v4/7acad9d8"))
    assert firewall.table("inet", "hanat") == before
    firewall.apply(add.format(1, "service/web/v4/951bff29"))
    assert firewall.table("inet", "hanat") != before


def test_fifty_rotations_are_encoded(firewall: KernelFirewall) -> None:
    """Beside a gate that is armed all the time, libnftables would take seconds for the last."""
    configuration = replace(EDGE, services=services(50))
    rotation = tuple(map(InRotation, ("w1", "w2")))
    found = compared(
        firewall, configuration, {}, {service.name: rotation for service in configuration.services}
    )
    assert found == [True] * 5


def test_other_scripts_are_not_encoded() -> None:
    text = render_ruleset(EDGE, DEVICES, CONVERSATION)
    for script in (
        text,
        text[text.index("table inet hanat {") :],
        "flush ruleset",
        "add element inet hanat_gate vips_v4 { 203.0.113.10 }",
        "table inet hanat {\n    chain x {\n        tcp dport 80 drop\n    }\n}\n",
    ):
        assert encoded(script) is None
