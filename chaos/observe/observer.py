"""Watch, from outside, who acts as the holder of a floating address.

Two sources, neither of which asks hanat. On the switch, a packet socket takes every
ARP frame whose sender address is a floating one, every neighbour advertisement for one, and
the first packet of every TCP connection that was let through, as it comes in at a router's port:
the port tells the router, the kernel the time. And a netlink socket in each router's namespace
reports addresses that come and go.

A router may be silent and yet ready to answer, so the observer asks: every 8 ms it
sends to everybody "who has" each floating address (`frames.question`).

``python -m chaos.observe.observer --prefix hanat --out FILE``
"""

from __future__ import annotations

import argparse
import selectors
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

from chaos.lab.clock import CONTROL_BYTES, received_at, want_timestamps
from chaos.lab.netns import entered
from chaos.lab.priority import prefer
from chaos.lab.stop import Stop
from chaos.lab.topology import BRIDGES, SWITCH, Topology, floating, three_routers
from chaos.observe import run_history
from chaos.observe.carrying import Carrying, dropped, make_room
from chaos.observe.frames import ADDRESSES, FILTER, parse, question
from chaos.observe.observed import Dropped, Stall
from chaos.observe.packet_filters import attach
from chaos.observe.run_history import AddressSeen, Fact

ASK_PERIOD_S = 0.008  # so that every 10 ms of a picture has an answer in it
STALL_S = 0.005  # later than this is worth a fact
ETH_P_ALL = 0x0003

RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x10, 0x100
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
NLM_F_REQUEST_DUMP = 0x301
IFA_ADDRESS, IFA_LOCAL = 1, 2
NLMSG = struct.Struct("=IHHII")
IFADDRMSG_BYTES = 8


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
        if address in ADDRESSES:
            seen.append(AddressSeen(t_ns, router, address, kind == RTM_NEWADDR))
    return seen


def _local_address(attributes: bytes) -> str:
    """Return the address itself; IPv6 has it in the one attribute, IPv4 in the other."""
    found = {}
    while len(attributes) >= 4:
        length, kind = struct.unpack_from("=HH", attributes)
        if length < 4:
            break
        found[kind] = attributes[4:length]
        attributes = attributes[(length + 3) & ~3 :]
    address = found.get(IFA_LOCAL, found.get(IFA_ADDRESS, b""))
    family = {4: socket.AF_INET, 16: socket.AF_INET6}.get(len(address))
    return "" if family is None else socket.inet_ntop(family, address)


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
                mac = asker.getsockname()[4]
                self._askers += [(asker, question(a, network, mac)) for a in floating(network)]
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
        for sock, asks in self._askers:
            try:
                sock.send(asks)
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


def _watch_addresses() -> socket.socket:
    """Return a socket that first lists the namespace's addresses, then their changes."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    sock.bind((0, RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))
    size = NLMSG.size + IFADDRMSG_BYTES
    head = NLMSG.pack(size, RTM_GETADDR, NLM_F_REQUEST_DUMP, 1, 0)
    sock.send(head + struct.pack("=BBBBI", socket.AF_UNSPEC, 0, 0, 0, 0))
    return sock


def main() -> None:
    """Parse the command line and observe."""
    parser = argparse.ArgumentParser(prog="python -m chaos.observe.observer", description=__doc__)
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
            run_history.write(file, fact)
    draft.rename(options.out)


if __name__ == "__main__":
    main()
