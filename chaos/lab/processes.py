"""Start processes in namespaces, find them again after a crash, end exactly those.

Every process we start carries a mark in its environment, ``CHAOS_LAB=hanat/r1``,
which its children inherit: the mark finds what a daemon forked, and what is left
when the program that started it is dead. A process that rewrites its environment
would be lost, so the lab also records the pid and the start time of what it started.
Start times tell a recycled pid from the process we knew, and signals go
through a pidfd that was opened before the start time was compared.

A user's shell opened by ``ip netns exec hanat-c1 bash`` carries no mark and is
never touched; this is why we do not kill by namespace.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.lab.lab_error import LabError

MARK = "CHAOS_LAB"
KILL_ROUNDS_MAX = 10
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Identity:
    """A process for all time: its pid and when it started, in clock ticks since boot."""

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class Killed:
    """How many processes were killed, and the instant before the first, monotonic ns."""

    count: int
    instant_ns: int


@dataclass(slots=True)
class Child:
    """A process of the lab that this program started."""

    name: str
    identity: Identity
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal, None while it runs."""
        return self.popen.poll()


def identify(pid: int) -> Identity | None:
    """Return the identity of a running process, None if there is none of that pid."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # proc(5): the name may contain anything, so count from its closing bracket.
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else Identity(pid, int(rest[18]))


def marked(prefix: str, name: str | None = None) -> list[Identity]:
    """Return the running processes of a lab, or of one of its parts, children included."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        mark = f"{MARK}={prefix}/{name or ''}".encode()
        if any(entry == mark if name else entry.startswith(mark) for entry in environment):
            identity = identify(int(folder.name))
            if identity is not None:
                found.append(identity)
    return found


def _pidfd(pid: int) -> int | None:
    """Open a pidfd; None if there is no process of that pid any more."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    except OSError as error:
        # Linux 6.1 says EINVAL, not ESRCH, of a process that has been reaped while others
        # of its process group or session live: the number is taken, but by no process.
        if error.errno != errno.EINVAL:
            raise
        return None


def send_signal(identity: Identity, number: signal.Signals) -> bool:
    """Signal that very process; return False if it has ended already."""
    descriptor = _pidfd(identity.pid)
    if descriptor is None:
        return False
    try:
        if identify(identity.pid) != identity:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def wait_gone(identities: Iterable[Identity], timeout_s: float) -> bool:
    """Wait until all have ended; a zombie has ended. Return False at the deadline."""
    deadline = time.monotonic() + timeout_s
    for identity in identities:
        descriptor = _pidfd(identity.pid)
        if descriptor is None:
            continue
        try:
            if identify(identity.pid) != identity:
                continue
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return False
        finally:
            os.close(descriptor)
    return True


def kill_all(identities: Sequence[Identity], timeout_s: float = 5.0) -> None:
    """SIGKILL them all, then wait until they are gone.

    All are stopped before the first dies: none must see another die and act on it. The last of
    the list dies first: children before parents, since the kernel wakes stopped children whose
    parent's death leaves their process group an orphan.

    Raises:
        LabError: The kernel still lists one of them after `timeout_s`.
    """
    for identity in identities:
        send_signal(identity, signal.SIGSTOP)
    for identity in reversed(identities):
        send_signal(identity, signal.SIGKILL)
    if not wait_gone(identities, timeout_s):
        raise LabError(f"killed processes did not end within {timeout_s:.0f} s: {identities}")


def kill_marked(prefix: str, name: str | None = None, *, also: Iterable[Identity] = ()) -> Killed:
    """SIGKILL all processes of a lab or of one part of it.

    Then it looks again, for what a process forked between being found and being killed.

    Args:
        prefix: Of the lab.
        name: Of the part, None for all.
        also: Processes that were recorded; those that have ended are left out.

    Raises:
        LabError: They multiply faster than they die.
    """
    victims = set(marked(prefix, name)) | {p for p in also if identify(p.pid) == p}
    instant_ns = time.monotonic_ns()
    count = 0
    for _ in range(KILL_ROUNDS_MAX):
        if not victims:
            return Killed(count, instant_ns)
        kill_all(sorted(victims, key=lambda p: (p.started, p.pid)))
        count += len(victims)
        victims = set(marked(prefix, name))
    raise LabError(f"processes of {prefix}/{name or ''} come back however often they are killed")


def environment(prefix: str, name: str) -> dict[str, str]:
    """Return the environment of a lab process: ours, the mark, and where this code is."""
    path = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        MARK: f"{prefix}/{name}",
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
    }


def spawn(
    command: Sequence[str], *, namespace: str, mark: tuple[str, str], log: Path, folder: Path
) -> Child:
    """Start a command in a namespace, its output appended to a file.

    It gets a session of its own: Ctrl-C reaches the lab, which then ends its children
    in the right order. ip-netns(8) executes the command in its own place, so the pid is
    the command's; it also mounts a /sys that shows the namespace's devices.

    Args:
        command: What to run there.
        namespace: Where.
        mark: Prefix of the lab and name of the part this process belongs to.
        log: Where standard output and error go.
        folder: Working directory.
    """
    with log.open("ab") as output:
        popen = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env=environment(*mark),
            start_new_session=True,
        )
    identity = identify(popen.pid) or Identity(popen.pid, -1)
    return Child(mark[1], identity, popen, log)


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this interpreter."""
    return [sys.executable, "-m", module, *arguments]
