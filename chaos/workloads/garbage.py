"""Send garbage to the ports by which routers talk to each other, as a broken or hostile host does.

``python -m chaos.workloads.garbage 203.0.113.11 --seconds 5``: datagrams of random length and
content to the mesh port, connections with random bytes to the Raft port.
"""

from __future__ import annotations

import argparse
import random
import socket
import time

from chaos.lab.stop import Stop

MESH_PORT, RAFT_PORT = 7412, 7411
DATAGRAM_BYTES_MAX = 1400
BURST = 10
BURST_S = 0.005
CONNECTIONS_MAX = 20


def main() -> None:
    """Send until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m chaos.workloads.garbage", description=__doc__)
    parser.add_argument("address", nargs="+")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    stop = Stop(options.seconds)
    open_ones: list[socket.socket] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
        mouth.setblocking(False)  # noqa: FBT003
        while not stop:
            for _ in range(BURST):
                data = draw.randbytes(draw.randint(0, DATAGRAM_BYTES_MAX))
                _send(mouth, data, draw.choice(options.address))
            open_ones.append(_connect(draw, draw.choice(options.address)))
            while len(open_ones) > CONNECTIONS_MAX:
                open_ones.pop(0).close()
            time.sleep(BURST_S)


def _send(mouth: socket.socket, data: bytes, address: str) -> None:
    try:
        mouth.sendto(data, (address, MESH_PORT))
    except OSError:
        return  # a full queue, or nobody listens


def _connect(draw: random.Random, address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(0.1)
    try:
        sock.connect((address, RAFT_PORT))
        sock.send(draw.randbytes(draw.randint(1, 4096)))
    except OSError:
        pass  # a refusal is as good
    return sock


if __name__ == "__main__":
    main()
