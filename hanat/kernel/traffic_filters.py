"""Programs at the two ends of a device, as classifiers of its qdisc clsact in direct action.

Every kernel since 4.5 has that, netlink replaces a program in place and needs no descriptor of the
old one for it, and they outlive every process. Newer kernels have `tcx`, a shorter way to them.

Source: tc-bpf(8), ``include/uapi/linux/pkt_cls.h``, ``net/sched/cls_bpf.c``.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from hanat.errors import AbsentObjectError, AlreadyPresentError, KernelError
from hanat.kernel.netlink import (
    HEADER,
    IFINFOMSG,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NetlinkClient,
    attribute,
    attributes,
    nested,
)

if TYPE_CHECKING:  # a supervisor does not load ctypes for it
    from hanat.kernel.ebpf import Program

INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3  # TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS, ..EGRESS)
DIRECTIONS = {INGRESS: "ingress", EGRESS: "egress"}
PREFERENCE = 1  # before what anybody else has, which might end the search
HANDLE = 0x6861_6E61

_RTM_NEWQDISC, _RTM_GETQDISC = 36, 38
_RTM_NEWTFILTER, _RTM_DELTFILTER, _RTM_GETTFILTER = 44, 45, 46
_TCMSG = struct.Struct("=BxxxiIII")  # family, index, handle, parent, info
_RTM_GETLINK, _LINKINFO = 18, 18
_CLSACT, _CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000
_KIND, _OPTIONS = 1, 2
_FD, _NAME, _FLAGS, _ID = 6, 7, 8, 11
_DIRECT_ACTION = 1
_ALL_PROTOCOLS = socket.htons(0x0003)
_INFO = PREFERENCE << 16 | _ALL_PROTOCOLS


class TrafficFilters:
    """Implements `deadline_gate.Places`.

    Its socket is opened in the network namespace of its first use.
    """

    def __init__(self) -> None:
        self._netlink = NetlinkClient(socket.NETLINK_ROUTE)

    def close(self) -> None:
        """Release the descriptor; the next call opens another."""
        self._netlink.close()

    def probe(self, index: int, *, device: str) -> None:
        """Find out whether a device can have clsact, by adding it.

        Raises:
            KernelError: It has another qdisc in that place.
        """
        self._demand_qdisc(index, device)

    def attach(self, index: int, direction: int, program: Program, *, device: str) -> None:
        """Put a program there, in place of one that was attached like this before.

        Args:
            index: Of the device.
            direction: `INGRESS` or `EGRESS`.
            program: A classifier.
            device: Its name, for errors.

        Raises:
            KernelError: The kernel refused it: another program has a filter of another kind at
                preference 1.
        """
        self._demand_qdisc(index, device)
        options = attribute(_FD, struct.pack("=I", program.fd))
        options += attribute(_NAME, b"hanat\0")
        options += attribute(_FLAGS, struct.pack("=I", _DIRECT_ACTION))
        try:
            self._netlink.request(
                _RTM_NEWTFILTER, NLM_F_CREATE,
                _where(index, direction) + attribute(_KIND, b"bpf\0") + nested(_OPTIONS, options),
                operation=f"attach a program at the {DIRECTIONS[direction]}", target=device,
            )  # fmt: skip
        except KernelError as error:
            error.to_do = error.to_do or (
                f'look at "tc filter show dev {device} {DIRECTIONS[direction]}": another program '
                f"has a filter of another kind at preference {PREFERENCE}; "
                'or write kind = "timeouts" under [gate] in node.toml'
            )
            raise

    def _demand_qdisc(self, index: int, device: str) -> None:
        """Make sure that there is clsact.

        The qdisc *ingress*, which others may have put there, would take what is for the egress.
        """
        where = _TCMSG.pack(0, index, _CLSACT_HANDLE, _CLSACT, 0)
        with suppress(AlreadyPresentError):
            self._netlink.request(
                _RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, where + attribute(_KIND, b"clsact\0"),
                operation="add the qdisc clsact", target=device,
            )  # fmt: skip
            return
        for kind in self._kinds(index, device):
            if kind != "clsact":
                raise KernelError(
                    operation="add the qdisc clsact",
                    target=device,
                    found=f'the qdisc "{kind}" is in its place',
                    to_do=f'look at "tc qdisc show dev {device}": another program has an ingress '
                    'qdisc there; or write kind = "timeouts" under [gate] in node.toml',
                )

    def _kinds(self, index: int, device: str) -> Iterator[str]:
        """Yield the kind of the qdisc in the place of clsact, if there is one."""
        asked = _TCMSG.pack(0, index, 0, 0, 0)
        for answer in self._netlink.dump(
            _RTM_GETQDISC, asked, operation="look at the qdiscs", target=device
        ):
            _, of, _, parent, _ = _TCMSG.unpack_from(answer, HEADER.size)
            if of == index and parent == _CLSACT:
                for kind, start, end in attributes(answer, HEADER.size + _TCMSG.size, len(answer)):
                    if kind == _KIND:
                        yield answer[start:end].rstrip(b"\0").decode()

    def detach(self, index: int, direction: int, _program: Program | None, *, device: str) -> None:
        """Take a program away that was attached like this; if there is none it is no error.

        Raises:
            KernelError: What the kernel said.
        """
        with suppress(AbsentObjectError):
            try:
                self._netlink.request(
                    _RTM_DELTFILTER, 0, _where(index, direction),
                    operation=f"take a program from the {DIRECTIONS[direction]}", target=device,
                )  # fmt: skip
            except KernelError as error:
                if not _no_qdisc(error):
                    raise

    def found(self, index: int, direction: int, program: Program, *, device: str) -> str:
        """Return what is wrong with a program that was attached; nothing if it is there.

        Raises:
            KernelError: What the kernel said.
        """
        number = self.program_at(index, direction, device=device)
        if number == program.number:
            return ""
        return "gone" if number is None else f"replaced by {number}"

    def program_at(self, index: int, direction: int, *, device: str) -> int | None:
        """Return the number of the program that is attached like this; None: there is none.

        Raises:
            KernelError: What the kernel said.
        """
        try:
            answer = self._netlink.get(
                _RTM_GETTFILTER, _where(index, direction) + attribute(_KIND, b"bpf\0"),
                operation=f"look at the {DIRECTIONS[direction]}", target=device,
            )  # fmt: skip
        except AbsentObjectError:
            return None
        except KernelError as error:
            if _no_qdisc(error):
                return None
            raise
        for kind, start, end in attributes(answer, HEADER.size + _TCMSG.size, len(answer)):
            if kind == _OPTIONS:
                for inner, first, _ in attributes(answer, start, end):
                    if inner == _ID:
                        (number,) = struct.unpack_from("=I", answer, first)
                        return int(number)
        return None


def kind_of(index: int, *, device: str) -> str:
    """Return what a device is, as ``ip -d link`` calls it; empty for a plain one.

    Raises:
        AbsentObjectError: There is none of this index.
    """
    netlink = NetlinkClient(socket.NETLINK_ROUTE)
    try:
        answer = netlink.get(
            _RTM_GETLINK, IFINFOMSG.pack(0, 0, index, 0, 0),
            operation="look at a device", target=device,
        )  # fmt: skip
    finally:
        netlink.close()
    for kind, start, end in attributes(answer, HEADER.size + IFINFOMSG.size, len(answer)):
        if kind == _LINKINFO:
            for inner, first, last in attributes(answer, start, end):
                if inner == _KIND:
                    return answer[first:last].rstrip(b"\0").decode()
    return ""


def _where(index: int, direction: int) -> bytes:
    return _TCMSG.pack(0, index, HANDLE, direction, _INFO)


def _no_qdisc(error: KernelError) -> bool:
    """Say whether the kernel meant that there is no clsact: it calls that an invalid argument."""
    return error.found.startswith("EINVAL")
