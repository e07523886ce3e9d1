"""Let the kernel drop datagrams that cannot be a peer's before they fill a socket's queue.

The ruleset drops strangers' packets earlier still, but it is not there before a node's
first moments, and a stranger may have a peer's path. What is left after this costs a
check of its code. A classic BPF program at the socket sees the datagram from the UDP
header on, and the IP header at an offset of its own (`SKF_NET_OFF`).

Source: Documentation/networking/filter.rst.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from hanat.core.configuration import Address
from hanat.kernel.classic_bpf import Step, attach

SKF_NET_OFF = 0xFFF00000
IPV4_SOURCE, IPV6_SOURCE = 12, 8  # offsets in the headers: RFC 791, RFC 8200
PAYLOAD = 8  # behind the UDP header
DROP, ACCEPT = 0, 0xFFFF


def admit_only(opened: socket.socket, sources: Sequence[Address], magics: Sequence[bytes]) -> None:
    """Let a UDP socket receive only what comes from some addresses and begins in some way.

    Args:
        opened: Of the family of `sources`, before it is bound.
        sources: Of one family; none: nothing is received.
        magics: First four bytes of the datagrams.

    Raises:
        OSError: The kernel has no room for the program.
    """
    attach(opened, _program(sources, magics))


def _program(sources: Sequence[Address], magics: Sequence[bytes]) -> list[Step]:
    steps: list[Step] = []
    for number, address in enumerate(sources):
        offset = SKF_NET_OFF + (IPV6_SOURCE if address.version == 6 else IPV4_SOURCE)
        words = [word for (word,) in struct.iter_unpack("!I", address.packed)]
        for place, word in enumerate(words):
            label = f"source{number}" if place == 0 else ""
            steps.append((label, "ld", offset + 4 * place))
            known = "peer" if place == len(words) - 1 else ""
            steps.append(("", "jeq", word, known, f"source{number + 1}"))
    steps.append((f"source{len(sources)}", "ret", DROP))
    steps.append(("peer", "ld", PAYLOAD))
    steps += [("", "jeq", int.from_bytes(magic[:4]), "accept", "") for magic in magics]
    return [*steps, ("", "ret", DROP), ("accept", "ret", ACCEPT)]
