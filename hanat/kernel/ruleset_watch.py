"""Hear of changes of nftables, but not of rights that are granted anew.

The gate's sets are refilled with each renewal of the lease, some thirty times a second.
The kernel tells each listener of each transaction; a filter in the kernel drops what
begins with an element of a set or with the end of a transaction, so that nothing of a
renewal ever wakes this process. A change of rules that begins with elements is missed;
who wants to know everything has to look now and then as well.

Source: ``include/uapi/linux/netfilter/nf_tables.h``, ``nf_tables_api.c`` (nf_tables_commit).
"""

from __future__ import annotations

import errno
import socket
import struct
import sys

from hanat.kernel.classic_bpf import Step, attach
from hanat.kernel.kernel_errors import refused
from hanat.kernel.netlink import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_NETFILTER,
    RECEIVE_BYTES,
    SOL_NETLINK,
)
from hanat.kernel.nfnetlink import SUBSYSTEM
from hanat.kernel.ports import Changed

READS_MAX = 256  # of one turn: other programs may change rules without end

NFNLGRP_NFTABLES = 7
NFT_MSG_DELTABLE, NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM, NFT_MSG_NEWGEN = 2, 12, 14, 15
# The type of the first message: its low byte names the kind, the other nftables.
_KIND_AT = 4 if sys.byteorder == "little" else 5
_GONE = struct.pack("=H", SUBSYSTEM << 8 | NFT_MSG_DELTABLE)
_FILTER: tuple[Step, ...] = (
    ("", "ldb", _KIND_AT),
    ("", "jeq", NFT_MSG_NEWSETELEM, "drop", ""),
    ("", "jeq", NFT_MSG_DELSETELEM, "drop", ""),
    ("", "jeq", NFT_MSG_NEWGEN, "drop", ""),
    ("", "ret", 0xFFFFFFFF),
    ("drop", "ret", 0),
)


class KernelRulesetWatch:
    """Implements `ports.RulesetWatch`."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
            attach(self._socket, _FILTER)
            self._socket.bind((0, 0))
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
        except OSError as error:
            raise refused(
                error.errno or errno.EIO, operation="watch rules", target="nftables"
            ) from error

    def fileno(self) -> int:
        """See `ports.RulesetWatch.fileno`."""
        return self._socket.fileno()

    def read(self) -> Changed:
        """See `ports.RulesetWatch.read`."""
        heard = Changed.NOTHING
        for _ in range(READS_MAX):  # what is left keeps the descriptor readable
            found = Changed.RULES
            try:
                # Other bytes may look like that; then somebody looks once more than needed.
                if _GONE in self._socket.recv(RECEIVE_BYTES):
                    found = Changed.TABLES
            except BlockingIOError:
                return heard
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise refused(
                        error.errno or errno.EIO, operation="read changes", target="nftables"
                    ) from error
            heard = max(heard, found)
        return heard

    def close(self) -> None:
        """See `ports.RulesetWatch.close`."""
        self._socket.close()
