"""The lab comes up and goes away without a trace, whatever happened in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from chaos.lab import mounts, record
from chaos.lab.lab import Lab, require_machine
from chaos.lab.lab_error import LabError, NodeDiedError, UsageError
from chaos.lab.node_files import CLUSTER_TOML, node_toml
from chaos.lab.processes import environment, identify, marked, send_signal
from chaos.lab.removal import FOLDER_MARK, default_folder, remove_lab
from chaos.lab.topology import build, remove, three_routers

STAND_IN = [sys.executable, str(Path(__file__).with_name("stand_in.py"))]


def traces(prefix: str) -> list[object]:
    """Everything of a lab that can be left on the machine."""
    files = [f for f in (record.path_of(prefix), default_folder(prefix)) if f.exists()]
    return [*three_routers(prefix).present(), *marked(prefix), *files]


def run_chaos(*arguments: str, prefix: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "chaos", arguments[0], "--prefix", prefix, *arguments[1:]]
    return subprocess.run(
        command,
        env=environment("none", "test"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_configuration_files_are_toml_with_every_peer() -> None:
    network = three_routers("x")
    node = tomllib.loads(node_toml(network, network.routers[1], folder=Path("/lab")))
    cluster = tomllib.loads(CLUSTER_TOML)
    assert node["node"] == "r2"
    assert node["peer"][2]["addresses"] == ["203.0.113.13", "10.11.12.13"]
    assert [s["name"] for s in cluster["service"]] == ["web", "udp-echo", "tcp-echo"]


def test_recycled_pid_is_not_signalled() -> None:
    me = identify(os.getpid())
    assert me is not None
    older = type(me)(me.pid, me.started - 1)
    assert not send_signal(older, signal.SIGKILL)


def test_without_root_the_lab_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="needs root"):
        require_machine()


def test_without_nft_the_lab_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UsageError, match="ip and nft"):
        require_machine()


@pytest.mark.kernel
def test_network_is_built_and_removed_without_a_trace(prefix: str) -> None:
    network = three_routers(prefix)
    build(network)
    try:
        assert network.present() == network.namespaces
        with pytest.raises(LabError, match="exists"):
            build(network)
    finally:
        remove(network)
    assert not traces(prefix)


@pytest.mark.kernel
def test_hosts_reach_each_other_and_a_pulled_cable_takes_the_carrier(prefix: str) -> None:
    with Lab(prefix, hanat=STAND_IN) as lab:
        connect = "import socket; socket.create_connection(('203.0.113.100', 9000), 0.5)"
        probe = [sys.executable, "-c", connect]
        assert lab.exec_in("r1", probe).returncode == 0
        lab.set_carrier("r1", "public", up=False)
        assert "NO-CARRIER" in lab.exec_in("r1", ["ip", "link", "show", "eth0"]).stdout
        assert lab.exec_in("r1", probe).returncode != 0
        lab.set_carrier("r1", "public", up=True)
        lab.wait_for(lambda: lab.exec_in("r1", probe).returncode == 0, 5, "the cable to work")
    assert not traces(prefix)


@pytest.mark.kernel
def test_killing_a_node_takes_its_children_too(prefix: str) -> None:
    with Lab(prefix, hanat=STAND_IN) as lab:
        lab.start_node("r1")
        lab.wait_for((lab.folder / "r1" / "started").exists, 10, "the daemon")
        lab.wait_for(lambda: len(marked(prefix, "r1")) == 2, 10, "its child")
        lab.kill_node("r1")
        assert marked(prefix, "r1") == []
        assert lab.nodes["r1"].exit_code == -signal.SIGKILL
        lab.start_node("r1")
        with pytest.raises(LabError, match="it runs"):
            lab.start_node("r1")
    assert not traces(prefix)


@pytest.mark.kernel
def test_daemon_that_ends_by_itself_is_told_with_its_last_words(prefix: str) -> None:
    with Lab(prefix, hanat=STAND_IN) as lab:
        (lab.folder / "r2" / "die").touch()
        lab.start_node("r2")
        with pytest.raises(NodeDiedError, match=r"r2 ended with exit code 5(.|\n)*eth7"):
            lab.wait_for_holder(10)
    assert not traces(prefix)


@pytest.mark.kernel
def test_second_lab_of_one_prefix_is_refused_while_the_first_is_used(prefix: str) -> None:
    with Lab(prefix, hanat=STAND_IN) as lab:
        down = run_chaos("down", prefix=prefix)
        assert down.returncode == 1
        assert f"in use by process {os.getpid()}" in down.stderr
        up = run_chaos("up", prefix=prefix)
        assert up.returncode == 1
        assert lab.topology.present() == lab.topology.namespaces


@pytest.mark.kernel
def test_down_removes_what_a_crash_left_and_may_be_repeated(prefix: str) -> None:
    script = (
        "import os, sys; from chaos.lab.lab import Lab\n"
        f"lab = Lab({prefix!r}, hanat={STAND_IN!r}); lab.build(); lab.start()\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run(
        [sys.executable, "-c", script], env=environment("none", "t"), timeout=60, check=False
    )
    assert traces(prefix)
    first = run_chaos("down", prefix=prefix)
    assert first.returncode == 0
    assert not traces(prefix)
    second = run_chaos("down", prefix=prefix)
    assert (second.returncode, second.stdout) == (0, "nothing to remove\n")


@pytest.mark.kernel
def test_new_lab_takes_the_place_of_a_crashed_one(prefix: str) -> None:
    script = (
        "import os; from chaos.lab.lab import Lab\n"
        f"Lab({prefix!r}, hanat={STAND_IN!r}).build(); os.kill(os.getpid(), 9)"
    )
    subprocess.run(
        [sys.executable, "-c", script], env=environment("none", "t"), timeout=60, check=False
    )
    before = set(marked(prefix))
    with Lab(prefix, hanat=STAND_IN):
        assert before
        assert not before & set(marked(prefix))
    assert not traces(prefix)


@pytest.mark.kernel
def test_folder_of_somebody_else_is_left_alone(prefix: str, tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("dear")
    with pytest.raises(LabError, match="choose another folder"):
        Lab(prefix, folder=tmp_path, hanat=STAND_IN).build()
    assert (tmp_path / "letters").read_text() == "dear"
    assert remove_lab(prefix) == []
    assert not traces(prefix)


@pytest.mark.kernel
def test_disks_that_the_lab_did_not_mount_stay_mounted(prefix: str, tmp_path: Path) -> None:
    others = [tmp_path / "letters", tmp_path / "r1" / "data"]
    for place in others:
        place.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
    try:
        with pytest.raises(LabError, match="choose another folder"):
            Lab(prefix, folder=tmp_path, hanat=STAND_IN).build()
        assert set(mounts.below(tmp_path)) == set(others)
        me = identify(os.getpid())
        assert me is not None
        record.Record(prefix, tmp_path, me).create()
        remove_lab(prefix)
        assert set(mounts.below(tmp_path)) == set(others)
        # In a lab's own folder only its disks are its business.
        (tmp_path / FOLDER_MARK).write_text(prefix)
        record.Record(prefix, tmp_path, me).create()
        assert remove_lab(prefix) == ["unmounted 1 disks"]
        assert mounts.below(tmp_path) == others[:1]
    finally:
        mounts.unmount(mounts.below(tmp_path))
    assert not traces(prefix)


@pytest.mark.parametrize("prefix", ["", "a/b", "../x", "-n", "x" * 41])
def test_prefix_that_is_no_name_is_refused(prefix: str) -> None:
    with pytest.raises(UsageError, match="cannot be a prefix"):
        remove_lab(prefix)


@pytest.mark.kernel
def test_folder_too_long_for_a_socket_is_refused(prefix: str) -> None:
    with pytest.raises(UsageError, match="choose a shorter one"):
        Lab(prefix, folder=default_folder("x" * 99), hanat=STAND_IN).build()
    assert not traces(prefix)


@pytest.mark.kernel
def test_failing_build_leaves_nothing(prefix: str) -> None:
    with pytest.raises(LabError, match="cannot make a cluster key"):
        Lab(prefix, hanat=["false"]).build()
    with pytest.raises(LabError, match="No such file"):
        Lab(prefix, hanat=["/nonexistent/hanat"]).build()
    assert not traces(prefix)
