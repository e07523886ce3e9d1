"""File systems that are mounted in a lab's folder: freeze, thaw, unmount."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878  # linux/fs.h
EXT4_IOC_SHUTDOWN = 0x8004587D  # uapi/linux/ext4.h
NO_LOG_FLUSH = 2
ERRORS = Path("/sys/fs/ext4")


def below(folder: Path) -> list[Path]:
    """Return what is mounted in a folder, the innermost first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    places = [Path(line.split()[4].replace("\\040", " ")) for line in lines]
    inside = {place for place in places if folder.resolve() in place.parents}
    return sorted(inside, key=lambda place: (-len(place.parts), place))


def freeze(place: Path) -> None:
    """Let everybody who writes wait; harmless if that is so already."""
    _ask(place, FIFREEZE)


def thaw(place: Path) -> None:
    """Let them go on; harmless if it was not frozen."""
    _ask(place, FITHAW)


def break_down(place: Path) -> None:
    """Let every access fail with EIO from now on, as on a disk that is gone.

    What was written and not synced is lost.

    Raises:
        OSError: The file system cannot do that.
    """
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("=I", NO_LOG_FLUSH))
    finally:
        os.close(descriptor)


def make_read_only(place: Path) -> None:
    """Let the kernel find an error in an ext4 that is mounted with ``errors=remount-ro``.

    Raises:
        OSError: It is none, or the kernel cannot do that.
    """
    (ext4(place) / "trigger_fs_error").write_text("chaos")


def ext4(place: Path) -> Path:
    """Return where the kernel tells of the ext4 that is mounted in a place, while there is one.

    Raises:
        OSError: Nothing is mounted there.
    """
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    # proc(5): mount point is the fifth field; the device follows the hyphen and the type.
    devices = [
        line.split(" - ")[1].split()[1] for line in lines if line.split()[4] == str(place.resolve())
    ]
    if not devices:
        raise FileNotFoundError(errno.ENOENT, "nothing is mounted there", str(place))
    return ERRORS / Path(devices[-1]).name


def unmount(places: Iterable[Path]) -> None:
    """Unmount; a place that is busy goes when its last user does."""
    for place in places:
        subprocess.run(["umount", "--lazy", str(place)], check=False, capture_output=True)


def _ask(place: Path, request: int) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.ioctl(descriptor, request, 0)
    finally:
        os.close(descriptor)
