"""What a takeover does to FTP where somebody gave its connections the kernel's helper.

hanat assigns no helpers and replicates no expectations. So the connection with the commands
lives on but is not looked into any more, and a transfer that has begun goes on.
"""

from __future__ import annotations

import re
import socket

import pytest

from chaos.lab import modules
from hanat.kernel.ports import Installed
from tests.contract.flows import changes_of
from tests.kernel.network import (
    SERVER,
    SERVER_PORT,
    SERVICE_PORT,
    VIP,
    Network,
    talk,
)

pytestmark = pytest.mark.kernel

DATA_PORT = 40123
HELPER = f"""
table ip others {{
    ct helper ftp {{
        type "ftp" protocol tcp
    }}
    chain prerouting {{
        type filter hook prerouting priority -150
        tcp dport {SERVICE_PORT} ct helper set "ftp"
    }}
}}
"""


def test_transfer_goes_on_and_its_commands_are_looked_into_no_more(network: Network) -> None:
    problem = modules.load(["nf_nat_ftp"])  # of the machine, not of a namespace
    for router in (network.r1, network.r2):
        with router.entered():
            router.firewall.apply(HELPER)
    network.r1.take_over()
    with network.r1.entered() as router:
        capture = router.conntrack.capture()
    commands = network.listener("server", SERVER, SERVER_PORT)
    data = network.listener("server", SERVER, DATA_PORT)
    client, server = network.connection(commands, "client", (VIP, SERVICE_PORT))
    greet(client, server)
    address, port = passive(client, server)
    assert address == VIP, problem  # the helper wrote it
    near, far = network.connection(data, "client", (address, port))
    talk(near, far)
    puts = changes_of(capture.read())
    capture.close()
    assert len(puts) == 2

    with network.r2.entered() as router:
        installed = router.conntrack.install(change.record for change in puts)
    network.pull(network.r1)
    network.r2.take_over()

    assert installed == Installed(created=2)
    talk(near, far)
    greet(client, server)
    assert passive(client, server)[0] == SERVER  # nobody wrote it
    again, other = network.connection(commands, "client", (VIP, SERVICE_PORT))
    greet(again, other)
    assert passive(again, other)[0] == VIP  # as of everybody who logs in anew


def greet(client: socket.socket, server: socket.socket) -> None:
    """Exchange a line each: the helper reads only what follows a line."""
    server.sendall(b"220 ready\r\n")
    assert client.recv(100) == b"220 ready\r\n"
    client.sendall(b"NOOP\r\n")
    assert server.recv(100) == b"NOOP\r\n"


def passive(client: socket.socket, server: socket.socket) -> tuple[str, int]:
    """Let the server say where it awaits the data; return what the client reads."""
    high, low = divmod(DATA_PORT, 256)
    numbers = f"{SERVER.replace('.', ',')},{high},{low}"
    client.sendall(b"PASV\r\n")
    assert server.recv(100) == b"PASV\r\n"
    server.sendall(f"227 Entering Passive Mode ({numbers}).\r\n".encode())
    match = re.search(r"\((\d+,\d+,\d+,\d+),(\d+),(\d+)\)", client.recv(200).decode())
    assert match is not None
    return match[1].replace(",", "."), int(match[2]) * 256 + int(match[3])
