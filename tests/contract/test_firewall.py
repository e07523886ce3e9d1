"""What `ports.Firewall` promises."""

from __future__ import annotations

import pytest

from hanat.errors import AbsentObjectError, KernelError
from tests.contract.conftest import Subject

SCRIPT = """add table inet hanat
delete table inet hanat
table inet hanat {
    chain input {
        type filter hook input priority filter; policy accept;
        ip daddr 203.0.113.10 drop
    }
}
"""


def test_absent_table_is_none(subject: Subject) -> None:
    assert subject.adapters.firewall.table("inet", "hanat") is None


def test_applied_table_can_be_read(subject: Subject) -> None:
    subject.adapters.firewall.apply(SCRIPT)

    text = subject.adapters.firewall.table("inet", "hanat")
    assert text is not None
    assert "ip daddr 203.0.113.10 drop" in text


def test_names_of_a_table(subject: Subject) -> None:
    assert subject.adapters.firewall.names("inet", "hanat") == ()
    subject.adapters.firewall.apply(SCRIPT)

    assert subject.adapters.firewall.names("inet", "hanat") == (("chain", "input"),)


def test_applying_again_replaces(subject: Subject) -> None:
    subject.adapters.firewall.apply(SCRIPT)
    once = subject.adapters.firewall.table("inet", "hanat")

    subject.adapters.firewall.apply(SCRIPT)

    assert subject.adapters.firewall.table("inet", "hanat") == once


def test_refused_script_changes_nothing(subject: Subject) -> None:
    with pytest.raises(KernelError):
        subject.adapters.firewall.apply("add table inet hanat\nopen the gates\n")

    assert subject.adapters.firewall.table("inet", "hanat") is None


def test_rule_in_an_absent_table_is_refused(subject: Subject) -> None:
    with pytest.raises(AbsentObjectError, match="No such file or directory"):
        subject.adapters.firewall.apply("add rule inet hanat input accept")


def test_deleting_an_absent_table_is_refused(subject: Subject) -> None:
    with pytest.raises(AbsentObjectError):
        subject.adapters.firewall.apply("delete table inet hanat")


def test_script_that_is_only_looked_at_changes_nothing(subject: Subject) -> None:
    subject.adapters.firewall.check(SCRIPT)

    assert subject.adapters.firewall.table("inet", "hanat") is None


@pytest.mark.parametrize("script", ["open the gates", "add rule inet hanat input accept"])
def test_script_that_would_be_refused_is_refused_when_it_is_looked_at(
    subject: Subject, script: str
) -> None:
    with pytest.raises(KernelError):
        subject.adapters.firewall.check(script)


def test_script_is_looked_at_beside_the_table_that_is_there(subject: Subject) -> None:
    subject.adapters.firewall.apply(SCRIPT)
    before = subject.adapters.firewall.table("inet", "hanat")

    subject.adapters.firewall.check(SCRIPT.replace("203.0.113.10", "203.0.113.11"))

    assert subject.adapters.firewall.table("inet", "hanat") == before
