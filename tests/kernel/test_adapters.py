"""What of the real adapters has no counterpart in a fake."""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from hanat.core.configuration import Configuration
from hanat.core.flows import ChangeKind
from hanat.core.gate_rules import render_gate
from hanat.core.placements import Placement
from hanat.core.ruleset import render_ruleset
from hanat.kernel import conntrack, links, ruleset_watch, timeouts
from hanat.kernel.addresses import KernelAddresses
from hanat.kernel.conntrack import KernelConntrack
from hanat.kernel.firewall import KernelFirewall
from hanat.kernel.kernel_errors import refused
from hanat.kernel.links import KernelLinks
from hanat.kernel.ports import AddressRemoved, CarrierChanged
from hanat.kernel.ruleset_watch import KernelRulesetWatch
from hanat.kernel.timeout_gate import KernelGate
from tests.contract.flows import changes_of, inbound
from tests.core.configurations import configurations
from tests.core.examples import CONVERSATION, DEVICES, EDGE
from tests.gates import grant
from tests.kernel.namespaces import cable, run

pytestmark = pytest.mark.kernel

PUBLIC = Placement("eth0", ip_interface("203.0.113.10/24"), "eth0:1")


async def test_adapters_work_inside_a_running_event_loop(inside: str) -> None:
    """pyroute2's own client does not: it starts a loop of its own."""
    cable((inside, "eth0"), (inside, "far"))
    run("ip link set far down", inside)
    addresses, links = KernelAddresses(), KernelLinks()

    addresses.add([PUBLIC])

    assert PUBLIC.address in addresses.present("eth0")
    assert not links.carrier("eth0")
    addresses.close()
    links.close()


def test_ipv4_address_has_its_label_and_ipv6_is_usable_at_once(inside: str) -> None:
    cable((inside, "eth0"), (inside, "far"))
    addresses = KernelAddresses()

    addresses.add([PUBLIC, Placement("eth0", ip_interface("2001:db8:1::10/64"))])
    addresses.close()

    listing = run("ip addr show eth0", inside)
    assert "inet 203.0.113.10/24 scope global eth0:1" in listing
    assert "tentative" not in listing.partition("2001:db8:1::10/64")[2].partition("\n")[0]
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as bound:
        bound.bind(("2001:db8:1::10", 0))


def test_calls_leave_no_descriptors_open(inside: str) -> None:
    cable((inside, "eth0"), (inside, "far"))
    addresses, gate, links, flows = (
        KernelAddresses(),
        KernelGate(),
        KernelLinks(),
        KernelConntrack(),
    )
    gate.install(render_gate(EDGE, DEVICES))

    def once() -> None:
        addresses.add([PUBLIC])
        addresses.present("eth0")
        addresses.remove([PUBLIC])
        grant(gate, ["eth0"], answers_s=1.0, carries_s=1.0)
        gate.rights()
        links.carrier("eth0")
        links.watch().close()
        flows.install([inbound().to_record()])
        flows.dump()
        flows.capture().close()

    once()
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - names suffice
    for _ in range(3):
        once()
    after = os.listdir("/proc/self/fd")  # noqa: PTH208

    for adapter in (addresses, gate, links, flows):
        adapter.close()
    assert len(after) == len(before)


def test_watch_that_was_not_read_in_time_finds_out_what_it_missed(inside: str) -> None:
    cable((inside, "eth0"), (inside, "far"))
    addresses, links = KernelAddresses(), KernelLinks()
    other = Placement("eth0", ip_interface("203.0.113.11/24"))
    addresses.add([PUBLIC])
    watch = links.watch()
    watch._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)

    for _ in range(100):
        addresses.add([other])
        addresses.remove([other])
    addresses.remove([PUBLIC])
    addresses.add([other])
    run("ip link set far down", inside)
    found = watch.read()

    assert AddressRemoved("eth0", PUBLIC.address) in found
    assert AddressRemoved("eth0", other.address) not in found
    assert CarrierChanged("eth0", carrier=False) in found
    watch.close()
    addresses.close()


def test_watch_whose_dump_is_torn_looks_again(inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cable((inside, "eth0"), (inside, "far"))
    addresses, links_ = KernelAddresses(), KernelLinks()
    watch = links_.watch()
    watch._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)

    def torn(*_: object, **__: object) -> list[bytes]:
        raise refused(errno.EINTR, operation="list devices", target="all interfaces")

    for _ in range(100):
        addresses.add([PUBLIC])
        addresses.remove([PUBLIC])
    run("ip link set far down", inside)
    with monkeypatch.context() as busy:
        busy.setattr(links, "_dump", torn)
        watch.read()
        was_stale = watch.stale

    assert CarrierChanged("eth0", carrier=False) in watch.read()
    assert (was_stale, watch.stale) == (True, False)
    watch.close()
    addresses.close()


def test_watch_reads_so_much_in_a_turn(inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cable((inside, "eth0"), (inside, "far"))
    addresses, links_ = KernelAddresses(), KernelLinks()
    watch, rules = links_.watch(), KernelRulesetWatch()
    monkeypatch.setattr(links, "READS_MAX", 10)
    monkeypatch.setattr(ruleset_watch, "READS_MAX", 10)
    addresses.add([PUBLIC])
    for _ in range(20):
        run("ip link set far down", inside)
        run("ip link set far up", inside)
        run("nft 'add table inet other; delete table inet other'", inside)
    addresses.remove([PUBLIC])

    turns, removed = 0, False
    while select.select([watch.fileno(), rules.fileno()], [], [], 0)[0]:
        removed = AddressRemoved("eth0", PUBLIC.address) in watch.read()
        rules.read()
        turns += 1

    assert turns > 3
    assert removed
    for opened in (watch, rules, addresses):
        opened.close()


def test_watch_hears_of_a_device_whose_name_is_no_text(inside: str) -> None:
    watch = KernelLinks().watch()
    subprocess.run(
        ["ip", "netns", "exec", inside, "ip", "link", "add", b"\xff\xfe", "type", "bridge"],
        check=True,
    )
    cable((inside, "eth0"), (inside, "far"))
    assert CarrierChanged("eth0", carrier=True) in watch.read()
    watch.close()


def test_adding_a_placed_address_beside_others_leaves_them(inside: str) -> None:
    cable((inside, "eth0"), (inside, "far"))
    run("ip -6 addr flush dev eth0", inside)
    run("ip addr add 203.0.113.11/24 dev eth0", inside)
    addresses = KernelAddresses()

    addresses.add([PUBLIC])
    addresses.remove([PUBLIC])

    assert addresses.present("eth0") == {ip_interface("203.0.113.11/24")}
    addresses.close()


def test_captures_one_after_another_share_a_socket_that_is_never_closed(inside: str) -> None:
    assert inside
    flows = KernelConntrack()
    descriptors = []
    for _ in range(3):
        capture = flows.capture()
        descriptors.append(capture.fileno())
        capture.close()
        assert capture.fileno() == -1
    flows.close()
    assert len(set(descriptors)) == 1


def test_flows_that_the_table_has_no_room_for_are_counted(inside: str) -> None:
    assert inside
    room = int((timeouts.SETTINGS / "nf_conntrack_max").read_text())
    flows, first = KernelConntrack(), inbound()
    clients = (ip_address("198.18.0.0") + number // 60_000 for number in range(room + 100))
    records = [
        replace(
            first,
            original=replace(first.original, source=client, source_port=1024 + number % 60_000),
            reply=replace(first.reply, destination=client, destination_port=1024 + number % 60_000),
        ).to_record()
        for number, client in enumerate(clients)
    ]  # fmt: skip

    done = flows.install(records)

    assert (done.created, done.unplaced, done.failed) == (room, 100, 0)
    flows.close()


def test_overrun_is_counted_and_what_was_queued_is_read(
    inside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inside
    monkeypatch.setattr(conntrack, "CAPTURE_BUFFER_BYTES", 16 << 10)
    flows, stranger = KernelConntrack(), KernelConntrack()
    records = [inbound(port).to_record() for port in range(30000, 31000)]
    stranger.install(records)
    capture = flows.capture()

    stranger.delete(records)
    first = changes_of(capture.read())
    overruns = capture.overruns
    stranger.install(records[:1])
    stranger.delete(records[:1])
    later = changes_of(capture.read())

    assert overruns == 1
    assert 0 < len(first) < len(records)
    assert [change.kind for change in later] == [ChangeKind.DELETE]
    for opened in (capture, flows, stranger):
        opened.close()


def test_entries_tell_of_their_end_although_nobody_listened(inside: str) -> None:
    assert inside
    flows = KernelConntrack()

    flows.install([inbound().to_record()])
    flows.close()

    setting = Path("/proc/sys/net/netfilter/nf_conntrack_events")
    assert setting.read_text().strip() == "1"


@given(configuration=configurations())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nft_takes_every_script_over_every_other(inside: str, configuration: Configuration) -> None:
    assert inside
    firewall, gate = KernelFirewall(), KernelGate()

    firewall.apply(render_ruleset(configuration, DEVICES, CONVERSATION))
    gate.install(render_gate(configuration, DEVICES))
    firewall.apply(render_ruleset(replace(configuration, name="again"), DEVICES, CONVERSATION))

    assert firewall.table("inet", "hanat") is not None
    firewall.close()
    gate.close()
