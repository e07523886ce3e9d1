"""Settings of the whole machine that a lab changes, and puts back even if it was killed."""

from __future__ import annotations

from pathlib import Path

from chaos.lab.lab_error import LabError

TABLE_LIMIT = Path("/proc/sys/net/netfilter/nf_conntrack_max")
BEFORE = "nf_conntrack_max"  # a file in the lab's folder, while the limit is lowered


def lower_table_limit(folder: Path, limit: int, setting: Path = TABLE_LIMIT) -> None:
    """Set the limit of every table of connections; what it was is kept in the lab's folder.

    Raises:
        LabError: It cannot be set.
    """
    try:
        before = folder / BEFORE
        if not before.exists():
            before.write_text(setting.read_text())
        setting.write_text(str(limit))
    except OSError as error:
        raise LabError(f"cannot set {setting}: {error.strerror}") from error


def restore_table_limit(folder: Path, setting: Path = TABLE_LIMIT) -> bool:
    """Set it to what it was, if a lab has lowered it; return whether it had."""
    before = folder / BEFORE
    try:
        setting.write_text(before.read_text())
        before.unlink()
    except FileNotFoundError:
        return False
    return True
