"""Faults that are programs or files do what they say, and leave nothing."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.faults.afflictions import ClockStepped, DiskFull, Misled, Plagued
from chaos.lab import equipment, mounts
from chaos.lab.lab import Lab
from chaos.lab.processes import marked
from chaos.lab.removal import FREEZER
from chaos.lab.topology import BRIDGES, SWITCH, floating
from chaos.observe.frames import parse
from chaos.observe.run_history import ArpSeen
from chaos.workloads import stranger

pytestmark = pytest.mark.kernel

STAND_IN = [sys.executable, str(Path(__file__).with_name("stand_in.py"))]


@pytest.fixture
def lab(prefix: str) -> Iterator[Lab]:
    with Lab(prefix, hanat=STAND_IN) as lab:
        yield lab


@pytest.fixture
def disks(lab: Lab) -> Lab:
    equipment.equip(lab, ["disk"])
    return lab


def test_full_disk_has_no_room_for_a_byte_and_then_has(disks: Lab) -> None:
    node = disks.nodes["r1"]
    fault = DiskFull(node)
    fault.start()
    file = node.folder / "data" / "x"
    with pytest.raises(OSError, match="No space left") as error:
        file.write_text("x")
    assert error.value.errno == errno.ENOSPC
    (disks.nodes["r2"].folder / "data" / "x").write_text("x")  # that of another node has
    fault.stop()
    file.write_text("x")


def test_lab_with_frozen_disks_can_be_removed(disks: Lab) -> None:
    data = [str(node.folder / "data") for node in disks.nodes.values()]
    slow = Plagued(disks, {FREEZER: (SWITCH, ["chaos.workloads.freezer", *data])})
    slow.start()
    disks.wait_for(lambda: marked(disks.prefix, FREEZER), 10, "the freezer")
    mounts.freeze(Path(data[0]))
    writer = [sys.executable, "-c", f"open('{data[0]}/x', 'w').write('x')"]
    disks.spawn_in("r1", "writer", writer)  # it waits for the frozen disk
    disks.remove()
    assert not disks.folder.exists()
    assert mounts.below(disks.folder) == []
    assert marked(disks.prefix) == []


@pytest.mark.usefixtures("faketime")
def test_clock_of_one_node_is_stepped_and_monotonic_time_is_not(prefix: str) -> None:
    command = [*equipment.wrapping(["clock"]), *STAND_IN]
    with Lab(prefix, hanat=command) as lab:
        equipment.equip(lab, ["clock"])
        node = lab.nodes["r1"]
        code = "import time; print(time.time() - time.monotonic(), time.monotonic())"
        script = [*equipment.wrapping(["clock"]), sys.executable, "-c", code]

        def clocks() -> tuple[float, float]:
            child = node.spawn(script)
            child.popen.wait(10)
            wall, monotonic = node.log_file.read_text().splitlines()[-1].split()
            return float(wall), float(monotonic)

        right = clocks()
        fault = ClockStepped(node, -3600)
        fault.start()
        wrong = clocks()
        fault.stop()
        again = clocks()
    assert round(wrong[0] - right[0]) == -3600
    assert round(again[0] - right[0]) == 0
    assert right[1] < wrong[1] < again[1] < right[1] + 60


def test_stranger_is_believed_until_it_goes(lab: Lab) -> None:
    addresses = floating("public")
    for address in addresses:
        frame = stranger.claim(address)
        seen = parse(frame, router="-", network="public", t_ns=0)
        assert isinstance(seen, ArpSeen)
        assert (seen.address, seen.mac, seen.gratuitous) == (address, stranger.MAC.hex(":"), True)

    def believed() -> int:
        told = (lab.exec_in("c1", ["ip", "neigh", "show", "to", a]).stdout for a in addresses)
        return sum(stranger.MAC.hex(":") in line for line in told)

    real = "02:68:6e:01:00:0b"
    for address in addresses:
        lab.exec_in(
            "c1", ["ip", "neigh", "add", address, "lladdr", real, "dev", "eth0", "nud", "stale"]
        )
    words = ["chaos.workloads.stranger", BRIDGES["public"], *addresses]
    fault = Misled(lab, Plagued(lab, {"stranger": (SWITCH, words)}), "public")
    fault.start()
    lab.wait_for(lambda: believed() == 2, 10, "the client to believe both claims")
    fault.stop()
    assert believed() == 0
    assert marked(lab.prefix, "stranger") == []
