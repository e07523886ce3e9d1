"""What `ports.Links` and `ports.LinkWatch` promise."""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest

from hanat.errors import AbsentObjectError
from hanat.kernel.ports import CarrierChanged, LinkWatch
from tests.contract.conftest import Subject


@pytest.fixture
def watch(subject: Subject) -> Iterator[LinkWatch]:
    opened = subject.adapters.links.watch()
    yield opened
    opened.close()


def test_names_are_sorted(subject: Subject) -> None:
    assert subject.adapters.links.names() == ("eth0", "eth1", "lo")


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


def _is_readable(watch: LinkWatch) -> bool:
    return bool(select.select([watch.fileno()], [], [], 0)[0])


def _read(subject: Subject, watch: LinkWatch, count: int) -> list[CarrierChanged]:
    found: list[CarrierChanged] = []

    def enough() -> bool:
        found.extend(watch.read())
        return len(found) >= count

    subject.outside.wait(enough, f"{count} changes")
    return found
