"""Remove a lab completely, knowing only its prefix; keep its folder apart from others.

Used at the end of a run, by ``python -m chaos down`` and before a clean start after a
crash. The order matters: processes first, so that nothing is created behind us, the
record last, so that an interrupted removal can be repeated.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from chaos.lab import machine, mounts, record, topology
from chaos.lab.lab_error import LabError
from chaos.lab.processes import kill_marked

DEFAULT_PREFIX = "hanat"
FREEZER = "freezer"  # the part of a lab that holds file systems up
FOLDER_MARK = ".hanat-lab"  # a file that tells a lab's folder from anybody else's


def default_folder(prefix: str) -> Path:
    """Return where a lab keeps its files unless told otherwise."""
    return Path(tempfile.gettempdir()) / f"{prefix}-lab"


def prefix_option(prefix: str) -> str:
    """Return what must be added to a command line to mean this lab."""
    return "" if prefix == DEFAULT_PREFIX else f" --prefix {prefix}"


def remove_lab(prefix: str, *, force: bool = False) -> list[str]:
    """Remove everything that is left of a lab, recorded or not.

    Args:
        prefix: Of the lab.
        force: Even if the program that built it is still using it.

    Returns:
        What was removed, one line each; empty if there was nothing.

    Raises:
        LabError: Another program is using the lab.
    """
    found = record.load(prefix)
    if found and found.in_use and found.owner.pid != os.getpid() and not force:
        raise LabError(
            f'lab "{prefix}" is in use by process {found.owner.pid}; end that first, '
            f'or run "python -m chaos down{prefix_option(prefix)} --force"'
        )
    done = []
    # Without a record (a reboot empties /run) the folder can only be where it is by default.
    folder = found.folder if found else default_folder(prefix)
    network = topology.three_routers(prefix)
    mounted = _disks(folder, network)
    # First of all: what waits for a frozen file system cannot be killed.
    kill_marked(prefix, FREEZER)
    for place in mounted:
        mounts.thaw(place)
    killed = kill_marked(prefix, also=found.processes if found else ())
    if killed.count:
        done.append(f"ended {killed.count} processes")
    if present := network.present():
        topology.remove(network)
        done.append(f"deleted {len(present)} network namespaces")
    if mounted:
        mounts.unmount(mounted)
        done.append(f"unmounted {len(mounted)} disks")
    if _marked(folder, prefix) and machine.restore_table_limit(folder):
        done.append("set the limit of tracked connections as it was")
    if _delete_folder(folder, prefix):
        done.append(f"deleted {folder}")
    record.forget(prefix)
    return done


def _disks(folder: Path, network: topology.Topology) -> list[Path]:
    """Return what the lab has mounted; what anybody else has is none of its business."""
    if not _marked(folder, network.prefix):
        return []
    own = {folder.resolve() / router.name / "data" for router in network.routers}
    return [place for place in mounts.below(folder) if place in own]


def _marked(folder: Path, prefix: str) -> bool:
    try:
        return (folder / FOLDER_MARK).read_text() == prefix
    except OSError:
        return False


def _delete_folder(folder: Path, prefix: str) -> bool:
    """Delete a lab's folder, and nothing that is not one or is still mounted in one."""
    if not _marked(folder, prefix) or mounts.below(folder):
        return False
    shutil.rmtree(folder)
    return True


def make_folder(folder: Path, prefix: str) -> None:
    """Create a lab's folder, in place of one that a crashed lab of the prefix left.

    Raises:
        LabError: Something else is there, or it cannot be created.
    """
    _delete_folder(folder, prefix)
    try:
        folder.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise LabError(
            f"cannot create {folder} for the lab: {error.strerror}; "
            "choose another folder, or remove what is there"
        ) from error
    (folder / FOLDER_MARK).write_text(prefix)
