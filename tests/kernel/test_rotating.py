"""Rotations among installations, on a real kernel: what is in force, and who is told."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

from hanat.core.configuration import (
    Configuration,
    Limits,
    Listen,
    Persistence,
    Protocol,
    Scheduler,
    VirtualService,
)
from hanat.core.outcomes import DONE, Cause, Done, Failed
from hanat.core.ruleset import render_ruleset
from hanat.core.schedulers import InRotation
from hanat.core.service_limits import counter_of
from hanat.core.services import Rotations
from hanat.core.steps import SLICE_CHAINS
from hanat.daemon.background import Background
from hanat.daemon.gate_change import GateChange
from hanat.daemon.realtime import step_back
from hanat.daemon.ruleset_installer import RulesetInstaller
from hanat.errors import KernelError
from hanat.kernel.addresses import KernelAddresses
from hanat.kernel.firewall import KernelFirewall
from hanat.kernel.timeout_gate import KernelGate
from hanat.raft.slow_work import at_once
from tests.core.examples import CONVERSATION, DEVICES, EDGE, PUBLIC, WEB
from tests.core.test_one_packet import DNS
from tests.core.test_steps import services
from tests.kernel.test_drift import look, words

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("inside")]

WEB1, WEB2 = ({"web": (InRotation(name),)} for name in ("web1", "web2"))
MANY = replace(EDGE, services=services(2 * SLICE_CHAINS))


class ToldFirewall(KernelFirewall):
    """Keeps what was applied, refuses what has a word, and can be held back."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.refuses = "nothing has this"
        self.begun, self.may_go_on = threading.Event(), threading.Event()
        self.may_go_on.set()

    def apply(self, script: str) -> None:
        self.begun.set()
        assert self.may_go_on.wait(10)
        self.scripts.append(script)
        if self.refuses in script:
            raise KernelError(operation="apply", target="nftables", found="refused")
        super().apply(script)


@pytest.fixture
def firewall(inside: object) -> Iterator[ToldFirewall]:  # noqa: ARG001 - the namespace first
    opened = ToldFirewall()
    yield opened
    opened.close()


@pytest.fixture
def gate(inside: object) -> Iterator[KernelGate]:  # noqa: ARG001 - the namespace first
    opened = KernelGate()
    yield opened
    opened.close()


@pytest.fixture
def rulesets(gate: KernelGate, firewall: ToldFirewall) -> RulesetInstaller:
    return made(gate, firewall, at_once)


def made(gate: KernelGate, firewall: ToldFirewall, background: object) -> RulesetInstaller:
    return RulesetInstaller(
        DEVICES,
        conversation=CONVERSATION,
        gate=GateChange(gate, KernelAddresses(), DEVICES.values()),
        firewall=firewall,
        background=background,  # type: ignore[arg-type]  # one of two
        known=("", EDGE),
    )


def install(rulesets: RulesetInstaller, configuration: Configuration) -> None:
    def told(outcome: Done | Failed, kept: bool) -> None:  # noqa: FBT001 - called by the thread
        assert outcome == DONE
        assert kept

    rulesets.install(configuration, told)


def rotate(rulesets: RulesetInstaller, rotations: Rotations) -> str | None:
    found: list[str | None] = []
    rulesets.rotate(rotations, found.append)
    return found[0]


def has(firewall: ToldFirewall, configuration: Configuration, rotations: Rotations) -> bool:
    """Say whether the kernel has what one script makes, and put it there."""
    found = words(firewall, "hanat")
    firewall.apply(render_ruleset(configuration, DEVICES, CONVERSATION, rotations=rotations))
    return found == words(firewall, "hanat")


def test_rotation_is_one_small_transaction(
    rulesets: RulesetInstaller, firewall: ToldFirewall
) -> None:
    install(rulesets, MANY)
    firewall.scripts.clear()
    rotations = {"s7": (InRotation("w1"), InRotation("w2"))}

    assert rotate(rulesets, rotations) is None

    (script,) = firewall.scripts
    assert len(script) < 1_000
    assert look(rulesets) == ()
    assert has(firewall, MANY, rotations)


def test_rotations_of_single_datagrams_are_no_drift(
    rulesets: RulesetInstaller, firewall: ToldFirewall
) -> None:
    configuration = replace(EDGE, services=(*services(2 * SLICE_CHAINS), DNS))
    install(rulesets, MANY)
    install(rulesets, configuration)
    rotations: Rotations = {}
    for names in (("a",), (), ("a", "b", "six")):
        firewall.scripts.clear()
        rotations = {"dns": tuple(map(InRotation, names))}

        assert rotate(rulesets, rotations) is None

        (script,) = firewall.scripts
        assert len(script) < 3_000
        assert look(rulesets) == ()
    for script in (
        "flush chain inet hanat one_packet_in",
        "delete element inet hanat one_packet_servers_v4 { 10.11.12.101 . udp . 5353 }",
    ):
        firewall.apply(script)
        assert "table inet hanat changed" in look(rulesets), script
        install(rulesets, configuration)
        assert look(rulesets) == ()
    assert has(firewall, configuration, rotations)

    install(rulesets, EDGE)
    assert "one_packet" not in (firewall.table("inet", "hanat") or "")


def test_refused_servers_of_datagrams_are_not_left_behind(
    rulesets: RulesetInstaller, firewall: ToldFirewall
) -> None:
    many = tuple(
        replace(s, listens=(Listen(PUBLIC, Protocol.UDP, 1000 + n, 1000 + n),), ops=True)
        for n, s in enumerate(services(SLICE_CHAINS, port=None))
    )
    install(rulesets, replace(EDGE, services=many[:2]))
    there = words(firewall, "hanat")
    told: list[Done | Failed] = []

    firewall.refuses = "add element inet hanat one_packet_turns_v4"
    rulesets.install(replace(EDGE, services=many), lambda outcome, _: told.append(outcome))

    assert told == [Failed(Cause.KERNEL, "cannot apply on nftables: refused")]
    assert words(firewall, "hanat") == there


def test_same_rotations_are_no_transaction(
    rulesets: RulesetInstaller, firewall: ToldFirewall
) -> None:
    install(rulesets, EDGE)
    rotate(rulesets, WEB1)
    firewall.scripts.clear()

    assert rotate(rulesets, dict(WEB1)) is None
    assert firewall.scripts == []


def test_service_without_an_entry_has_its_default_again(
    rulesets: RulesetInstaller, firewall: ToldFirewall
) -> None:
    install(rulesets, EDGE)
    rotate(rulesets, {**WEB1, "media": ()})
    rotate(rulesets, {"media": ()})

    assert has(firewall, EDGE, {"media": ()})


def test_rotation_outlives_other_configurations(
    rulesets: RulesetInstaller, firewall: ToldFirewall
) -> None:
    install(rulesets, EDGE)
    rotate(rulesets, WEB1)
    other = replace(EDGE, services=(replace(WEB, listens=WEB.listens[:1]),))
    install(rulesets, other)
    assert has(firewall, other, WEB1)

    rotate(rulesets, WEB2)
    install(rulesets, replace(EDGE, services=()))
    install(rulesets, EDGE)
    assert has(firewall, EDGE, WEB2)


def test_rotation_that_comes_first_is_in_the_first_ruleset(
    rulesets: RulesetInstaller, firewall: ToldFirewall
) -> None:
    assert rotate(rulesets, WEB1) is None
    assert firewall.scripts == []
    install(rulesets, EDGE)

    assert has(firewall, EDGE, WEB1)


@pytest.mark.parametrize("script", ["flush ruleset", "flush chain inet hanat prerouting"])
def test_what_others_change_before_a_rotation_is_found_after_it(
    rulesets: RulesetInstaller, firewall: ToldFirewall, script: str
) -> None:
    install(rulesets, EDGE)
    rotate(rulesets, WEB1)
    firewall.apply(script)

    refused = rotate(rulesets, WEB2)

    assert (refused is not None) is (script == "flush ruleset")
    assert "table inet hanat" in " ".join(look(rulesets))
    install(rulesets, EDGE)
    assert look(rulesets) == ()
    assert has(firewall, EDGE, WEB2)


def test_refused_rotation_leaves_the_one_before_and_is_tried_again(
    rulesets: RulesetInstaller, firewall: ToldFirewall
) -> None:
    install(rulesets, MANY)
    before = {f"s{n}": (InRotation("w1"),) for n in range(SLICE_CHAINS)}
    after = {f"s{n}": (InRotation("w2"),) for n in range(SLICE_CHAINS)}
    rotate(rulesets, before)
    there = words(firewall, "hanat")

    for word in (" w2 ", "delete element"):  # while chains are built, and at the switch
        firewall.refuses = word
        assert rotate(rulesets, after) == "cannot apply on nftables: refused"
        assert words(firewall, "hanat") == there
    assert look(rulesets) == ()
    firewall.refuses = "nothing has this"
    install(rulesets, MANY)

    assert look(rulesets) == ()
    assert has(firewall, MANY, after)


def test_table_that_follows_counts_is_rewritten_until_the_rotation_changes(
    rulesets: RulesetInstaller, firewall: ToldFirewall
) -> None:
    by_counts = replace(EDGE, services=(replace(WEB, scheduler=Scheduler.LC),))
    install(rulesets, by_counts)
    firewall.scripts.clear()
    table = ("web2",) * 200 + ("web1",) * 56
    found: list[str | None] = []

    rulesets.level({("web", 4): table}, found.append)

    (script,) = firewall.scripts
    assert [line.split()[:2] for line in script.splitlines()] == [
        ["delete", "element"],
        ["add", "element"],
    ]
    assert found == [None]
    assert look(rulesets) == ()
    assert slots_of_web2(firewall) == 200

    install(rulesets, replace(by_counts, name="other"))
    assert slots_of_web2(firewall) == 200
    rotate(rulesets, {"web": tuple(map(InRotation, ("web1", "web2")))})
    assert slots_of_web2(firewall) == 128


def slots_of_web2(firewall: ToldFirewall) -> int:
    return (firewall.table("inet", "hanat") or "").count("goto server/web/web2/v4/")


def test_slots_that_follow_counts_are_not_what_drifts(
    rulesets: RulesetInstaller, firewall: ToldFirewall
) -> None:
    install(rulesets, replace(EDGE, services=(replace(WEB, scheduler=Scheduler.LC),)))
    firewall.apply("delete element inet hanat slots/web/v4 { 7 }")
    assert look(rulesets) == ()


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("happens", ["start", "drift", "flush", "another"])
def test_clients_stay_with_their_servers_when_the_table_is_replaced(
    gate: KernelGate,
    firewall: ToldFirewall,
    happens: str,
    many: bool,  # noqa: FBT001 - drawn
) -> None:
    others = (DNS, *(MANY.services if many else ()))
    web = replace(WEB, persistence=Persistence(600.0), scheduler=Scheduler.LC)
    configuration = replace(EDGE, services=(web, *others))
    rulesets = made(gate, firewall, at_once)
    install(rulesets, configuration)
    names = [name for _, name in firewall.names("inet", "hanat") if name.startswith("persist/")]
    for name in names:
        client = "2001:db8::7" if "/v6/" in name else "203.0.113.7"
        firewall.apply(f"add element inet hanat {name} {{ {client} }}")

    if happens == "start":
        rulesets = made(gate, firewall, at_once)
    elif happens == "drift":
        firewall.apply("flush chain inet hanat prerouting")
        firewall.apply("add chain inet hanat strange")
    elif happens == "flush":
        firewall.apply("flush table inet hanat")
    else:
        configuration = replace(configuration, services=(*others, web), name="other")
    install(rulesets, configuration)

    assert len(names) == 4
    listing = firewall.table("inet", "hanat") or ""
    assert listing.count(" expires ") == 4
    assert look(rulesets) == ()
    wanted = render_ruleset(configuration, DEVICES, CONVERSATION)
    found = firewall.names("inet", "hanat")
    firewall.apply(wanted)
    assert sorted(found) == sorted(firewall.names("inet", "hanat"))

    install(rulesets, replace(EDGE, services=others))
    assert not [n for _, n in firewall.names("inet", "hanat") if n.startswith("persist/")]


def test_counters_and_buckets_of_a_limit_that_is_gone_go_beside_clients(
    gate: KernelGate, firewall: ToldFirewall
) -> None:
    limits = Limits(new_per_second=10, burst=10)
    web = replace(WEB, persistence=Persistence(600.0), limits=limits)
    install(made(gate, firewall, at_once), replace(EDGE, services=(web, *limited(2))))
    counter = counter_of("web", "new_per_second")
    assert len(objects(firewall)) == 6

    web = replace(web, limits=replace(limits, burst=20))
    configuration = replace(EDGE, services=(web, *limited(1)))
    install(made(gate, firewall, at_once), configuration)

    found = objects(firewall)
    assert len(found) == 4
    assert ("counter", counter) in found
    firewall.apply(render_ruleset(configuration, DEVICES, CONVERSATION))
    assert objects(firewall) == found


def limited(count: int) -> tuple[VirtualService, ...]:
    """Return services that take few connections."""
    limits = Limits(new_per_second=10, burst=10)
    return tuple(replace(service, limits=limits) for service in services(count))


def objects(firewall: ToldFirewall) -> list[tuple[str, str]]:
    """Return the kinds and names of all counters and buckets."""
    text = firewall.table("inet", "hanat") or ""
    return sorted(re.findall(r"^\t(counter|limit) (\S+) {", text, re.MULTILINE))


def test_rotations_wait_for_an_installation_and_only_the_newest_follows(
    gate: KernelGate, firewall: ToldFirewall
) -> None:
    told: list[str] = []
    small = replace(EDGE, services=(WEB,))

    async def play() -> None:
        ended = asyncio.get_running_loop().create_future()
        background = Background("rulesets", after=lambda: None, begin=step_back)
        try:
            rulesets = made(gate, firewall, background)
            firewall.may_go_on.clear()
            rulesets.install(small, lambda _error, _kept: told.append("installed"))
            assert await asyncio.to_thread(firewall.begun.wait, 10)
            for number in range(3):
                of = WEB1 if number % 2 else {"web": ()}
                rulesets.rotate(of, partial(_tell, told, f"{number}", None))
            rulesets.rotate(WEB2, partial(_tell, told, "last", ended))
            assert told == []
            firewall.may_go_on.set()
            await ended
        finally:
            firewall.may_go_on.set()
            background.close()

    asyncio.run(play())
    assert told == ["installed", "0", "1", "2", "last"]
    assert len(firewall.scripts) == 2
    assert has(firewall, small, WEB2)


def test_rotation_that_comes_while_another_is_applied_is_next(
    gate: KernelGate, firewall: ToldFirewall
) -> None:
    told: list[str] = []

    async def play() -> None:
        installed, ended = (asyncio.get_running_loop().create_future() for _ in range(2))
        background = Background("rulesets", after=lambda: None, begin=step_back)
        try:
            rulesets = made(gate, firewall, background)
            rulesets.install(EDGE, lambda outcome, _: installed.set_result(outcome))
            assert await installed == DONE
            firewall.scripts.clear()
            firewall.begun.clear()
            firewall.may_go_on.clear()
            rulesets.rotate(WEB1, partial(_tell, told, "first", None))
            assert await asyncio.to_thread(firewall.begun.wait, 10)
            rulesets.rotate({"web": ()}, partial(_tell, told, "second", None))
            rulesets.rotate(WEB2, partial(_tell, told, "third", ended))
            firewall.may_go_on.set()
            await ended
        finally:
            firewall.may_go_on.set()
            background.close()

    asyncio.run(play())
    assert told == ["first", "second", "third"]
    assert len(firewall.scripts) == 2
    assert has(firewall, EDGE, WEB2)


def _tell(
    told: list[str], word: str, ended: asyncio.Future[None] | None, error: str | None
) -> None:
    assert error is None
    told.append(word)
    if ended is not None:
        ended.set_result(None)
