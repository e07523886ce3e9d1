"""A node as its unit runs it: no root, few capabilities, settings it cannot write, a watchdog.

There is no systemd here, so setpriv(1) and a mount do what the unit says, and the test
listens where systemd would.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.lab import node_api, topology
from chaos.lab.lab import Lab
from hanat.daemon import realtime
from tests.cluster.conftest import BOTH, PUBLIC, Echo, replicated
from tests.cluster.test_servers import all_up
from tests.cluster.unprivileged import NOBODY, unprivileged
from tests.supervisor.manager import Manager

pytestmark = pytest.mark.cluster

NO_SETTINGS = (
    "mount -t proc -o hidepid=invisible proc /proc && "
    "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && "
    'echo 0 > /proc/sys/net/ipv4/ip_forward 2> /dev/null && exit 99; exec "$@"'
)
# PR_SET_MDWE: no page that was writable becomes executable; kernels before 6.3 have no word for it.
NO_NEW_CODE = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)
Managers = dict[str, Manager]


@pytest.fixture
def service(everybodys_python: list[str]) -> Iterator[tuple[Lab, Managers]]:
    """A lab whose nodes run as the unit runs them, and who listens to them."""
    managers: Managers = {}
    with Lab(prefix=f"ht{os.getpid()}s") as lab:
        for name, node in lab.nodes.items():
            managers[name] = Manager(node.folder / "notify")
            told = [f"NOTIFY_SOCKET={managers[name].path}", "WATCHDOG_USEC=30000000"]
            *environment, interpreter = everybodys_python
            start = [*environment, interpreter, "-c", NO_NEW_CODE, interpreter, "-m", "hanat"]
            hanat = [*unprivileged(), "env", *told, *start]
            node.command = ["sh", "-c", NO_SETTINGS, "sh", *hanat]
            node.log_file.touch()
            events = ["sysctl", "-qw", "net.netfilter.nf_conntrack_events=1"]
            assert lab.exec_in(name, events, 10).returncode == 0  # as sysctl.d does
        for path in (lab.folder, *lab.folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        lab.start()
        lab.wait_for_holder()
        yield lab, managers
    for manager in managers.values():
        manager.close()


def daemon_of(lab: Lab, name: str) -> int:
    return node_api.serving_pid(lab.nodes[name].socket)


def hear_until(manager: Manager, wanted: str) -> None:
    """Listen until a line comes."""
    for _ in range(60):
        if any(line.startswith(wanted) for line in manager.hear()):
            return
    raise AssertionError(f"{wanted} never came")


def test_nodes_without_root_are_in_service_with_priority_and_locked_memory(
    service: tuple[Lab, Managers],
) -> None:
    lab, managers = service
    holder = lab.wait_for_holder()
    for name, manager in managers.items():
        first = manager.hear()
        assert {"READY=1", "WATCHDOG=1"} <= first
        hear_until(manager, f"STATUS={'ACTIVE' if name == holder else 'BACKUP'}, holder {holder}")
        pid = daemon_of(lab, name)
        status = Path(f"/proc/{pid}/status").read_text()
        assert f"\nUid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}\n" in status
        assert "\nNoNewPrivs:\t1\n" in status
        assert os.sched_getscheduler(pid) == os.SCHED_RR
        assert os.sched_getparam(pid).sched_priority == realtime.PRIORITY
        assert "memory=locked" in lab.log(name)
        assert "to_do=" not in lab.log(name)
    assert lab.addresses(holder) == BOTH
    assert (lab.nodes[holder].socket.stat().st_mode & 0o777) == 0o660


def test_stopped_daemon_feeds_no_watchdog_and_another_node_takes_over(
    service: tuple[Lab, Managers],
) -> None:
    lab, managers = service
    first = lab.wait_for_holder()
    with Echo(lab, topology.CLIENT, PUBLIC, 7) as inbound:
        inbound.exchange()
        lab.wait_for(lambda: replicated(lab), 5, "replicated flows")
        pid = daemon_of(lab, first)
        os.kill(pid, signal.SIGSTOP)
        lab.wait_for(lambda: lab.holder() not in {None, first}, 10, "another holder")
        managers[first].waiting()  # what was on its way
        witness = managers[str(lab.holder())]
        witness.waiting()
        for _ in range(4):
            hear_until(witness, "WATCHDOG=1")
        assert managers[first].waiting() == []
        inbound.exchange()
        os.kill(pid, signal.SIGCONT)
        hear_until(managers[first], "WATCHDOG=1")
        assert lab.nodes[first].running


def test_killed_daemon_comes_back_and_the_end_is_told(service: tuple[Lab, Managers]) -> None:
    lab, managers = service
    first = lab.wait_for_holder()
    lab.kill_daemon(first)
    hear_until(managers[first], "STATUS=the daemon died")
    hear_until(managers[first], "STATUS=BACKUP, holder")
    assert lab.wait_for_holder() != first
    assert lab.stop_node(first) == 0
    hear_until(managers[first], "STOPPING=1")


def test_nodes_without_root_watch_the_servers(service: tuple[Lab, Managers]) -> None:
    lab, _ = service
    lab.wait_for(lambda: all_up(lab), 15, "every node to have found all servers up")
    for name in lab.nodes:
        words = lab.exec_in(name, ["pgrep", "-u", str(NOBODY), "-f", "hanat.checker"]).stdout
        assert words.split()
        assert "Traceback" not in lab.log(name)


def test_fence_of_the_unit_silences_what_a_killed_node_left(service: tuple[Lab, Managers]) -> None:
    lab, _ = service
    first = lab.wait_for_holder()
    lab.kill_node(first)
    assert lab.addresses(first) == BOTH
    command = [*lab.nodes[first].command, "fence"]
    done = lab.exec_in(first, [*command, "--config", str(lab.folder / first / "node.toml")], 20)
    assert done.returncode == 0, done.stderr
    assert lab.addresses(first) == set()


def test_doctor_without_rights_says_so_and_nothing_else(everybodys_python: list[str]) -> None:
    drop = ["setpriv", f"--reuid={NOBODY}", "--inh-caps=-all", "--bounding-set=-all", "--"]
    command = [*drop, *everybodys_python, "-m", "hanat", "doctor", "--json"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (1, "")
    fixes = {check["check"]: check["fix"] for check in json.loads(done.stdout)["checks"]}
    assert fixes["libnftables"] == "run hanat doctor as root"
