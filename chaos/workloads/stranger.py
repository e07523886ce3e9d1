"""Claim floating addresses by ARP and ND from a host that has no right to: an attack, or a mistake.

``python -m chaos.workloads.stranger br-pub 203.0.113.10 2001:db8:113::10 --seconds 5``, in the
switch's namespace: announces the addresses with a link-layer address that nobody has.
"""

from __future__ import annotations

import argparse
import socket
import struct
import time

from chaos.lab.stop import Stop
from chaos.observe.frames import checksum

MAC = bytes.fromhex("02686e090066")
PERIOD_S = 0.2
ETH_P_ARP, ETH_P_IPV6 = 0x0806, 0x86DD
BROADCAST, EVERYBODY = b"\xff" * 6, b"\x33\x33\0\0\0\x01"
ICMPV6, ADVERTISEMENT, OVERRIDE = 58, 136, 0x20
REPLY = 2


def claim(address: str) -> bytes:
    """Return the frame that says so to everybody (RFC 5227, section 3; RFC 4861, section 4.4)."""
    if ":" in address:
        return _advertise(address)
    own = socket.inet_aton(address)
    arp = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, REPLY, MAC, own, BROADCAST, own)
    return BROADCAST + MAC + ETH_P_ARP.to_bytes(2, "big") + arp


def _advertise(address: str) -> bytes:
    own = socket.inet_pton(socket.AF_INET6, address)
    everybody = socket.inet_pton(socket.AF_INET6, "ff02::1")
    message = bytes((ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0)) + own + b"\x02\x01" + MAC
    pseudo = own + everybody + struct.pack("!II", len(message), ICMPV6)
    message = message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]
    header = struct.pack("!IHBB", 6 << 28, len(message), ICMPV6, 255) + own + everybody
    return EVERYBODY + MAC + ETH_P_IPV6.to_bytes(2, "big") + header + message


def main() -> None:
    """Claim until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m chaos.workloads.stranger", description=__doc__)
    parser.add_argument("device")
    parser.add_argument("address", nargs="+")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    stop = Stop(options.seconds)
    frames = [claim(address) for address in options.address]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((options.device, 0))
        while not stop:
            for frame in frames:
                sock.send(frame)
            time.sleep(PERIOD_S)


if __name__ == "__main__":
    main()
