"""How one ruleset becomes another: a part for a part that changed, and never much at once."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given

from hanat.core.configuration import (
    Configuration,
    Listen,
    Protocol,
    RealServer,
    Scheduler,
    VirtualService,
)
from hanat.core.ruleset import render_rotations, render_ruleset
from hanat.core.schedulers import InRotation, level, slots
from hanat.core.services import Levels, Rotations, Turns, rotation_of
from hanat.core.shares import Slots, moved
from hanat.core.steps import SLICE_CHAINS, Steps, parse, steps, without_services
from tests.core.configurations import configurations
from tests.core.examples import CONVERSATION, DEVICES, EDGE, PUBLIC, WEB


def services(count: int, *, weight: int = 1, port: int | None = 8080) -> tuple[VirtualService, ...]:
    """Return services of ten servers each; of the first one, a server has that weight."""
    return tuple(
        VirtualService(
            f"s{n}",
            (Listen(PUBLIC, Protocol.TCP, 1000 + n, 1000 + n),),
            Scheduler.WRR,
            tuple(
                RealServer(
                    f"w{k}", ip_address(f"10.11.{12 + n // 250}.{k + 1}"), port,
                    weight if n == k == 0 else 1,
                )
                for k in range(10)
            ),
        )
        for n in range(count)
    )  # fmt: skip


def text(
    configuration: Configuration,
    rotations: Rotations | None = None,
    levels: Levels | None = None,
) -> str:
    return render_ruleset(configuration, DEVICES, CONVERSATION, rotations=rotations, levels=levels)


def planned(old: str, new: str) -> Steps:
    found = steps(old, new)
    assert found is not None
    return found


def test_same_ruleset_takes_nothing() -> None:
    assert planned(text(EDGE), text(EDGE)) == Steps((), "", (), ())


def test_one_weight_among_a_thousand_services_is_one_chain_and_one_element() -> None:
    old = text(replace(EDGE, services=services(1000)))
    new = text(replace(EDGE, services=services(1000, weight=2)))
    found = planned(old, new)
    assert (found.builds, found.clears) == ((), ())
    lines = found.switch.splitlines()
    assert [line.split("/")[0] for line in lines if not line.startswith(" ")] == [
        "table inet hanat {",
        "}",
        "delete element inet hanat listens_v4 { 203.0.113.10 . tcp . 1000 }",
        "add element inet hanat listens_v4 { 203.0.113.10 . tcp . 1000 : goto service",
        "delete chain inet hanat service",
    ]
    assert len(found.switch) < 1000


def test_rotation_by_source_builds_a_chain_of_its_own() -> None:
    first, *others = services(1000)
    configuration = replace(EDGE, services=(replace(first, scheduler=Scheduler.SH), *others))
    rotation = tuple(InRotation(server.name) for server in first.servers[1:])

    found = planned(*render_rotations(configuration, Turns(), Turns({"s0": rotation})))

    (build,) = found.builds
    assert len(build) < 120_000
    assert len(found.switch) < 1_000


@pytest.mark.parametrize("scheduler", [Scheduler.RR, Scheduler.WLC])
def test_rotation_of_one_among_a_thousand_services_is_a_small_transaction(
    scheduler: Scheduler,
) -> None:
    first, *others = services(1000)
    configuration = replace(EDGE, services=(replace(first, scheduler=scheduler), *others))
    rotation = tuple(InRotation(server.name) for server in first.servers[1:])

    found = planned(*render_rotations(configuration, Turns(), Turns({"s0": rotation})))

    assert found == planned(text(configuration), text(configuration, {"s0": rotation}))
    assert (found.builds, found.clears) == ((), ())
    assert len(found.switch) < 20_000
    shape = [" ".join(line.split("/")[0].split()[:5]) for line in found.switch.splitlines()]
    if scheduler is Scheduler.WLC:
        assert shape == [
            "delete element inet hanat slots",
            "add element inet hanat slots",
            "delete chain inet hanat server",
        ]
    else:
        assert len(shape) == 9
        assert shape[-3:] == [
            "delete element inet hanat listens_v4",
            "add element inet hanat listens_v4",
            "delete chain inet hanat service",
        ]


def test_table_that_follows_counts_is_elements_alone() -> None:
    first, *others = services(1000)
    configuration = replace(EDGE, services=(replace(first, scheduler=Scheduler.LC), *others))
    servers = rotation_of(first)
    before = slots(Scheduler.LC, servers)
    after = level(Scheduler.LC, servers, {"w0": 20}, before, arriving=10)
    levels = {("s0", 4): after}

    found = planned(*render_rotations(configuration, Turns(), Turns({}, levels)))

    assert found == planned(text(configuration), text(configuration, levels=levels))
    deleted, added = found.switch.splitlines()
    assert deleted.startswith("delete element inet hanat slots/s0/v4 { ")
    assert added.count(" : goto server/s0/") == len(moved(before, after)) < 60


@pytest.mark.parametrize("table", [("w0",) * 256, ("w1",) * 255, ("w1", "other") * 128])
def test_table_that_does_not_fit_the_rotation_is_left_out(table: Slots) -> None:
    configuration = replace(EDGE, services=(replace(services(1)[0], scheduler=Scheduler.LC),))
    rotation = {"s0": tuple(map(InRotation, ("w1", "w2")))}

    assert text(configuration, rotation, {("s0", 4): table}) == text(configuration, rotation)
    assert text(configuration, rotation, {("s0", 4): ("w1", "w2") * 128}) != text(configuration)


def test_service_whose_last_server_leaves_is_refused_in_one_transaction() -> None:
    configuration = replace(EDGE, services=services(1000))

    found = planned(*render_rotations(configuration, Turns(), Turns({"s0": ()})))

    assert found == planned(text(configuration), text(configuration, {"s0": ()}))
    assert (found.builds, found.clears) == ((), ())
    assert "add element inet hanat refused_v4 { 203.0.113.10 . tcp . 1000 }\n" in found.switch
    assert len(found.switch) < 1000


def test_fifty_rotations_are_built_in_slices_and_switched_at_once() -> None:
    configuration = replace(EDGE, services=services(1000))
    after = {f"s{n}": tuple(map(InRotation, ("w1", "w2"))) for n in range(50)}

    found = planned(*render_rotations(configuration, Turns(), Turns(after)))

    assert len(found.builds) == len(found.clears) == 50 / SLICE_CHAINS
    assert found.switch.count("add element") == 1


def test_many_services_come_in_slices_behind_a_ruleset_without_them() -> None:
    new = text(replace(EDGE, services=services(1000)))
    found = planned(without_services(new), new)
    assert len(found.builds) == 1000 / SLICE_CHAINS
    assert not any("hook" in script or "element" in script for script in found.builds)
    assert found.switch.count("add element") == 1
    assert found.clears == ()


def test_many_services_go_in_slices_after_nothing_leads_to_them() -> None:
    old = text(replace(EDGE, services=services(1000)))
    found = planned(old, text(replace(EDGE, services=())))
    assert found.builds == ()
    assert len(found.clears) == 1000 / SLICE_CHAINS
    assert "delete chain inet hanat service" not in found.switch


def test_ruleset_without_services_has_everything_else() -> None:
    bare = parse(without_services(text(EDGE)))
    full = parse(text(EDGE))
    assert not any(name.startswith(("service/", "server/")) for _, name in bare)
    for key in ("prerouting", "postrouting", "input", "floating", "cluster_in"):
        assert bare["chain", key] == full["chain", key]
    assert bare["map", "listens_v4"] == ("type ipv4_addr . inet_proto . inet_service : verdict",)


@given(old=configurations(), new=configurations())
def test_steps_lead_from_any_ruleset_to_any_other(old: Configuration, new: Configuration) -> None:
    """Played on a table of blocks; the real kernel plays them in tests/kernel."""
    found = planned(text(old), text(new))
    defined = "\n".join((*found.builds, found.switch))
    for key in parse(text(new)).keys() - parse(text(old)).keys():
        assert f"{key[0]} {key[1]} {{" in defined
    deleted = "\n".join((found.switch, *found.clears))
    for key in parse(text(old)).keys() - parse(text(new)).keys():
        assert f"delete {key[0]} inet hanat {key[1]}\n" in deleted


def test_service_that_moves_to_another_port_keeps_its_chain() -> None:
    moved = replace(WEB, listens=(Listen(PUBLIC, Protocol.TCP, 81, 81), *WEB.listens[1:]))
    found = planned(text(EDGE), text(replace(EDGE, services=(moved, *EDGE.services[1:]))))
    assert found.switch.startswith("delete element inet hanat listens_v4")
    assert "chain" not in found.switch
