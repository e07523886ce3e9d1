"""File systems that are mounted in a lab's folder: freeze, thaw, unmount."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878  # linux/fs.h


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
