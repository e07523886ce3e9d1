"""Give up rights: what strangers send is read here, and scripts are started.

A daemon that is not root passes its capabilities on as ambient ones (capabilities(7)), so that
its children, and theirs, have them too: the checker gives up all but a few, and its children
have none.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Collection

_VERSION_3 = 0x20080522  # linux/capability.h
_PR_CAP_AMBIENT, _CLEAR_ALL = 47, 4  # linux/prctl.h


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Half(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def keep_rights(numbers: Collection[int]) -> None:
    """Give up all capabilities but these, and leave none to children that are not root.

    Args:
        numbers: As of linux/capability.h; below 32.

    Raises:
        OSError: The kernel refused it, or a filter of system calls did (systemd's @privileged
            has capset(2)). Children have none all the same.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header, halves = _Header(_VERSION_3, 0), (_Half * 2)()
    _check(libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0))
    _check(libc.capget(ctypes.byref(header), halves))
    kept = halves[0].permitted & sum(1 << number for number in numbers)
    halves[0] = _Half(kept, kept, 0)
    halves[1] = _Half(0, 0, 0)
    _check(libc.capset(ctypes.byref(header), halves))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
