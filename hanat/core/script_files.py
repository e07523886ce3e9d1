"""Whether a program of an operator may be run: only root can have written it.

The checker refuses others; the doctor says so before. Both judge by what lstat(2) says.
"""

from __future__ import annotations

import stat


def distrust(mode: int, uid: int, *, is_folder: bool) -> str:
    """Return what speaks against a file or its folder, after its name; empty: nothing.

    Args:
        mode: As of lstat(2).
        uid: Its owner's number.
        is_folder: It should be the folder.
    """
    if not (stat.S_ISDIR(mode) if is_folder else stat.S_ISREG(mode)):
        return "is not a folder" if is_folder else "is not a file"
    if uid != 0 or mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "is not of root alone; chown root, chmod go-w"
    return ""
