"""What must not disturb a cluster, and what a node says when it cannot start."""

from __future__ import annotations

import os
import random
import shutil
import socket
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path

import pytest

from chaos.lab.lab import Lab
from chaos.lab.netns import entered
from chaos.lab.processes import REPOSITORY
from hanat.net.udp import prefer_ttl
from tests.cluster.conftest import BOTH, complete
from tests.cluster.unprivileged import interpreter

pytestmark = pytest.mark.cluster

RAFT_PORT, API_PORT = 7411, 7480
JUMPING_CLOCK = """
import itertools, time
years = itertools.cycle((0, 1, -1, 2, -2))
time.time = lambda real=time.time: real() + next(years) * 365 * 86400
"""


def test_garbage_on_the_raft_port_disturbs_nobody(lab: Lab) -> None:
    holder = lab.wait_for_holder()
    term = (lab.status(holder) or {})["term"]
    seed = 1
    rng = random.Random(seed)
    for _ in range(20):
        with entered(lab.topology.namespace("r2")):
            stranger = socket.socket()
        with stranger, suppress(ConnectionError):
            stranger.settimeout(5)
            prefer_ttl(stranger)
            stranger.connect(("203.0.113.11", RAFT_PORT))
            stranger.sendall(b"\xff" + rng.randbytes(400))
            assert stranger.recv(1) == b"", f"seed={seed}"  # cut, nothing said
    lab.wait_for(lambda: "a frame of" in lab.log("r1"), 5, "the complaint")
    assert lab.wait_for_holder() == holder
    assert (lab.status(holder) or {})["term"] == term


def test_stranger_does_not_reach_the_raft_port(lab: Lab) -> None:
    lab.wait_for_holder()
    with entered(lab.topology.namespace("c1")):
        stranger = socket.socket()
    with stranger:
        stranger.settimeout(0.5)
        with pytest.raises(TimeoutError):
            stranger.connect(("203.0.113.11", RAFT_PORT))


@pytest.mark.parametrize("line", ["GET http://xn--/ HTTP/1.1", "CONNECT xn--:1 HTTP/1.1"])
def test_request_that_the_library_cannot_parse_ends_no_node(lab: Lab, line: str) -> None:
    holder = lab.wait_for_holder()
    term = (lab.status(holder) or {})["term"]
    for name in lab.nodes:
        with entered(lab.topology.namespace(name)):
            stranger = socket.create_connection(("127.0.0.1", API_PORT), 5)
        with stranger:
            stranger.sendall(f"{line}\r\nHost: h\r\n\r\n".encode())
            assert stranger.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert lab.wait_for_holder() == holder
    assert (lab.status(holder) or {})["term"] == term


def test_node_with_another_key_stays_out_and_is_named(lab: Lab) -> None:
    holder = lab.wait_for_holder()
    outsider = next(name for name in lab.nodes if name != holder)
    lab.stop_node(outsider)
    key = lab.folder / "cluster.key"
    other = lab.folder / "other.key"
    other.write_text(os.urandom(32).hex() + "\n")
    other.chmod(0o600)
    file = lab.folder / outsider / "node.toml"
    file.write_text(file.read_text().replace(str(key), str(other)))
    lab.start_node(outsider)
    said = "has another cluster key"
    lab.wait_for(lambda: said in lab.log(holder) or said in lab.log(outsider), 10, "the complaint")
    assert lab.holder() == holder


def test_node_of_another_cluster_stays_out_and_is_named(lab: Lab) -> None:
    holder = lab.wait_for_holder()
    outsider = next(name for name in lab.nodes if name != holder)
    lab.stop_node(outsider)
    ours = lab.folder / "cluster.toml"
    theirs = lab.folder / "theirs.toml"
    theirs.write_text(ours.read_text().replace('name = "lab"', 'name = "elsewhere"'))
    file = lab.folder / outsider / "node.toml"
    text = file.read_text().replace(str(ours), str(theirs))
    file.write_text(text.replace('/data"', '/their-data"'))  # its own journal says no first
    lab.start_node(outsider)
    said = "belongs to another cluster"
    lab.wait_for(lambda: said in lab.log(holder) or said in lab.log(outsider), 10, "the complaint")
    assert lab.holder() == holder


def test_node_with_another_profile_stays_out_and_is_named(lab: Lab) -> None:
    holder = lab.wait_for_holder()
    outsider = next(name for name in lab.nodes if name != holder)
    lab.stop_node(outsider)
    ours = lab.folder / "cluster.toml"
    theirs = lab.folder / "calm.toml"
    theirs.write_text(ours.read_text().replace('profile = "default"', 'profile = "calm"'))
    file = lab.folder / outsider / "node.toml"
    file.write_text(file.read_text().replace(str(ours), str(theirs)))
    lab.start_node(outsider)
    said = "cluster.profile must be the same"
    lab.wait_for(lambda: said in lab.log(holder) or said in lab.log(outsider), 10, "the complaint")
    assert lab.holder() == holder


def test_id_in_use_on_two_machines_is_named(lab: Lab) -> None:
    # Nodes call those of higher ids: r2, taking itself for node 1, calls node 3.
    if lab.wait_for_holder() != "r3":
        lab.wait_for(lambda: complete(lab), 5, "all flows on all nodes")
        lab.switchover("r3")
    assert lab.wait_for_holder() == "r3"
    term = (lab.status("r3") or {})["term"]
    lab.stop_node("r2")
    file = Path(_config(lab, "r2"))
    text = file.read_text().replace("id = 1\n", "id = 9\n").replace("id = 2\n", "id = 1\n")
    file.write_text(text.replace("id = 9\n", "id = 2\n").replace('/data"', '/twin-data"'))
    lab.start_node("r2")
    said = "which is not its address here; is its id in use on two machines?"
    lab.wait_for(lambda: said in lab.log("r3"), 10, "the complaint")
    status = lab.status("r3") or {}
    assert status["refused"]["raft"]
    assert status["refused"]["mesh"]
    assert (status["role"], status["term"]) == ("ACTIVE", term)


def test_nothing_depends_on_the_wall_clock(tmp_path: Path) -> None:
    """Each look at it is a year before or after the one before."""
    (tmp_path / "jumping_clock.py").write_text(JUMPING_CLOCK)
    found = (str(REPOSITORY), str(tmp_path), sysconfig.get_path("purelib"), "import jumping_clock")
    python = interpreter(tmp_path / "python", sys.executable, *found)
    with Lab(prefix=f"ht{os.getpid()}clock", hanat=[python, "-m", "hanat"]) as lab:
        lab.start()
        first = lab.wait_for_holder()
        term = (lab.status(first) or {})["term"]
        logged = lab.log(first)
        assert len({line[:4] for line in logged.splitlines() if line[:2] == "20"}) > 1, logged
        lab.kill_node(first)
        others = [name for name in lab.nodes if name != first]
        lab.wait_for(lambda: lab.holder() in others, 10, "another holder")
        lab.start_node(first)
        second = lab.wait_for_holder()
        assert second in others
        assert (lab.status(second) or {})["term"] == term + 1


def test_second_daemon_on_a_node_says_that_the_place_is_taken(lab: Lab) -> None:
    holder = lab.wait_for_holder()
    done = lab.exec_in(holder, [*lab.hanat, "run", "--config", _config(lab, holder)], 20)
    assert done.returncode == 1
    assert "another hanat" in done.stderr
    assert lab.wait_for_holder() == holder


def test_second_daemon_with_its_own_data_does_not_disturb_the_first(lab: Lab) -> None:
    holder = lab.wait_for_holder()
    own = Path(_config(lab, holder))
    other = own.with_name("other.toml")
    other.write_text(own.read_text().replace('/data"', '/other-data"'))
    done = lab.exec_in(holder, [*lab.hanat, "run", "--config", str(other)], 20)
    assert done.returncode == 1
    assert "another hanat" in done.stderr
    assert lab.addresses(holder) == BOTH
    assert lab.wait_for_holder() == holder


def test_node_that_cannot_start_leaves_the_machine_as_it_was(lab: Lab) -> None:
    # The client is no router: it has neither the interfaces' addresses nor any table.
    file = lab.folder / "stray.toml"
    text = Path(_config(lab, "r1")).read_text()
    file.write_text(text.replace('private = "eth1"', 'private = "eth0"'))
    done = lab.exec_in("c1", [*lab.hanat, "run", "--config", str(file)], 20)
    assert done.returncode == 1
    assert lab.exec_in("c1", ["nft", "list", "tables"]).stdout == ""


def test_floating_address_of_a_stranger_is_named(lab: Lab) -> None:
    for name in lab.nodes:
        lab.stop_node(name)
    lab.exec_in("c1", ["ip", "addr", "add", "203.0.113.10/24", "dev", "eth0"])
    done = lab.exec_in("r1", [*lab.hanat, "run", "--config", _config(lab, "r1")], 20)
    assert done.returncode == 1
    assert "answers for it and is none of the peers" in done.stderr


def test_floating_address_on_another_device_is_named(lab: Lab) -> None:
    name = next(name for name in lab.nodes if name != lab.wait_for_holder())
    lab.stop_node(name)
    lab.exec_in(name, ["ip", "link", "add", "eth2", "type", "veth", "peer", "eth3"])
    lab.exec_in(name, ["ip", "addr", "add", "203.0.113.10/32", "dev", "eth2"])
    done = lab.exec_in(name, [*lab.hanat, "run", "--config", _config(lab, name)], 20)
    assert done.returncode == 1
    assert "it is on eth2 of this machine" in done.stderr


@pytest.mark.parametrize("capability", ["net_admin", "net_raw"])
def test_missing_capability_is_named(lab: Lab, capability: str) -> None:
    name = next(name for name in lab.nodes if name != lab.wait_for_holder())
    lab.stop_node(name)
    without = ["setpriv", f"--bounding-set=-{capability}", f"--inh-caps=-{capability}"]
    done = lab.exec_in(name, [*without, *lab.hanat, "run", "--config", _config(lab, name)], 20)
    assert done.returncode == 1
    assert f"lacks CAP_{capability.upper()}" in done.stderr


def test_missing_interface_is_named_before_anything_is_touched(lab: Lab) -> None:
    name = next(name for name in lab.nodes if name != lab.wait_for_holder())
    lab.stop_node(name)
    file = Path(_config(lab, name))
    file.write_text(file.read_text().replace('"eth1"', '"eth9"'))
    done = lab.exec_in(name, [*lab.hanat, "run", "--config", str(file)], 20)
    assert done.returncode == 1
    assert "eth9" in done.stderr
    assert "interfaces are" in done.stderr


def test_address_of_no_interface_is_named(lab: Lab) -> None:
    name = next(name for name in lab.nodes if name != lab.wait_for_holder())
    lab.stop_node(name)
    own = {"r1": "203.0.113.11", "r2": "203.0.113.12", "r3": "203.0.113.13"}[name]
    file = Path(_config(lab, name))
    file.write_text(file.read_text().replace(own, "203.0.113.77"))
    done = lab.exec_in(name, [*lab.hanat, "run", "--config", str(file)], 20)
    assert done.returncode == 1
    assert "203.0.113.77" in done.stderr
    assert "on no interface of this machine" in done.stderr


def test_node_with_the_name_of_another_starts_under_its_own_when_that_is_mended(lab: Lab) -> None:
    name, other = (name for name in lab.nodes if name != lab.wait_for_holder())
    lab.stop_node(name)
    data = lab.folder / name / "data"
    shutil.rmtree(data)
    file = Path(_config(lab, name))
    right = file.read_text()
    file.write_text(right.replace(f'node = "{name}"', f'node = "{other}"'))
    done = lab.exec_in(name, [*lab.hanat, "run", "--config", str(file)], 20)
    assert done.returncode == 1
    assert f"run node '{other}'" in done.stderr
    assert not data.exists()
    file.write_text(right)
    lab.start_node(name)
    assert lab.wait_for_holder()


def test_wrong_file_ends_with_its_own_exit_code(lab: Lab) -> None:
    name = next(name for name in lab.nodes if name != lab.wait_for_holder())
    lab.stop_node(name)
    file = Path(_config(lab, name))
    file.write_text(file.read_text().replace("data_dir", "datadir"))
    done = lab.exec_in(name, [*lab.hanat, "run", "--config", str(file)], 20)
    assert done.returncode == 5
    assert "data_dir" in done.stderr


def _config(lab: Lab, name: str) -> str:
    return str(lab.folder / name / "node.toml")
