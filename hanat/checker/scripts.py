"""Probe by running a program of the operator.

It runs as an unprivileged user, in a session of its own, with an environment of five variables.
At its end, and at the timeout, it is killed with all it started: its session at once, and what
left that (as daemons do) by being this process's orphan, if this process takes orphans
(PR_SET_CHILD_SUBREAPER, prctl(2)).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import pwd
import resource
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen

from hanat.checker.attempt import BYTES_MAX, Attempt, ProbeError, describe, shown
from hanat.core.checks import ScriptCheck, Target
from hanat.core.probing import Reply
from hanat.core.script_files import distrust

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DESCRIPTORS_MAX = 1024  # as programs expect it; the checker may have more
# Exit codes of keepalived's MISC_CHECK with misc_dynamic (keepalived.conf(5)).
EXIT_UP, EXIT_DOWN, EXIT_WEIGHTS = 0, 1, range(2, 255)

DEATH_S_MAX = 1.0  # of one that was killed, until others are looked after again
DYING_MAX = 64
SWEEPS_MAX, SWEEP_S = 10, 0.01

_PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None)


class ScriptProber:
    """Runs the scripts of one folder.

    Args:
        folder: Where they are; None: no script may run.
        user: Runs them. If it is not this process's own, that needs CAP_SETUID, CAP_SETGID and
            CAP_KILL.
        takes_orphans: This process is the parent of all whose parent died, and has no children
            but scripts.
    """

    def __init__(
        self, folder: Path | None = None, user: str = "nobody", *, takes_orphans: bool = False
    ) -> None:
        self._folder, self._user, self._takes_orphans = folder, user, takes_orphans
        self._running: set[int] = set()
        self._dying: list[Popen[bytes]] = []

    async def probe(self, attempt: Attempt, check: ScriptCheck) -> Reply:
        """Run a script; its exit code counts."""
        attempt.awaited = f"end of {check.name}"
        self._dying = [process for process in self._dying if process.poll() is None]
        if len(self._dying) > DYING_MAX:
            raise ProbeError(f"cannot run {check.name}: {DYING_MAX} scripts do not end when killed")
        command = [str(self._trusted(check.name)), *check.arguments]
        readable, writable = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(readable, False)
        try:
            try:
                process = self._start(command, attempt.target, writable)
            finally:
                os.close(writable)
            ended = os.pidfd_open(process.pid)
            try:
                try:
                    return await _outcome(process, (readable, ended), attempt)
                finally:
                    await self._end(process, ended)
            finally:
                os.close(ended)
        finally:
            os.close(readable)

    def _trusted(self, name: str) -> Path:
        """Return the file of a script that only root can have written.

        Raises:
            ProbeError: It is not such a file, or there is no folder.
        """
        if self._folder is None:
            raise ProbeError(f"cannot run {name}: node.toml names no folder of scripts")
        if name in {"", ".", ".."} or "/" in name or "\0" in name:
            raise ProbeError(f"cannot run {name!r}: it is not the name of a file")
        path = self._folder / name
        for place in (self._folder, path):
            try:
                found = place.lstat()
            except OSError as error:
                raise ProbeError(f"cannot run {place}: {os.strerror(error.errno or 0)}") from error
            why = distrust(found.st_mode, found.st_uid, is_folder=place is self._folder)
            if why:
                raise ProbeError(f"cannot run {path}: {place} {why}")
        return path

    def _start(self, command: list[str], target: Target, output: int) -> Popen[bytes]:
        environment = {
            "PATH": SEARCH_PATH,
            "HANAT_SERVICE": target.service,
            "HANAT_SERVER": target.server,
            "HANAT_ADDRESS": str(target.address),
            "HANAT_PORT": str(target.port),
        }
        tried = f"cannot run {command[0]} as {self._user}"
        try:
            user = pwd.getpwnam(self._user)
        except KeyError:
            raise ProbeError(f"{tried}: there is no such user") from None
        if user.pw_uid == 0:
            raise ProbeError(f"{tried}: scripts do not run as root; name another user")
        is_own = {os.getuid(), os.geteuid()} == {user.pw_uid}
        try:
            process = Popen(
                command,
                stdin=DEVNULL,
                stdout=output,
                stderr=STDOUT,
                env=environment,
                cwd="/",
                start_new_session=True,
                user=None if is_own else user.pw_uid,
                group=None if is_own else user.pw_gid,
                extra_groups=None if is_own else [],
                preexec_fn=partial(_prepare, os.getpid()),  # noqa: PLW1509 - this process has one thread
            )
        except OSError as error:
            raise ProbeError(f"{tried}: {describe(error)}") from error
        self._running.add(process.pid)
        return process

    async def _end(self, process: Popen[bytes], ended: int) -> None:
        """Kill a script, if it runs, and what it left behind."""
        # As long as it was not waited for, nobody else can have its number.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        try:
            with suppress(TimeoutError):  # of one that waits for a disk
                async with asyncio.timeout(DEATH_S_MAX):
                    await _readable(ended)
        finally:
            self._running.discard(process.pid)
            if process.poll() is None:
                self._dying.append(process)
        if self._takes_orphans:
            for _ in range(SWEEPS_MAX):
                if not self._kill_orphans():
                    break
                await asyncio.sleep(SWEEP_S)

    def _kill_orphans(self) -> bool:
        """Kill the children that are in the session of no script that runs; say if there are any.

        Their own children come here when they are dead.
        """
        known = self._running | {process.pid for process in self._dying}
        found = False
        for pid in _children():
            if pid in known:
                continue
            with suppress(ProcessLookupError, ChildProcessError, PermissionError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0 and os.getsid(pid) not in self._running:
                    os.kill(pid, signal.SIGKILL)
                    found = True
        return found


def _prepare(checker: int) -> None:
    """Run in the script's process: it ends with the checker, also if that is killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != checker:  # it ended before
        os._exit(EXIT_DOWN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(DESCRIPTORS_MAX, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _children() -> list[int]:
    """Return this process's children; none if the kernel does not tell them (proc(5))."""
    try:
        return [
            int(pid)
            for path in Path("/proc/self/task").glob("*/children")
            for pid in path.read_text().split()
        ]
    except OSError:
        return []


async def _readable(descriptor: int) -> None:
    """Wait until a descriptor can be read."""
    loop, found = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, found.set)
    try:
        await found.wait()
    finally:
        loop.remove_reader(descriptor)


async def _outcome(process: Popen[bytes], descriptors: tuple[int, int], attempt: Attempt) -> Reply:
    """Wait for the end of a script and say what it means.

    Args:
        process: That runs it; it is left to be waited for.
        descriptors: What it prints, and itself (pidfd_open(2)).
        attempt: Notes what was printed so far.
    """
    readable, ended = descriptors
    loop, changed, output = asyncio.get_running_loop(), asyncio.Event(), bytearray()

    def take() -> None:
        try:
            chunk = os.read(readable, BYTES_MAX)
        except BlockingIOError:
            return
        output.extend(chunk)
        attempt.heard = bytes(output[:BYTES_MAX])
        if not chunk:
            loop.remove_reader(readable)
        if len(output) > BYTES_MAX:
            changed.set()

    loop.add_reader(readable, take)
    loop.add_reader(ended, changed.set)
    try:
        await changed.wait()
        take()
    finally:
        loop.remove_reader(readable)
        loop.remove_reader(ended)
    if len(output) > BYTES_MAX:
        raise ProbeError(f"printed more than {BYTES_MAX} bytes: {shown(bytes(output))}")
    return judge_exit(_exit_code(process), shown(bytes(output)))


def _exit_code(process: Popen[bytes]) -> int:
    """Return how a process ended that nobody has waited for yet, and leave it to be waited for."""
    found = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert found is not None, "waitid without WNOHANG"
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def judge_exit(code: int, line: str) -> Reply:
    """Return what an exit code means.

    Args:
        code: 0: up; 1: down; 2 to 254: up, with weight code - 2 percent; negative: the signal
            that killed it.
        line: What the script printed.
    """
    ended = f"killed by signal {-code}" if code < 0 else f"exit {code}"
    answer = f"{line} ({ended})" if line else ended
    percent = code - EXIT_WEIGHTS.start if code in EXIT_WEIGHTS else None
    return Reply(ok=code == EXIT_UP or code in EXIT_WEIGHTS, answer=answer, percent=percent)
