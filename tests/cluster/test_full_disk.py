"""Real disks under real daemons: full ones stop nothing, failing ones are told."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from chaos.lab import topology
from chaos.lab.equipment import equip, missing
from chaos.lab.lab import Lab
from tests.cluster.conftest import PUBLIC, Echo, hand_over

pytestmark = pytest.mark.cluster

TAKEOVER_S_MAX = 10.0  # bounds a test that hangs


@pytest.fixture
def small_disks() -> Iterator[Lab]:
    """A lab whose nodes keep their data on a small ext4 each."""
    assert missing("disk") is None
    with ExitStack() as after, Lab(prefix=f"hd{os.getpid()}") as lab:
        for node in lab.nodes.values():
            unmount = ["umount", "-l", str(node.folder / "data")]
            after.callback(subprocess.run, unmount, check=False, capture_output=True)
        equip(lab, {"disk"})
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


def hindrances(lab: Lab, name: str) -> list[str]:
    status = lab.status(name) or {}
    return [*status.get("ineligible", ()), *status.get("hindrances", ())]


def committed(lab: Lab, name: str) -> int:
    return int((lab.status(name) or {"log": {"commit_index": 0}})["log"]["commit_index"])


def goes_on(lab: Lab) -> None:
    """Check that a new connection is replicated, and that the holder is as it was."""
    before = committed(lab, lab.wait_for_holder())
    with Echo(lab, topology.CLIENT, PUBLIC, 7) as echo:
        echo.exchange()
        lab.wait_for(
            lambda: committed(lab, lab.wait_for_holder()) > before, TAKEOVER_S_MAX, "an entry"
        )


def test_full_disks_of_all_three_and_one_node_less_stop_nothing(small_disks: Lab) -> None:
    lab = small_disks
    holder = lab.wait_for_holder()
    backup = next(name for name in lab.nodes if name != holder)
    with Echo(lab, topology.CLIENT, PUBLIC, 7) as echo:
        echo.exchange()
        for node in lab.nodes.values():
            fill(node.folder / "data")
        goes_on(lab)
        assert lab.wait_for_holder() == holder
        lab.kill_node(backup)
        goes_on(lab)
        lab.start_node(backup)  # on its full disk
        hand_over(lab, backup, TAKEOVER_S_MAX)
        assert lab.wait_for_holder() == backup
        lab.kill_node(backup)  # and an election
        goes_on(lab)
        echo.exchange()
    assert all(hindrances(lab, name) == [] for name in lab.nodes if name != backup)


def test_no_start_without_room_and_what_to_do(small_disks: Lab) -> None:
    lab = small_disks
    name = next(name for name in lab.nodes if name != lab.wait_for_holder())
    data = lab.nodes[name].folder / "data"
    lab.kill_node(name)
    for path in (*data.glob("journal/*"), *data.glob("snapshot/*")):
        path.unlink()
    ballast = fill(data)
    lab.start_node(name)
    lab.wait_for(
        lambda: "on a disk with 100 MiB free" in lab.log(name), TAKEOVER_S_MAX, "the refusal"
    )
    assert "No space left on device" in lab.log(name)
    lab.kill_node(name)
    ballast.unlink()
    lab.start_node(name)
    lab.wait_for(lambda: lab.status(name) is not None, TAKEOVER_S_MAX, "the start")


def test_holder_whose_disk_fails_hands_over_and_says_why(small_disks: Lab) -> None:
    lab = small_disks
    holder = lab.wait_for_holder()
    data = lab.nodes[holder].folder / "data"
    with Echo(lab, topology.CLIENT, PUBLIC, 7) as echo:
        echo.exchange()
        goes_on(lab)  # so that its flow is committed, too
        # As after an error of the device: ext4 stops writing.
        subprocess.run(["mount", "-o", "remount,abort", str(data)], check=True)

        def others_hold() -> bool:
            if lab.holder() not in {None, holder}:
                return True
            Echo(lab, topology.CLIENT, PUBLIC, 7).close()  # something to write down
            return False

        lab.wait_for(others_hold, TAKEOVER_S_MAX, "another holder")
        echo.exchange()
        # Of the log, or of the vote for its successor: whichever it tried last.
        assert "Read-only file system" in " ".join(hindrances(lab, holder))
        goes_on(lab)
