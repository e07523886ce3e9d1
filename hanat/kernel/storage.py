"""On what kind of disk a folder is, as far as that matters to files that are only overwritten.

The room that hanat's files take in advance is theirs only if an overwrite goes where the old
content is. File systems that copy on write, and thin volumes, need new room for it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

COPIES_ON_WRITE = frozenset({"btrfs", "zfs", "bcachefs", "overlay", "nilfs2", "f2fs"})
ELSEWHERE = frozenset({"tmpfs", "ramfs", "nfs", "nfs4", "cifs", "9p", "fuse"})
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Storage:
    """What a folder is on.

    Attributes:
        kind: Of the file system; empty if that cannot be found out.
        thin: It is on a thin volume of LVM.
        free: Bytes that a process without privileges may write.
    """

    kind: str
    thin: bool = False
    free: int = 0


def storage_of(folder: Path, *, root: Path = Path("/")) -> Storage:
    """Return what a folder is on; of one that is missing, what its nearest parent is on.

    Args:
        folder: Absolute.
        root: Where ``proc`` and ``sys`` are.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    best = ("", "", "")  # mount point, device, kind
    try:
        for line in (root / "proc/self/mountinfo").read_text().splitlines():
            fields, _, rest = line.partition(" - ")
            device, point = fields.split()[2], _unescaped(fields.split()[4])
            if folder.is_relative_to(point) and len(point) >= len(best[0]):
                best = (point, device, rest.split()[0])
        space = os.statvfs(folder)
    except (OSError, IndexError):
        return Storage("")
    thin = any(
        name.read_text().strip().endswith("-tpool")
        for name in (root / "sys/dev/block" / best[1] / "slaves").glob("*/dm/name")
    )
    return Storage(best[2], thin, space.f_bavail * space.f_frsize)


def _unescaped(point: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), point)
