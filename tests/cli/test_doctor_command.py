"""``hanat doctor``: a fit machine, and one thing wrong at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_interface
from pathlib import Path
from typing import Any

import pytest

from hanat.config import load_cluster, load_node
from hanat.config.settings import TcpListen
from hanat.core.configuration import Forward
from hanat.doctor import examine as examination
from hanat.doctor.examine import Site, _disk, diagnose, examine, sysctl_names
from hanat.doctor.findings import Finding, Level
from hanat.errors import EXIT_FAILED
from hanat.kernel.facts import CAPABILITIES, NOT_ASKED, Machine, NftFacts, gather
from hanat.kernel.storage import Storage, storage_of
from hanat.supervisor.supervisor import DAEMON, SUPERVISOR, python_command
from tests.cli.helpers import REPOSITORY, call

EXAMPLES = REPOSITORY / "deploy" / "examples" / "three-node"
SITE = Site(load_node(EXAMPLES / "r1" / "node.toml"), load_cluster(EXAMPLES / "cluster.toml"))
PUBLIC = ip_address("203.0.113.10")

SWITCHES_ON = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "0",
    "net/netfilter/nf_conntrack_events": "1",
    "net/netfilter/nf_conntrack_tcp_be_liberal": "1",
    "net/netfilter/nf_conntrack_acct": "1",
    "net/ipv4/conf/all/promote_secondaries": "1",
    "net/netfilter/nf_conntrack_max": "262144",
    "net/netfilter/nf_conntrack_count": "235929",
    "net/ipv4/conf/all/arp_ignore": "1",
}
FIT = Machine(
    sysctls={**dict.fromkeys(sysctl_names(("eth0", "eth1")), "0"), **SWITCHES_ON},
    capabilities=frozenset(CAPABILITIES),
    carriers={"eth0": True, "eth1": True, "lo": True},
    addresses={
        "eth0": frozenset({ip_interface("203.0.113.11/24")}),
        "eth1": frozenset({ip_interface("10.11.12.11/24")}),
    },
    nft=NftFacts(version="1.0.6"),
)
NODE_FILE = ("--config", "/etc/hanat/node.toml")
HANAT = (*python_command(DAEMON), *NODE_FILE)


def complaints(machine: Machine, site: Site = SITE) -> list[Finding]:
    return [finding for finding in examine(machine, site) if finding.level is not Level.OK]


def only(machine: Machine, site: Site = SITE) -> Finding:
    (finding,) = complaints(machine, site)
    assert finding.fix, "a complaint says what helps"
    return finding


def with_sysctl(name: str, value: str | None) -> Machine:
    sysctls = {key: old for key, old in FIT.sysctls.items() if key != name}
    return replace(FIT, sysctls=sysctls if value is None else {**sysctls, name: value})


def with_address(device: str, address: str) -> Machine:
    both = FIT.addresses[device] | {ip_interface(address)}
    return replace(FIT, addresses={**FIT.addresses, device: both})


def with_chain(**chain: str) -> Machine:
    chains: tuple[Mapping[str, Any], ...] = ({"family": "ip", "name": "c", **chain},)
    return replace(FIT, nft=NftFacts(version="1.0.6", chains=chains))


def test_table_that_is_nearly_full_is_told() -> None:
    finding = only(with_sysctl("net/netfilter/nf_conntrack_count", "235930"))
    assert finding.found.startswith("235930 of 262144 entries")
    assert finding.fix.startswith("sysctl -w net.netfilter.nf_conntrack_max=524288")


def test_device_that_answers_for_addresses_of_others_is_told() -> None:
    machine = with_sysctl("net/ipv4/conf/all/arp_ignore", "0")
    first, second = complaints(machine)
    assert first.check == "net.ipv4.conf.eth0.arp_ignore"
    assert second.fix == "sysctl -w net.ipv4.conf.all.arp_ignore=1"
    one = replace(machine, sysctls={**machine.sysctls, "net/ipv4/conf/eth0/arp_ignore": "2"})
    assert only(one).check == "net.ipv4.conf.eth1.arp_ignore"


def test_open_router_that_nothing_filters_is_told() -> None:
    assert SITE.configuration is not None
    opened = replace(SITE, configuration=replace(SITE.configuration, forward=Forward.OPEN))
    assert "no other table filters" in only(FIT, opened).found
    filtered = with_chain(table="filter", type="filter", hook="forward", policy="drop")
    (other,) = complaints(filtered, opened)
    assert other.check == "nft chain ip filter c"


def test_api_that_answers_everywhere_is_told() -> None:
    assert SITE.settings is not None
    settings = replace(SITE.settings, api_listen=(TcpListen("0.0.0.0", 7480),))  # noqa: S104
    assert only(FIT, replace(SITE, settings=settings)).check == "api.listen[0]"


def test_a_fit_machine_has_no_complaint() -> None:
    assert complaints(FIT) == []
    assert complaints(FIT, Site()) == []


def test_device_that_loses_its_route_with_the_floating_addresses_is_told() -> None:
    routed = replace(FIT, way_out=frozenset({"eth0"}))
    assert complaints(routed) == []
    for there in (set(), {ip_interface("203.0.113.10/24")}):
        bare = replace(routed, addresses={**FIT.addresses, "eth0": frozenset(there)})
        found = {finding.check: finding for finding in complaints(bare)}
        assert found["default route over eth0"].level is Level.FAIL


def test_addresses_that_go_with_others_are_told() -> None:
    assert only(with_sysctl("net/ipv4/conf/all/promote_secondaries", "0")).level is Level.WARN


CHRONY = replace(FIT, processes=(("/usr/sbin/chronyd", "-F", "1"),))


def test_time_daemon_that_slews_faster_than_a_lease_allows_is_told() -> None:
    assert "8.3 %" in only(CHRONY).found
    assert "2.0 %" in only(replace(CHRONY, chrony="maxslewrate 20000")).found
    assert complaints(replace(CHRONY, chrony="pool x\n  MaxSlewRate 1000\n")) == []
    assert complaints(replace(FIT, chrony="pool x")) == []  # it does not run


@pytest.mark.parametrize(
    ("name", "value", "level"),
    [
        ("net/ipv4/ip_forward", "0", Level.FAIL),
        ("net/netfilter/nf_conntrack_events", None, Level.FAIL),
        ("net/netfilter/nf_conntrack_tcp_be_liberal", "0", Level.FAIL),
        ("net/ipv4/conf/all/rp_filter", "1", Level.WARN),
        ("net/ipv4/conf/eth0/send_redirects", "1", Level.WARN),
        ("net/ipv4/conf/eth1/proxy_arp", "1", Level.WARN),
    ],
)
def test_a_switch_in_the_wrong_position_comes_with_the_command(
    name: str, value: str | None, level: Level
) -> None:
    finding = only(with_sysctl(name, value))

    right = "1" if level is Level.FAIL else "0"
    assert finding.level is level
    assert finding.fix == f"sysctl -w {name.replace('/', '.')}={right}"


def test_bytes_that_are_not_counted_are_told_of() -> None:
    finding = only(with_sysctl("net/netfilter/nf_conntrack_acct", "0"))

    assert (finding.level, finding.fix) == (
        Level.WARN, "sysctl -w net.netfilter.nf_conntrack_acct=1",
    )  # fmt: skip


@pytest.mark.parametrize("value", ["0", "2"])
def test_a_switch_that_the_daemon_sets_itself_is_no_complaint(value: str) -> None:
    machine = with_sysctl("net/netfilter/nf_conntrack_events", value)

    assert complaints(machine) == []
    assert any(
        finding.found == f"{value}: hanat run sets it to 1" for finding in examine(machine, SITE)
    )


def test_loose_reverse_path_filtering_for_all_overrules_strict_on_a_device() -> None:
    # Documentation/networking/ip-sysctl.rst: the maximum of both is used
    machine = with_sysctl("net/ipv4/conf/eth0/rp_filter", "1")

    assert only(machine).level is Level.WARN
    loose = {**machine.sysctls, "net/ipv4/conf/all/rp_filter": "2"}
    assert complaints(replace(machine, sysctls=loose)) == []


def test_a_device_with_a_dot_keeps_the_slashes_sysctl_needs() -> None:
    assert SITE.settings is not None
    settings = replace(SITE.settings, interfaces={"public": "eth0.7", "private": "eth1"})
    machine = replace(
        with_sysctl("net/ipv4/conf/eth0.7/proxy_arp", "1"),
        carriers={"eth0.7": True, "eth1": True},
        addresses={"eth0.7": FIT.addresses["eth0"], "eth1": FIT.addresses["eth1"]},
    )

    finding = only(machine, replace(SITE, settings=settings))

    assert finding.fix == "sysctl -w net/ipv4/conf/eth0.7/proxy_arp=0"


def test_ipv6_must_be_forwarded_only_if_a_vip_needs_it() -> None:
    assert SITE.configuration is not None
    public, private = SITE.configuration.vips
    both = replace(public, addresses=(*public.addresses, ip_interface("2001:db8::10/64")))
    configuration = replace(SITE.configuration, vips=(both, private))

    finding = only(FIT, replace(SITE, configuration=configuration))

    assert finding.fix == "sysctl -w net.ipv6.conf.all.forwarding=1"


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("CAP_NET_ADMIN", Level.FAIL),
        ("CAP_NET_RAW", Level.FAIL),
        ("CAP_SYS_NICE", Level.WARN),
        ("CAP_IPC_LOCK", Level.WARN),
    ],
)
def test_a_missing_capability_is_named(name: str, level: Level) -> None:
    finding = only(replace(FIT, capabilities=FIT.capabilities - {name}))

    assert (finding.check, finding.level) == (name, level)


def test_missing_parts_of_the_kernel_come_with_what_loads_them() -> None:
    assert only(with_sysctl("net/netfilter/nf_conntrack_max", None)).fix == "modprobe nf_conntrack"
    absent = replace(FIT, nft=NftFacts(problem="cannot be loaded: libnftables.so.1: no such file"))
    assert only(absent).fix == "apt-get install nftables"
    refusing = replace(FIT, nft=NftFacts(problem="Operation not permitted"))
    assert only(refusing).found == "Operation not permitted"


def test_an_interface_must_exist_and_have_a_carrier() -> None:
    down = replace(FIT, carriers={**FIT.carriers, "eth1": False})
    absent = replace(FIT, carriers={"eth0": True, "lo": True})

    assert only(down).check == "interface private = eth1"
    assert only(absent).found == "no such interface; they are eth0, lo"


def test_the_nodes_own_addresses_must_be_present() -> None:
    finding = only(replace(FIT, addresses={"eth1": FIT.addresses["eth1"]}))

    assert finding.check == "own address 203.0.113.11"
    # The node's name may be the one of another machine; then adding the address is wrong.
    assert 'correct node = "r1"' in finding.fix


def test_swapped_devices_are_found_by_the_networks_of_the_floating_addresses() -> None:
    assert SITE.settings is not None
    swapped = replace(SITE.settings, interfaces={"public": "eth1", "private": "eth0"})

    first, second = complaints(FIT, replace(SITE, settings=swapped))

    assert (first.level, first.check) == (Level.FAIL, "floating address 203.0.113.10")
    assert first.found == "would come on eth1, its network is on eth0"
    assert second.found == "would come on eth0, its network is on eth1"


def test_a_device_without_an_address_of_the_floating_network_is_no_complaint() -> None:
    # Own addresses may be of other networks than the floating ones.
    addresses = {name: frozenset[Any]() for name in FIT.addresses}
    found = complaints(replace(FIT, addresses=addresses))

    assert [finding.check.split()[0] for finding in found] == ["own", "own"]


def test_a_floating_address_without_hanat_is_in_the_way() -> None:
    machine = with_address("eth0", "203.0.113.10/24")

    assert only(machine).fix == "ip address del 203.0.113.10/24 dev eth0"
    assert complaints(replace(machine, processes=(HANAT,))) == []


@pytest.mark.parametrize("module", [SUPERVISOR, DAEMON])
def test_each_process_of_a_node_is_known(module: str) -> None:
    machine = replace(
        with_address("eth0", "203.0.113.10/24"), processes=((*python_command(module), *NODE_FILE),)
    )

    assert complaints(machine) == []


def test_other_commands_of_hanat_are_not_a_node() -> None:
    commands = (("/usr/bin/python3", "/usr/bin/hanat", "status"), tuple(python_command("hanat")))
    machine = replace(with_address("eth0", "203.0.113.10/24"), processes=commands)

    assert "hanat does not run here" in only(machine).found


def test_two_machines_answering_for_an_address_are_named() -> None:
    one = replace(SITE, answers={PUBLIC: frozenset({"02:00:00:00:00:02"})})
    two = replace(SITE, answers={PUBLIC: frozenset({"02:00:00:00:00:02", "02:00:00:00:00:03"})})
    here = replace(with_address("eth0", "203.0.113.10/24"), processes=(HANAT,))

    assert complaints(FIT, one) == []
    assert "02:00:00:00:00:02 and 02:00:00:00:00:03 answer" in only(FIT, two).found
    assert "this machine and 02:00:00:00:00:02 answer" in only(here, one).found


@pytest.mark.parametrize("port", [("tcp", 7411), ("udp", 7412), ("tcp", 7480)])
def test_a_taken_port_is_in_the_way_unless_hanat_runs(port: tuple[str, int]) -> None:
    machine = replace(FIT, ports=frozenset({port}))

    assert only(machine).check.endswith(f"{port[1]}/{port[0]}")
    assert complaints(replace(machine, processes=(HANAT,))) == []


def test_the_same_port_of_the_other_protocol_is_not_in_the_way() -> None:
    assert complaints(replace(FIT, ports=frozenset({("udp", 7411), ("tcp", 7412)}))) == []


@pytest.mark.parametrize(
    "chain",
    [
        {"table": "nat", "type": "nat", "hook": "prerouting"},
        {"table": "nat", "type": "nat", "hook": "postrouting"},
        {"table": "filter", "type": "filter", "hook": "forward", "policy": "drop"},
    ],
)
def test_chains_that_translate_or_drop_are_warned_of(chain: dict[str, str]) -> None:
    assert only(with_chain(**chain)).level is Level.WARN


@pytest.mark.parametrize(
    "chain",
    [
        {"table": "hanat", "type": "nat", "hook": "prerouting"},
        {"table": "hanat_gate", "type": "filter", "hook": "forward", "policy": "drop"},
        {"table": "filter", "type": "filter", "hook": "forward", "policy": "accept"},
        {"table": "filter", "type": "filter", "hook": "input", "policy": "drop"},
        {"table": "nat", "type": "nat", "hook": "output"},
        {"table": "nat"},
    ],
)
def test_other_chains_and_our_own_are_not(chain: dict[str, str]) -> None:
    assert complaints(with_chain(**chain)) == []


@pytest.mark.parametrize("name", ["keepalived", "conntrackd"])
def test_other_managers_of_addresses_and_flows_are_warned_of(name: str) -> None:
    finding = only(replace(FIT, processes=((f"/usr/sbin/{name}", "-d"),)))

    assert (finding.check, finding.level) == (name, Level.WARN)


def test_facts_are_read_from_procfs(tmp_path: Path) -> None:
    for pid, namespace, command in (
        ("self", "net:[1]", "hanat\0doctor\0"),
        ("10", "net:[1]", "/usr/sbin/keepalived\0-d\0"),
        ("11", "net:[2]", "/usr/sbin/conntrackd\0"),
        ("12", "net:[1]", ""),  # a kernel thread
    ):
        (tmp_path / pid / "ns").mkdir(parents=True)
        (tmp_path / pid / "ns" / "net").symlink_to(namespace)
        (tmp_path / pid / "cmdline").write_text(command)
    (tmp_path / "self" / "status").write_text("Name:\thanat\nCapEff:\t0000000000003000\n")
    (tmp_path / "sys" / "net" / "ipv4").mkdir(parents=True)
    (tmp_path / "sys" / "net" / "ipv4" / "ip_forward").write_text("1\n")
    (tmp_path / "net").mkdir()
    head = "  sl  local_address rem_address   st tx_queue rx_queue\n"
    (tmp_path / "net" / "tcp").write_text(
        f"{head}   0: 0100007F:1CF3 00000000:0000 0A 0:0\n"
        "   1: 0100007F:1CF4 0100007F:0050 01 0:0\n"
    )
    (tmp_path / "net" / "udp6").write_text(f"{head}   0: {'0' * 32}:1CF4 {'0' * 32}:0000 07 0:0\n")

    machine = gather(sysctls=["net/ipv4/ip_forward", "net/ipv4/absent"], proc=tmp_path)

    assert machine.sysctls == {"net/ipv4/ip_forward": "1"}
    assert machine.capabilities == {"CAP_NET_ADMIN", "CAP_NET_RAW"}
    assert machine.processes == (("/usr/sbin/keepalived", "-d"),)
    assert machine.ports == {("tcp", 7411), ("udp", 7412)}
    assert machine.carriers["lo"] in {True, False}


def test_this_machine_can_be_examined() -> None:
    machine = gather(sysctls=sysctl_names(()))

    assert (os.geteuid() != 0) or machine.capabilities
    assert IPv4Address("127.0.0.1") in {a.ip for a in machine.addresses.get("lo", ())} or not (
        machine.carriers.get("lo")
    )
    assert diagnose(None)


@pytest.mark.parametrize(
    ("storage", "level", "found"),
    [
        (Storage("ext4", free=1 << 30), Level.OK, "on ext4"),
        (Storage("ext4", free=20 << 20), Level.FAIL, "20 MiB free, the first start takes 100"),
        (Storage("xfs", thin=True, free=1 << 30), Level.WARN, "on a thin volume"),
        (Storage("btrfs", free=1 << 30), Level.WARN, "even an overwrite needs new room"),
        (Storage("tmpfs", free=1 << 30), Level.WARN, "may be lost with the power"),
        (Storage("fuse.sshfs", free=1 << 30), Level.WARN, "may be lost with the power"),
    ],
)
def test_disk_whose_room_is_not_ones_own_is_told(
    storage: Storage, level: Level, found: str, tmp_path: Path
) -> None:
    finding = _disk(tmp_path, storage)
    assert finding.level is level
    assert found in finding.found


def test_storage_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    lines = (
        "22 1 252:0 / / rw - ext4 /dev/vda rw",
        f"23 22 253:7 / {tmp_path}/a\\040b rw shared:1 - xfs /dev/mapper/thin rw",
        f"24 22 0:40 / {tmp_path}/a rw - btrfs none rw",
    )
    (tmp_path / "proc/self/mountinfo").write_text("\n".join(lines))
    pool = tmp_path / "sys/dev/block/253:7/slaves/dm-3/dm"
    pool.mkdir(parents=True)
    (pool / "name").write_text("vg-pool-tpool\n")
    (tmp_path / "a b").mkdir()
    assert storage_of(tmp_path / "a b/missing", root=tmp_path).kind == "xfs"
    assert storage_of(tmp_path / "a b", root=tmp_path).thin
    assert storage_of(tmp_path / "ab", root=tmp_path).kind == "ext4"
    assert storage_of(Path("/proc")).kind == "proc"


def test_wrong_files_are_findings_and_the_machine_is_examined_all_the_same(tmp_path: Path) -> None:
    absent = tmp_path / "node.toml"

    result = call("doctor", "--json", "--config", str(absent))

    document = json.loads(result.stdout)
    assert result.exit_code == EXIT_FAILED
    assert document["ok"] is False
    assert document["checks"][0] == {
        "level": "fail",
        "check": f"file {absent}",
        "found": "cannot be read: No such file or directory",
        "fix": "begin with deploy/examples/three-node (the package has it in"
        " /usr/share/doc/hanat/examples), or copy it from another node",
    }
    assert any(check["check"] == "net.ipv4.ip_forward" for check in document["checks"])


def test_the_exit_code_says_whether_anything_failed_and_the_text_is_a_table() -> None:
    result = call("doctor")

    lines = result.stdout.splitlines()
    failed = any(line.startswith("fail ") for line in lines)
    assert result.exit_code == (EXIT_FAILED if failed else 0)
    assert lines[-1].endswith(" fail")
    assert all(line.startswith(("ok ", "warn ", "fail ", "      ")) for line in lines[:-1])


def test_key_that_the_service_cannot_read_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "cluster.key"
    key.touch()
    assert examination._key_owner(key).level is Level.OK  # there is no such user
    monkeypatch.setattr(examination, "SERVICE_USER", "daemon")
    found = examination._key_owner(key)
    assert found.level is (Level.WARN if os.geteuid() == 0 else Level.OK)
    assert found.fix in {"", f"chown daemon: {key}"}


def test_without_the_capability_nothing_is_said_of_a_module() -> None:
    found = complaints(replace(FIT, nft=NftFacts(problem=NOT_ASKED)))
    assert [f.fix for f in found] == ["run hanat doctor as root"]
