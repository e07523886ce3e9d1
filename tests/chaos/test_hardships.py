"""Faults of kernels and disks do what they say, and are undone."""

from __future__ import annotations

import errno
import random
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from chaos.faults.faults import NetworkSilent
from chaos.faults.hardships import (
    AddressReplaced,
    Contended,
    DiskBroken,
    ForwardDropped,
    Narrowed,
    RulesFlushed,
    run_in,
)
from chaos.lab import equipment, machine, mounts, topology
from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError
from chaos.lab.netns import entered
from chaos.lab.switch import Net
from chaos.observe import census
from chaos.observe.frames import checksum
from chaos.workloads import api_garbage, flood
from tests.chaos.test_nemesis import assert_all_is_well, carrier, heard

kernel = pytest.mark.kernel
STAND_IN = [sys.executable, str(Path(__file__).with_name("stand_in.py"))]
OWN, OWN_V6 = "203.0.113.11/24", "2001:db8:113::11/64"
FLOATING, FLOATING_V6 = "203.0.113.10/24", "2001:db8:113::10/64"
RTM_DELADDR = 21
ADDRESS_GROUPS = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR


@pytest.fixture
def lab(prefix: str) -> Iterator[Lab]:
    with Lab(prefix, hanat=STAND_IN) as lab:
        yield lab


@kernel
def test_silent_network_is_silent_for_several_at_once_and_no_other(lab: Lab) -> None:
    fault = NetworkSilent(Net(lab.topology), ("r1", "r2"), "public")
    fault.start()
    for sender, receiver in (("r1", "r3"), ("r3", "r2"), ("r1", "r2")):
        assert not heard(lab, sender, receiver)
        assert heard(lab, sender, receiver, "private")
    assert carrier(lab, "r1", "public")
    assert heard(lab, "c1", "r3")
    fault.stop()
    assert_all_is_well(lab)


@kernel
def test_narrow_device_refuses_what_its_queue_has_no_room_for(lab: Lab) -> None:
    fault = Narrowed(lab.topology, "r1", "public", 1)
    with entered(lab.topology.namespace("r1")):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with sock:
        sock.bind(("eth0", 0))
        frame = b"\xff" * 6 + bytes(6) + b"\x88\xb5" + bytes(1000)
        for _ in range(200):
            sock.send(frame)
        fault.start()

        def fill() -> None:
            for _ in range(200):
                sock.send(frame)

        with pytest.raises(OSError, match="No buffer space") as refused:
            fill()
        assert refused.value.errno == errno.ENOBUFS
        fault.stop()
        for _ in range(200):
            sock.send(frame)
    fault.stop()  # undone twice, as after an interruption


@kernel
def test_load_ends_with_a_fault_that_cannot_be_begun(lab: Lab) -> None:
    done = []

    class Load:
        def start(self) -> int:
            done.append("start")
            return 1

        def stop(self) -> int:
            done.append("stop")
            return 2

    with pytest.raises(LabError, match="cannot run"):
        Contended(Narrowed(lab.topology, "r1", "public", 0), Load()).start()
    assert done == ["start", "stop"]


@kernel
def test_forward_policy_and_flush_leave_and_take_what_they_say(lab: Lab) -> None:
    namespace = lab.topology.namespace("r1")
    run_in(namespace, ["nft", "add", "table", "ip", "mine"])

    def rules() -> str:
        return lab.exec_in("r1", ["nft", "list", "ruleset"]).stdout

    fault = ForwardDropped(namespace)
    fault.start()
    assert "policy drop" in rules()
    assert "table ip filter" in rules()
    fault.stop()
    fault.stop()
    assert "policy drop" not in rules()
    assert "table ip mine" in rules()
    flush = RulesFlushed(namespace)
    flush.start()
    assert rules() == ""
    flush.stop()


@kernel
def test_replaced_address_is_there_again_behind_a_floating_one(lab: Lab) -> None:
    namespace = lab.topology.namespace("r1")
    with entered(namespace):
        for device in ("all", "eth0"):  # a router of the lab has it on, as the package does
            Path(f"/proc/sys/net/ipv4/conf/{device}/promote_secondaries").write_text("0")
    topology.run_ip(["-n", namespace, "addr", "add", FLOATING, "dev", "eth0"])
    AddressReplaced(lab, "r1", "public", (4,)).start()
    assert OWN in lab.present("r1")
    # That Linux took the floating one along is what the fault is about.
    assert FLOATING not in lab.present("r1")


@kernel
@pytest.mark.parametrize("versions", [(4,), (6,), (4, 6)])
def test_own_address_goes_in_the_versions_it_was_told_to_and_comes_again(
    lab: Lab, versions: tuple[int, ...]
) -> None:
    namespace = lab.topology.namespace("r1")
    own = {4: OWN, 6: OWN_V6}
    topology.run_ip(["-n", namespace, "addr", "add", FLOATING_V6, "dev", "eth0", "nodad"])
    before = lab.present("r1")
    with entered(namespace):
        watch = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    with watch:
        watch.bind((0, ADDRESS_GROUPS))
        AddressReplaced(lab, "r1", "public", versions).start()
        gone = set()
        with suppress(BlockingIOError):
            while message := watch.recv(4096, socket.MSG_DONTWAIT):
                kind, family, length = struct.unpack_from("=4xH10xBB", message)
                if kind == RTM_DELADDR:
                    size = 4 if family == socket.AF_INET else 16
                    gone.add(f"{ip_address(message[28 : 28 + size])}/{length}")
    assert gone == {own[version] for version in versions}
    assert lab.present("r1") == before


@kernel
@pytest.mark.parametrize("own", [OWN, OWN_V6])
def test_census_tells_which_own_address_a_router_lacks(lab: Lab, own: str) -> None:
    assert census.count(lab, "r1").lacks == []
    topology.run_ip(["-n", lab.topology.namespace("r1"), "addr", "del", own, "dev", "eth0"])
    assert census.count(lab, "r1").lacks == [own]
    assert census.count(lab, "r2").lacks == []


@kernel
@pytest.mark.parametrize(("how", "number"), [("EIO", errno.EIO), ("read-only", errno.EROFS)])
def test_broken_disk_fails_and_a_checked_one_has_what_was_synced(
    lab: Lab, how: str, number: int
) -> None:
    equipment.equip(lab, ["disk"])
    node = lab.nodes["r1"]
    file = node.folder / "data" / "x"
    file.write_text("kept")
    run_in(lab.topology.namespace("r1"), ["sync", "-f", str(file)])
    node.start()
    fault = DiskBroken(node, how)
    fault.start()
    with pytest.raises(OSError, match=str(file)) as error:
        file.write_text("lost")
    assert error.value.errno == number
    (lab.nodes["r2"].folder / "data" / "x").write_text("x")  # that of another node works
    fault.stop()
    assert node.running
    assert file.read_text() == "kept"
    file.write_text("works")
    assert mounts.below(lab.folder)
    lab.remove()
    assert not lab.folder.exists()


def test_what_is_no_disk_of_its_own_cannot_be_broken(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nothing is mounted"):
        mounts.make_read_only(tmp_path)


def test_limit_that_a_killed_lab_had_lowered_is_put_back(tmp_path: Path) -> None:
    setting = tmp_path / "setting"
    setting.write_text("262144\n")
    assert not machine.restore_table_limit(tmp_path, setting)
    for limit in (8, 9):  # once more before it was put back
        machine.lower_table_limit(tmp_path, limit, setting)
        assert setting.read_text() == str(limit)
    assert machine.restore_table_limit(tmp_path, setting)
    assert setting.read_text() == "262144\n"
    assert not machine.restore_table_limit(tmp_path, setting)
    with pytest.raises(LabError, match="cannot set"):
        machine.lower_table_limit(tmp_path, 8, tmp_path / "absent" / "setting")


def test_forged_frames_are_well_formed_and_say_that_they_come_from_peers_too() -> None:
    draw = random.Random(1)
    goal = flood.Goal("public", bytes.fromhex("02686e01000b"), "203.0.113.11")
    assert list(flood.goals(["public/02:68:6e:01:00:0b/203.0.113.11"])) == [goal]
    frames = [flood.frame(goal, draw) for _ in range(2000)]
    sources = {socket.inet_ntoa(frame[26:30]) for frame in frames}
    assert {"203.0.113.11", "203.0.113.12", "203.0.113.13"} < sources
    for frame in frames:
        assert (frame[:6], frame[12:14]) == (goal.mac, b"\x08\x00")
        assert checksum(frame[14:34]) == 0
        assert len(frame) == 14 + int.from_bytes(frame[16:18], "big")
        port = int.from_bytes(frame[36:38], "big")
        assert port == {17: 7412, 6: 7411}[frame[23]]


def test_requests_follow_from_the_seed_and_change_nothing_that_an_api_has() -> None:
    first, again = (
        [api_garbage.request(draw) for _ in range(500)]
        for draw in (random.Random(3), random.Random(3))
    )
    assert first == again
    assert not any(b"switchover" in text for text in first)
