"""Offer more than a narrow queue lets through: datagrams at a fixed rate to one address.

``python -m chaos.workloads.pour 203.0.113.100:9 --mbit 8 --seconds 5``
"""

from __future__ import annotations

import argparse
import socket
import time

from chaos.lab.stop import Stop

DATAGRAM_BYTES = 1000
PERIOD_S = 0.005


def main() -> None:
    """Send until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m chaos.workloads.pour", description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--mbit", type=float, default=8.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    address, _, port = options.target.rpartition(":")
    target = (address, int(port))
    burst = max(1, round(options.mbit * 1e6 * PERIOD_S / 8 / DATAGRAM_BYTES))
    data = bytes(DATAGRAM_BYTES)
    stop = Stop(options.seconds)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
        mouth.setblocking(False)  # noqa: FBT003
        while not stop:
            for _ in range(burst):
                try:
                    mouth.sendto(data, target)
                except OSError:
                    continue  # no route for a moment, or refused by an ICMP message
            time.sleep(PERIOD_S)


if __name__ == "__main__":
    main()
