"""Read how this machine is set up, without changing anything.

`gather` takes a picture of what ``hanat doctor`` judges: switches under
``/proc/sys``, capabilities, devices, addresses, bound ports, processes and
nftables chains, all of this process's network namespace. What cannot be read is
absent from the picture, or has its reason beside it.

`who_answers` is the one question that needs the wire: which machines claim an
address. It sends ARP probes (RFC 5227, section 2.1.1), which no neighbour stores.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import nftables

from hanat.core.configuration import Address, Interface
from hanat.core.rights import MARK_MASK
from hanat.errors import KernelError
from hanat.kernel.addresses import KernelAddresses
from hanat.kernel.deadline_programs import Programs
from hanat.kernel.links import KernelLinks

# Bits of CapEff: linux/capability.h
CAPABILITIES = {
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_IPC_LOCK": 14,
    "CAP_SYS_NICE": 23,
    "CAP_BPF": 39,
}
TCP_LISTEN = "0A"  # include/net/tcp_states.h
ETH_P_ARP = 0x0806
ARP_REQUEST, ARP_REPLY = 1, 2
ARP = struct.Struct("!HHBBH6s4s6s4s")  # RFC 826, for Ethernet and IPv4
PROBES_BURST, PROBE_GAP_S = 20, 0.01  # 2,000 questions a second
PROBE_SEND_S = 1.0  # a device may have its queue full
PROBE_WAIT_S = 0.3
# Those of Debian and of Fedora; both include the folder.
CHRONY = ("chrony.conf", "chrony/chrony.conf", "chrony/conf.d/*.conf")
NOT_ASKED = "not asked: this process lacks CAP_NET_ADMIN"


@dataclass(frozen=True, slots=True)
class NftFacts:
    """What libnftables says.

    Attributes:
        version: Of the library; None when it cannot be loaded or asked.
        problem: Why not; empty when all is well.
        chains: Every chain of every table, as in libnftables' JSON.
    """

    version: str | None = None
    problem: str = ""
    chains: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine as seen from this process's network namespace.

    Attributes:
        sysctls: Path below ``/proc/sys`` to value, those that were asked for and exist.
        capabilities: Of `CAPABILITIES`, what this process has.
        carriers: Every device, and whether it is up with a carrier.
        addresses: On each device.
        processes: Command lines of the processes of this network namespace.
        ports: Bound ones, ``("tcp", 7411)``.
        way_out: Devices with an IPv4 default route.
        chrony: What is in chrony's configuration, all files together.
        deadline: Why the gate's programs cannot be loaded; empty: they can. None: not tried.
    """

    sysctls: Mapping[str, str] = field(default_factory=dict)
    capabilities: frozenset[str] = frozenset()
    carriers: Mapping[str, bool] = field(default_factory=dict)
    addresses: Mapping[str, frozenset[Interface]] = field(default_factory=dict)
    nft: NftFacts = NftFacts()
    processes: tuple[tuple[str, ...], ...] = ()
    ports: frozenset[tuple[str, int]] = frozenset()
    way_out: frozenset[str] = frozenset()
    chrony: str = ""
    deadline: str | None = None


def gather(
    *, sysctls: Iterable[str], proc: Path = Path("/proc"), etc: Path = Path("/etc")
) -> Machine:
    """Take a picture of this machine.

    Args:
        sysctls: Paths below ``/proc/sys`` to read.
        proc: Where procfs is.
        etc: Where configuration is.
    """
    carriers, addresses = _devices()
    return Machine(
        sysctls=_sysctls(proc / "sys", sysctls),
        capabilities=capabilities(proc),
        carriers=carriers,
        addresses=addresses,
        nft=_nft(),
        processes=_processes(proc),
        ports=_ports(proc / "net"),
        way_out=way_out(proc / "net"),
        deadline=_deadline(),
        chrony="\n".join(_read(path) for pattern in CHRONY for path in sorted(etc.glob(pattern))),
    )


def _read(path: Path) -> str:
    """Return a small file's text, empty if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _sysctls(root: Path, names: Iterable[str]) -> dict[str, str]:
    found = {name: _read(root / name).strip() for name in names}
    return {name: value for name, value in found.items() if value}


def _deadline() -> str | None:
    """Load the gate's programs, and let them go again."""
    if "CAP_NET_ADMIN" not in capabilities():
        return None
    try:
        Programs(MARK_MASK).close()
    except (KernelError, OSError) as error:
        return str(error)
    return ""


def capabilities(proc: Path = Path("/proc")) -> frozenset[str]:
    """Return the names, of those in `CAPABILITIES`, that this process has in effect."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", _read(proc / "self" / "status"), re.MULTILINE)
    effective = int(match[1], 16) if match else 0
    return frozenset(name for name, bit in CAPABILITIES.items() if effective >> bit & 1)


def _devices() -> tuple[dict[str, bool], dict[str, frozenset[Interface]]]:
    links, addresses = KernelLinks(), KernelAddresses()
    carriers: dict[str, bool] = {}
    present: dict[str, frozenset[Interface]] = {}
    try:
        for name in links.names():
            try:
                carriers[name] = links.carrier(name)
                present[name] = addresses.present(name)
            except KernelError:  # it vanished while we looked
                continue
    finally:
        links.close()
        addresses.close()
    return carriers, present


def way_out(net: Path = Path("/proc/net")) -> frozenset[str]:
    """Return the devices with an IPv4 default route."""
    lines = [line.split() for line in _read(net / "route").splitlines()[1:]]
    return frozenset(words[0] for words in lines if words[1] == words[7] == "00000000")


def _nft() -> NftFacts:
    if "CAP_NET_ADMIN" not in capabilities():
        return NftFacts(problem=NOT_ASKED)  # the library would complain to standard error itself
    try:
        library = nftables.Nftables()
    except OSError as error:
        return NftFacts(problem=f"cannot be loaded: {error}")
    library.set_json_output(True)
    code, output, complaints = library.cmd("list chains")
    if code:
        return NftFacts(problem=str(complaints).strip().partition("\n")[0] or "gave no reason")
    try:
        objects = json.loads(output)["nftables"]
    except (ValueError, KeyError, TypeError):
        return NftFacts(problem="gave an answer that is not its JSON")
    versions = [str(o["metainfo"].get("version")) for o in objects if "metainfo" in o]
    chains = tuple(o["chain"] for o in objects if "chain" in o)
    return NftFacts(version=versions[0] if versions else "unknown", chains=chains)


def _processes(proc: Path) -> tuple[tuple[str, ...], ...]:
    here = _namespace(proc / "self")
    found = []
    for folder in sorted(proc.glob("[0-9]*")):
        command = tuple(_read(folder / "cmdline").rstrip("\0").split("\0"))
        if command != ("",) and _namespace(folder) == here is not None:
            found.append(command)
    return tuple(found)


def _namespace(folder: Path) -> str | None:
    try:
        return str((folder / "ns" / "net").readlink())
    except OSError:
        return None


def _ports(net: Path) -> frozenset[tuple[str, int]]:
    ports = set()
    for name in ("tcp", "tcp6", "udp", "udp6"):
        protocol = name.removesuffix("6")
        for line in _read(net / name).splitlines()[1:]:
            fields = line.split()
            if len(fields) > 3 and (protocol == "udp" or fields[3] == TCP_LISTEN):
                ports.add((protocol, int(fields[1].rpartition(":")[2], 16)))
    return frozenset(ports)


def who_answers(
    device: str, addresses: Iterable[IPv4Address], *, wait_s: float = PROBE_WAIT_S
) -> dict[Address, frozenset[str]]:
    """Ask a network who has each address; return the link-layer addresses that answered.

    This machine does not hear itself. Without CAP_NET_RAW, or on a device that is
    down or not Ethernet, nobody is asked and the result is empty.
    """
    answers: dict[IPv4Address, set[str]] = {address: set() for address in addresses}
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ARP)) as wire:
            wire.bind((device, ETH_P_ARP))
            own = wire.getsockname()[4]
            if len(own) != 6:
                return {}
            for number, target in enumerate(answers, start=1):
                probe = ARP.pack(
                    1, 0x0800, 6, 4, ARP_REQUEST, own, bytes(4), bytes(6), target.packed
                )
                wire.settimeout(PROBE_SEND_S)
                wire.sendto(probe, (device, ETH_P_ARP, 0, 0, b"\xff" * 6))
                if number % PROBES_BURST == 0:
                    _hear(wire, answers, wait_s=PROBE_GAP_S)
            _hear(wire, answers, wait_s=wait_s)
    except OSError:
        return {}
    return {address: frozenset(found) for address, found in answers.items()}


def _hear(wire: socket.socket, answers: Mapping[IPv4Address, set[str]], *, wait_s: float) -> None:
    """Take the answers that come within a time."""
    deadline = time.monotonic() + wait_s
    while (left_s := deadline - time.monotonic()) > 0:
        wire.settimeout(left_s)
        try:
            frame = wire.recv(ARP.size)
        except TimeoutError:
            return
        if len(frame) < ARP.size:
            continue
        *_, kind, sender, claimed, _, _ = ARP.unpack(frame)
        if kind == ARP_REPLY and (found := answers.get(IPv4Address(claimed))) is not None:
            found.add(sender.hex(":"))
