"""Take both rights and the floating addresses away from a node that does not run.

For whoever must be sure that a machine is silent: a service manager after the
node's end, however it ended, or a person. The kernel ends the rights by itself and a
starting node removes what its predecessor left; this does both now. It touches
the sets of our own gate and floating addresses, nothing else: those that this node's
files name, and those of the configuration in force, which may be others. The gate still
knows the latter; reading them out of the journal was considered, but what is committed
there is known to a majority only.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from hanat.core.configuration import Interface
from hanat.doctor.fence_files import FenceTarget
from hanat.errors import AbsentObjectError, KernelError, RefusedError, StartupError
from hanat.kernel.fence import KernelFence
from hanat.kernel.tcx import remove_programs


@dataclass(frozen=True, slots=True)
class Fenced:
    """What was taken away.

    Attributes:
        gate_found: Whether there was a gate; without one no right was ever granted.
        removed: Kernel name of the device and floating address, those that were there.
    """

    gate_found: bool
    removed: tuple[tuple[str, Interface], ...]


def fence(target: FenceTarget, named: Sequence[tuple[str, Interface]], *, force: bool) -> Fenced:
    """Silence this machine; doing it twice is doing it once.

    Args:
        target: The node.
        named: Kernel devices and addresses that its cluster file names; the gate knows others.
        force: Even while the node runs. One that works takes rights and addresses back
            within a second; one that hangs does not.

    Raises:
        RefusedError: The node runs.
        StartupError: Whether it runs cannot be told.
        KernelError: The first thing the kernel refused; everything was tried.
    """
    if force:
        return _take_away(target, named)
    with _stopped(target):
        return _take_away(target, named)


@contextmanager
def _stopped(target: FenceTarget) -> Iterator[None]:
    """Make sure that the node does not run and does not start meanwhile."""
    path = target.data_dir / "journal" / "lock"  # its journal's; held as long as it runs
    tried = f"tell whether node {target.node} runs"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # it never ran
        yield
        return
    except OSError as error:
        raise StartupError(
            tried=tried, found=f"{path}: {error.strerror}", to_do="run as root, or add --force"
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(
                f"node {target.node} not fenced: its daemon runs; stop it, hand over with "
                '"hanat switchover", or add --force if it hangs'
            ) from None
        yield
    finally:
        os.close(lock)


def _take_away(target: FenceTarget, named: Sequence[tuple[str, Interface]]) -> Fenced:
    kernel = KernelFence()
    first: KernelError | None = None
    gate_found = True
    devices = sorted(set(target.devices.values()))
    try:
        try:
            kernel.shut(devices)
        except AbsentObjectError:
            gate_found = False
        except KernelError as error:
            first = error
        try:
            remove_programs(devices, target.data_dir)
        except KernelError as error:
            first = first or error
        found = list(named)
        if gate_found:
            # It has no prefix lengths: where the file names an address, the file decides.
            known = {address.ip for _, address in named}
            try:
                found += [(d, a) for d, a in kernel.guarded(devices) if a.ip not in known]
            except KernelError as error:
                first = first or error
        removed = kernel.remove(found)
    finally:
        kernel.close()
    if first is not None:
        raise first
    return Fenced(gate_found, tuple(removed))
