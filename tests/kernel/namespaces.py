"""Network namespaces for tests: made, cabled, waited for, and removed whatever happens."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from chaos.lab import modules
from chaos.lab.netns import NETNS_DIR

PREFIX = "htk"
WAIT_S_MAX = 10.0  # bounds a test that hangs; what is waited for takes milliseconds

_numbers = count(1)


@contextmanager
def namespaces(*names: str) -> Iterator[dict[str, str]]:
    """Make one namespace per name and remove them; yields name to name known to the system."""
    modules.require(modules.listed())
    remove_leftovers()
    number = next(_numbers)
    made = {name: f"{PREFIX}-{os.getpid()}-{number}-{name}" for name in names}
    try:
        for namespace in made.values():
            run(f"ip netns add {namespace}")
            run("ip link set lo up", namespace)
        yield made
    finally:
        for namespace in made.values():
            _remove(namespace)


def remove_leftovers() -> None:
    """Remove what a run that was killed left behind."""
    for path in NETNS_DIR.glob(f"{PREFIX}-*"):
        found = re.fullmatch(rf"{PREFIX}-(\d+)-.*", path.name)
        if found is not None and not Path("/proc", found[1]).exists():
            _remove(path.name)


def _remove(namespace: str) -> None:
    subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


def run(command: str, namespace: str = "") -> str:
    """Run a command, in a namespace if one is given; return what it prints."""
    inside = ["ip", "netns", "exec", namespace] if namespace else []
    done = subprocess.run(
        [*inside, *shlex.split(command)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def cable(first: tuple[str, str], second: tuple[str, str]) -> None:
    """Connect two namespaces by a pair of devices, each given as namespace and name."""
    (here, name), (there, other) = first, second
    # From inside: before Linux 6.15 the kernel looks in the namespace of the caller whether
    # there is a device of that name already.
    run(f"ip -n {here} link add {name} type veth peer name {other} netns {there}")
    for namespace, device in (first, second):
        # Addresses of tests must not wait for duplicate address detection.
        run(f"sysctl -qw net.ipv6.conf.{device}.accept_dad=0", namespace)
        run(f"ip link set {device} up", namespace)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds, in steps of a millisecond."""
    pause = threading.Event()
    deadline = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < deadline, f"waited {WAIT_S_MAX} s for: {what}"
        pause.wait(0.001)
