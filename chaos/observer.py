"""Watch, from outside, who acts as the holder of a floating address.

Two sources, neither of which asks hanat. On the switch, a packet socket takes every
ARP frame whose sender address is a floating one, and the first packet of every TCP connection
that was let through, as it comes in at a router's port: the port tells the router, the
kernel the time. And a netlink socket in each router's namespace reports addresses that
come and go.

A router may be silent and yet ready to answer, so the observer asks: every 8 ms it
broadcasts "who has" for each floating address, from an address of its own that
nobody uses otherwise. The answers go to the observer alone and teach no host anything,
so asking does not hide a missing announcement. It does not probe with sender 0.0.0.0:
for a node that is about to take an address that means a conflict (RFC 5227, section 2.1.1).

``python -m chaos.observer --prefix hanat --out FILE``; scapy was considered for reading
ARP and left out: 28 bytes at fixed places, hundreds of times a second.
"""

from __future__ import annotations

import argparse
import selectors
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

from chaos import history
from chaos.carrying import Carrying, attach, dropped, make_room
from chaos.history import AddressSeen, AdmissionSeen, ArpSeen, Fact
from chaos.netns import entered
from chaos.observed import Dropped, Stall
from chaos.topology import BRIDGES, FLOATING, SUBNET, SWITCH, Topology, three_routers
from chaos.workloads.clock import CONTROL_BYTES, received_at, want_timestamps
from chaos.workloads.priority import prefer
from chaos.workloads.stop import Stop

ASK_PERIOD_S = 0.008  # so that every 10 ms of a picture has an answer in it
STALL_S = 0.005  # later than this is worth a fact
ASKER = 250  # host part of the address that asks

ETH_P_ALL = 0x0003
ETH_P_IP = 0x0800
ETH_P_ARP = 0x0806
ARP = struct.Struct("!HHBBH6s4s6s4s")  # RFC 826
FRAME_BYTES = 14 + ARP.size
BROADCAST = b"\xff" * 6

SYN_FLAGS_AT = 13  # RFC 9293, section 3.1
TCP = 6

# Classic BPF (linux/filter.h): accept ARP frames and first packets of TCP connections that
# come in. Bridge ports need ETH_P_ALL, because a bridge takes its frames before a socket
# for one protocol would see them.
FILTER = (
    (0x28, 0, 0, 0xFFFFF004),  # load packet type (SKF_AD_OFF + SKF_AD_PKTTYPE)
    (0x15, 10, 0, 4),  # PACKET_OUTGOING: to reject
    (0x28, 0, 0, 12),  # load ethertype
    (0x15, 7, 0, ETH_P_ARP),  # to accept
    (0x15, 0, 7, ETH_P_IP),  # otherwise: to reject
    (0x30, 0, 0, 14 + 9),  # load protocol
    (0x15, 0, 5, TCP),  # otherwise: to reject
    (0xB1, 0, 0, 14),  # index := length of the IP header
    (0x50, 0, 0, 14 + SYN_FLAGS_AT),  # load flags
    (0x54, 0, 0, 0x17),  # of ACK, RST, SYN and FIN ...
    (0x15, 0, 1, 0x02),  # ... SYN alone; otherwise: to reject
    (0x06, 0, 0, 0xFFFF),  # accept
    (0x06, 0, 0, 0),  # reject
)

RTMGRP_IPV4_IFADDR = 0x10
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
NLM_F_REQUEST_DUMP = 0x301
IFA_LOCAL = 2
NLMSG = struct.Struct("=IHHII")
IFADDRMSG_BYTES = 8

ADDRESS_OF = {network: a.partition("/")[0] for network, a in FLOATING.items()}


def parse_arp(frame: bytes, *, router: str, network: str, t_ns: int) -> ArpSeen | None:
    """Return what an Ethernet frame says about a floating address; None if nothing."""
    if len(frame) < FRAME_BYTES or frame[12:14] != b"\x08\x06":
        return None
    hardware, protocol, _, _, _, mac, sender, _, target = ARP.unpack_from(frame, 14)
    address = socket.inet_ntoa(sender)
    if (hardware, protocol) != (1, 0x0800) or address not in ADDRESS_OF.values():
        return None
    return ArpSeen(
        t_ns=t_ns,
        router=router,
        network=network,
        address=address,
        mac=mac.hex(":"),
        gratuitous=sender == target,
    )


def parse_syn(frame: bytes, *, router: str, network: str, t_ns: int) -> AdmissionSeen | None:
    """Return which new connection of a client a frame from a router begins; None if none.

    The filter has let only first packets of TCP connections through. Those of the routers
    themselves do not count: they need no right. The source address tells: still the client's
    in the private network, already the floating one in the public.
    """
    if len(frame) < 34 or frame[12:14] != b"\x08\x00":
        return None
    source = socket.inet_ntoa(frame[26:30])
    if network == "public":
        admitted = source == ADDRESS_OF[network]
    else:
        admitted = not source.startswith(SUBNET[network])
    return AdmissionSeen(t_ns, router, network) if admitted else None


def parse_addresses(data: bytes, *, router: str, t_ns: int) -> list[AddressSeen]:
    """Return which floating addresses a netlink datagram says came or went."""
    seen = []
    while len(data) >= NLMSG.size:
        length, kind, _, _, _ = NLMSG.unpack_from(data)
        if length < NLMSG.size:
            break
        message, data = data[NLMSG.size : length], data[(length + 3) & ~3 :]
        if kind not in (RTM_NEWADDR, RTM_DELADDR):
            continue
        address = _local_address(message[IFADDRMSG_BYTES:])
        if address in ADDRESS_OF.values():
            seen.append(AddressSeen(t_ns, router, address, kind == RTM_NEWADDR))
    return seen


def _local_address(attributes: bytes) -> str:
    while len(attributes) >= 4:
        length, kind = struct.unpack_from("=HH", attributes)
        if length < 4:
            break
        if kind == IFA_LOCAL:
            return socket.inet_ntoa(attributes[4:8])
        attributes = attributes[(length + 3) & ~3 :]
    return ""


class Observer:
    """All sockets of one lab in one process."""

    def __init__(
        self, topology: Topology, record: Callable[[Fact], None], *, carried: bool = False
    ) -> None:
        """Open all sockets.

        Args:
            topology: Of the lab.
            record: Called with every fact.
            carried: Whether to watch flows that are under way, and stalls, too.
        """
        self._record = record
        self._selector = selectors.DefaultSelector()
        self._ports = {p.port: p for router in topology.routers for p in router.ports}
        self._askers: list[tuple[socket.socket, bytes]] = []
        with entered(topology.namespace(SWITCH)):
            capture = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            attach(capture, FILTER)
            want_timestamps(capture)
            make_room(capture)
            self._carrying = Carrying(topology, record) if carried else None
            for network, bridge in BRIDGES.items():
                asker = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
                asker.bind((bridge, 0))
                self._askers.append((asker, _question(network, asker.getsockname()[4])))
        if self._carrying is not None:
            self._selector.register(
                self._carrying.socket, selectors.EVENT_READ, self._carrying.read
            )
        capture.setblocking(False)  # noqa: FBT003
        self._capture = capture
        self._selector.register(capture, selectors.EVENT_READ, self._read_frames)
        for router in topology.routers:
            with entered(topology.namespace(router.name)):
                watch = _watch_addresses()
            reader = _AddressReader(watch, router.name, record)
            self._selector.register(watch, selectors.EVENT_READ, reader)

    def run(self, stop: Stop) -> None:
        """Observe and ask until told to stop."""
        next_s = time.monotonic()
        while not stop:
            now_s = time.monotonic()
            if now_s >= next_s:
                if self._carrying is not None and now_s - next_s > STALL_S:
                    late_ns = round((now_s - next_s) * 1e9)
                    self._record(Stall(round(next_s * 1e9), late_ns))
                self._ask()
                next_s = max(next_s + ASK_PERIOD_S, now_s)
            for key, _ in self._selector.select(next_s - now_s):
                key.data()
        if self._carrying is not None:
            self._carrying.flush(time.monotonic_ns())
        self._tell_drops()

    def _tell_drops(self) -> None:
        captures = {"acts": self._capture}
        if self._carrying is not None:
            captures["carried"] = self._carrying.socket
        for name, capture in captures.items():
            if frames := dropped(capture):
                self._record(Dropped(time.monotonic_ns(), name, frames))

    def _ask(self) -> None:
        for sock, question in self._askers:
            try:
                sock.send(question)
            except OSError:
                continue  # a full queue: the next one is due soon

    def _read_frames(self) -> None:
        while True:
            try:
                frame, control, _, origin = self._capture.recvmsg(128, CONTROL_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # an interface went down
            port = self._ports.get(origin[0])
            if port is None:
                continue
            t_ns = received_at(control)
            parse = parse_arp if frame[12:14] == b"\x08\x06" else parse_syn
            seen = parse(frame, router=port.host, network=port.network, t_ns=t_ns)
            if seen is not None:
                self._record(seen)


class _AddressReader:
    def __init__(self, sock: socket.socket, router: str, record: Callable[[Fact], None]) -> None:
        self._sock = sock
        self._router = router
        self._record = record

    def __call__(self) -> None:
        t_ns = time.monotonic_ns()
        for seen in parse_addresses(self._sock.recv(65536), router=self._router, t_ns=t_ns):
            self._record(seen)


def _question(network: str, mac: bytes) -> bytes:
    sender = socket.inet_aton(f"{SUBNET[network]}{ASKER}")
    target = socket.inet_aton(ADDRESS_OF[network])
    request = ARP.pack(1, 0x0800, 6, 4, 1, mac, sender, bytes(6), target)
    return BROADCAST + mac + ETH_P_ARP.to_bytes(2, "big") + request


def _watch_addresses() -> socket.socket:
    """Return a socket that first lists the namespace's addresses, then their changes."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    sock.bind((0, RTMGRP_IPV4_IFADDR))
    size = NLMSG.size + IFADDRMSG_BYTES
    head = NLMSG.pack(size, RTM_GETADDR, NLM_F_REQUEST_DUMP, 1, 0)
    sock.send(head + struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0))
    return sock


def main() -> None:
    """Parse the command line and observe."""
    parser = argparse.ArgumentParser(prog="python -m chaos.observer", description=__doc__)
    parser.add_argument("--prefix", required=True, help="of the lab to observe")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="at most (default: %(default)s)"
    )
    parser.add_argument(
        "--carried", action="store_true", help="also record who carries flows under way"
    )
    options = parser.parse_args()
    prefer()
    facts: list[Fact] = []
    stop = Stop(options.seconds)
    observer = Observer(three_routers(options.prefix), facts.append, carried=options.carried)
    observer.run(stop)
    draft = options.out.with_suffix(".part")
    with draft.open("w") as file:
        for fact in facts:
            history.write(file, fact)
    draft.rename(options.out)


if __name__ == "__main__":
    main()
