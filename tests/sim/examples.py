"""What the nodes of the simulation are configured to do."""

from __future__ import annotations

from ipaddress import ip_interface

from hanat.core.configuration import Configuration, FloatingAddress, GateKind, profile_with


def configuration(profile: str, gate: GateKind = GateKind.TIMEOUTS) -> Configuration:
    """Return a configuration with a public and a private floating address."""
    vips = (
        FloatingAddress("public", "public", (ip_interface("203.0.113.10/24"),)),
        FloatingAddress("private", "private", (ip_interface("10.11.12.1/24"),)),
    )
    return Configuration("sim", profile_with(profile, gate), vips, (), ())
