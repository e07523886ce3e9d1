"""A network that is silent, a switch that all share, a revision that most cannot use: one lab.

Each test leaves the lab as it found it, and begins with whoever holds.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from chaos.lab import topology
from chaos.lab.lab import Lab
from chaos.lab.netns import entered
from chaos.lab.node_files import CLUSTER_TOML
from chaos.lab.switch import Net
from hanat.core.beacon import digest_of
from hanat.errors import EXIT_REFUSED
from tests.cluster.conftest import BOTH, PUBLIC, Echo, complete, hand_over, replicated
from tests.cluster.test_configuration import config, write

pytestmark = pytest.mark.cluster

WAIT_S_MAX = 10.0  # bounds a test that hangs
UNHEARD_S = 1.0  # longer than a node takes to find a path silent and to ask the others
BPDU_S = 0.3  # more often than a switch does, 2 s
ALONE = "dmz"
SOLE = "r1"  # the only one that has a device for it
ANSWERED = f"""
[[vip]]
name = "extra"
address = ["192.0.2.20/24"]
interface = "{ALONE}"
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    """A lab one of whose nodes has an interface that the others lack, and seem to have."""
    with Lab(prefix=f"hs{os.getpid()}") as lab:
        for name in lab.nodes:
            file = lab.folder / name / "node.toml"
            interface = ALONE if name == SOLE else taken_for(ALONE)
            text = file.read_text().replace(
                "[interfaces]\n", f'[interfaces]\n{interface} = "eth1"\n'
            )
            file.write_text(text)
        lab.start()
        lab.wait_for_holder()
        yield lab


@pytest.fixture
def lab(shared: Lab) -> Lab:
    """The lab of this module, well."""
    shared.wait_for(partial(all_is_well, shared), WAIT_S_MAX, "all well")
    return shared


def taken_for(name: str) -> str:
    """Return a name that a beacon's set of interfaces does not tell from another one."""
    wanted = digest_of([name])
    names = (f"net{number}" for number in count())
    have = ["public", "private"]
    return next(n for n in names if digest_of([*have, n]) & wanted == wanted)


def all_is_well(lab: Lab) -> bool:
    return lab.holder() is not None and complete(lab) and not any(hindrances(lab).values())


def hindrances(lab: Lab) -> dict[str, list[str]]:
    return {
        name: ["no answer"] if status is None else status["hindrances"]
        for name, status in lab.statuses().items()
    }


def roles(lab: Lab) -> dict[str, tuple[str, int]]:
    """Return role and term of each node."""
    found = {}
    for name, status in lab.statuses().items():
        assert status is not None
        found[name] = (status["role"], status["term"])
    return found


def unheard(lab: Lab, network: str) -> bool:
    """Say whether no node has heard any peer on a network lately, as each tells itself."""
    own = {
        port.address.partition("/")[0]
        for router in lab.topology.routers
        for port in router.ports
        if port.network == network
    }
    heard = [
        path["beacon_s"]
        for status in lab.statuses().values()
        for peer in (status or {"peers": ()})["peers"]
        for path in peer["paths"]
        if path["address"] in own
    ]
    return len(heard) == 6 and all(s is None or s > UNHEARD_S for s in heard)


def works(lab: Lab, echo: Echo) -> None:
    """Check an established connection, and a new one in each direction."""
    echo.exchange()
    for place, address, port in (
        (topology.CLIENT, PUBLIC, 7),
        (topology.SERVERS[0], "203.0.113.100", 9000),
    ):
        with Echo(lab, place, address, port) as new:
            new.exchange()


def test_holder_whose_public_network_is_silent_leaves_it_to_another_and_is_well_when_it_heals(
    lab: Lab, inbound: Echo
) -> None:
    first = lab.wait_for_holder()
    lab.wait_for(lambda: replicated(lab), WAIT_S_MAX, "replicated flows")
    net = Net(lab.topology)

    net.cut([first], "public")
    try:
        second = lab.wait_for(lambda: other_holder(lab, first), WAIT_S_MAX, "another holder")
        assert lab.addresses(second) == BOTH
        assert lab.addresses(first) == set()
        assert "public: silent" in hindrances(lab)[first]
        carrier = lab.exec_in(first, ["cat", "/sys/class/net/eth0/carrier"]).stdout
        assert carrier == "1\n"
        works(lab, inbound)
    finally:
        net.heal()

    lab.wait_for(partial(all_is_well, lab), WAIT_S_MAX, "all well")
    assert lab.wait_for_holder() == second  # there is no way back by itself
    hand_over(lab, first, WAIT_S_MAX)
    assert lab.wait_for_holder() == first
    works(lab, inbound)


class Switch:
    """Says on a port what a managed switch does every two seconds, whatever that port carries."""

    def __init__(self, lab: Lab, port: str) -> None:
        with entered(lab.topology.namespace(topology.SWITCH)):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._port, self._ended = port, threading.Event()
        self._thread = threading.Thread(target=self._speak)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _speak(self) -> None:
        frame = bytes.fromhex("0180c2000000 02686e0100fe 0026 424203") + bytes(35)  # IEEE 802.1D
        while not self._ended.wait(BPDU_S):
            self._socket.sendto(frame, (self._port, 0))


def test_of_two_left_the_holder_whose_network_only_the_switch_speaks_on_leaves_it_to_the_other(
    lab: Lab, inbound: Echo
) -> None:
    first = lab.wait_for_holder()
    lab.wait_for(lambda: replicated(lab), WAIT_S_MAX, "replicated flows")
    (port,) = (
        port.port
        for router in lab.topology.routers
        if router.name == first
        for port in router.ports
        if port.network == "public"
    )
    third, second = (name for name in lab.nodes if name != first)
    lab.kill_node(third)
    net = Net(lab.topology)
    net.cut([first], "public")
    try:
        with Switch(lab, port):
            lab.wait_for(lambda: other_holder(lab, first), WAIT_S_MAX, "another holder")
            assert "public: silent" in hindrances(lab)[first]
            assert lab.addresses(second) == BOTH
            works(lab, inbound)
    finally:
        net.heal()
        lab.start_node(third)
    lab.wait_for(partial(all_is_well, lab), WAIT_S_MAX, "all well")


@pytest.mark.parametrize("carriers", ["gone", "there"])
def test_switch_of_all_dies_and_returns_and_each_keeps_its_role(
    lab: Lab, inbound: Echo, carriers: str
) -> None:
    before = roles(lab)
    net = Net(lab.topology)

    if carriers == "gone":
        plug(lab, ["public"], up=False)
    else:
        net.cut(lab.nodes, "public")
    try:
        lab.wait_for(partial(unheard, lab, "public"), WAIT_S_MAX, "silence")
        assert roles(lab) == before
    finally:
        net.heal()
        plug(lab, ["public"], up=True)

    lab.wait_for(partial(all_is_well, lab), WAIT_S_MAX, "all well")
    assert roles(lab) == before
    works(lab, inbound)


def test_switch_that_both_networks_share_dies_and_one_holds_again_by_itself(
    lab: Lab, inbound: Echo
) -> None:
    lab.wait_for(lambda: replicated(lab), WAIT_S_MAX, "replicated flows")

    plug(lab, ["public", "private"], up=False)
    try:
        lab.wait_for(lambda: nobody_has_addresses(lab), WAIT_S_MAX, "addresses gone")
    finally:
        plug(lab, ["public", "private"], up=True)

    holder = lab.wait_for_holder(WAIT_S_MAX)
    assert lab.addresses(holder) == BOTH
    works(lab, inbound)


def test_revision_that_no_majority_can_use_is_rolled_back_with_the_old_text(
    lab: Lab, inbound: Echo, tmp_path: Path
) -> None:
    if lab.wait_for_holder() != SOLE:
        hand_over(lab, SOLE, WAIT_S_MAX)
        assert lab.wait_for_holder() == SOLE
    file = write(tmp_path, CLUSTER_TOML + ANSWERED)

    done = config(lab, SOLE, "apply", file)

    assert done.returncode == EXIT_REFUSED, done.stdout
    assert "revision 2 was not in force on a majority" in done.stderr
    for name in lab.nodes:
        # The two others may have refused it before the holder itself had it in force.
        assert (f"{name}: refused" in done.stderr) == (name != SOLE)
    assert "was rolled back as revision 3" in done.stderr
    assert "apply with --force" in done.stderr
    for name in lab.nodes:
        assert config(lab, name, "show").stdout == CLUSTER_TOML
        assert "192.0.2.20/24" not in lab.present(name)
    assert lab.wait_for_holder() == SOLE
    lab.wait_for(partial(all_is_well, lab), WAIT_S_MAX, "all well")
    works(lab, inbound)


def other_holder(lab: Lab, first: str) -> str | None:
    holder = lab.holder()
    return None if holder == first else holder


def nobody_has_addresses(lab: Lab) -> bool:
    return not any(lab.addresses(name) for name in lab.nodes)


def plug(lab: Lab, networks: list[str], *, up: bool) -> None:
    """Set the ports of all three nodes up or down, together: in one call, as one group."""
    ports = [p for r in lab.topology.routers for p in r.ports if p.network in networks]
    group = 1 + len(networks)
    topology.run_ip(
        ["-n", lab.topology.namespace(topology.SWITCH)],
        [
            *(f"link set {port.port} group {group}" for port in ports),
            f"link set group {group} {'up' if up else 'down'}",
            *(f"link set {port.port} group default" for port in ports),
        ],
    )
