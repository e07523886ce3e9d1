"""Learn that a process is dying before the kernel has taken it apart.

A pidfd tells of a death when everything is gone: for a daemon of 120 MiB with packet
sockets 20 to 80 ms after the signal, as long as a lease. But the first thing the
kernel does for a thread that ends, whatever ended it, is to hand on the robust mutexes
it holds; none of its own instructions runs from there on. So the daemon's main thread,
the only one that grants rights, holds a mutex in shared memory for life, and a thread of the
supervisor waits for it: 1 ms after the signal.

The pidfd still tells of every death; this only tells of most of them earlier.

Source: pthread_mutexattr_setrobust(3), set_robust_list(2), ``kernel/futex/core.c``.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os

_SHARED, _ROBUST = 1, 1  # PTHREAD_PROCESS_SHARED, PTHREAD_MUTEX_ROBUST: glibc and musl
_MUTEX_BYTES, _ATTRIBUTES_BYTES = 64, 16  # at least what either needs on any machine

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
)  # fmt: skip
_MAP_FAILED = ctypes.c_void_p(-1).value


class DeathWatch:
    """A mutex in shared memory.

    Attributes:
        descriptor: Of the memory; the process that inherits it calls `hold`.
    """

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("hanat-pulse")
        os.ftruncate(self.descriptor, mmap.PAGESIZE)
        memory = mmap.mmap(self.descriptor, mmap.PAGESIZE)
        self._mutex = (ctypes.c_char * _MUTEX_BYTES).from_buffer(memory)
        attributes = ctypes.create_string_buffer(_ATTRIBUTES_BYTES)
        _must(_libc.pthread_mutexattr_init(attributes))
        _must(_libc.pthread_mutexattr_setpshared(attributes, _SHARED))
        _must(_libc.pthread_mutexattr_setrobust(attributes, _ROBUST))
        _must(_libc.pthread_mutex_init(self._mutex, attributes))

    def ended(self) -> bool:
        """Wait until the thread that holds it is dead; return False if nobody holds it."""
        found = _libc.pthread_mutex_lock(self._mutex)  # lets go of the interpreter meanwhile
        _libc.pthread_mutex_unlock(self._mutex)
        return bool(found == errno.EOWNERDEAD)

    def close(self) -> None:
        """Release the descriptor; the memory goes with who uses it last."""
        os.close(self.descriptor)


def hold(descriptor: int) -> None:
    """Take the mutex for the rest of this thread's life."""
    # Never unmapped, as an mmap object would be by a dying interpreter: the C library keeps
    # what a thread holds in a list that runs through the mutexes themselves.
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    address = _libc.mmap(None, mmap.PAGESIZE, protection, mmap.MAP_SHARED, descriptor, 0)
    if address == _MAP_FAILED:
        raise OSError(ctypes.get_errno(), "cannot map the pulse")
    _must(_libc.pthread_mutex_lock(ctypes.c_void_p(address)))


def _must(found: int) -> None:
    if found:
        raise OSError(found, os.strerror(found))
