"""Three real daemons in namespaces, and connections through them."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from itertools import count
from typing import Self

import pytest

from chaos.lab import topology
from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError
from chaos.lab.netns import entered
from tests.cluster import unprivileged

_numbers = count(1)
PUBLIC, PUBLIC_V6 = topology.floating("public")
BOTH = set(topology.floating())  # each in both families
ANSWER_S_MAX = 5.0  # bounds a test that hangs; TCP's first retransmissions fit in


@pytest.fixture(scope="session", autouse=True)
def _needs_root() -> None:
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("nft") is None:
        pytest.skip("needs root, ip and nft: it makes network namespaces")


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A lab with its three daemons started and one of them the holder."""
    with Lab(prefix=f"ht{os.getpid()}n{next(_numbers)}") as lab:
        lab.start()
        lab.wait_for_holder()
        yield lab


@pytest.fixture
def everybodys_python() -> list[str]:
    """An interpreter for users that are not root, with the packages of this one."""
    found = unprivileged.python()
    if found is None:
        pytest.skip("needs setpriv, and a Python here that another user may run")
    return found


class Echo:
    """A TCP connection to an echo server that checks what comes back."""

    def __init__(self, lab: Lab, host: str, address: str, port: int) -> None:
        with entered(lab.topology.namespace(host)):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.settimeout(ANSWER_S_MAX)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.connect((address, port))
        self._number = 0

    def exchange(self) -> None:
        """Send a number and wait for it; raises OSError if the connection is dead."""
        self._number += 1
        wanted = self._number.to_bytes(16, "big")
        self._socket.sendall(wanted)
        got = b""
        while len(got) < len(wanted):
            part = self._socket.recv(len(wanted) - len(got))
            if not part:
                raise ConnectionError("closed by the far end")
            got += part
        assert got == wanted, (got, wanted)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def inbound(lab: Lab) -> Iterator[Echo]:
    """An established connection from the client through the public address."""
    echo = Echo(lab, topology.CLIENT, PUBLIC, 7)
    echo.exchange()
    yield echo
    echo.close()


@pytest.fixture
def outbound(lab: Lab) -> Iterator[Echo]:
    """An established connection from a real server out to the client; by IPv6, for a change."""
    echo = Echo(lab, topology.SERVERS[0], "2001:db8:113::100", 9000)
    echo.exchange()
    yield echo
    echo.close()


def hand_over(lab: Lab, to: str, timeout_s: float = 10.0) -> None:
    """Switch over as soon as that can be: who started just now is refused at first."""

    def handed_over() -> bool:
        try:
            return lab.switchover(to)[0] == 200
        except LabError:  # nobody holds for the moment, or the answer was lost
            return lab.holder() == to

    lab.wait_for(handed_over, timeout_s, f"a switchover to {to}")


def complete(lab: Lab) -> bool:
    """Say whether every node says that it has all flows."""
    statuses = lab.statuses().values()
    return all(s is not None and s["flows"]["complete"] for s in statuses)


def replicated(lab: Lab) -> bool:
    """Say whether everything the holder captured is committed and on all running backups."""
    statuses = [s for s in lab.statuses().values() if s is not None]
    applied = {s["log"]["applied_index"] for s in statuses}
    holder = [s for s in statuses if s["role"] == "ACTIVE"]
    return (
        len(applied) == 1
        and len(holder) == 1
        and holder[0]["flows"]["pending"] == 0
        and holder[0]["flows"]["captured"] + holder[0]["flows"]["received"] > 0
    )
