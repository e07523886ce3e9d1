"""Turn what the kernel answered into the exception that says it in words."""

from __future__ import annotations

import errno
import os
import socket

from hanat.errors import (
    AbsentObjectError,
    AlreadyPresentError,
    KernelError,
    NoRoomError,
    NotPermittedError,
)

_KINDS: dict[int, type[KernelError]] = {
    errno.EEXIST: AlreadyPresentError,
    errno.EADDRINUSE: AlreadyPresentError,
    errno.ENODEV: AbsentObjectError,
    errno.ENXIO: AbsentObjectError,
    errno.ENOENT: AbsentObjectError,
    errno.ENFILE: NoRoomError,
    errno.ENETDOWN: AbsentObjectError,
    errno.EADDRNOTAVAIL: AbsentObjectError,
    errno.EPERM: NotPermittedError,
    errno.EACCES: NotPermittedError,
}


def refused(number: int, *, operation: str, target: str, to_do: str = "") -> KernelError:
    """Return the exception for an errno.

    Args:
        number: Positive, as in `OSError.errno`.
        operation: Verb and object, e.g. ``add 192.0.2.10/24``.
        target: What it was done to, e.g. ``eth1``.
        to_do: What helps; found here for a missing device or capability.
    """
    found = f"{errno.errorcode.get(number, number)}: {os.strerror(number)}"
    if number in {errno.ENODEV, errno.ENXIO}:
        found = "ENODEV: no such interface"
        to_do = to_do or f"interfaces are {', '.join(device_names())}"
    if number in {errno.EPERM, errno.EACCES}:
        to_do = to_do or "run as root or with CAP_NET_ADMIN and CAP_NET_RAW"
    kind = _KINDS.get(number, KernelError)
    return kind(operation=operation, target=target, found=found, to_do=to_do)


def device_names() -> tuple[str, ...]:
    """Return the kernel names of all devices of this network namespace, sorted."""
    return tuple(sorted(name for _, name in socket.if_nameindex()))


def index_of(device: str, *, operation: str) -> int:
    """Return the index of a device.

    Raises:
        AbsentObjectError: If there is none of that name.
    """
    try:
        return socket.if_nametoindex(device)
    except OSError:  # its errno is not set reliably; there is only one reason
        raise refused(errno.ENODEV, operation=operation, target=device) from None
