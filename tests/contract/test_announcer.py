"""What `ports.Announcer` promises; the frames themselves are the kernel suite's."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest

from hanat.errors import AbsentObjectError
from hanat.kernel.ports import Placement
from tests.contract.conftest import Subject


def test_ipv4_takes_two_frames_and_ipv6_one(subject: Subject) -> None:
    placements = [
        Placement("eth0", ip_interface("203.0.113.10/24")),
        Placement("eth1", ip_interface("10.11.12.1/24")),
        Placement("eth0", ip_interface("2001:db8:1::10/64")),
    ]

    assert subject.adapters.announcer.announce(placements) == 5


def test_nothing_to_announce_sends_nothing(subject: Subject) -> None:
    assert subject.adapters.announcer.announce([]) == 0


def test_missing_device_is_refused(subject: Subject) -> None:
    placement = Placement("eth9", ip_interface("203.0.113.10/24"))

    with pytest.raises(AbsentObjectError, match=r"203\.0\.113\.10 on eth9: ENODEV"):
        subject.adapters.announcer.announce([placement])
