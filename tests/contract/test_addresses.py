"""What `ports.Addresses` promises."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest

from hanat.core.placements import Placement
from hanat.errors import AbsentObjectError, KernelError
from tests.contract.conftest import Subject

PUBLIC = Placement("eth0", ip_interface("203.0.113.10/24"), "eth0:1")
PRIVATE = Placement("eth1", ip_interface("10.11.12.1/24"), "eth1:1")
PUBLIC_V6 = Placement("eth0", ip_interface("2001:db8:1::10/64"))


def test_what_was_added_is_present(subject: Subject) -> None:
    subject.adapters.addresses.add([PUBLIC, PRIVATE, PUBLIC_V6])

    assert {PUBLIC.address, PUBLIC_V6.address} <= subject.adapters.addresses.present("eth0")
    assert PRIVATE.address in subject.adapters.addresses.present("eth1")


def test_adding_twice_is_adding_once(subject: Subject) -> None:
    subject.adapters.addresses.add([PUBLIC, PUBLIC_V6])
    before = subject.adapters.addresses.present("eth0")

    subject.adapters.addresses.add([PUBLIC, PUBLIC_V6])

    assert subject.adapters.addresses.present("eth0") == before


def test_same_address_with_another_prefix_is_another_address(subject: Subject) -> None:
    narrow = Placement("eth0", ip_interface("203.0.113.10/32"))

    subject.adapters.addresses.add([PUBLIC, narrow])

    assert {PUBLIC.address, narrow.address} <= subject.adapters.addresses.present("eth0")


def test_what_was_removed_is_not_present(subject: Subject) -> None:
    subject.adapters.addresses.add([PUBLIC, PUBLIC_V6])

    subject.adapters.addresses.remove([PUBLIC, PUBLIC_V6])

    left = subject.adapters.addresses.present("eth0")
    assert not {PUBLIC.address, PUBLIC_V6.address} & left


@pytest.mark.parametrize("label", ["", "eth0:7"])
def test_address_under_another_label_is_removed(subject: Subject, label: str) -> None:
    subject.adapters.addresses.add([PUBLIC])

    subject.adapters.addresses.remove([Placement("eth0", PUBLIC.address, label)])

    assert PUBLIC.address not in subject.adapters.addresses.present("eth0")


def test_removing_the_absent_is_no_error(subject: Subject) -> None:
    gone = Placement("eth9", PUBLIC.address)

    subject.adapters.addresses.remove([PUBLIC, PUBLIC_V6, gone])

    assert PUBLIC.address not in subject.adapters.addresses.present("eth0")


def test_missing_device_is_named_with_those_there_are(subject: Subject) -> None:
    with pytest.raises(AbsentObjectError) as raised:
        subject.adapters.addresses.add([Placement("eth9", PUBLIC.address)])

    assert str(raised.value) == (
        "cannot add 203.0.113.10/24 on eth9: ENODEV: no such interface; "
        "interfaces are eth0, eth1, lo"
    )


def test_addresses_of_a_missing_device_cannot_be_listed(subject: Subject) -> None:
    with pytest.raises(AbsentObjectError):
        subject.adapters.addresses.present("eth9")


def test_label_of_sixteen_bytes_is_refused(subject: Subject) -> None:
    with pytest.raises(KernelError, match="ERANGE"):
        subject.adapters.addresses.add([Placement("eth0", PUBLIC.address, "eth0:" + "1" * 11)])


def test_addresses_vanish_with_their_device(subject: Subject) -> None:
    subject.adapters.addresses.add([PRIVATE])
    subject.outside.vanish("eth1")

    with pytest.raises(AbsentObjectError):
        subject.adapters.addresses.present("eth1")
