"""Flood the routers' own ports with forged frames: sources that do not exist, or that are peers.

``python -m chaos.workloads.flood public/02:68:6e:01:00:0b/203.0.113.11 --seconds 5``, in the
switch's namespace, each router port as network, link-layer address and address: datagrams with
garbage to the mesh port, first segments of connections to the Raft port. Nobody but a router
answers to them, and what the answers are sent to is nobody.
"""

from __future__ import annotations

import argparse
import random
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from chaos.lab.stop import Stop
from chaos.lab.topology import BRIDGES, SUBNET
from chaos.observe.frames import checksum
from chaos.workloads.garbage import MESH_PORT, RAFT_PORT
from chaos.workloads.syn import DATA_OFFSET, HEADER, SYN, WINDOW

MAC = bytes.fromhex("02686e090077")
PERIOD_S = 0.004
SYN_SHARE = 20  # one frame in so many begins a connection
KINDS = 512  # different frames, made beforehand
IP = struct.Struct("!BBHHHBBH4s4s")
UDP = struct.Struct("!HHHH")
ETH_P_IP = b"\x08\x00"
PEERS = range(11, 14)  # last bytes of the routers' own addresses


@dataclass(frozen=True, slots=True)
class Goal:
    """A router's port."""

    network: str
    mac: bytes
    address: str


def ip_packet(source: str, target: str, protocol: int, payload: bytes) -> bytes:
    """Return an IPv4 packet (RFC 791) without options."""
    ends = socket.inet_aton(source), socket.inet_aton(target)
    fields = (0x45, 0, IP.size + len(payload), 0, 0, 64, protocol)
    sum_ = checksum(IP.pack(*fields, 0, *ends))
    return IP.pack(*fields, sum_, *ends) + payload


def datagram(draw: random.Random) -> bytes:
    """Return a UDP datagram (RFC 768, no checksum) with random bytes."""
    data = draw.randbytes(draw.choice((0, 16, 64, 200, 600)))
    return UDP.pack(draw.randint(1, 65535), MESH_PORT, UDP.size + len(data), 0) + data


def first_segment(draw: random.Random, source: str, target: str) -> bytes:
    """Return a TCP segment that asks for a connection."""
    fields = (draw.randint(1024, 65535), RAFT_PORT, draw.getrandbits(32), 0, DATA_OFFSET, SYN,
              WINDOW)  # fmt: skip
    pseudo = socket.inet_aton(source) + socket.inet_aton(target)
    pseudo += struct.pack("!HH", socket.IPPROTO_TCP, HEADER.size)
    return HEADER.pack(*fields, checksum(pseudo + HEADER.pack(*fields, 0, 0)), 0)


def frame(goal: Goal, draw: random.Random) -> bytes:
    """Return a forged frame: a third says that it comes from a peer, the others from anybody."""
    subnet = SUBNET[goal.network]
    source = draw.choice(
        (
            f"{subnet}{draw.choice(PEERS)}",
            f"{subnet}{draw.randint(120, 250)}",
            f"198.51.100.{draw.randint(1, 254)}",
        )
    )
    if draw.randrange(SYN_SHARE) == 0:
        packet = ip_packet(source, goal.address, 6, first_segment(draw, source, goal.address))
    else:
        packet = ip_packet(source, goal.address, 17, datagram(draw))
    return goal.mac + MAC + ETH_P_IP + packet


def goals(words: list[str]) -> Iterator[Goal]:
    """Read the ports that a command line names."""
    for word in words:
        network, mac, address = word.split("/")
        yield Goal(network, bytes.fromhex(mac.replace(":", "")), address)


def main() -> None:
    """Send until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m chaos.workloads.flood", description=__doc__)
    parser.add_argument("port", nargs="+")
    parser.add_argument("--rate", type=int, default=10_000, help="frames a second")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    socks: dict[str, socket.socket] = {}
    for network, bridge in BRIDGES.items():
        socks[network] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        socks[network].bind((bridge, 0))
        socks[network].setblocking(False)  # noqa: FBT003
    targets = list(goals(options.port))
    frames = []
    for _ in range(KINDS):
        goal = draw.choice(targets)
        frames.append((socks[goal.network], frame(goal, draw)))
    stop = Stop(options.seconds)
    burst = max(1, round(options.rate * PERIOD_S))
    number = 0
    next_at = time.monotonic()
    while not stop:
        for _ in range(burst):
            sock, data = frames[number % KINDS]
            number += 1
            with suppress(OSError):  # a full queue
                sock.send(data)
        next_at = max(next_at + PERIOD_S, time.monotonic())
        time.sleep(max(0.0, next_at - time.monotonic()))


if __name__ == "__main__":
    main()
