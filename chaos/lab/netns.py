"""Enter a network namespace from this process, without a helper program.

A socket belongs to the namespace it was created in, whatever its process does
afterwards; so one observer can listen in several namespaces at once. The same holds
for files below /proc/sys/net, which show the namespace of the thread that opens them.

`os.setns` came with Python 3.12; we support 3.11 and call the C library.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from chaos.lab.lab_error import LabError

NETNS_DIR = Path("/run/netns")  # where ip-netns(8) keeps its names
CLONE_NEWNET = 0x40000000  # linux/sched.h
NETLINK_NETFILTER = 12
CT_DELETE = 0x0102  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE
NLM_F_REQUEST_ACK = 0x05

_libc = ctypes.CDLL(None, use_errno=True)


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def entered(namespace: str) -> Iterator[None]:
    """Put the calling thread into `namespace` for the length of a `with` block."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(NETNS_DIR / namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)


def empty_connections(namespace: str) -> None:
    """Delete all that a namespace's connection tracking has.

    Raises:
        OSError: The kernel refused it.
    """
    with entered(namespace):
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    with sock:
        # Deleting without naming one deletes all of them: header, then nfgenmsg (AF_UNSPEC).
        sock.send(struct.pack("=IHHIIBBH", 20, CT_DELETE, NLM_F_REQUEST_ACK, 1, 0, 0, 0, 0))
        (error,) = struct.unpack_from("=i", sock.recv(4096), 16)
    if error:
        raise OSError(-error, os.strerror(-error))


def write_sysctls(namespace: str, values: Mapping[str, str]) -> None:
    """Set kernel variables of a namespace.

    Args:
        namespace: Name as ip-netns(8) knows it.
        values: ``{"net.ipv4.ip_forward": "1"}``; a name that begins with ``?`` switches off
            what is absent where the name is.

    Raises:
        LabError: This kernel has no such variable, or refuses the value.
    """
    with entered(namespace):
        for name, value in values.items():
            path = Path("/proc/sys") / name.lstrip("?").replace(".", "/")
            if name.startswith("?") and not path.exists():
                continue
            try:
                path.write_text(value)
            except OSError as error:
                raise LabError(
                    f"cannot set {name}={value} in {namespace}: {path}: {error.strerror}"
                ) from error
