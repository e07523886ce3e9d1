"""What `ports.Routes` promises."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import pytest

from hanat.core.placements import Placement
from tests.contract.conftest import Subject

OWN, OWN_V6 = ip_interface("192.0.2.10/24"), ip_interface("2001:db8::10/64")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.77", "eth0"),
        ("192.0.2.10", "lo"),
        ("203.0.113.1", ""),
        ("2001:db8::77", "eth0"),
        ("2001:db8::10", "lo"),
        ("2001:db8:1::1", ""),
    ],
)
def test_device_of_an_address(subject: Subject, address: str, expected: str) -> None:
    subject.adapters.addresses.add([Placement("eth0", own, "eth0:1") for own in (OWN, OWN_V6)])

    # An IPv6 address is local only when the kernel has looked whether somebody else has it.
    packed = ip_address(address).packed
    subject.outside.wait(
        lambda: subject.adapters.routes.device_of(packed) == expected, f"{address} by {expected}"
    )
