"""Start the daemon; when it dies, free its lease and start it again.

A daemon that dies leaves promises that bind the others until they end, and addresses
on devices. Its parent learns of the death at once (`death_watch`): it withdraws *answers* in
the kernel and, only when the kernel has confirmed that, tells the peers
(`net.death_notice`). Established flows are carried on meanwhile; when the grace is over
the floating addresses go. Then the daemon is started again, later each time it dies young.

Nothing here decides about the lease. What is to be done is in the will that the
daemon left (`last_will`); one that left none had not touched the kernel. If this process
dies too, the kernel does the same by itself when the lease ends, and a daemon that
outlives it ends in good order.

A daemon whose loop stands still is the kernel's business too: its lease ends. But it
would never come back, so it is killed when it has missed beats for ten seconds,
unless somebody stopped it on purpose (SIGSTOP, a debugger).

What ends us: the daemon's end after it was told to, with its exit code; and its
end before it was ever in service, since whoever started the node is looking. Later
it is started again whatever the cause: an interface or a file may come back.

Standard library only, and nothing to do but to wait: 9 MiB of its own, 8 ms of a processor a
minute. It needs neither the node's files nor the key.
"""

from __future__ import annotations

import logging
import os
import select
import selectors
import signal
import socket
import struct
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from hanat.errors import EXIT_FAILED, EXIT_OK, EXIT_OTHER_VERSION, EXIT_USAGE, KernelError
from hanat.kernel.fence import KernelFence
from hanat.stderr_log import to_stderr
from hanat.supervisor.death_watch import DeathWatch
from hanat.supervisor.last_will import BEAT, BEAT_S, MESSAGE_BYTES_MAX, LastWill
from hanat.supervisor.sd_notify import Notifier

if TYPE_CHECKING:  # a supervisor does not load it for a type
    from hanat.core.configuration import Interface

log = logging.getLogger(__name__)

# One is enough on a sound network; three cross one that loses a tenth 999 times in 1000.
RELEASES, RELEASE_GAP_S = 3, 0.005
TTL = 255  # that of the daemon's own datagrams, or peers on the same link drop it

RESTART_S_MIN, RESTART_S_MAX = 0.5, 30.0
AWAITING_S = 5.0  # how often a service manager hears that a start is awaited
HEALTHY_S = 60.0  # one that lived so long starts the counting anew

SILENCE_S = 2 * BEAT_S
SILENCES_MAX = 5

SUPERVISOR, DAEMON = "hanat.supervisor", "hanat.daemon"  # what a node runs

_DESCRIPTOR = struct.Struct("=i")

PRIORITY = 2  # the daemon's: what it does not do any more must not wait for others
FORWARDED = (signal.SIGTERM, signal.SIGINT)


class Fence(Protocol):
    """What takes rights and addresses away; see `kernel.fence`."""

    def withdraw(self, deadlines: int | None) -> None:
        """End *answers*; return when the kernel has confirmed it."""
        ...

    def remove(self, addresses: Iterable[tuple[str, Interface]]) -> object:
        """Remove addresses from devices."""
        ...


@dataclass(slots=True)
class Child:
    """A running daemon.

    Attributes:
        line: Our end of the line to it.
        pulse: Held by its main thread.
        dying: Its first becomes readable, by the end of the second, when that thread ends.
        will: What it left last.
        deadlines: Descriptor of the map with its rights, left with the will; None: there is none.
        silences: How often in a row no beat came in time; None before the first beat.
        said: What the newest beat says of the daemon, None if that was told on already.
        outcome: What its death led to, once that is done.
    """

    pid: int
    pidfd: int
    line: socket.socket
    pulse: DeathWatch
    dying: tuple[socket.socket, socket.socket] = field(default_factory=socket.socketpair)
    will: LastWill | None = None
    deadlines: int | None = None
    silences: int | None = None
    said: str | None = None
    outcome: str | None = None

    def listen(self) -> bool:
        """Take what the daemon has said; return False at the end of the stream."""
        while True:
            try:
                message, ancillary, _, _ = self.line.recvmsg(
                    MESSAGE_BYTES_MAX, socket.CMSG_SPACE(_DESCRIPTOR.size), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return True
            if not message:
                return False
            if message.startswith(BEAT):
                self.silences = 0
                self.said = message[len(BEAT) :].decode()
                continue
            if self.will is None:
                threading.Thread(target=self._feel, daemon=True).start()
            self.will = LastWill.decode(message)
            self._forget_deadlines()
            for _, _, data in ancillary:
                (self.deadlines,) = _DESCRIPTOR.unpack(data)

    def _forget_deadlines(self) -> None:
        if self.deadlines is not None:
            os.close(self.deadlines)
            self.deadlines = None

    def _feel(self) -> None:
        prefer()
        if self.pulse.ended():
            self.dying[1].close()

    def missed(self) -> bool:
        """Count a beat that did not come; say whether it was one too many."""
        if self.silences is None:
            return False
        stat = Path("/proc", str(self.pid), "stat").read_text()
        stopped = stat.rpartition(")")[2].split()[0] in "Tt"  # proc(5)
        # Counted, not timed: what stopped the daemon may have stopped us for as long.
        self.silences = 0 if stopped else self.silences + 1
        return self.silences == SILENCES_MAX

    def close(self) -> None:
        """Release the descriptors."""
        os.close(self.pidfd)
        self._forget_deadlines()
        for each in (self.line, self.pulse, *self.dying):
            each.close()


class Backoff:
    """How long to wait before the next start: twice as long each time one died young."""

    def __init__(self) -> None:
        self._next_s = RESTART_S_MIN

    def after(self, lived_s: float) -> float:
        """Return the wait in seconds after a daemon that lived so long."""
        if lived_s >= HEALTHY_S:
            self._next_s = RESTART_S_MIN
        wait_s, self._next_s = self._next_s, min(2 * self._next_s, RESTART_S_MAX)
        return wait_s


class Supervisor:
    """Keeps one daemon running.

    Args:
        command: Starts it; the descriptors of its line and its pulse are appended.
        fence: Takes rights and addresses away.
        notifier: Hears how the daemon does.
    """

    def __init__(self, command: Sequence[str], *, fence: Fence, notifier: Notifier) -> None:
        self._command, self._fence, self._notifier = tuple(command), fence, notifier
        self._told = False
        self._wake, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in FORWARDED:
            signal.signal(number, lambda *_: None)  # its byte in the pipe is what counts

    def run(self) -> int:
        """Keep a daemon running until told to end; return the exit code."""
        backoff = Backoff()
        served = False
        while True:
            started_at = monotonic()
            code, will = self._live()
            lived_s = monotonic() - started_at
            if will is not None:
                served = True
                _pause(will.grace_s)
                self._remove_addresses(will)
            if self._told or not served or code in {EXIT_OK, EXIT_OTHER_VERSION}:
                return self._exit_code(code)
            wait_s = backoff.after(lived_s)
            log.info("daemon=awaited restart_in_s=%.1f", wait_s)
            if self._told_within(wait_s):
                return EXIT_OK

    def _told_within(self, wait_s: float) -> bool:
        """Wait before the next start; say whether we were told to end meanwhile."""
        until = monotonic() + wait_s
        while (left_s := until - monotonic()) > 0:
            self._notifier.awaiting(f"the daemon died; started again in {left_s:.0f} s")
            select.select([self._wake], [], [], min(left_s, AWAITING_S))
            if self._requests():
                return True
        return False

    def _live(self) -> tuple[int, LastWill | None]:
        """Run a daemon to its end; return exit code and will."""
        try:
            child = self._start()
        except OSError as error:
            log.error("daemon=absent command=%s found=%r", self._command[0], str(error))  # noqa: TRY400 - the text says it all
            return EXIT_FAILED, None
        try:
            code = self._watch(child)
        finally:
            child.close()
        if child.will is not None or code < 0:  # others could say so themselves
            log.info("daemon=ended %s %s", _how(code), child.outcome or "before its start")
        return code, child.will

    def _exit_code(self, code: int) -> int:
        if code >= 0:
            return code
        # Told to end while it was still loading, it held nothing.
        return EXIT_OK if self._told and -code in FORWARDED else EXIT_FAILED

    def _requests(self) -> int:
        """Return how often we were told to end since the last call."""
        try:
            count = len(os.read(self._wake, 64))
        except BlockingIOError:
            return 0
        if not self._told:
            self._notifier.stopping()
        self._told = True
        return count

    def _start(self) -> Child:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)  # noqa: FBT003
        pulse = DeathWatch()
        with theirs:
            inherited = (theirs.fileno(), pulse.descriptor)
            for descriptor in inherited:
                os.set_inheritable(descriptor, True)  # noqa: FBT003
            command = [*self._command, "--lifeline", *map(str, inherited)]
            try:
                # In a process group of its own: Ctrl-C reaches it once, through us.
                pid = os.posix_spawn(command[0], command, os.environ, setpgroup=0)
            except OSError:
                ours.close()
                pulse.close()
                raise
        return Child(pid, os.pidfd_open(pid), ours, pulse)

    def _watch(self, child: Child) -> int:
        """Return the daemon's exit code when it is dead, negative for a signal."""
        with selectors.DefaultSelector() as selector:
            dying = child.dying[0]
            for source in (self._wake, child.pidfd, child.line, dying):
                selector.register(source, selectors.EVENT_READ)
            while True:
                wait_s = None if child.silences is None else SILENCE_S
                ready = {key.fd for key, _ in selector.select(wait_s)}
                if child.line.fileno() in ready and not child.listen():
                    selector.unregister(child.line)
                if child.said is not None:
                    self._notifier.alive(child.said)
                    child.said = None
                if dying.fileno() in ready:
                    selector.unregister(dying)
                    self._release(child)
                if child.pidfd in ready:
                    self._release(child)
                    return os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
                for _ in range(self._requests()):
                    signal.pidfd_send_signal(child.pidfd, signal.SIGTERM)
                if not ready and child.missed():
                    log.error("daemon=silent for_s=%.0f action=kill", SILENCES_MAX * SILENCE_S)
                    signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)

    def _release(self, child: Child) -> None:
        """Free what a dead daemon answered for and was promised."""
        child.listen()
        if child.will is None or child.outcome is not None:
            return
        try:
            self._fence.withdraw(child.deadlines)
        except KernelError as error:
            log.error("answers=unknown found=%r", str(error))  # noqa: TRY400 - the text says it all
            child.outcome = "released=false"
            self._remove_addresses(child.will)  # without an address it cannot answer
        else:
            paths = send_releases(child.will)
            child.outcome = f"answers=withdrawn released_on={','.join(paths)}"

    def _remove_addresses(self, will: LastWill) -> None:
        try:
            self._fence.remove(will.interfaces)
        except KernelError as error:
            log.error("addresses=left found=%r", str(error))  # noqa: TRY400 - the text says it all


def send_releases(will: LastWill) -> list[str]:
    """Send the release to every peer on every path; return the paths that could be used."""
    with ExitStack() as stack:
        paths: dict[str, tuple[socket.socket, tuple[str, ...]]] = {}
        for route in will.routes:
            family = socket.AF_INET6 if ":" in route.source else socket.AF_INET
            kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
            try:
                opened = stack.enter_context(socket.socket(family, kind))
                if family == socket.AF_INET6:
                    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, TTL)
                else:
                    opened.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, TTL)
                opened.bind((route.source, 0))
            except OSError as error:
                log.warning("release path=%s found=%r", route.source, error.strerror)
            else:
                paths[route.source] = opened, route.targets
        for turn in range(RELEASES):
            _pause(RELEASE_GAP_S if turn else 0)
            for opened, targets in paths.values():
                for target in targets:
                    with suppress(OSError):  # a link that is down; there are other paths
                        opened.sendto(will.release, (target, will.port))
    return list(paths)


def _pause(seconds: float) -> None:
    """Wait, whatever signals come meanwhile."""
    select.select([], [], [], seconds)


def _how(code: int) -> str:
    return f"signal={signal.Signals(-code).name}" if code < 0 else f"exit_code={code}"


def prefer() -> None:
    """Run this thread before others, if that is permitted."""
    with suppress(OSError):  # the daemon asks for itself and says so if it may not
        # Neither the daemon while it loads nor another thread shall inherit it.
        priority = os.sched_param(PRIORITY)
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, priority)


def python_command(module: str) -> list[str]:
    """Return what runs a module of this installation with this interpreter, see `hanat.start`."""
    return [sys.executable, "-I", str(Path(__file__).parents[1] / "start.py"), "-m", module]


def is_node(command: Sequence[str]) -> bool:
    """Say whether a command line is one that `python_command` gives for a node's process."""
    return any(
        option == "-m" and module in {SUPERVISOR, DAEMON} for option, module in pairwise(command)
    )


def main() -> int:
    """Supervise the daemon of the node that a file describes; return the exit code."""
    match sys.argv[1:]:  # `hanat run` is what users call; argparse takes 0.9 MiB
        case ["--config", file]:
            pass
        case _:
            sys.stderr.write(f"usage: python -m {SUPERVISOR} --config FILE\n")
            return EXIT_USAGE
    to_stderr()
    prefer()
    command = [*python_command(DAEMON), "--config", file]
    return Supervisor(command, fence=KernelFence(), notifier=Notifier(os.environ)).run()
