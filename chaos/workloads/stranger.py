"""Claim floating addresses by ARP from a host that has no right to: a conflict, or an attack.

``python -m chaos.workloads.stranger br-pub 203.0.113.10 --seconds 5``, in the switch's namespace:
announces the address with a link-layer address that nobody has.
"""

from __future__ import annotations

import argparse
import socket
import struct
import time

from chaos.workloads.stop import Stop

MAC = bytes.fromhex("02686e090066")
PERIOD_S = 0.2
ETH_P_ARP = 0x0806
BROADCAST = b"\xff" * 6
REPLY = 2


def claim(address: str) -> bytes:
    """Return the frame that says so to everybody (RFC 5227, section 3)."""
    own = socket.inet_aton(address)
    arp = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, REPLY, MAC, own, BROADCAST, own)
    return BROADCAST + MAC + ETH_P_ARP.to_bytes(2, "big") + arp


def main() -> None:
    """Claim until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m chaos.workloads.stranger", description=__doc__)
    parser.add_argument("device")
    parser.add_argument("address")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    stop = Stop(options.seconds)
    frame = claim(options.address)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((options.device, 0))
        while not stop:
            sock.send(frame)
            time.sleep(PERIOD_S)


if __name__ == "__main__":
    main()
