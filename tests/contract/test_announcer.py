"""What `ports.Announcer` promises; the frames themselves are the kernel suite's."""

from __future__ import annotations

from ipaddress import ip_interface

from hanat.core.placements import Placement
from hanat.kernel.ports import Announced
from tests.contract.conftest import Subject


def test_ipv4_takes_two_frames_and_ipv6_one(subject: Subject) -> None:
    placements = [
        Placement("eth0", ip_interface("203.0.113.10/24")),
        Placement("eth1", ip_interface("10.11.12.1/24")),
        Placement("eth0", ip_interface("2001:db8:1::10/64")),
    ]

    assert subject.adapters.announcer.announce(placements) == Announced(5)


def test_nothing_to_announce_sends_nothing(subject: Subject) -> None:
    assert subject.adapters.announcer.announce([]) == Announced(0)


def test_what_is_refused_is_told_and_the_others_are_sent_nevertheless(subject: Subject) -> None:
    missing = Placement("eth9", ip_interface("203.0.113.10/24"))
    there = Placement("eth0", ip_interface("203.0.113.10/24"))

    announced = subject.adapters.announcer.announce([missing, there])

    ((placement, error),) = announced.refused
    assert (placement, announced.sent) == (missing, 2)
    assert str(error).startswith("cannot announce 203.0.113.10 on eth9: ENODEV")
