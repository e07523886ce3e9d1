"""Write packet filters with labels, and put them on sockets: classic BPF.

A filter in user space would have to wake up for every packet of the lab. Source:
linux/filter.h, linux/bpf_common.h.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from chaos.lab.lab_error import LabError

SO_ATTACH_FILTER = 26

SKF_AD_OFF = 0xFFFFF000
PKTTYPE, RANDOM = SKF_AD_OFF + 4, SKF_AD_OFF + 56
OUTGOING = 4
LOAD_WORD, LOAD_HALF, LOAD_BYTE, INDEX_IP, LOAD_BYTE_INDEXED = 0x20, 0x28, 0x30, 0xB1, 0x50
AND, JUMP, IF_EQUAL, IF_ANY_BIT, RETURN = 0x54, 0x05, 0x15, 0x45, 0x06

Instruction = tuple[int, int, int, int]
"""Operation, jump if true, jump if false (both relative), operand."""


@dataclass(frozen=True, slots=True)
class Line:
    """An instruction that may have a label and may jump to others; an empty one is the next.

    Attributes:
        yes, no: Where a condition goes on; `yes` of a jump without one.
    """

    operation: int
    operand: int = 0
    yes: str = ""
    no: str = ""
    label: str = ""


def assemble(lines: Sequence[Line]) -> tuple[Instruction, ...]:
    """Return a program; ``accept`` and ``reject`` are labels at its end."""
    ends = (Line(RETURN, 0xFFFF, label="accept"), Line(RETURN, 0, label="reject"))
    every = (*lines, *ends)
    at = {line.label: number for number, line in enumerate(every) if line.label}
    program: list[Instruction] = []
    for number, line in enumerate(every):
        yes, no = (at[to] - number - 1 if to else 0 for to in (line.yes, line.no))
        assert min(yes, no) >= 0, (number, line)
        if line.operation == JUMP:
            program.append((JUMP, 0, 0, yes))
        else:
            program.append((line.operation, yes, no, line.operand))
    return tuple(program)


def attach(sock: socket.socket, lines: Sequence[Instruction]) -> None:
    """Let only what a program accepts through to a packet socket.

    What came between its making and this is thrown away: nobody has looked at it.

    Raises:
        LabError: The kernel refuses the program.
    """
    program = b"".join(struct.pack("=HBBI", *line) for line in lines)
    buffer = ctypes.create_string_buffer(program, len(program))
    pointer = struct.pack("@HP", len(lines), ctypes.addressof(buffer))
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, pointer)
    except OSError as error:
        raise LabError(f"the kernel refuses a packet filter: {error.strerror}") from error
    with suppress(BlockingIOError):
        while True:
            sock.recv(1, socket.MSG_DONTWAIT)
