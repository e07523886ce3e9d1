"""``hanat fence`` on a machine in every state it may be called in."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_interface
from pathlib import Path

import pytest

from chaos.lab.netns import entered
from hanat.config import load_cluster
from hanat.core.configuration import FloatingAddress
from hanat.core.gate_rules import render_gate
from hanat.kernel.timeout_gate import KernelGate
from tests.gates import WAYS, Kind, grant, open_deadline_gate
from tests.kernel.namespaces import cable, run

pytestmark = pytest.mark.kernel

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "deploy" / "examples" / "three-node"
DEVICES = {"public": "eth0", "private": "eth1"}
FLOATING = {"203.0.113.10/24", "10.11.12.1/24"}


@dataclass(frozen=True)
class Machine:
    """A namespace with a node's files and two devices."""

    namespace: str
    folder: Path

    def fence(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the command here."""
        hanat = [sys.executable, "-m", "hanat", "fence", "--config", str(self.file), *options]
        command = ["ip", "netns", "exec", self.namespace, *hanat]
        return subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
        )

    @property
    def file(self) -> Path:
        """Return the node's own file."""
        return self.folder / "node.toml"

    def take(self) -> None:
        """Be the holder, as a daemon that was killed left it."""
        script = render_gate(load_cluster(EXAMPLES / "cluster.toml"), DEVICES)
        with closing(KernelGate()) as gate:
            gate.install(script)
            grant(gate, DEVICES.values(), answers_s=60.0, carries_s=90.0)
        run("ip addr add 203.0.113.10/24 dev eth0 label eth0:1", self.namespace)
        run("ip addr add 10.11.12.1/24 dev eth1 label eth1:1", self.namespace)

    def rights(self) -> set[str]:
        """Return the devices that have a right."""
        with closing(KernelGate()) as gate:
            return set(gate.rights())

    @contextmanager
    def running(self) -> Iterator[None]:
        """Be a daemon: hold the journal."""
        journal = self.folder / "data" / "journal"
        journal.mkdir(parents=True, exist_ok=True)
        with (journal / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def addresses(self) -> set[str]:
        """Return the IPv4 addresses of both devices."""
        lines = run("ip -o -4 addr show", self.namespace).splitlines()
        return {line.split()[3] for line in lines if line.split()[1] in DEVICES.values()}


@pytest.fixture
def machine(inside: str, tmp_path: Path) -> Machine:
    """Make a machine that never ran hanat, with addresses of its own."""
    for device in DEVICES.values():
        cable((inside, device), (inside, f"far-{device}"))
    run("ip addr add 203.0.113.11/24 dev eth0", inside)
    shutil.copy(EXAMPLES / "cluster.toml", tmp_path)
    text = (EXAMPLES / "r1" / "node.toml").read_text()
    lines = [
        f'data_dir = "{tmp_path / "data"}"' if line.startswith("data_dir") else line
        for line in text.splitlines()
    ]
    (tmp_path / "node.toml").write_text("\n".join(lines))
    return Machine(inside, tmp_path)


def test_machine_that_never_ran_hanat_stays_as_it_is(machine: Machine) -> None:
    before = run("ip addr", machine.namespace)
    done = machine.fence()
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "r1 is fenced: no rights: there is no gate, no floating address was here\n"
    )
    assert run("ip addr", machine.namespace) == before
    assert run("nft list tables", machine.namespace) == ""
    assert not (machine.folder / "data").exists()


def test_gate_of_an_earlier_release_without_permits_is_shut(machine: Machine) -> None:
    machine.take()
    run("nft delete set inet hanat_gate permit", machine.namespace)
    done = machine.fence()
    assert done.returncode == 0, done.stderr
    assert machine.rights() == set()


def test_gate_of_an_earlier_release_with_names_is_shut_and_goes(machine: Machine) -> None:
    machine.take()
    older = (
        "flush chain inet hanat_gate prerouting\n"
        "delete set inet hanat_gate carries_by_index\n"
        "add set inet hanat_gate carries { type ifname; flags timeout; }\n"
        "add rule inet hanat_gate prerouting iifname @carries accept\n"
        'add element inet hanat_gate carries { "eth0" timeout 90s }\n'
    )
    nft = ["ip", "netns", "exec", machine.namespace, "nft", "-f", "-"]
    subprocess.run(nft, input=older, text=True, check=True)

    done = machine.fence()

    assert done.returncode == 0, done.stderr
    assert "elements" not in run("nft list set inet hanat_gate carries", machine.namespace)
    with entered(machine.namespace), closing(KernelGate()) as gate:
        gate.install(render_gate(load_cluster(EXAMPLES / "cluster.toml"), DEVICES))
    names = run("nft list sets inet", machine.namespace)
    assert "set carries_by_index {" in names
    assert "set carries {" not in names


def test_dead_holder_loses_both_rights_and_its_floating_addresses_only(machine: Machine) -> None:
    machine.take()
    run("ip addr add 203.0.113.10/32 dev eth1", machine.namespace)  # a stranger's: another prefix
    done = machine.fence("--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "gate_found": True,
        "removed": [
            {"device": "eth0", "address": "203.0.113.10/24"},
            {"device": "eth1", "address": "10.11.12.1/24"},
        ],
    }
    assert machine.rights() == set()
    assert machine.addresses() == {"203.0.113.11/24", "203.0.113.10/32"}


@pytest.mark.parametrize("way", WAYS)
def test_programs_of_a_dead_holder_go(machine: Machine, way: Kind) -> None:
    script = render_gate(load_cluster(EXAMPLES / "cluster.toml"), DEVICES, way.by)
    gate = open_deadline_gate(way, DEVICES.values())
    gate.install(script)
    grant(gate, DEVICES.values(), answers_s=60.0, carries_s=90.0)
    run("ip addr add 203.0.113.10/24 dev eth0", machine.namespace)
    assert sorted(gate.rights()) == ["eth0", "eth1"]

    done = machine.fence()

    assert "both rights withdrawn, removed 203.0.113.10/24 from eth0" in done.stdout, done.stderr
    assert gate.rights() == {}
    assert "program at the ingress of eth0 gone" in gate.missing()
    assert "elements" not in run("nft list set inet hanat_gate attached", machine.namespace)
    gate.close()


@pytest.mark.parametrize("way", WAYS)
def test_programs_of_a_dead_holder_go_although_its_tables_went_before(
    machine: Machine, way: Kind
) -> None:
    with closing(open_deadline_gate(way, DEVICES.values(), machine.folder / "data")) as gate:
        gate.attach()
        run("nft flush ruleset", machine.namespace)
        assert "no gate" in machine.fence().stdout
        assert "program at the ingress of eth0 gone" in gate.missing()


def test_addresses_of_the_configuration_in_force_go_too(machine: Machine) -> None:
    machine.take()
    ours = load_cluster(EXAMPLES / "cluster.toml")
    wanted = {"eth0": "203.0.113.20/24", "eth1": "2001:db8:2::20/64"}
    vips = tuple(
        FloatingAddress(name, name, (ip_interface(wanted[device]),))
        for name, device in DEVICES.items()
    )
    with closing(KernelGate()) as gate:
        gate.install(render_gate(replace(ours, vips=vips), DEVICES))
    for device, address in wanted.items():
        run(f"ip addr add {address} dev {device}", machine.namespace)
    done = machine.fence("--json")
    assert done.returncode == 0, done.stderr
    removed = {entry["address"] for entry in json.loads(done.stdout)["removed"]}
    assert removed == FLOATING | set(wanted.values())
    assert machine.addresses() == {"203.0.113.11/24"}
    assert "2001:db8:2::20" not in run("ip addr", machine.namespace)


def test_fencing_twice_is_fencing_once(machine: Machine) -> None:
    machine.take()
    first = machine.fence()
    assert "both rights withdrawn, removed 203.0.113.10/24 from eth0" in first.stdout
    second = machine.fence()
    assert (second.returncode, second.stdout) == (
        0,
        "r1 is fenced: both rights withdrawn, no floating address was here\n",
    )


def test_node_that_runs_is_left_alone(machine: Machine) -> None:
    machine.take()
    with machine.running():
        done = machine.fence()
    assert done.returncode == 4
    assert done.stderr.startswith("hanat: node r1 not fenced: its daemon runs; ")
    assert machine.rights() == set(DEVICES.values())
    assert machine.addresses() >= FLOATING


def test_node_that_hangs_is_fenced_by_force(machine: Machine) -> None:
    machine.take()
    with machine.running():
        done = machine.fence("--force")
    assert done.returncode == 0, done.stderr
    assert machine.rights() == set()
    assert not FLOATING & machine.addresses()


def test_device_that_is_gone_does_not_keep_the_other_address(machine: Machine) -> None:
    machine.take()
    run("ip link del eth0", machine.namespace)
    assert machine.fence().returncode == 0
    assert not FLOATING & machine.addresses()


def test_wrong_file_is_told_and_nothing_is_touched(machine: Machine) -> None:
    machine.take()
    machine.file.write_text(machine.file.read_text().replace("data_dir", "datadir"))
    done = machine.fence()
    assert done.returncode == 5
    assert "data_dir: is missing; it must be a text" in done.stderr
    assert machine.rights() == set(DEVICES.values())


def test_missing_permission_is_told(machine: Machine) -> None:
    machine.take()
    hanat = [sys.executable, "-m", "hanat", "fence", "--config", str(machine.file)]
    without = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    done = subprocess.run(
        ["ip", "netns", "exec", machine.namespace, *without, *hanat],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "EPERM" in done.stderr
    assert "CAP_NET_ADMIN" in done.stderr
    assert machine.addresses() >= FLOATING


def test_damaged_cluster_file_leaves_what_the_gate_guards(machine: Machine) -> None:
    machine.take()
    (machine.folder / "cluster.toml").write_text("schema = 1\n[[vip]]\nname = ")
    done = machine.fence()
    assert done.returncode == 0
    assert "cluster.toml" in done.stderr
    assert "fenced by what the gate guards" in done.stderr
    assert machine.addresses() == {"203.0.113.11/24"}
    assert machine.rights() == set()


def test_damaged_cluster_file_on_a_machine_without_a_gate_is_said(machine: Machine) -> None:
    (machine.folder / "cluster.toml").unlink()
    done = machine.fence()
    assert done.returncode == 5
    assert "cluster.toml" in done.stderr
    assert done.stdout == ""
