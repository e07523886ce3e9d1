"""Load small eBPF programs: bpf(2) without a compiler and without a library.

Programs are written here instruction by instruction. That is bearable for a dozen of them, and
saves every router a compiler, headers and libbpf.

Source: bpf(2), ``include/uapi/linux/bpf.h``; the instruction set in ``Documentation/bpf``.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Sequence
from typing import NamedTuple

from hanat.errors import KernelError
from hanat.kernel.kernel_errors import refused

# Little-endian machines of 64 bit: registers are nibbles in that order, a deadline is one store.
_CALLS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361}
_ATTRIBUTE_BYTES = 144  # of union bpf_attr; zeros at its end mean nothing
_MAP_CREATE, _PROG_LOAD, _OBJ_GET_INFO_BY_FD = 0, 5, 15
_ARRAY, _MMAPABLE = 2, 1 << 10
_SCHED_CLS = 3
_LICENSE = b"Apache-2.0"  # what is called needs no other
_LOG_BYTES = 1 << 16
_NAME_BYTES = 16  # with the closing zero
_INSTRUCTION = struct.Struct("=BBhi")  # code, registers, distance, operand
_REFUSED = (
    "needs root or CAP_BPF with CAP_NET_ADMIN, and a kernel that has bpf(2); "
    '"hanat doctor" tells what is missing'
)

# The codes that are used: what they do is said in C, d and s are registers, i is an operand.
CODES = {
    "d = s": 0xBF, "d = i": 0xB7, "d &= i": 0x54, "d |= i": 0x44,
    "d = u32[s + o]": 0x61, "d = u64[s + o]": 0x79, "u32[d + o] = s": 0x63,
    "if d == i": 0x16, "if d != i": 0x56, "if d >= s": 0x3D, "goto": 0x05,
    "call": 0x85, "exit": 0x95, "d = map": 0x18,
}  # fmt: skip

Step = tuple[str, str, int, int, int, str]
"""Label or nothing; what it does; registers d and s; operand or offset; where a jump goes."""


def assembled(steps: Sequence[Step], map_fd: int) -> bytes:
    """Return a program in the kernel's form.

    Args:
        steps: Of them all; jumps lead further down. ``d = map`` is the address of the value of
            the map's one element.
        map_fd: Descriptor of that map.
    """
    sizes = [2 if code == "d = map" else 1 for _, code, *_ in steps]
    places = {step[0]: sum(sizes[:n]) for n, step in enumerate(steps) if step[0]}
    program = b""
    for place, (_, code, d, s, operand, label) in enumerate(steps):
        behind = sum(sizes[: place + 1])
        if code == "d = map":  # src_reg 2: BPF_PSEUDO_MAP_VALUE
            program += _INSTRUCTION.pack(CODES[code], d | 2 << 4, 0, map_fd) + bytes(8)
            continue
        distance = places[label] - behind if label else operand if " + o]" in code else 0
        immediate = 0 if " + o]" in code else operand
        signed = immediate - (1 << 32) if immediate >= 1 << 31 else immediate
        program += _INSTRUCTION.pack(CODES[code], d | s << 4, distance, signed)
    return program


def create_array(value_bytes: int, *, name: str) -> int:
    """Return the descriptor of a map with one element, that can be mapped into memory.

    Raises:
        KernelError: The kernel has no such maps, or this process may not make one.
    """
    # Type, bytes of key and value, elements, flags, inner map, node of memory.
    shape = struct.pack("=7I", _ARRAY, 4, value_bytes, 1, _MMAPABLE, 0, 0)
    return call(_MAP_CREATE, shape + _named(name), operation="create a map", target=name)


def load(steps: Sequence[Step], map_fd: int, *, name: str) -> int:
    """Load a classifier (BPF_PROG_TYPE_SCHED_CLS); return its descriptor.

    Raises:
        KernelError: The kernel refused it, with the last line of its verifier.
    """
    code = assembled(steps, map_fd)
    program, license_ = ctypes.create_string_buffer(code), ctypes.create_string_buffer(_LICENSE)
    text = ctypes.create_string_buffer(_LOG_BYTES)

    def attributes(level: int) -> bytes:
        where = ctypes.addressof(text) if level else 0
        return struct.pack(
            "=IIQQIIQII", _SCHED_CLS, len(code) // _INSTRUCTION.size, ctypes.addressof(program),
            ctypes.addressof(license_), level, _LOG_BYTES if level else 0, where, 0, 0,
        ) + _named(name)  # fmt: skip

    try:
        return call(_PROG_LOAD, attributes(0), operation="load a program", target=name)
    except KernelError as error:
        try:
            return call(_PROG_LOAD, attributes(1), operation="load a program", target=name)
        except KernelError:
            lines = text.value.decode(errors="replace").strip().splitlines()
            if lines:
                error.found = f"{error.found}; {lines[-1]}"
            raise error from None


class Program(NamedTuple):
    """A program that is loaded: its descriptor, and the number that the kernel calls it by."""

    fd: int
    number: int


def numbered(descriptor: int) -> Program:
    """Return a program with its number."""
    info = ctypes.create_string_buffer(64)
    attributes = struct.pack("=IIQ", descriptor, len(info), ctypes.addressof(info))
    call(_OBJ_GET_INFO_BY_FD, attributes, operation="ask for a program", target="its number")
    (number,) = struct.unpack_from("=I", info.raw, 4)
    return Program(descriptor, int(number))


def _named(name: str) -> bytes:
    return name.encode()[: _NAME_BYTES - 1].ljust(_NAME_BYTES, b"\0")


def call(
    command: int, attributes: bytes | ctypes.Array[ctypes.c_char], *, operation: str, target: str
) -> int:
    """Return what bpf(2) returns.

    Args:
        command: BPF_PROG_LOAD and so on.
        attributes: The command's part of union bpf_attr; a buffer if the kernel answers in it.
        operation: For the error: verb and object.
        target: For the error: what it is done to.

    Raises:
        KernelError: What the kernel said.
    """
    number = _CALLS.get(platform.machine())
    if number is None:
        raise refused(errno.ENOSYS, operation=operation, target=target, to_do=_REFUSED)
    library = ctypes.CDLL(None, use_errno=True)
    buffer = attributes
    if isinstance(buffer, bytes):
        buffer = ctypes.create_string_buffer(buffer, _ATTRIBUTE_BYTES)
    found = library.syscall(number, command, buffer, len(buffer))
    if found < 0:
        raise refused(ctypes.get_errno(), operation=operation, target=target, to_do=_REFUSED)
    return int(found)  # a descriptor is closed on exec, the kernel sees to that
