"""What `ports.Gate` promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hanat.errors import AbsentObjectError
from tests.contract.conftest import REAL, WITH_DEADLINE, Subject
from tests.core.examples import EDGE
from tests.gates import grant

each_kind = pytest.mark.parametrize("subject", ["fake", REAL, WITH_DEADLINE], indirect=True)
BOTH = ("eth0", "eth1")


@each_kind
def test_new_gate_grants_nothing(subject: Subject) -> None:
    subject.gate.install(subject.script)

    assert subject.gate.rights() == {}


@each_kind
def test_gate_knows_what_it_guards_and_where(subject: Subject) -> None:
    gate = subject.gate
    with pytest.raises(AbsentObjectError):
        gate.guarded()
    gate.install(subject.script)

    assert gate.guarded() == {address.ip for vip in EDGE.vips for address in vip.addresses}
    assert gate.ports() == set(BOTH)


@each_kind
def test_armed_devices_have_both_rights(subject: Subject) -> None:
    gate = subject.gate
    gate.install(subject.script)

    grant(gate, BOTH, answers_s=30.0, carries_s=60.0)

    rights = gate.rights()
    assert sorted(rights) == ["eth0", "eth1"]
    for right in rights.values():
        assert 29.0 < right.answers_s <= 30.0
        assert 59.0 < right.carries_s <= 60.0


@each_kind
def test_arming_again_grants_anew(subject: Subject) -> None:
    gate = subject.gate
    gate.install(subject.script)
    grant(gate, BOTH, answers_s=30.0, carries_s=60.0)

    grant(gate, BOTH, answers_s=90.0, carries_s=120.0)

    assert gate.rights()["eth0"].answers_s > 60.0


def test_grant_permits_the_next_as_long_as_it_lasts(subject: Subject) -> None:
    gate = subject.adapters.gate
    gate.install(subject.script)
    grant(gate, BOTH, answers_s=30.0, carries_s=60.0)

    assert gate.arm(BOTH, answers_s=0.1, carries_s=60.0)

    subject.outside.wait(lambda: gate.rights()["eth0"].answers_s == 0.0, "answers to end")
    assert gate.arm(BOTH, answers_s=30.0, carries_s=90.0) is False
    rights = gate.rights()["eth0"]
    assert rights.answers_s == 0.0
    assert rights.carries_s <= 60.0


def test_permit_ends_by_itself(subject: Subject) -> None:
    gate = subject.adapters.gate
    gate.install(subject.script)
    assert gate.arm(BOTH, answers_s=30.0, carries_s=60.0) is False

    gate.permit(0.02)
    grant(gate, BOTH, answers_s=0.01, carries_s=0.02)
    subject.outside.wait(lambda: gate.rights() == {}, "rights to end")
    assert gate.arm(BOTH, answers_s=30.0, carries_s=60.0) is False


@pytest.mark.parametrize("end", ["withdraw", "shut"])
def test_who_gives_rights_up_grants_none_anew_without_a_permit(subject: Subject, end: str) -> None:
    gate = subject.adapters.gate
    gate.install(subject.script)
    grant(gate, BOTH, answers_s=30.0, carries_s=60.0)

    getattr(gate, end)()

    assert gate.arm(BOTH, answers_s=30.0, carries_s=60.0) is False
    assert all(right.answers_s == 0.0 for right in gate.rights().values())
    grant(gate, BOTH, answers_s=30.0, carries_s=60.0)
    assert gate.rights()["eth0"].answers_s > 0.0


def test_arming_one_device_ends_the_rights_of_others(subject: Subject) -> None:
    gate = subject.adapters.gate
    gate.install(subject.script)
    grant(gate, BOTH, answers_s=30.0, carries_s=60.0)

    grant(gate, ["eth1"], answers_s=30.0, carries_s=60.0)

    assert sorted(gate.rights()) == ["eth1"]


def test_device_that_vanishes_carries_nothing_until_the_next_grant(subject: Subject) -> None:
    """Another one may come under its name, and with another network behind it."""
    gate = subject.adapters.gate
    gate.install(subject.script)
    grant(gate, BOTH, answers_s=30.0, carries_s=60.0)

    subject.outside.vanish("eth0")
    subject.outside.wait(lambda: gate.rights()["eth0"].carries_s == 0.0, "the right to go")
    assert gate.rights()["eth1"].carries_s > 0.0

    grant(gate, BOTH, answers_s=30.0, carries_s=60.0)
    assert gate.rights()["eth0"].carries_s == 0.0


@each_kind
def test_rights_end_by_themselves_answers_first(subject: Subject) -> None:
    gate = subject.gate
    gate.install(subject.script)
    grant(gate, BOTH, answers_s=0.1, carries_s=0.3)

    subject.outside.wait(
        lambda: all(right.answers_s == 0.0 for right in gate.rights().values()), "answers to end"
    )
    assert sorted(gate.rights()) == ["eth0", "eth1"]
    subject.outside.wait(lambda: gate.rights() == {}, "carries to end")


@each_kind
def test_withdrawing_leaves_carries(subject: Subject) -> None:
    gate = subject.gate
    gate.install(subject.script)
    grant(gate, BOTH, answers_s=30.0, carries_s=60.0)

    gate.withdraw()

    assert gate.rights()["eth0"].answers_s == 0.0
    assert gate.rights()["eth0"].carries_s > 0.0


@each_kind
def test_shutting_ends_both(subject: Subject) -> None:
    gate = subject.gate
    gate.install(subject.script)
    grant(gate, BOTH, answers_s=30.0, carries_s=60.0)

    gate.shut()

    assert gate.rights() == {}


@each_kind
def test_withdrawing_and_shutting_a_shut_gate_is_no_error(subject: Subject) -> None:
    subject.gate.install(subject.script)

    subject.gate.withdraw()
    subject.gate.shut()

    assert subject.gate.rights() == {}


@each_kind
def test_installing_again_leaves_the_rights(subject: Subject) -> None:
    gate = subject.gate
    gate.install(subject.script)
    grant(gate, BOTH, answers_s=30.0, carries_s=60.0)

    gate.install(subject.script)

    assert gate.rights()["eth1"].answers_s > 0.0


@pytest.mark.parametrize(
    "use",
    [
        lambda gate: gate.permit(1.0),
        lambda gate: gate.arm(BOTH, answers_s=1.0, carries_s=1.0),
        lambda gate: gate.withdraw(),
        lambda gate: gate.shut(),
        lambda gate: gate.rights(),
    ],
    ids=["permit", "arm", "withdraw", "shut", "rights"],
)
def test_gate_that_is_not_installed_is_refused(
    subject: Subject, use: Callable[[object], object]
) -> None:
    with pytest.raises(AbsentObjectError, match="install the gate first"):
        use(subject.adapters.gate)


def test_rights_do_not_outlive_the_table(subject: Subject) -> None:
    gate = subject.adapters.gate
    gate.install(subject.script)
    grant(gate, BOTH, answers_s=30.0, carries_s=60.0)
    subject.adapters.firewall.apply("delete table inet hanat_gate\ndelete table arp hanat_gate\n")

    gate.install(subject.script)

    assert gate.rights() == {}


@pytest.mark.parametrize("subject", [WITH_DEADLINE], indirect=True)
def test_deadlines_outlive_the_table(subject: Subject) -> None:
    gate = subject.adapters.deadlines
    gate.install(subject.script)
    grant(gate, BOTH, answers_s=30.0, carries_s=60.0)
    subject.adapters.firewall.apply("flush ruleset")
    for use in (gate.confirm, gate.rights):
        with pytest.raises(AbsentObjectError, match="install the gate first"):
            use()

    gate.install(subject.script)

    assert gate.rights()["eth0"].answers_s > 0.0


@pytest.mark.parametrize("subject", [WITH_DEADLINE], indirect=True)
def test_a_deadline_that_is_over_grants_nothing(subject: Subject) -> None:
    gate = subject.adapters.deadlines
    gate.install(subject.script)
    grant(gate, BOTH, answers_s=-0.001, carries_s=30.0)
    assert gate.rights()["eth0"].answers_s == 0.0
    assert gate.rights()["eth0"].carries_s > 0.0
    grant(gate, BOTH, answers_s=-0.002, carries_s=-0.001)
    assert gate.rights() == {}


@pytest.mark.parametrize("subject", [WITH_DEADLINE], indirect=True)
def test_device_that_vanishes_has_no_right_with_a_deadline_either(subject: Subject) -> None:
    gate = subject.adapters.deadlines
    gate.install(subject.script)
    grant(gate, BOTH, answers_s=30.0, carries_s=60.0)
    subject.outside.vanish("eth0")
    assert sorted(gate.rights()) == ["eth1"]
    assert gate.missing() == ()
