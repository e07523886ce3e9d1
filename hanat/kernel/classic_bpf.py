"""Write classic BPF programs with names instead of codes and distances.

Source: ``Documentation/networking/filter.rst``, ``include/uapi/linux/filter.h``.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence

from hanat.kernel.netlink import SO_ATTACH_FILTER

Step = tuple[str, str, int] | tuple[str, str, int, str, str]

# Offsets that stand for a function: A = where attributes start, X = type; A becomes the
# offset of the attribute, 0 if there is none. NEST: A = offset of the attribute around it.
NLATTR, NLATTR_NEST = 0xFFFFF000 + 12, 0xFFFFF000 + 16

CODES = {
    "ld": 0x20, "ldb": 0x30, "ld#": 0x00, "ldx#": 0x01, "ldx+": 0x40, "ldbx+": 0x50, "ldm": 0x60,
    "st": 0x02, "tax": 0x07, "jeq": 0x15, "jset": 0x45, "ret": 0x06,
}  # fmt: skip


def assembled(steps: Sequence[Step]) -> list[tuple[int, int, int, int]]:
    """Return code, distance if true, distance if not, and operand of each step.

    Args:
        steps: Label or nothing, name, operand; of a jump also where to go if true and if
            not, a label further down or nothing for the next step. ``ldx+`` and ``ldbx+`` load
            from the packet at X and an operand, ``ldm`` from the memory.
    """
    places = {step[0]: place for place, step in enumerate(steps) if step[0]}

    def distance(place: int, label: str) -> int:
        return places[label] - place - 1 if label else 0

    program: list[tuple[int, int, int, int]] = []
    for place, (_, name, operand, *labels) in enumerate(steps):
        true, false = [distance(place, str(label)) for label in labels] or (0, 0)
        program.append((CODES[name], true, false, operand))
    return program


def packet_socket(device: str, protocol: int, steps: Sequence[Step]) -> socket.socket:
    """Return a socket that is given the frames of a device and protocol that a program keeps.

    Raises:
        OSError: There is no such device, or no room in the kernel.
    """
    # Without a protocol it hears nothing before its filter is there.
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    opened = socket.socket(socket.AF_PACKET, kind, 0)
    try:
        attach(opened, steps)
        opened.bind((device, protocol))
    except OSError:
        opened.close()
        raise
    return opened


def attach(opened: socket.socket, steps: Sequence[Step]) -> None:
    """Let a socket receive only what a program keeps.

    Raises:
        OSError: The kernel has no room for it.
    """
    program = b"".join(struct.pack("=HBBI", *step) for step in assembled(steps))
    instructions = ctypes.create_string_buffer(program)
    pointer = struct.pack("HL", len(steps), ctypes.addressof(instructions))
    opened.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, pointer)
