"""What may never happen is caught when it happens, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chaos.faults.bounds import GRACE_MS, LEASE_MS
from chaos.judge import queued_packets, safety
from chaos.judge.checkers import Verdict
from chaos.judge.spells import tenures
from chaos.lab.topology import SERVERS
from chaos.observe.observed import Dropped, NeighbourSeen
from chaos.observe.run_history import MS, AdmissionSeen, ArpSeen, CarriedSeen, Fact
from tests.chaos.histories import ADDRESSES, speaks
from tests.chaos.runs import carries, fault, holds, of

LEASE = LEASE_MS["default"]

# r1 is cut off at 1 s, its gate shuts 110 ms later, r2 follows; undone at 3 s.
GOOD = of(fault(1000, 3000), holds("r1", 0, 1110), holds("r2", 1130, 5000))


def carried(history: object) -> Verdict:
    return safety.carried_in_time(history, LEASE, GRACE_MS)  # type: ignore[arg-type]


def test_good_run_passes() -> None:
    verdicts = [
        safety.one_holder(GOOD),
        carried(GOOD),
        safety.one_for_all(GOOD, ADDRESSES, (0, 5000 * MS)),
        safety.announced_last(GOOD),
    ]
    assert [v.valid for v in verdicts] == [True] * 4, verdicts


def test_gate_that_is_not_enforced_is_caught() -> None:
    # Cut off from its peers only, r1 goes on answering hosts: nothing shuts its gate.
    history = of(fault(1000, 3000), holds("r1", 0, 2000), holds("r2", 1130, 5000))
    verdict = safety.one_holder(history)
    assert verdict.valid is False
    assert verdict.evidence["overlap_ms"] == pytest.approx(865, abs=10)
    assert verdict.evidence["overlaps"][0]["during"] == "cut r1"
    assert carried(history).valid is False


def test_lease_that_is_longer_than_the_promise_is_caught() -> None:
    history = of(fault(1000, 3000), holds("r1", 0, 1150), holds("r2", 1130, 5000))
    verdict = safety.one_holder(history)
    assert verdict.valid is False
    assert verdict.evidence["overlap_ms"] == pytest.approx(15, abs=1)


def test_single_stray_answer_is_caught() -> None:
    history = of(GOOD.arp, GOOD.admissions, speaks("r1", 2000, 2001))
    assert safety.one_holder(history).valid is False


def test_first_packet_that_a_client_sends_again_is_no_act_of_a_holder() -> None:
    """The router that had let it through carries it in its time of grace (chaos seed 1403)."""
    source, target = "203.0.113.100:45491", "10.11.12.101:8080"
    first = AdmissionSeen(140 * MS, "r1", "private", 4, source, target)
    again = replace(first, t_ns=1140 * MS)
    seen = of(fault(1000, 3000), GOOD.arp, GOOD.admissions, first, again)
    assert safety.one_holder(seen).valid is True
    assert [(t.router, t.end_ns) for t in tenures(seen)] == [
        (t.router, t.end_ns) for t in tenures(GOOD)
    ]
    strange = of(fault(1000, 3000), GOOD.arp, GOOD.admissions, again)
    assert safety.one_holder(strange).valid is False


def test_without_evidence_nothing_is_known() -> None:
    assert safety.one_holder(of(GOOD.arp)).valid == "unknown"
    assert safety.one_holder(of(GOOD.admissions)).valid == "unknown"
    assert carried(of(GOOD.arp)).valid == "unknown"


@pytest.mark.parametrize("capture", ["acts", "carried"])
def test_frames_that_the_observer_missed_leave_it_unknown(capture: str) -> None:
    missed = Dropped(5000 * MS, capture, 3)
    facts: list[Fact] = [*GOOD.injections, *GOOD.arp, *GOOD.admissions, *GOOD.carried]
    for check in (safety.one_holder, carried):
        assert check(of(*facts)).valid is True
        assert check(of(*facts, missed)).valid == "unknown"
    # What was seen was seen.
    assert safety.one_holder(of(*facts, missed, speaks("r1", 2000, 2001))).valid is False


# Carrying ------------------------------------------------------------------------------


def test_flows_may_be_carried_until_the_grace_ends_and_no_longer() -> None:
    in_time = of(GOOD.arp, GOOD.admissions, GOOD.carried, carries("r1", 1110, 1320))
    assert carried(in_time).valid is True
    late = of(GOOD.arp, GOOD.admissions, GOOD.carried, carries("r1", 1110, 1420))
    verdict = carried(late)
    assert verdict.valid is False
    assert "r1 carried flows" in verdict.summary


def test_carrying_without_a_lease_is_caught_though_nobody_else_holds() -> None:
    history = of(fault(1000, 3000), holds("r1", 0, 1110), carries("r1", 1110, 2500))
    assert carried(history).valid is False


def test_old_holder_that_holds_again_may_carry_again() -> None:
    again = of(GOOD.arp, GOOD.admissions, GOOD.carried, holds("r1", 5020, 6000))
    assert carried(again).valid is True
    assert safety.one_holder(again).valid is True


def test_burst_that_a_kernel_had_kept_is_told_and_not_judged() -> None:
    cable = replace(fault(1000, 3000), nemesis="link-private")
    for at_ms in (2000, 3000, 5900):
        history = of(
            cable, GOOD.arp, GOOD.admissions, GOOD.carried, carries("r1", at_ms, at_ms + 1)
        )
        verdict = carried(history)
        assert verdict.valid is True
        assert "1 late bursts" in verdict.summary
        assert verdict.evidence["kept_bursts"] == 1


def test_burst_is_excused_once_for_each_neighbour_by_the_cable_to_it_and_soon() -> None:
    cable = replace(fault(1000, 3000), nemesis="link-private")
    # The second server is known 32 ms after the first (--nemesis all --seed 1).
    once, twice, third, again = (carries("r1", at, at + 1) for at in (3468, 3500, 3532, 4600))
    seen = (GOOD.arp, GOOD.admissions, GOOD.carried, third)
    both = replace(fault(4000, 4500), nemesis="link-both")
    assert carried(of(cable, *seen, once, twice)).valid is True
    assert carried(of(cable, both, *seen, once, twice, again)).valid is True
    assert carried(of(cable, *seen, once, twice, again)).valid is False
    assert carried(of(cable, *seen, carries("r1", 6100, 6101))).valid is False
    # Each is known by an address of each version of IP.
    six = [replace(burst, version=6) for burst in again if isinstance(burst, CarriedSeen)]
    assert carried(of(cable, *seen, once, twice, six)).valid is True
    long = CarriedSeen(3468 * MS, 3480 * MS, "r1", "private", 3)
    assert carried(of(cable, *seen, long)).valid is False
    other = replace(cable, nodes=["r3"])
    for excuse in (other, replace(cable, nemesis="link-public"), fault(1000, 3000)):
        assert carried(of(excuse, *seen, once)).valid is False


def test_new_connection_that_a_kernel_had_kept_is_told_and_not_judged() -> None:
    cable = replace(fault(1000, 3000), nemesis="link-private")
    seen = (cable, GOOD.arp, GOOD.admissions)
    each = [AdmissionSeen(at_ms * MS, "r1", "private") for at_ms in (3040, 3090, 3115)]
    one = each[0]
    assert len(each) == len(SERVERS)
    verdict = safety.one_holder(queued_packets.set_apart(of(*seen, *each)))
    assert verdict.valid is True
    assert "3 more were kept" in verdict.summary
    again, late = (AdmissionSeen(at_ms * MS, "r1", "private") for at_ms in (3140, 4501))
    unexplained = [
        of(*seen, *each, again),
        of(replace(cable, heal_ns=1500 * MS), *seen[1:], late),
        of(*seen, speaks("r1", 3041, 3042), one),
        of(replace(cable, nodes=["r3"]), *seen[1:], one),
        of(fault(1000, 3000), *seen[1:], one),
    ]
    for history in unexplained:
        assert safety.one_holder(history).valid is False
        assert safety.one_holder(queued_packets.set_apart(history)).valid is False


def test_what_a_kernel_had_kept_for_a_silent_network_comes_when_it_carries_again() -> None:
    silent = replace(
        fault(1000, 3000), nemesis="silent-network-two", detail="private r1 without r3"
    )
    seen = (GOOD.arp, GOOD.admissions)
    late = AdmissionSeen(3340 * MS, "r1", "private")
    assert safety.one_holder(queued_packets.set_apart(of(silent, *seen, late))).valid is True
    other = replace(silent, detail="public r1 without r3")
    assert safety.one_holder(queued_packets.set_apart(of(other, *seen, late))).valid is False


def test_old_holder_that_forwards_now_and_then_is_caught() -> None:
    # Every 1.1 s for 16 s: each slice alone, none kept by a kernel.
    after = holds("r2", 1130, 20_000)
    slices = [carries("r1", t, t + 1) for t in range(1400, 17_400, 1100)]
    for nemesis in ("cut", "link-public", "link-private"):
        hit = replace(fault(1000, 3000), nemesis=nemesis)
        verdict = carried(of(hit, holds("r1", 0, 1110), after, *slices))
        assert verdict.valid is False


# Both addresses, announcements ---------------------------------------------------------


def test_addresses_on_two_nodes_in_a_quiet_time_are_caught() -> None:
    history = of(
        fault(1000, 3000),
        holds("r1", 0, 1110),
        speaks("r2", 1130, 5000, networks=("public",)),
        speaks("r3", 1130, 5000, networks=("private",)),
    )
    assert safety.one_for_all(history, ADDRESSES, (0, 5000 * MS)).valid is False


def test_address_nobody_answers_for_in_a_quiet_time_is_caught() -> None:
    history = of(fault(1000, 3000), holds("r1", 0, 1110))
    assert safety.one_for_all(history, ADDRESSES, (0, 5000 * MS)).valid is False


def test_holder_that_did_not_announce_is_caught() -> None:
    known = NeighbourSeen(4000 * MS, "c1", "203.0.113.10", "02:00:00:00:00:01")
    silent = of(
        fault(1000, 3000), holds("r1", 0, 1110), holds("r2", 1130, 5000, announces=False), known
    )
    assert safety.announced(of(GOOD.arp, known), ADDRESSES).valid is True
    assert safety.announced(silent, ADDRESSES).valid is False
    assert safety.announced(of(GOOD.arp), ADDRESSES).valid == "unknown"


@pytest.mark.parametrize(
    ("nemesis", "node", "until_ms", "missed"),
    [
        ("link-public", "r2", 5000, False),
        ("link-both", "r2", 5000, False),
        ("link-public", "r2", 4980, False),  # noted before it is plugged in
        ("link-public", "r2", 4960, True),  # it could announce then
        ("link-public", "r2", 4000, True),
        ("link-public", "r3", 5000, True),
        ("link-private", "r2", 5000, True),
        ("cut", "r2", 5000, True),  # the observer listens on its cable
    ],
)
def test_holder_need_not_announce_where_it_has_no_cable_all_the_time(
    nemesis: str,
    node: str,
    until_ms: int,
    missed: bool,  # noqa: FBT001 - a parameter
) -> None:
    known = NeighbourSeen(900 * MS, "c1", "203.0.113.10", "02:00:00:00:00:01")
    pulled = replace(fault(1000, until_ms, nodes=(node,)), nemesis=nemesis)
    dark = speaks("r2", 1130, 5000, networks=("private",))
    if nemesis == "link-both":
        dark = []
    admitted = [a for a in holds("r2", 1130, 5000) if not isinstance(a, ArpSeen)]
    history = of(pulled, holds("r1", 0, 1110), dark, admitted, known)
    assert safety.announced(history, ADDRESSES).valid is not missed


def test_host_that_did_not_learn_is_caught() -> None:
    stale = NeighbourSeen(4000 * MS, "c1", "203.0.113.10", "02:00:00:00:00:99")
    verdict = safety.announced(of(GOOD.arp, stale), ADDRESSES)
    assert verdict.valid is False
    assert "c1 sends to 02:00:00:00:00:99, not to r2" in verdict.summary


def test_announcement_before_the_state_is_there_is_caught() -> None:
    # It tells everybody at once and answers nobody for 200 ms.
    early = of(holds("r1", 0, 1110), speaks("r2", 1130, 1131), holds("r2", 1330, 5000))
    verdict = safety.announced_last(early)
    assert verdict.valid is False
    assert verdict.evidence["late_ms"] == {"r2, no fault": pytest.approx(205, abs=1)}


def test_announcements_that_could_not_be_judged_prove_nothing() -> None:
    assert safety.announced_last(of(holds("r1", 0, 5000))).valid is True
    hit = fault(1000, 3000, nodes=("r1", "r2"))
    history = of(hit, holds("r1", 0, 1110), holds("r2", 1130, 5000))
    assert safety.announced_last(history).valid == "unknown"


def test_second_holder_is_caught_by_advertisements_alone() -> None:
    six = [a for a in speaks("r3", 2000, 2020) if ":" in a.address]
    assert safety.one_holder(of(GOOD.arp, GOOD.admissions, six)).valid is False


@pytest.mark.parametrize("address", ADDRESSES)
def test_address_of_either_version_that_was_not_announced_is_missed(address: str) -> None:
    silent = [replace(a, gratuitous=a.gratuitous and a.address != address) for a in GOOD.arp]
    known = NeighbourSeen(4000 * MS, "c1", "203.0.113.10", "02:00:00:00:00:01")
    verdict = safety.announced(of(silent, known), ADDRESSES)
    assert verdict.valid is False
    assert address in verdict.summary


@pytest.mark.parametrize("address", ADDRESSES)
def test_address_of_either_version_that_nobody_answers_for_is_missed(address: str) -> None:
    some = [a for a in GOOD.arp if a.address != address]
    assert safety.one_for_all(of(some), ADDRESSES, (0, 5000 * MS)).valid is False
    mute = [a for a in GOOD.arp if a.address != address or a.gratuitous]
    assert safety.announced_last(of(mute)).valid is False
