"""What some nemeses need to be there before the nodes start, and where it may be missing.

*disk*: every node's data on a small ext4 image of its own, mounted through a loop device, so that
it can be filled or held up without touching the machine's disks.

*conntrack*: leave to set the machine's limit for tracked connections.

*clock*: every node under libfaketime (Debian: faketime), which reads from a file how far the
wall clock is off. A time namespace cannot step CLOCK_REALTIME, and stepping the machine's own
would hit everything on it. What it cannot do: the kernel's own timestamps stay right. It
leaves CLOCK_MONOTONIC and CLOCK_BOOTTIME alone, as a real step does.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

from chaos.lab import mounts
from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError

DISK_MIB = 160  # what a node writes in advance takes 96
CLOCK_FILE = "clock"  # in the node's folder, its working directory
WHOLE_MACHINE = "CHAOS_WHOLE_MACHINE"
STEP_S_MAX = 30.0  # for a command that makes a disk


def missing(need: str) -> str | None:
    """Return what this machine lacks for a need, None if nothing."""
    if need == "clock":
        return None if _library() else "libfaketime is not installed (Debian: apt install faketime)"
    if need == "disk":
        lacks = [
            tool
            for tool in ("mkfs.ext4", "e2fsck", "mount", "umount")
            if shutil.which(tool) is None
        ]
        if lacks:
            return f"{' and '.join(lacks)} not found (Debian: apt install e2fsprogs mount)"
        return None if Path("/dev/loop-control").exists() else "this machine has no loop devices"
    if need == "conntrack":
        return one_table_limit()
    assert need == "", need
    return None


def one_table_limit() -> str | None:
    """Return why the limit of the table of connections cannot be set here, None if it can.

    No released kernel has a limit for each namespace; the machine's counts in each of them.
    """
    if os.environ.get(WHOLE_MACHINE):
        return None
    return (
        "nf_conntrack_max is one limit for the whole machine; "
        f"{WHOLE_MACHINE}=1 lets it be set on a machine that nobody else uses"
    )


def wrapping(needs: Collection[str]) -> list[str]:
    """Return what has to stand before the command of every node."""
    library = _library()
    if "clock" not in needs or library is None:
        return []
    return [
        "env", f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={CLOCK_FILE}",
        "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1",
        # Else a thread that waits for Python's lock does so in a loop, and takes all of a core.
        "FAKETIME_FORCE_MONOTONIC_FIX=0",
    ]  # fmt: skip


def equip(lab: Lab, needs: Collection[str]) -> None:
    """Prepare a lab that was built and whose nodes do not run.

    Raises:
        LabError: A disk could not be made.
    """
    for node in lab.nodes.values():
        if "clock" in needs:
            (node.folder / CLOCK_FILE).write_text("+0\n")
        if "disk" in needs:
            _mount(node.folder / "data")


def _mount(data: Path) -> None:
    image = image_of(data)
    with image.open("wb") as file:
        file.truncate(DISK_MIB << 20)
    _run(["mkfs.ext4", "-q", "-F", str(image)])
    attach(data)


def image_of(data: Path) -> Path:
    """Return the file that is a node's disk."""
    return data.with_suffix(".image")


def attach(data: Path) -> None:
    """Mount a node's disk.

    Raises:
        LabError: That failed.
    """
    _run(["mount", "-o", "loop,errors=remount-ro", str(image_of(data)), str(data)])


def replug(data: Path) -> None:
    """Mount what is on a disk that has failed, on another one, checked as a boot does.

    Programs that were started after the first mount have it in their own namespaces of mounts, so
    it goes when the last of them ends: the old image cannot be used again.

    Raises:
        LabError: That failed.
    """
    image = image_of(data)
    other = image.with_suffix(".new.image")
    mounts.unmount([data])
    shutil.copyfile(image, other)
    _run(["e2fsck", "-p", str(other)], good=(0, 1))
    other.replace(image)
    attach(data)


def _run(command: Sequence[str], good: Sequence[int] = (0,)) -> None:
    told = f"cannot make a disk: {' '.join(command)}"
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=STEP_S_MAX
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise LabError(f"{told}: {error}") from error
    if done.returncode not in good:
        raise LabError(f"{told}: {(done.stderr or done.stdout).strip()}")


def _library() -> Path | None:
    folder = Path("/usr/lib") / f"{platform.machine()}-linux-gnu" / "faketime"
    found = folder / "libfaketimeMT.so.1"
    return found if found.exists() else None
