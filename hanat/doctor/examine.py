"""Judge whether this machine is fit to be a node, and say what to do about it.

`examine` is the judgement, from a picture of the machine to findings; it reads
nothing. `diagnose` reads the files, takes the picture and asks the networks.
Each finding is ok, a warning (a guarantee is weaker, or something may get in the
way) or a failure (hanat will not work), with the command that helps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from os import geteuid
from pathlib import Path
from pwd import getpwnam

from hanat.config import advice, cross_check, load_cluster, load_node, read_keys
from hanat.config.settings import GateChoice, NodeSettings, TcpListen
from hanat.core.clock_rate import ERROR_MAX
from hanat.core.configuration import Address, Configuration, Forward
from hanat.core.drift import EVENTS, IP6_FORWARD, IP_FORWARD, LIBERAL, PROMOTE
from hanat.core.notation import GATE_TABLE, TABLE
from hanat.core.table_pressure import ALARM_BEGINS
from hanat.doctor.findings import Finding, Level
from hanat.doctor.script_findings import look_at_scripts
from hanat.errors import ConfigError, Problem, StartupError
from hanat.kernel.facts import NOT_ASKED, Machine, gather, who_answers
from hanat.kernel.storage import COPIES_ON_WRITE, ELSEWHERE, Storage, storage_of
from hanat.supervisor.supervisor import is_node

CONNTRACK_MAX = "net/netfilter/nf_conntrack_max"
CONNTRACK_ACCT = "net/netfilter/nf_conntrack_acct"
CONNTRACK_COUNT = "net/netfilter/nf_conntrack_count"
RP_FILTER_ALL = "net/ipv4/conf/all/rp_filter"
PER_DEVICE = ("rp_filter", "send_redirects", "proxy_arp", "arp_ignore")

NEEDED_BYTES = 100 << 20  # the files of log and snapshots, and some
SERVICE_USER = "hanat"  # User= of the unit
EXAMPLES = "deploy/examples/three-node (the package has it in /usr/share/doc/hanat/examples)"

OTHER_MANAGERS = {
    "keepalived": "it moves addresses too",
    "conntrackd": "it installs flows too",
}


CHRONY_PPM = 83333.333  # its default, chrony.conf(5)
_MAX_SLEW = re.compile(r"(?mi)^\s*maxslewrate\s+([\d.]+)")


@dataclass(frozen=True, slots=True)
class Site:
    """What the node is meant to be; nothing is known of it without its file."""

    settings: NodeSettings | None = None
    configuration: Configuration | None = None
    answers: Mapping[Address, frozenset[str]] = field(default_factory=dict)

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices the node is told to use, each once."""
        return tuple(dict.fromkeys(self.settings.interfaces.values())) if self.settings else ()


def diagnose(node_file: Path | None) -> tuple[Finding, ...]:
    """Examine this machine, for a node's file or in general."""
    findings: list[Finding] = []
    site = _read_files(node_file, findings) if node_file is not None else Site()
    machine = gather(sysctls=sysctl_names(site.devices))
    site = Site(site.settings, site.configuration, _ask_networks(site, machine))
    findings += examine(machine, site)
    if site.settings is not None and site.configuration is not None:
        findings += look_at_scripts(site.settings, site.configuration)
    return tuple(findings)


def sysctl_names(devices: Iterable[str]) -> tuple[str, ...]:
    """Return the switches `examine` wants to see."""
    conf = [f"net/ipv4/conf/{where}/{name}" for where in ("all", *devices) for name in PER_DEVICE]
    names = (IP_FORWARD, IP6_FORWARD, EVENTS, LIBERAL, PROMOTE)
    return (*names, CONNTRACK_ACCT, CONNTRACK_MAX, CONNTRACK_COUNT, *conf)


def examine(machine: Machine, site: Site) -> tuple[Finding, ...]:
    """Judge a machine; in the order in which one would repair it."""
    return (
        *_capabilities(machine),
        *_deadline(machine, site),
        *_modules(machine),
        *_switches(machine, site),
        *_device_switches(machine, site),
        *_answers_elsewhere(machine, site),
        *_interfaces(machine, site),
        *_floating_addresses(machine, site),
        *_ports(machine, site),
        *_foreign_chains(machine),
        *_exposed(machine, site),
        *_foreign_processes(machine),
        *_time_daemon(machine),
    )


def _read_files(node_file: Path, findings: list[Finding]) -> Site:
    try:
        settings = load_node(node_file)
    except ConfigError as error:
        findings.extend(_wrong(error.problems, node_file))
        return Site()
    findings.append(Finding(Level.OK, "node file", str(node_file)))
    findings.append(_disk(settings.data_dir, storage_of(settings.data_dir)))
    try:
        keys = read_keys(settings.key_file)
    except StartupError as error:
        findings.append(Finding(Level.FAIL, f"key {settings.key_file}", error.found, error.to_do))
    else:
        findings.append(_key_owner(settings.key_file))
        if keys.accepted:
            found = f"{settings.key_file} has two keys: a change of the key is not finished"
            to_do = "end it on all nodes: hanat key --help"
            findings.append(Finding(Level.WARN, "key", found, to_do))
    try:
        configuration = load_cluster(settings.cluster_file)
    except ConfigError as error:
        findings.extend(_wrong(error.problems, node_file))
        return Site(settings)
    if problems := cross_check(settings, configuration, file=str(node_file)):
        findings.extend(_wrong(problems, node_file))
        return Site(settings)
    findings.append(Finding(Level.OK, "cluster file", str(settings.cluster_file)))
    return Site(settings, configuration)


def _disk(folder: Path, storage: Storage) -> Finding:
    """Judge where the journal is: its room is taken in advance, and must stay its own."""
    check, fix = f"data_dir {folder}", "put it on ext4 or XFS, on a volume that is not thin"
    if storage.kind in ELSEWHERE or storage.kind.startswith("fuse"):
        found = f"on {storage.kind}: what is synced may be lost with the power or the network"
        return Finding(Level.WARN, check, found, fix)
    if storage.kind in COPIES_ON_WRITE or storage.thin:
        kind = "a thin volume" if storage.thin else storage.kind
        found = f"on {kind}: even an overwrite needs new room there, so it must never be full"
        return Finding(Level.WARN, check, found, fix)
    if not (folder / "journal" / "vote").exists() and storage.free < NEEDED_BYTES:
        found = f"{storage.free >> 20} MiB free, the first start takes {NEEDED_BYTES >> 20}"
        return Finding(Level.FAIL, check, found, "make room, or name another folder")
    return Finding(Level.OK, check, f"on {storage.kind or 'an unknown file system'}")


def _key_owner(path: Path) -> Finding:
    """Judge a sound key: may the service read it too? We may be root."""
    try:
        service = getpwnam(SERVICE_USER)
    except KeyError:  # no unit of ours
        return Finding(Level.OK, "key", str(path))
    if path.stat().st_uid in {service.pw_uid, geteuid()} - {0}:
        return Finding(Level.OK, "key", str(path))
    found = f"{path} is not owned by {SERVICE_USER}: the service cannot read it"
    return Finding(Level.WARN, "key", found, f"chown {SERVICE_USER}: {path}")


def _wrong(problems: Iterable[Problem], node_file: Path) -> Iterator[Finding]:
    for problem in problems:
        where = f"{problem.path}: " if problem.path else ""
        fix = f'correct it, then run "hanat config check {node_file}"'
        if not Path(problem.file).exists():
            fix = f"begin with {EXAMPLES}, or copy it from another node"
        yield Finding(Level.FAIL, f"file {problem.file}", where + problem.text, fix)


def _ask_networks(site: Site, machine: Machine) -> dict[Address, frozenset[str]]:
    answers: dict[Address, frozenset[str]] = {}
    for device, addresses in _floating(site).items():
        wanted = [address for address in addresses if isinstance(address, IPv4Address)]
        if wanted and machine.carriers.get(device):
            answers.update(who_answers(device, wanted))
    return answers


def _floating(site: Site) -> dict[str, list[Address]]:
    """Return the floating addresses by the device that would carry them here."""
    found: dict[str, list[Address]] = {}
    if site.settings is not None and site.configuration is not None:
        for vip in site.configuration.vips:
            device = site.settings.interfaces[vip.interface]
            found.setdefault(device, []).extend(address.ip for address in vip.addresses)
    return found


def _time_daemon(machine: Machine) -> Iterator[Finding]:
    """Judge how far chrony may slew the clock; others stay far below (500 ppm)."""
    if not any(words and words[0].endswith("chronyd") for words in machine.processes):
        return
    limits = _MAX_SLEW.findall(machine.chrony)
    ppm = float(limits[-1]) if limits else CHRONY_PPM
    if ppm <= ERROR_MAX * 1e6:
        yield Finding(Level.OK, "chrony", f"maxslewrate {ppm:g}")
        return
    yield Finding(
        Level.WARN, "chrony",
        f"it may slew the clock by {ppm / 1e4:.1f} %: beyond {ERROR_MAX:.0%} a node neither holds "
        "the addresses nor votes, until the clock is right again",
        "echo 'maxslewrate 1000' > /etc/chrony/conf.d/hanat.conf && systemctl restart chrony",
    )  # fmt: skip


def _hanat_runs(machine: Machine) -> bool:
    return any(map(is_node, machine.processes))


def _capabilities(machine: Machine) -> Iterator[Finding]:
    needs = {
        "CAP_NET_ADMIN": (Level.FAIL, "without it no address, rule or flow can be set"),
        "CAP_NET_RAW": (Level.FAIL, "without it a takeover cannot be announced"),
        "CAP_SYS_NICE": (
            Level.WARN,
            "without real-time priority a busy machine may cost the lease",
        ),
        "CAP_IPC_LOCK": (Level.WARN, "without locked memory swapping may cost the lease"),
    }
    for name, (level, why) in needs.items():
        if name in machine.capabilities:
            yield Finding(Level.OK, name, "present")
        else:
            fix = f"run as root, or add {name} to AmbientCapabilities= of the service"
            yield Finding(level, name, f"missing: {why}", fix)


def _deadline(machine: Machine, site: Site) -> Iterator[Finding]:
    choice = GateChoice.AUTO if site.settings is None else site.settings.gate
    if choice is GateChoice.TIMEOUTS:
        yield Finding(Level.OK, "gate", "timeouts, as the node's file has it")
    elif machine.deadline == "":
        yield Finding(Level.OK, "gate", "deadline: the kernel takes the eBPF programs")
    elif machine.deadline is not None:
        level = Level.WARN if choice is GateChoice.AUTO else Level.FAIL
        fix = "run as root, or allow CAP_BPF and bpf(2) to the service; Linux 5.8 or newer"
        yield Finding(level, "gate", f"timeouts, no deadline: {machine.deadline}", fix)


def _modules(machine: Machine) -> Iterator[Finding]:
    if machine.nft.version is not None:
        yield Finding(Level.OK, "libnftables", f"version {machine.nft.version}, nf_tables answers")
    elif machine.nft.problem == NOT_ASKED:
        yield Finding(Level.FAIL, "libnftables", NOT_ASKED, "run hanat doctor as root")
    else:
        loadable = not machine.nft.problem.startswith("cannot be loaded")
        fix = "modprobe nf_tables, as root" if loadable else "apt-get install nftables"
        yield Finding(Level.FAIL, "libnftables", machine.nft.problem, fix)
    if CONNTRACK_MAX in machine.sysctls:
        yield _table(machine)
    else:
        found = "the module is not loaded, or not for this network namespace"
        yield Finding(Level.FAIL, "nf_conntrack", found, "modprobe nf_conntrack")


def _table(machine: Machine) -> Finding:
    entries, limit = (int(machine.sysctls.get(n, 0)) for n in (CONNTRACK_COUNT, CONNTRACK_MAX))
    if entries < ALARM_BEGINS * limit:
        return Finding(Level.OK, "nf_conntrack", f"{entries} entries, at most {limit}")
    found = f"{entries} of {limit} entries: the kernel drops new flows when the table is full"
    fix = f"sysctl -w {_dotted(CONNTRACK_MAX)}={2 * limit}, and see the section on it in operations"
    return Finding(Level.WARN, "nf_conntrack", found, fix)


def _switches(machine: Machine, site: Site) -> Iterator[Finding]:
    yield _switch(machine, IP_FORWARD, why="this machine does not forward")
    if machine.sysctls.get(EVENTS) in {"0", "2"}:
        yield Finding(
            Level.OK, _dotted(EVENTS), f"{machine.sysctls[EVENTS]}: hanat run sets it to 1"
        )
    else:
        yield _switch(machine, EVENTS, why="the kernel reports no flows, so none can be replicated")
    yield _switch(machine, LIBERAL, why="after a takeover windows are unknown and packets dropped")
    if machine.sysctls.get(CONNTRACK_ACCT) == "0":
        why = "0: the bytes and packets of services and servers are not known"
        yield Finding(
            Level.WARN, _dotted(CONNTRACK_ACCT), why, f"sysctl -w {_dotted(CONNTRACK_ACCT)}=1"
        )
    if machine.sysctls.get(PROMOTE) == "0":
        why = "0: if this machine's own address is removed, later ones of its network go with it"
        yield Finding(Level.WARN, _dotted(PROMOTE), why, f"sysctl -w {_dotted(PROMOTE)}=1")
    configuration = site.configuration
    if configuration is not None and any(vip.of_version(6) for vip in configuration.vips):
        yield _switch(machine, IP6_FORWARD, why="there are IPv6 vips and it does not forward IPv6")


def _switch(machine: Machine, name: str, *, why: str) -> Finding:
    value = machine.sysctls.get(name)
    if value == "1":
        return Finding(Level.OK, _dotted(name), "1")
    found = f"{'absent' if value is None else value}: {why}"
    return Finding(Level.FAIL, _dotted(name), found, f"sysctl -w {_dotted(name)}=1")


def _device_switches(machine: Machine, site: Site) -> Iterator[Finding]:
    for device in ("all", *site.devices):
        for name, why in (
            ("rp_filter", "strict: replies that come in by another interface are dropped"),
            ("send_redirects", "hosts are told to go around the node"),
            ("proxy_arp", "this machine answers for addresses of others, whoever holds them"),
        ):
            path = f"net/ipv4/conf/{device}/{name}"
            value = machine.sysctls.get(path)
            if value is None:
                continue  # the device is absent, which is reported as such
            # The kernel takes the larger of both values for this one: 2 in "all" wins.
            loose = name == "rp_filter" and machine.sysctls.get(RP_FILTER_ALL) == "2"
            if value == "1" and not loose:
                fix = f"sysctl -w {_dotted(path)}=0"
                yield Finding(Level.WARN, _dotted(path), f"1: {why}", fix)
            else:
                yield Finding(Level.OK, _dotted(path), value)


def _answers_elsewhere(machine: Machine, site: Site) -> Iterator[Finding]:
    """Judge whether a device answers ARP for addresses of another."""
    for device in site.devices:
        paths = [f"net/ipv4/conf/{name}/arp_ignore" for name in ("all", device)]
        values = [machine.sysctls[path] for path in paths if path in machine.sysctls]
        if paths[1] not in machine.sysctls:
            continue  # the device is absent
        if any(value in {"1", "2"} for value in values):  # the kernel takes the larger
            yield Finding(Level.OK, _dotted(paths[1]), max(values))
        else:
            found = "0: this device answers ARP for addresses of the others, also inside ones"
            yield Finding(Level.WARN, _dotted(paths[1]), found, f"sysctl -w {_dotted(paths[0])}=1")


def _exposed(machine: Machine, site: Site) -> Iterator[Finding]:
    """Judge who reaches what: what is forwarded, and where the API answers."""
    configuration, settings = site.configuration, site.settings
    if configuration is not None and settings is not None:
        filters = [
            chain
            for chain in machine.nft.chains
            if chain.get("hook") == "forward" and chain.get("policy") == "drop"
        ]
        if configuration.forward is Forward.SERVICES:
            yield Finding(Level.OK, "forward", "services and what is masqueraded")
        elif filters:
            yield Finding(
                Level.OK, "forward", "open, and another table drops what it does not know"
            )
        else:
            found = "open, and no other table filters: whoever sets a route reaches all behind it"
            fix = 'write forward = "services" into [cluster], or filter in a table of your own'
            yield Finding(Level.WARN, "forward", found, fix)
    if settings is not None:
        for problem in advice(settings, file="node file"):
            fix = "write an address of this node"
            yield Finding(Level.WARN, problem.path, problem.text, fix)


def _dotted(path: str) -> str:
    """Return a switch's usual name; with slashes if a device's name has a dot in it."""
    return path if "." in path else path.replace("/", ".")


def _interfaces(machine: Machine, site: Site) -> Iterator[Finding]:
    if site.settings is None:
        return
    for name, device in site.settings.interfaces.items():
        check = f"interface {name} = {device}"
        if device not in machine.carriers:
            found = f"no such interface; they are {', '.join(machine.carriers)}"
            yield Finding(Level.FAIL, check, found, "correct [interfaces] in the node file")
        elif not machine.carriers[device]:
            found = "down or without a carrier: the node gives up for any other that has one"
            fix = f"ip link set {device} up, then check the cable"
            yield Finding(Level.FAIL, check, found, fix)
        else:
            yield Finding(Level.OK, check, "up, with a carrier")
    yield from _way_out(machine, site)
    places = {a.ip: device for device, found in machine.addresses.items() for a in found}
    for address in site.settings.myself.addresses:
        if address in places:
            yield Finding(Level.OK, f"own address {address}", f"on {places[address]}")
        else:
            fix = (
                f'correct node = "{site.settings.myself.name}" or its [[peer]] in the node file,'
                f" or ip address add {address}/PREFIX dev DEVICE"
            )
            yield Finding(Level.FAIL, f"own address {address}", "on no interface", fix)


def _way_out(machine: Machine, site: Site) -> Iterator[Finding]:
    """Find devices that lose their routes with the floating addresses."""
    for device, floating in _floating(site).items():
        own = {a.ip for a in machine.addresses.get(device, ()) if a.version == 4} - set(floating)
        if own or device not in machine.way_out or all(a.version == 6 for a in floating):
            continue
        found = (
            f"no IPv4 address of its own: with the floating ones the kernel takes the default "
            f"route over {device} away, and no holder has a way out afterwards"
        )
        fix = f"give {device} an address of its own: ip address add ADDRESS/PREFIX dev {device}"
        yield Finding(Level.FAIL, f"default route over {device}", found, fix)


def _floating_addresses(machine: Machine, site: Site) -> Iterator[Finding]:
    runs = _hanat_runs(machine)
    places = {a.ip: (a, device) for device, found in machine.addresses.items() for a in found}
    misplaced = dict(_misplaced(machine, site))
    for addresses in _floating(site).values():
        for address in addresses:
            check = f"floating address {address}"
            answering = sorted(site.answers.get(address, ()))
            claimed = " and ".join(answering)
            if address in places and not runs:
                entry, device = places[address]
                found = f"on {device} although hanat does not run here"
                yield Finding(Level.FAIL, check, found, f"ip address del {entry} dev {device}")
            elif len(answering) + (address in places) > 1:
                here = "this machine and " if address in places else ""
                fix = f'find them with "arping -D {address}", take it away from all but the holder'
                yield Finding(Level.FAIL, check, f"two holders: {here}{claimed} answer", fix)
            elif address in misplaced:
                yield misplaced[address]
            elif address in places:
                yield Finding(Level.OK, check, f"on {places[address][1]}, held by this node")
            else:
                found = f"not here, {claimed} answers" if claimed else "not here"
                yield Finding(Level.OK, check, found)


def _misplaced(machine: Machine, site: Site) -> Iterator[tuple[Address, Finding]]:
    """Find floating addresses whose network is on another device than [interfaces] says."""
    if site.settings is None or site.configuration is None:
        return
    for vip in site.configuration.vips:
        wanted = site.settings.interfaces.get(vip.interface)
        for address in vip.addresses:
            devices = {
                device
                for device, found in machine.addresses.items()
                if any(a.ip in address.network and a.ip != address.ip for a in found)
            }
            if wanted in machine.carriers and devices and wanted not in devices:
                text = f"would come on {wanted}, its network is on {', '.join(sorted(devices))}"
                fix = "correct [interfaces] in the node file, or interface of the vip"
                check = f"floating address {address.ip}"
                yield address.ip, Finding(Level.FAIL, check, text, fix)


def _ports(machine: Machine, site: Site) -> Iterator[Finding]:
    if site.settings is None:
        return
    wanted = [
        ("raft", "tcp", site.settings.raft_port),
        ("mesh", "udp", site.settings.mesh_port),
        *(("api", "tcp", x.port) for x in site.settings.api_listen if isinstance(x, TcpListen)),
    ]
    runs = _hanat_runs(machine)
    for name, protocol, port in wanted:
        check = f"{name} port {port}/{protocol}"
        if (protocol, port) not in machine.ports:
            yield Finding(Level.OK, check, "free")
        elif runs:
            yield Finding(Level.OK, check, "in use, and hanat runs")
        else:
            fix = f"ss -ln{protocol[0]}p 'sport = :{port}' names it; stop it or choose another port"
            yield Finding(Level.FAIL, check, "taken by another program", fix)


def _foreign_chains(machine: Machine) -> Iterator[Finding]:
    clean = True
    for chain in machine.nft.chains:
        family, table, hook = chain.get("family"), str(chain.get("table")), chain.get("hook")
        if table in {TABLE, GATE_TABLE} or family not in {"ip", "ip6", "inet"}:
            continue
        name = f"nft chain {family} {table} {chain.get('name')}"
        fix = f"nft list table {family} {table}, then remove it or let hanat's traffic pass"
        if chain.get("type") == "nat" and hook in {"prerouting", "postrouting"}:
            clean = False
            found = f"translates at {hook} too: the first rule that matches decides"
            yield Finding(Level.WARN, name, found, fix)
        elif hook == "forward" and chain.get("policy") == "drop":
            clean = False
            found = "drops what it does not accept, also what hanat forwards"
            yield Finding(Level.WARN, name, found, fix)
    if clean and machine.nft.version is not None:
        yield Finding(Level.OK, "other nft tables", "none translates or drops what is forwarded")


def _foreign_processes(machine: Machine) -> Iterator[Finding]:
    names = {Path(command[0]).name for command in machine.processes}
    for name, why in OTHER_MANAGERS.items():
        if name in names:
            yield Finding(Level.WARN, name, f"running: {why}", f"systemctl disable --now {name}")
        else:
            yield Finding(Level.OK, name, "not running")
