"""The rights as two deadlines in the packet path.

Two eBPF programs at a device compare each packet with deadlines in nanoseconds of
CLOCK_BOOTTIME that lie in a map. At the ingress one says by two bits of the packet's mark which
rights there are at this moment; the gate's rules look at these (`core.gate_rules`). At the egress
the other drops what the rules have marked as an answer, if *answers* is over by then, and leaves no
bit behind. They belong to the kernel, not to a process: with every process dead the rights end on
time.

The map's memory is mapped into this process, so that granting is two stores of eight bytes
and needs no call. A deadline is absolute: who stands still between reading the clock and storing,
or while the machine sleeps, grants nothing that is over.

Without the program at a device no bit is set there, and no right exists.

Source: ``Documentation/bpf/``; clsact in tc-bpf(8); `kernel.traffic_filters` puts them there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from hanat.core.rights import ANSWERS_NEEDED, BOTH_RIGHTS, CARRIES_ONLY, bits
from hanat.kernel import ebpf
from hanat.kernel.deadline_map import VALUE_BYTES, Deadlines
from hanat.kernel.ebpf import Step

_BOOT_NS = 125  # bpf_ktime_get_boot_ns, since Linux 5.8
_MARK = 8  # in struct __sk_buff
_ANSWERS, _CARRIES = 0, 8  # in the map's value
_NEXT, _DROP = 0xFFFFFFFF, 2  # TC_ACT_UNSPEC: whatever comes next decides; TC_ACT_SHOT
_ALL = 0xFFFFFFFF


def ingress(mask: int) -> tuple[Step, ...]:
    """Return the program that tells the rights of a packet that comes in."""
    return (
        ("", "d = s", 6, 1, 0, ""),  # the packet; calls leave r6 alone
        ("", "call", 0, 0, _BOOT_NS, ""),  # r0: now
        ("", "d = map", 1, 0, 0, ""),
        ("", "d = u32[s + o]", 2, 6, _MARK, ""),
        ("", "d &= i", 2, 0, _ALL ^ mask, ""),  # whoever has set them: they are not theirs
        ("", "d = u64[s + o]", 3, 1, _CARRIES, ""),
        ("", "if d >= s", 0, 3, 0, "told"),
        ("", "d = u64[s + o]", 3, 1, _ANSWERS, ""),
        ("", "if d >= s", 0, 3, 0, "carries"),
        ("", "d |= i", 2, 0, bits(mask, BOTH_RIGHTS), ""),
        ("", "goto", 0, 0, 0, "told"),
        ("carries", "d |= i", 2, 0, bits(mask, CARRIES_ONLY), ""),
        ("told", "u32[d + o] = s", 6, 2, _MARK, ""),
        ("", "d = i", 0, 0, _NEXT, ""),
        ("", "exit", 0, 0, 0, ""),
    )


def egress(mask: int) -> tuple[Step, ...]:
    """Return the program that drops answers when that right is over."""
    return (
        ("", "d = u32[s + o]", 2, 1, _MARK, ""),
        ("", "d = s", 3, 2, 0, ""),
        ("", "d &= i", 3, 0, mask, ""),
        ("", "if d == i", 3, 0, 0, "next"),
        ("", "d &= i", 2, 0, _ALL ^ mask, ""),  # nobody behind this shall see them
        ("", "u32[d + o] = s", 1, 2, _MARK, ""),
        ("", "if d != i", 3, 0, bits(mask, ANSWERS_NEEDED), "next"),
        ("", "call", 0, 0, _BOOT_NS, ""),
        ("", "d = map", 1, 0, 0, ""),
        ("", "d = u64[s + o]", 3, 1, _ANSWERS, ""),
        ("", "if d >= s", 0, 3, 0, "drop"),
        ("next", "d = i", 0, 0, _NEXT, ""),
        ("", "exit", 0, 0, 0, ""),
        ("drop", "d = i", 0, 0, _DROP, ""),
        ("", "exit", 0, 0, 0, ""),
    )


class Programs:
    """A map of two deadlines, and the programs that look at it.

    Attributes:
        map_fd: Descriptor of the map.
        ingress_fd, egress_fd: Of the programs.
        deadlines: What is in the map; nothing is granted at first.

    Raises:
        KernelError: The kernel refused one of them.
        OSError: The map's memory cannot be mapped.
    """

    def __init__(self, mask: int) -> None:
        self._opened: list[int] = []
        try:
            self.map_fd = self._keep(ebpf.create_array(VALUE_BYTES, name="hanat_rights"))
            self.ingress_fd = self._load(ingress(mask), "hanat_in")
            self.egress_fd = self._load(egress(mask), "hanat_out")
            self.deadlines = Deadlines(self.map_fd)
        except BaseException:
            self._close()
            raise

    def close(self) -> None:
        """Release the descriptors; what is attached goes on with the deadlines it has."""
        self.deadlines.close()
        self._close()

    def _load(self, steps: Sequence[Step], name: str) -> int:
        return self._keep(ebpf.load(steps, self.map_fd, name=name))

    def _keep(self, descriptor: int) -> int:
        self._opened.append(descriptor)
        return descriptor

    def _close(self) -> None:
        while self._opened:
            os.close(self._opened.pop())
