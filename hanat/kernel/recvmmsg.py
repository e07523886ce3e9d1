"""Read many datagrams with one system call: ``recvmmsg(2)``.

Each event of the kernel is a datagram of its own. One call each takes 2 us, a call for a
thousand takes 1 us for each of them.

The room is mapped: pages that no event came to are no memory. The structures have addresses where
C has pointers, since ctypes keeps three objects for each pointer that is set.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket

SLOTS = 1024
SLOT_BYTES = 1024  # an event has 150 to 350 bytes

_libc = ctypes.CDLL(None, use_errno=True)


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):  # struct msghdr
    _fields_ = (
        ("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p), ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )  # fmt: skip


class _Message(ctypes.Structure):  # struct mmsghdr
    _fields_ = (("header", _Header), ("received", ctypes.c_uint))


assert ctypes.sizeof(_Message) % ctypes.sizeof(ctypes.c_uint) == 0


class Burst:
    """Room for as many datagrams as one call returns."""

    def __init__(self) -> None:
        self._data = mmap.mmap(-1, SLOTS * SLOT_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._buffer = (ctypes.c_char * len(self._data)).from_buffer(self._data)
        start = ctypes.addressof(self._buffer)
        self._vectors = (_Vector * SLOTS)()
        header = bytearray(SLOTS * ctypes.sizeof(_Message))
        self._messages = (_Message * SLOTS).from_buffer(header)
        vectors = ctypes.addressof(self._vectors)
        for number, (vector, message) in enumerate(zip(self._vectors, self._messages, strict=True)):
            vector.base, vector.length = start + number * SLOT_BYTES, SLOT_BYTES
            message.header.vectors = vectors + number * ctypes.sizeof(_Vector)
            message.header.vector_count = 1
        step = ctypes.sizeof(_Message) // ctypes.sizeof(ctypes.c_uint)
        first = _Message.received.offset // ctypes.sizeof(ctypes.c_uint)
        self._lengths = memoryview(header).cast("I")[first::step]

    def read(self, opened: socket.socket) -> list[bytes]:
        """Return what waits, at most `SLOTS` datagrams; does not block.

        One that is larger than `SLOT_BYTES` is cut off there.

        Raises:
            OSError: ENOBUFS after an overrun.
        """
        count = _libc.recvmmsg(opened.fileno(), self._messages, SLOTS, socket.MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            if number == errno.EAGAIN:
                return []
            raise OSError(number, os.strerror(number))
        data = memoryview(self._data)
        places = range(0, count * SLOT_BYTES, SLOT_BYTES)
        lengths = self._lengths[:count]
        return [bytes(data[p : p + n]) for p, n in zip(places, lengths, strict=True)]
