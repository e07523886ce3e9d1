"""Remember on disk what a lab consists of, so that it can be removed after a crash.

One file per lab below /run, which a reboot empties together with the namespaces.
Creating it exclusively is the lock between two `up` at once. It is written before
the first namespace is made and deleted after the last one is gone.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from chaos.lab.lab_error import LabError
from chaos.lab.processes import Identity, identify

RECORDS = Path("/run/hanat-lab")


@dataclass(slots=True)
class Record:
    """What is known about a lab.

    Attributes:
        folder: Where its configurations, sockets and logs are.
        owner: The program that built it; it may have ended.
        kept: Whether the owner left it running on purpose.
        processes: What was started, children not included, oldest first.
    """

    prefix: str
    folder: Path
    owner: Identity
    kept: bool = False
    processes: list[Identity] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """Where this record is stored."""
        return path_of(self.prefix)

    @property
    def in_use(self) -> bool:
        """Whether the program that built the lab is still at work in it."""
        return not self.kept and identify(self.owner.pid) == self.owner

    def create(self) -> None:
        """Write the record for the first time.

        Raises:
            LabError: There is one already.
        """
        RECORDS.mkdir(mode=0o755, exist_ok=True)
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise LabError(
                f'cannot start lab "{self.prefix}": another one is being started; '
                f'wait for it, or run "python -m chaos down" ({self.path})'
            ) from None
        with os.fdopen(descriptor, "w") as file:
            file.write(self._text())

    def save(self) -> None:
        """Replace the stored record in one step."""
        draft = self.path.with_suffix(".new")
        draft.write_text(self._text())
        draft.rename(self.path)

    def _text(self) -> str:
        return json.dumps(
            {
                "prefix": self.prefix,
                "folder": str(self.folder),
                "owner": [self.owner.pid, self.owner.started],
                "kept": self.kept,
                "processes": [[p.pid, p.started] for p in self.processes],
            }
        )


def path_of(prefix: str) -> Path:
    """Return where the record of a lab is kept."""
    return RECORDS / f"{prefix}.json"


def load(prefix: str) -> Record | None:
    """Read the record of a lab; None if there is none, or an unreadable one."""
    try:
        data = json.loads(path_of(prefix).read_text())
        return Record(
            prefix=data["prefix"],
            folder=Path(data["folder"]),
            owner=Identity(*data["owner"]),
            kept=data["kept"],
            processes=[Identity(*p) for p in data["processes"]],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget(prefix: str) -> None:
    """Delete the record of a lab, readable or not."""
    path_of(prefix).unlink(missing_ok=True)
    path_of(prefix).with_suffix(".new").unlink(missing_ok=True)
    try:
        RECORDS.rmdir()
    except OSError:
        return  # another lab's record is in there, or it is gone already
