"""What a daemon asks of its supervisor: its last will, and to be watched.

The two speak over a pair of Unix sockets that keep messages apart. A daemon that
took all it needs and is about to touch the kernel leaves its will, anew whenever it
changes, and then says every second that its loop turns. Either end learns of the
other's death by the end of the stream.

The will has everything in it, the release already sealed: the supervisor needs no
file, no key and no library. Letting it read the node's files itself was considered: it
would load pydantic and the cluster key into the process that must not fail, and
know an older configuration than the one in force.

Standard library only, for the supervisor imports it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

BEAT = b"."  # followed by what the daemon says of itself, for people
BEAT_S = 1.0
MESSAGE_BYTES_MAX = 1 << 17  # fits into a socket's default buffer, and `config.limits` into it


@dataclass(frozen=True, slots=True)
class Route:
    """A path: from this node's own address to the peers' addresses on it."""

    source: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LastWill:
    """What is to be done when the daemon is dead.

    Attributes:
        release: The sealed datagram that frees the promises made to it.
        port: UDP port of the peers.
        routes: One per path.
        addresses: Kernel name of the device and floating address with prefix length.
        grace_s: How long established flows are carried on.
    """

    release: bytes
    port: int
    routes: tuple[Route, ...]
    addresses: tuple[tuple[str, str], ...]
    grace_s: float

    def encode(self) -> bytes:
        """Return it as one message."""
        devices: dict[str, list[str]] = {}
        for device, address in self.addresses:
            devices.setdefault(device, []).append(address)
        found = asdict(self) | {"release": self.release.hex(), "addresses": devices}
        message = json.dumps(found, separators=(",", ":")).encode()
        assert len(message) <= MESSAGE_BYTES_MAX, f"a will of {len(message)} bytes"
        return message

    @classmethod
    def decode(cls, message: bytes) -> LastWill:
        """Return the will in a message; the daemon wrote it, so it is whole."""
        found = json.loads(message)
        return cls(
            release=bytes.fromhex(found["release"]),
            port=found["port"],
            routes=tuple(Route(r["source"], tuple(r["targets"])) for r in found["routes"]),
            addresses=tuple(
                (device, address)
                for device, addresses in found["addresses"].items()
                for address in addresses
            ),
            grace_s=found["grace_s"],
        )

    @property
    def interfaces(self) -> list[tuple[str, IPv4Interface | IPv6Interface]]:
        """The floating addresses as values."""
        return [(device, ip_interface(address)) for device, address in self.addresses]
