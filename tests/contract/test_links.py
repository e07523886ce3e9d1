"""What `ports.Links` and `ports.LinkWatch` promise."""

from __future__ import annotations

import select
from collections.abc import Iterator
from ipaddress import ip_interface
from typing import TypeVar

import pytest

from hanat.core.placements import Placement
from hanat.errors import AbsentObjectError
from hanat.kernel.ports import AddressRemoved, CarrierChanged, LinkWatch
from tests.contract.conftest import Subject

Event = TypeVar("Event", CarrierChanged, AddressRemoved)

PUBLIC = Placement("eth0", ip_interface("203.0.113.10/24"))
PUBLIC_V6 = Placement("eth0", ip_interface("2001:db8:1::10/64"))


@pytest.fixture
def watch(subject: Subject) -> Iterator[LinkWatch]:
    opened = subject.adapters.links.watch()
    yield opened
    opened.close()


def test_names_are_sorted(subject: Subject) -> None:
    assert subject.adapters.links.names() == ("eth0", "eth1", "lo")


def test_received_frames_are_counted_up(subject: Subject) -> None:
    first = subject.adapters.links.received("eth0")
    assert subject.adapters.links.received("eth0") >= first >= 0
    with pytest.raises(AbsentObjectError):
        subject.adapters.links.received("eth9")


def test_carrier_follows_the_cable(subject: Subject) -> None:
    assert subject.adapters.links.carrier("eth0")

    subject.outside.set_carrier("eth0", carrier=False)

    assert not subject.adapters.links.carrier("eth0")
    assert subject.adapters.links.carrier("eth1")


def test_carrier_of_a_missing_device_is_refused(subject: Subject) -> None:
    with pytest.raises(AbsentObjectError, match="eth9"):
        subject.adapters.links.carrier("eth9")


def test_watch_tells_of_changes_in_order(subject: Subject, watch: LinkWatch) -> None:
    # One at a time: what follows faster than the kernel looks is never told.
    subject.outside.set_carrier("eth0", carrier=False)
    first = _read(subject, watch, 1)
    subject.outside.set_carrier("eth0", carrier=True)
    second = _read(subject, watch, 1)

    assert first == [CarrierChanged("eth0", carrier=False)]
    assert second == [CarrierChanged("eth0", carrier=True)]
    assert watch.read() == []


def test_watch_tells_of_a_device_that_vanished(subject: Subject, watch: LinkWatch) -> None:
    subject.outside.vanish("eth1")

    assert _read(subject, watch, 1) == [CarrierChanged("eth1", carrier=False)]
    assert subject.adapters.links.names() == ("eth0", "lo")


def test_watch_is_silent_about_what_was_before(subject: Subject) -> None:
    subject.outside.set_carrier("eth0", carrier=False)

    opened = subject.adapters.links.watch()

    assert opened.read() == []
    opened.close()


def test_watch_is_readable_while_changes_wait(subject: Subject, watch: LinkWatch) -> None:
    assert not _is_readable(watch)

    subject.outside.set_carrier("eth1", carrier=False)

    subject.outside.wait(lambda: _is_readable(watch), "a change")
    _read(subject, watch, 1)
    assert not _is_readable(watch)


def test_closed_watch_returns_nothing(subject: Subject, watch: LinkWatch) -> None:
    watch.close()

    subject.outside.set_carrier("eth1", carrier=False)

    assert watch.read() == []


@pytest.mark.parametrize("placement", [PUBLIC, PUBLIC_V6])
@pytest.mark.parametrize("by", ["another program", "hanat"])
def test_watch_tells_of_an_address_that_was_removed(
    subject: Subject, watch: LinkWatch, placement: Placement, by: str
) -> None:
    subject.adapters.addresses.add([placement])

    if by == "hanat":
        subject.adapters.addresses.remove([placement])
    else:
        subject.outside.remove_address(placement.device, placement.address)

    assert _removals(subject, watch, 1) == [AddressRemoved(placement.device, placement.address)]
    assert watch.read() == []


def test_watch_tells_of_each_address(subject: Subject, watch: LinkWatch) -> None:
    subject.adapters.addresses.add([PUBLIC, PUBLIC_V6])
    subject.outside.remove_address("eth0", PUBLIC.address)
    subject.outside.remove_address("eth0", PUBLIC_V6.address)

    both = [AddressRemoved("eth0", placement.address) for placement in (PUBLIC, PUBLIC_V6)]
    assert _removals(subject, watch, 2) == both


def test_watch_is_silent_about_an_address_that_is_there_again(
    subject: Subject, watch: LinkWatch
) -> None:
    # A node that lost its lease and got it back has done both before it reads.
    narrow = Placement("eth0", ip_interface("203.0.113.10/32"))
    subject.adapters.addresses.add([PUBLIC, narrow])
    subject.adapters.addresses.remove([PUBLIC, narrow])
    subject.adapters.addresses.add([PUBLIC])

    assert _removals(subject, watch, 1) == [AddressRemoved("eth0", narrow.address)]
    assert watch.read() == []


def test_watch_is_silent_about_the_addresses_of_a_device_that_vanished(
    subject: Subject, watch: LinkWatch
) -> None:
    subject.adapters.addresses.add([Placement("eth1", PUBLIC.address)])
    subject.adapters.addresses.remove([Placement("eth1", PUBLIC.address)])

    subject.outside.vanish("eth1")

    assert watch.read() == [CarrierChanged("eth1", carrier=False)]


def _is_readable(watch: LinkWatch) -> bool:
    return bool(select.select([watch.fileno()], [], [], 0)[0])


def _read(subject: Subject, watch: LinkWatch, count: int) -> list[CarrierChanged]:
    return _events(subject, watch, CarrierChanged, count)


def _removals(subject: Subject, watch: LinkWatch, count: int) -> list[AddressRemoved]:
    return _events(subject, watch, AddressRemoved, count)


def _events(subject: Subject, watch: LinkWatch, kind: type[Event], count: int) -> list[Event]:
    found: list[Event] = []

    def enough() -> bool:
        # A namespace that is young has other news: its link-local addresses.
        found.extend(event for event in watch.read() if isinstance(event, kind))
        return len(found) >= count

    subject.outside.wait(enough, f"{count} of {kind.__name__}")
    return found
