"""A real full disk under a real daemon: it hands over, says why, and comes back by itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from chaos import topology
from chaos.lab import Lab
from tests.cluster.conftest import PUBLIC, Echo

pytestmark = pytest.mark.cluster

DISK_MIB = 24
TAKEOVER_S_MAX = 10.0  # bounds a test that hangs


@pytest.fixture
def small_disks(tmp_path: Path) -> Iterator[Lab]:
    """A lab whose nodes keep their data on a small disk each."""
    with ExitStack() as after, Lab(prefix=f"hd{os.getpid()}") as lab:
        for node in lab.nodes.values():
            data = tmp_path / node.name
            data.mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "hanat-test", str(data)]
            subprocess.run(mount, check=True)
            after.callback(subprocess.run, ["umount", str(data)], check=True)
            (node.folder / "data").rmdir()
            (node.folder / "data").symlink_to(data)
        lab.start()
        lab.wait_for_holder()
        yield lab


def fill(data: Path) -> Path:
    """Leave no room at all on a disk; return the file that has taken it."""
    file = data / "ballast"
    with file.open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))
    return file


def test_holder_with_a_full_disk_hands_over_and_is_eligible_again_with_room(
    small_disks: Lab,
) -> None:
    lab = small_disks
    holder = lab.wait_for_holder()
    with Echo(lab, topology.CLIENT, PUBLIC, 7) as echo:
        echo.exchange()
        ballast = fill(lab.nodes[holder].folder / "data")

        def others_hold() -> bool:
            if lab.holder() not in {None, holder}:
                return True
            Echo(lab, topology.CLIENT, PUBLIC, 7).close()  # something to write down
            return False

        lab.wait_for(others_hold, TAKEOVER_S_MAX, "another holder")
        echo.exchange()
        status = lab.status(holder)
        assert status is not None, lab.log(holder)
        assert "No space left on device" in " ".join(status["hindrances"])
        assert "free or repair the disk" in " ".join(status["hindrances"])
        ballast.unlink()
        lab.wait_for(
            lambda: (lab.status(holder) or {}).get("hindrances") == [],
            TAKEOVER_S_MAX,
            "eligibility",
        )
        lab.wait_for(lambda: lab.switchover(holder)[0] == 200, TAKEOVER_S_MAX, "a switchover")
        assert lab.wait_for_holder() == holder
        echo.exchange()
