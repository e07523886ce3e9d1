"""The chains of a service: which server the kernel finds in each slot, by what it chooses one."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.core.configuration import (
    Listen,
    Persistence,
    Protocol,
    RealServer,
    Scheduler,
    Sorry,
    Unavailable,
    VirtualService,
)
from hanat.core.schedulers import InRotation, slots
from hanat.core.services import TABLE_SLOTS, Turns, rotation_of, service_chains
from hanat.core.shares import SLOTS_MAX
from tests.core.examples import PUBLIC, PUBLIC_V6, WEB

SERVERS = tuple(
    RealServer(f"s{n}", ip_address(f"10.11.12.{n}"), 8000 + n, weight=1) for n in range(8)
)
ALL = tuple(InRotation(server.name) for server in SERVERS)
BOTH = (Listen(PUBLIC, Protocol.TCP, 80, 80), Listen(PUBLIC, Protocol.UDP, 80, 80))


def service(scheduler: Scheduler = Scheduler.RR, **others: object) -> VirtualService:
    found = VirtualService("any", BOTH, scheduler, SERVERS)
    return replace(found, **others)  # type: ignore[arg-type]  # whatever a test has


def played(blocks: list[list[str]]) -> list[list[str]]:
    """Return the server of each slot as the kernel looks it up, for each rule of the entry."""
    targets = {f"10.11.12.{n} . {8000 + n}": f"s{n}" for n in range(8)}
    for block in blocks:
        if found := re.match(r"chain (server/any/(s\d)/\S+)", block[0]):
            targets[f"goto {found[1]}"] = found[2]
    maps = {b[0].split()[1]: " ".join(b[3:-2]).rstrip(", ") for b in blocks if b[0][:4] == "map "}
    tables = []
    for rule in blocks[-1][2:-1]:
        found = re.search(r"mod (\d+) .*map (?:@(\S+)|\{ (.*) \})$", rule)
        assert found, rule
        table = [""] * int(found[1])
        for element in (maps[found[2]] if found[2] else found[3]).split(","):
            key, _, target = element.strip().partition(" : ")
            first, _, last = key.partition("-")
            for slot in range(int(first), int(last or first) + 1):
                assert not table[slot]
                table[slot] = targets[target]
        tables.append(table)
    return tables


weights = st.lists(st.sampled_from([0, 1, 1, 1, 2, 3, 40]), min_size=8, max_size=8)


@given(st.sampled_from(Scheduler), weights, st.booleans())
def test_kernel_finds_in_each_slot_the_server_that_has_it(
    scheduler: Scheduler,
    found: list[int],
    mixed: bool,  # noqa: FBT001 - drawn
) -> None:
    rotation = tuple(InRotation(f"s{n}", weight) for n, weight in enumerate(found))
    size = SLOTS_MAX if scheduler.by_source else TABLE_SLOTS
    table = slots(scheduler, rotation, slots_max=size)
    if len(set(table)) < 2:
        return
    servers = tuple(replace(s, port=None) if mixed and s is SERVERS[0] else s for s in SERVERS)
    if mixed and (not found[0] or not any(found[1:])):
        return
    of = service(scheduler, servers=servers)

    tables = played(service_chains(of, 4, rotation))

    assert tables == [list(table)] * len(tables)
    assert len(tables) == (1 if scheduler.by_source else 2)


@given(st.sampled_from(Scheduler), st.permutations(ALL))
def test_same_servers_in_any_order_same_text(
    scheduler: Scheduler, rotation: list[InRotation]
) -> None:
    of = service(scheduler)

    assert service_chains(of, 4, tuple(rotation)) == service_chains(of, 4, rotation_of(of))


def test_only_servers_of_the_rotation_get_clients() -> None:
    rotation = tuple(one for one in ALL if one.name not in {"s0", "s3"})

    tables = played(service_chains(service(Scheduler.RR), 4, rotation))

    assert tables == [["s1", "s2", "s4", "s5", "s6", "s7"]] * 2


def test_weights_come_from_the_rotation() -> None:
    rotation = (InRotation("s1", 3), InRotation("s2", 1, percent=50), InRotation("s3", 0))

    tables = played(service_chains(service(Scheduler.WRR), 4, rotation))

    assert tables[0].count("s1") == 6 * tables[0].count("s2")


@pytest.mark.parametrize(
    ("others", "tcp", "udp"),
    [
        ({"scheduler": Scheduler.RR}, "numgen inc", "ip saddr . th sport . ip daddr . th dport"),
        ({"scheduler": Scheduler.RR, "ops": True}, "numgen inc", ""),
        ({"scheduler": Scheduler.RANDOM, "ops": True}, "numgen random", ""),
        ({"scheduler": Scheduler.SH}, "jhash ip saddr mod", ""),
        ({"scheduler": Scheduler.MH, "hash_port": True}, "jhash ip saddr . th sport mod", ""),
    ],
)
def test_kernel_chooses_by(others: dict[str, Any], tcp: str, udp: str) -> None:
    rules = service_chains(service(**others), 4, ALL)[-1][2:-1]

    assert tcp in rules[0]
    if udp:
        assert rules[0].startswith("    meta l4proto tcp ")
        assert rules[1].startswith("    meta l4proto udp ")
        assert udp in rules[1]
    else:
        assert len(rules) == 1
        assert "{ tcp, udp }" in rules[0]


def test_slots_side_by_side_are_a_range() -> None:
    rule = service_chains(service(Scheduler.RANDOM), 4, (ALL[0], InRotation("s1", 50)))[-1][2]

    assert rule.endswith("map { 0 : 10.11.12.0 . 8000, 1-50 : 10.11.12.1 . 8001 }")


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("others", "ends"),
    [
        ({}, ("counter accept", "counter accept")),
        ({"unavailable": Unavailable.DROP}, ("counter drop", "counter drop")),
        (
            {"sorry": (Sorry(ip_address("10.11.12.200"), 8080),)},
            ("meta l4proto tcp dnat ip to 10.11.12.200:8080", "counter accept"),
        ),
        (
            {"sorry": (Sorry(ip_address("fd00:12::200"), None),)},
            ("counter accept", "meta l4proto tcp dnat ip6 to fd00:12::200"),
        ),
    ],
)
def test_service_without_servers(
    version: int, others: dict[str, object], ends: tuple[str, str]
) -> None:
    of = replace(WEB, **others)  # type: ignore[arg-type]  # whatever a test has
    assert PUBLIC_V6 in {listen.address for listen in of.listens}

    (block,) = service_chains(of, version, ())

    assert block[1:-1] == ["    # wrr: no server", f"    {ends[version == 6]}"]


def test_servers_of_one_version_are_no_matter_of_the_other() -> None:
    rotation = tuple(one for one in rotation_of(WEB) if one.name != "web6")

    assert service_chains(WEB, 4, rotation) == service_chains(WEB, 4, rotation_of(WEB))
    assert "no server" in service_chains(WEB, 6, rotation)[0][1]


def test_clients_with_persistence_are_looked_up_before_anything_is_chosen() -> None:
    of = service(Scheduler.RR, persistence=Persistence(90.0, netmask=24))

    blocks = service_chains(of, 4, ALL[:2])

    sets = [block for block in blocks if block[0].startswith("set persist/any/")]
    assert [block[0].split("/")[2] for block in sets] == [server.name for server in SERVERS]
    assert sets[0][1:-1] == [
        "    type ipv4_addr",
        "    size 65536",
        "    flags dynamic,timeout",
        "    timeout 90s",
    ]
    names = {block[0].split("/")[2]: block[0].split()[1] for block in sets}
    rules = [rule.strip() for rule in blocks[-1][2:-1]]
    for server, rule in zip(("s0", "s1"), rules[:2], strict=True):
        found = re.fullmatch(r"(ip saddr and 255.255.255.0) @(\S+) goto (server/\S+)", rule)
        assert found is not None
        assert found[2] == names[server]
        (chain,) = (block for block in blocks if block[0] == f"chain {found[3]} {{")
        assert chain[1].strip() == f"update @{names[server]} {{ {found[1]} }}"
    assert played([*blocks[:-1], [*blocks[-1][:2], *blocks[-1][4:]]]) == [["s0", "s1"]] * 2


def test_sets_of_clients_do_not_depend_on_the_rotation() -> None:
    of = service(Scheduler.RR, persistence=Persistence(90.0))
    found = [
        [block for block in service_chains(of, 4, rotation) if block[0].startswith("set ")]
        for rotation in (ALL, ALL[:1], ())
    ]

    assert found[0] == found[1] == found[2]


def test_other_timeout_or_mask_is_another_set() -> None:
    given = (Persistence(90.0), Persistence(91.0), Persistence(90.0, netmask=24))

    names = {service_chains(service(Scheduler.RR, persistence=one), 4, ())[0][0] for one in given}

    assert len(names) == 3


def test_rotation_of_another_configuration_takes_no_server_away() -> None:
    """What replaces all servers is known before the ruleset that has them is in force."""
    others = (InRotation("green1"), InRotation("green2"))
    turns = Turns({"any": others})
    assert turns.rotation(service()) == rotation_of(service())
    assert Turns({"any": ALL[:2]}).rotation(service()) == ALL[:2]
    assert Turns({"any": ()}).rotation(service()) == ()
