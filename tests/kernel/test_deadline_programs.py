"""The programs at the devices: who takes one away takes the right away, and others' marks stay."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from hanat.core.rights import MARK_MASK, TIMEOUTS, bits, is_mask
from hanat.daemon.adapters import ChosenGate
from hanat.daemon.granting import TimedGranting
from hanat.errors import KernelError
from hanat.kernel import ebpf, tcx, traffic_filters
from hanat.kernel.deadline_gate import KernelDeadlineGate
from hanat.kernel.deadline_programs import Programs, egress, ingress
from hanat.kernel.ebpf import CODES, Program, assembled, numbered
from hanat.kernel.fence import KernelFence
from hanat.kernel.timeout_gate import KernelGate
from hanat.kernel.traffic_filters import DIRECTIONS, EGRESS, INGRESS, TrafficFilters
from tests.core.examples import DEVICES
from tests.gates import HAS_TCX, Kind, open_deadline_gate
from tests.kernel.conftest import gates_of_all_ways
from tests.kernel.gate_cells import Ping
from tests.kernel.namespaces import cable, run, until
from tests.kernel.network import (
    OWN,
    SERVER,
    SERVER_V6,
    VIP,
    VIP_V6,
    Network,
    Probe,
    Router,
    echo_socket,
    family_of,
)

pytestmark = pytest.mark.kernel

BOTH = pytest.mark.parametrize(("vip", "server"), [(VIP, SERVER), (VIP_V6, SERVER_V6)])


def gate_of(router: Router) -> KernelDeadlineGate:
    """Return the router's gate."""
    assert isinstance(router.gate, KernelDeadlineGate)
    return router.gate


def holding(network: Network, vip: str, server: str) -> Probe:
    """Let the first router hold; return a flow that it carries."""
    echo = echo_socket(network, server)
    network.r1.take_over()
    probe = Probe(network, echo, vip)
    until(probe.answers, "the first answer")
    return probe


def other(probe: Probe) -> Probe:
    """Return a flow that is new, to the same server."""
    return Probe(probe.network, probe.echo, probe.vip)


def way_of(network: Network) -> Kind:
    """Return how the programs of the routers are attached."""
    by_tcx = isinstance(gate_of(network.r1)._places, tcx.Tcx)
    return Kind.DEADLINE if by_tcx else Kind.CLASSIFIERS


@pytest.mark.parametrize("direction", [INGRESS, EGRESS])
@gates_of_all_ways
@BOTH
def test_what_somebody_takes_away_is_no_right_and_is_put_back(
    network: Network, vip: str, server: str, *, direction: int
) -> None:
    probe = holding(network, vip, server)
    with network.r1.entered() as router:
        gate = gate_of(router)
        assert gate.missing() == ()
        index = socket.if_nametoindex("eth0")
        gate._places.detach(index, direction, gate._wanted[direction], device="eth0")
        assert gate.missing() == (f"program at the {DIRECTIONS[direction]} of eth0 gone",)
        if direction == INGRESS:  # a holder may answer: the other only ends its right
            assert not any(probe.answers() for _ in range(3))
        router.prepare()
        assert gate.missing() == ()
    until(probe.answers, "the next answer")


@pytest.mark.parametrize("network", [Kind.CLASSIFIERS], indirect=True)
@pytest.mark.parametrize(
    "command",
    ["tc filter del dev eth0 ingress pref 1 handle 0x68616e61 bpf", "tc qdisc del dev eth0 clsact"],
)
def test_tc_takes_the_right_away(network: Network, command: str) -> None:
    probe = holding(network, VIP, SERVER)
    with network.r1.entered() as router:
        run(command, router.namespace)
        assert not any(probe.answers() for _ in range(3))
        assert gate_of(router).missing()[-1] == "program at the ingress of eth0 gone"
        router.prepare()
    until(probe.answers, "the next answer")


def come_before(gate: KernelDeadlineGate, index: int, foreign: Program, *, device: str) -> str:
    """Put a stranger's program where it takes packets from ours; return how that is told."""
    if isinstance(gate._places, TrafficFilters):  # there is one place
        gate._places.attach(index, INGRESS, foreign, device=device)
        return "replaced by"
    first = tcx._ATTACHMENT.pack(index, foreign.fd, tcx._PLACES[INGRESS], tcx._BEFORE, 0, 0, 0)
    ebpf.call(tcx._ATTACH, first, operation="attach a stranger's program", target=device)
    return "behind"


@gates_of_all_ways
def test_another_program_before_ours_is_told_and_ours_takes_its_place_again(
    network: Network,
) -> None:
    network.r1.take_over()
    with network.r1.entered() as router, closing(Programs(MARK_MASK)) as others:
        gate, index = gate_of(router), socket.if_nametoindex("eth1")
        foreign = numbered(others.ingress_fd)
        how = come_before(gate, index, foreign, device="eth1")
        assert gate.missing() == (f"program at the ingress of eth1 {how} {foreign.number}",)
        assert "eth1" not in gate.rights()
        router.prepare()
        assert gate.missing() == ()


@BOTH
def test_a_device_that_is_made_anew_gets_the_programs_with_the_next_installation(
    network: Network, vip: str, server: str
) -> None:
    probe = holding(network, vip, server)
    with network.r1.entered() as router:
        gate = gate_of(router)
        namespace = router.namespace
        run("ip link del eth0", namespace)
        cable((namespace, "eth0"), (network.made["switch"], "again"))
        run("ip link set again master public", network.made["switch"])
        for address in OWN["r1"][:2]:
            nodad = "nodad" if ":" in address else ""
            length = 64 if ":" in address else 24
            run(f"ip addr add {address}/{length} dev eth0 {nodad}".strip(), namespace)
        assert gate.missing() != ()
        router.prepare()
        assert gate.missing() == ()
        router.take_over()
    until(other(probe).answers, "an answer")


def test_an_ingress_qdisc_of_others_is_an_error_that_says_what_to_do(inside: str) -> None:
    cable((inside, "eth0"), (inside, "far"))
    run("tc qdisc add dev eth0 ingress", inside)
    with closing(open_deadline_gate(Kind.CLASSIFIERS, ["eth0"])) as gate:
        with pytest.raises(KernelError, match=r'tc qdisc show dev eth0.*kind = "timeouts"'):
            gate.attach()
        assert gate.deadlines() == (0, 0)
    assert "ingress" in run("tc qdisc show dev eth0", inside)


HOLDER = f"""
import os, signal, sys, time
from pathlib import Path
from hanat.kernel.deadline_gate import KernelDeadlineGate
from hanat.kernel.traffic_filters import TrafficFilters
places = TrafficFilters if sys.argv[1] == "{Kind.CLASSIFIERS}" else None
data_dir = Path(sys.argv[2]) if sys.argv[2:] else None
gate = KernelDeadlineGate(("eth0", "eth1"), {MARK_MASK}, data_dir=data_dir, places=places)
gate.attach()
now = time.clock_gettime(time.CLOCK_BOOTTIME)
gate.grant(answers_until=now + 2, carries_until=now + 2)
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_holder(way: Kind, *data_dir: Path) -> None:
    """Grant both rights in another process, and kill it."""
    done = subprocess.run([sys.executable, "-c", HOLDER, way, *data_dir], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


@gates_of_all_ways
@BOTH
def test_rights_outlive_every_process_and_end_by_themselves(
    network: Network, vip: str, server: str
) -> None:
    probe = holding(network, vip, server)
    with network.r1.entered():
        killed_holder(way_of(network))
    until(lambda: not probe.answers(), "the end of the right")
    assert not any(other(probe).answers() for _ in range(2))


@gates_of_all_ways
@BOTH
def test_who_has_the_map_withdraws_with_the_standard_library(
    network: Network, vip: str, server: str
) -> None:
    """As a supervisor does, whose daemon is dead."""
    probe = holding(network, vip, server)
    with network.r1.entered() as router, closing(KernelFence()) as fence:
        fence.withdraw(os.dup(gate_of(router).map_fd))
        assert probe.answers()  # established
        assert not any(other(probe).answers() for _ in range(2))


# What sets all bits before connection tracking does open the gate; docs/lease.md says so.
MARKS = {
    "set in mangle": "chain m { type filter hook prerouting priority mangle; meta mark set 0x1; }",
    "saved and restored": (
        "chain m { type filter hook prerouting priority mangle; meta mark set ct mark; }\n"
        "chain p { type filter hook postrouting priority mangle; ct mark set meta mark; }"
    ),
}


@pytest.mark.parametrize("of", MARKS)
@BOTH
def test_marks_of_others_neither_close_the_gate_nor_hold_it_open(
    network: Network, vip: str, server: str, *, of: str
) -> None:
    with network.r1.entered() as router:
        router.firewall.apply(f"table inet others {{\n{MARKS[of]}\n}}")
    probe = holding(network, vip, server)
    assert probe.answers()

    with network.r1.entered() as router:
        router.gate.shut()
    assert not any(probe.answers() for _ in range(3))
    assert not any(other(probe).answers() for _ in range(2))


ONLY_0X21 = (
    ("", "d = u32[s + o]", 2, 1, 8, ""),
    ("", "if d != i", 2, 0, 0x21, "drop"),
    ("", "d = i", 0, 0, 0xFFFFFFFF, ""),
    ("", "exit", 0, 0, 0, ""),
    ("drop", "d = i", 0, 0, 2, ""),
    ("", "exit", 0, 0, 0, ""),
)


@BOTH
def test_a_packet_leaves_without_our_bits_and_with_those_of_others(
    network: Network, vip: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with network.r1.entered() as router:
        router.firewall.apply(
            "table inet others {\nchain m { type filter hook prerouting priority mangle; "
            "meta mark set meta mark | 0x21; }\n}"
        )
    probe = holding(network, vip, server)
    only = numbered(ebpf.load(ONLY_0X21, 0, name="only"))
    monkeypatch.setattr(traffic_filters, "_INFO", 2 << 16 | socket.htons(3))  # behind ours
    with network.r1.entered():
        for device in DEVICES.values():
            index = socket.if_nametoindex(device)
            with closing(TrafficFilters()) as filters:
                filters.attach(index, EGRESS, only, device=device)
        os.close(only.fd)
        assert probe.answers()
        run("nft delete table inet others", network.r1.namespace)
        assert not probe.answers()


@pytest.mark.parametrize("network", [Kind.CLASSIFIERS], indirect=True)
def test_a_fence_takes_the_programs_away(network: Network) -> None:
    probe = holding(network, VIP, SERVER)
    with network.r1.entered() as router, closing(KernelFence()) as fence:
        fence.shut(DEVICES.values())
        assert not any(probe.answers() for _ in range(2))
        assert gate_of(router).missing() != ()


@gates_of_all_ways
def test_a_gate_that_is_closed_takes_its_programs_away_also_without_tables(
    network: Network,
) -> None:
    network.r1.take_over()
    with network.r1.entered() as router:
        gate = gate_of(router)
        router.firewall.apply("flush ruleset")
        gate.close()
        assert numbers_at("eth1") == {INGRESS: [], EGRESS: []}
        object.__setattr__(router, "gate", KernelDeadlineGate(DEVICES.values(), MARK_MASK))


def test_an_emptied_set_of_devices_is_told_and_put_back(network: Network) -> None:
    network.r1.take_over()
    with network.r1.entered() as router:
        run("nft flush set inet hanat_gate attached", router.namespace)
        assert gate_of(router).missing() == ("set attached changed",)
        router.prepare()
        assert gate_of(router).missing() == ()


@BOTH
def test_nothing_is_delivered_to_a_floating_address_without_answers(
    network: Network, vip: str, server: str
) -> None:
    """Whether this node's answer could leave or not: a program would act on what it hears."""
    assert server
    network.r1.take_over()
    ping = Ping(network, "client", vip)
    assert ping.answered()  # now it is established, and carried
    family = family_of(vip)
    protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    heard = network.open_socket("r1", family, socket.SOCK_RAW, protocol)
    asked = 20 if family == socket.AF_INET else 0, (8, 128)  # behind the header; echo requests
    assert ping.answered()
    assert _questions(heard, *asked)
    with network.r1.entered() as router:
        router.gate.withdraw()
    assert not ping.answered()
    assert not _questions(heard, *asked)


def _questions(heard: socket.socket, at: int, kinds: tuple[int, ...]) -> int:
    """Return how many of these kinds of message came."""
    heard.setblocking(False)  # noqa: FBT003 - the library's signature
    count = 0
    while True:
        try:
            count += heard.recv(2048)[at] in kinds
        except BlockingIOError:
            return count


def test_a_packet_that_waited_between_ingress_and_rules_is_judged_again(network: Network) -> None:
    """As one does that its operator shapes by an IFB device: its mark says what was."""
    probe = holding(network, VIP, SERVER)
    with network.r1.entered() as router:
        router.firewall.apply(
            "table inet late {\nchain late { type filter hook prerouting priority -200; "
            f"meta mark set {bits(MARK_MASK, 2):#x}; }}\n}}"
        )
        router.gate.shut()
    assert probe.answers()  # of a flow that is established nothing is judged again
    assert not any(other(probe).answers() for _ in range(3))


def test_a_gate_that_is_closed_leaves_nothing_that_an_earlier_release_stumbles_over(
    network: Network,
) -> None:
    network.r1.take_over()
    with network.r1.entered() as router:
        gate_of(router).close()
        for family in ("inet", "arp"):
            listing = run(f"nft list set {family} hanat_gate attached", router.namespace)
            assert "elements" not in listing
        object.__setattr__(router, "gate", KernelDeadlineGate(DEVICES.values(), MARK_MASK))


def numbers_at(device: str) -> dict[int, list[int]]:
    """Return the numbers of the programs at both ends of a device, those by tcx first."""
    found: dict[int, list[int]] = {}
    for direction, end in DIRECTIONS.items():
        index = socket.if_nametoindex(device)
        by_tcx = tcx._numbers(index, direction, device=device)[0] if HAS_TCX else []
        filters = subprocess.run(
            ["tc", "filter", "show", "dev", device, end],
            check=False,
            capture_output=True,
            text=True,
        ).stdout  # of an end without clsact: none
        found[direction] = by_tcx + [int(number) for number in re.findall(r" id (\d+)", filters)]
    return found


@gates_of_all_ways
@pytest.mark.parametrize("lost", ["disk", "tables"])
def test_programs_of_a_predecessor_that_was_killed_go(
    network: Network, tmp_path: Path, lost: str
) -> None:
    """A note of either place is enough: a disk failed, or somebody flushed all tables."""
    data_dir = tmp_path / "data"
    with network.r1.entered() as router:
        for _ in range(3):
            killed_holder(way_of(network), data_dir)
        if lost == "disk":
            shutil.rmtree(data_dir, ignore_errors=True)
        else:
            router.firewall.apply("add table inet hanat_notes\ndelete table inet hanat_notes\n")
        gate = open_deadline_gate(way_of(network), DEVICES.values(), data_dir)
        with closing(gate) as successor:
            successor.attach()
            assert successor.missing() == ()
            for direction, program in successor._wanted.items():
                assert numbers_at("eth0")[direction] == [program.number]


@gates_of_all_ways
@pytest.mark.parametrize("lost", ["disk", "tables"])
def test_a_gate_with_timeouts_takes_the_programs_of_a_killed_one_away(
    network: Network, tmp_path: Path, lost: str
) -> None:
    with network.r1.entered() as router:
        way = way_of(network)
        gate_of(router).close()
        object.__setattr__(router, "gate", open_deadline_gate(way, DEVICES.values()))
        killed_holder(way, tmp_path)
        assert all(numbers_at("eth0").values())
        if lost == "disk":
            (tmp_path / "programs").unlink(missing_ok=True)
        else:
            run("nft flush ruleset", router.namespace)
        granting = TimedGranting(KernelGate(), (), time.monotonic)
        ChosenGate(granting, TIMEOUTS, data_dir=tmp_path).take_over(DEVICES.values())
        assert numbers_at("eth0") == {INGRESS: [], EGRESS: []}


@gates_of_all_ways
def test_a_note_that_goes_is_told_and_written_again(network: Network) -> None:
    """Classifiers need none: their place tells which is ours."""
    with network.r1.entered() as router:
        assert router.gate.missing() == ()
        router.firewall.apply("add table inet hanat_notes\ndelete table inet hanat_notes\n")
        told = "program at the ingress of eth0 not noted" in router.gate.missing()
        assert told == (way_of(network) is Kind.DEADLINE)
        gate_of(router).attach()
        assert router.gate.missing() == ()


# ------------------------------------------------------------------------ programs


def test_the_mask_is_two_neighbouring_bits() -> None:
    good = [3 << n for n in range(31)]
    assert all(map(is_mask, good))
    assert not any(map(is_mask, (0, 1, 5, 7, 0xFFFFFFFF, 3 << 32, -3)))
    assert bits(0x60000000, 3) == 0x60000000
    assert bits(0x60000000, 1) == 0x20000000


@pytest.mark.parametrize("program", [ingress, egress])
def test_a_program_is_as_long_as_its_steps_and_ends(
    program: Callable[[int], tuple[tuple[str, str, int, int, int, str], ...]],
) -> None:
    steps = program(MARK_MASK)
    code = assembled(steps, 7)
    wide = sum(step[1] == "d = map" for step in steps)
    assert len(code) == 8 * (len(steps) + wide)
    assert code[-8] == CODES["exit"]


@pytest.mark.parametrize("mask", [0x3, 0x60000000, 0xC0000000])
def test_the_kernel_takes_the_programs_with_any_mask(mask: int) -> None:
    with closing(Programs(mask)) as programs:
        assert programs.deadlines.read() == (0, 0)


def test_withdrawing_needs_neither_ctypes_nor_a_library() -> None:
    """The supervisor stays small."""
    code = (
        "import sys, hanat.kernel.fence; "
        "print([m for m in ('ctypes', 'nftables', 'asyncio', 'pyroute2') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
