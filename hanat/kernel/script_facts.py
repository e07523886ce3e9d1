"""Read what the scripts of checks need of this machine: files, a user, rights of the unit.

The rights are those that the files of systemd give: whoever asks has others than the service.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

UNIT = "hanat.service"
# Of two units of one name the first counts; drop-ins count wherever they are (systemd.unit(5)).
UNIT_FOLDERS = (
    "etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system",
    "usr/lib/systemd/system", "lib/systemd/system",
)  # fmt: skip
LISTS = ("AmbientCapabilities", "CapabilityBoundingSet", "SystemCallFilter")


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What lstat(2) says."""

    mode: int
    uid: int


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """The unit of hanat with all its drop-ins.

    Attributes:
        user: Empty: root.
        words: Of each of `LISTS` that is there at all, in order.
    """

    user: str = ""
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScriptFacts:
    """What there is for scripts.

    Attributes:
        folder: None: it is not there.
        files: By name; None: it is not there.
        closed: A folder on the way to them that is closed to most users; None: none is.
        is_user: There is a user of that name.
        unit: None: nothing of hanat is installed for systemd.
    """

    folder: FileFacts | None = None
    files: Mapping[str, FileFacts | None] = field(default_factory=dict)
    closed: Path | None = None
    is_user: bool = True
    unit: UnitFacts | None = None


def gather_scripts(
    folder: Path, names: Iterable[str], user: str, *, root: Path = Path("/")
) -> ScriptFacts:
    """Take a picture of what scripts need.

    Args:
        folder: Where they are.
        names: Of the files.
        user: Runs them.
        root: Where the folders of systemd are.
    """
    try:
        pwd.getpwnam(user)
    except KeyError:
        is_user = False
    else:
        is_user = True
    return ScriptFacts(
        folder=_file(folder),
        files={name: _file(folder / name) for name in names},
        closed=next(filter(_is_closed, reversed((folder, *folder.parents))), None),
        is_user=is_user,
        unit=_unit(root),
    )


def _file(path: Path) -> FileFacts | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return FileFacts(found.st_mode, found.st_uid)


def _is_closed(path: Path) -> bool:
    try:
        return not path.stat().st_mode & stat.S_IXOTH
    except OSError:
        return False  # not there: that is told of the folder itself


def _unit(root: Path) -> UnitFacts | None:
    folders = [root / folder for folder in UNIT_FOLDERS]
    unit = next((f / UNIT for f in folders if (f / UNIT).is_file()), None)
    if unit is None:
        return None
    found = {
        path.name: path for f in reversed(folders) for path in (f / f"{UNIT}.d").glob("*.conf")
    }
    user, words = "", dict[str, tuple[str, ...]]()
    for path in (unit, *(found[name] for name in sorted(found))):
        for key, value in _lines(path):
            if key == "User":
                user = value
            elif key in LISTS:  # an empty value takes back what was said before
                words[key] = (*words.get(key, ()), *value.split()) if value else ()
    return UnitFacts(user, words)


def _lines(path: Path) -> Iterable[tuple[str, str]]:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return
    for line in text.replace("\\" + os.linesep, " ").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            yield key.strip(), value.strip()
