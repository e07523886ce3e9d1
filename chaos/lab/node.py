"""One hanat daemon of the lab: start, ask, and the ways to hurt it.

The abilities are small protocols, so that a nemesis asks for what it needs and
a system that cannot be paused simply lacks one.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from chaos.lab import node_api
from chaos.lab.lab_error import LabError
from chaos.lab.processes import (
    Child,
    Identity,
    identify,
    kill_marked,
    marked,
    send_signal,
    spawn,
    wait_gone,
)

FLOW_WORKER = "hanat.worker"


class Kill(Protocol):
    """Can be killed without warning and started again."""

    def start(self) -> None:
        """Start the daemon; it may take a while to be useful."""
        ...

    def kill(self) -> int:
        """SIGKILL everything; return the CLOCK_MONOTONIC nanosecond before the first signal."""
        ...


class KillDaemon(Protocol):
    """Can lose the process that decides while the one that supervises it lives."""

    @property
    def running(self) -> bool:
        """Whether the process that was started is alive."""
        ...

    def start(self) -> None:
        """Start the daemon; it may take a while to be useful."""
        ...

    def kill_daemon(self) -> int:
        """SIGKILL the deciding process; return the CLOCK_MONOTONIC nanosecond before."""
        ...


class Pause(Protocol):
    """Can be frozen, as by a hypervisor, and thawed."""

    def pause(self) -> int:
        """SIGSTOP everything; return the CLOCK_MONOTONIC nanosecond before the first signal."""
        ...

    def resume(self) -> int:
        """SIGCONT everything; return the CLOCK_MONOTONIC nanosecond before the first signal."""
        ...


class Node:
    """A router's daemon and its folder; implements `Kill`, `KillDaemon` and `Pause`.

    Attributes:
        name: ``r1``.
        folder: ``node.toml``, ``api.sock``, ``hanat.log``, ``data/``.
        command: Starts hanat; another version's, perhaps.
        wanted: Whether it was started and not stopped or killed by us since.
    """

    def __init__(
        self,
        *,
        name: str,
        prefix: str,
        folder: Path,
        command: Sequence[str],
        on_start: Callable[[Identity], None],
    ) -> None:
        self.name = name
        self.folder = folder
        self.wanted = False
        self._prefix = prefix
        self.command = command
        self._on_start = on_start
        self._child: Child | None = None

    @property
    def socket(self) -> Path:
        """The API's Unix socket."""
        return self.folder / "api.sock"

    @property
    def log_file(self) -> Path:
        """What the daemon wrote to standard output and error, all its starts."""
        return self.folder / "hanat.log"

    @property
    def running(self) -> bool:
        """Whether the process that was started is alive: the supervisor, where there is one."""
        return self._child is not None and self._child.running

    @property
    def died(self) -> bool:
        """Whether it ended although nobody here ended it."""
        return self.wanted and self._child is not None and not self._child.running

    @property
    def exit_code(self) -> int | None:
        """Exit code of the daemon started last; None while it runs or before the first."""
        return None if self._child is None else self._child.exit_code

    def start(self) -> None:
        """Start ``hanat run``.

        Raises:
            LabError: It is running already.
        """
        if self._child is not None and self._child.running:
            raise LabError(f"cannot start {self.name}: it runs, pid {self._child.identity.pid}")
        self._child = self.spawn([*self.command, "run", "--config", str(self.folder / "node.toml")])
        self.wanted = True

    def spawn(self, command: Sequence[str]) -> Child:
        """Start a process on this router that is a part of the node: killed and frozen with it."""
        child = spawn(
            command,
            namespace=f"{self._prefix}-{self.name}",
            mark=(self._prefix, self.name),
            log=self.log_file,
            folder=self.folder,
        )
        self._on_start(child.identity)
        return child

    def kill(self) -> int:
        """SIGKILL all its processes; return the instant before the first signal, monotonic ns."""
        self.wanted = False
        started = [self._child.identity] if self._child else []
        killed = kill_marked(self._prefix, self.name, also=started)
        self.reap()
        return killed.instant_ns

    def kill_daemon(self) -> int:
        """SIGKILL the process that answers the API; return the instant before, monotonic ns.

        That process decides; a supervisor above it stays alive. Where the node is one process
        this is as good as `kill`.

        Raises:
            LabError: Nobody answers.
        """
        try:
            daemon = identify(node_api.serving_pid(self.socket))
        except OSError as error:
            raise LabError(f"cannot find the daemon of {self.name}: {error}") from error
        assert daemon is not None
        if self._child is not None and daemon.pid == self._child.identity.pid:
            self.wanted = False
        instant_ns = time.monotonic_ns()
        send_signal(daemon, signal.SIGKILL)
        return instant_ns

    def kill_supervisor(self) -> int:
        """SIGKILL the process that was started, alone; return the instant before, monotonic ns.

        What it supervised lives until it notices.

        Raises:
            LabError: It does not run.
        """
        if self._child is None or not self._child.running:
            raise LabError(f"cannot kill the supervisor of {self.name}: it does not run")
        instant_ns = time.monotonic_ns()
        send_signal(self._child.identity, signal.SIGKILL)
        self.reap()
        return instant_ns

    def signal_flow_worker(self, number: signal.Signals) -> int:
        """Send a signal to the process that replicates flows; return the instant before, ns.

        Raises:
            LabError: There is no such process.
        """
        for process in marked(self._prefix, self.name):
            if FLOW_WORKER in _arguments(process.pid):
                instant_ns = time.monotonic_ns()
                send_signal(process, number)
                return instant_ns
        raise LabError(f"cannot find the flow worker of {self.name}: no process {FLOW_WORKER}")

    def pause(self) -> int:
        """SIGSTOP all its processes; return the instant before the first signal, monotonic ns."""
        return self._signal(signal.SIGSTOP)

    def resume(self) -> int:
        """SIGCONT all its processes; return the instant before the first signal, monotonic ns."""
        return self._signal(signal.SIGCONT)

    def stop(self, timeout_s: float = 10.0) -> int:
        """Ask the daemon to release what it holds and to end; return its exit code.

        Raises:
            LabError: It was not running, or did not end in time; it runs on then.
        """
        child = self._child
        if child is None or not child.running:
            raise LabError(f"cannot stop {self.name}: it does not run")
        self.wanted = False
        send_signal(child.identity, signal.SIGTERM)
        if not wait_gone([child.identity], timeout_s):
            raise LabError(f"{self.name} did not end within {timeout_s:.0f} s of SIGTERM")
        self.reap()
        code = child.exit_code
        assert code is not None
        return code

    def status(self) -> node_api.Status | None:
        """Return its status document, None while it does not answer."""
        return node_api.read_status(self.socket)

    def log_tail(self, lines: int = 8) -> str:
        """Return the last lines it logged."""
        try:
            text = self.log_file.read_text(errors="replace")
        except OSError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])

    def reap(self) -> None:
        """Collect the exit code of a daemon that somebody ended."""
        self.wanted = False
        if self._child is not None:
            self._child.popen.wait(5)

    @property
    def processes(self) -> list[Identity]:
        """Its running processes, whoever started them."""
        found = set(marked(self._prefix, self.name))
        if self._child is not None and self._child.running:
            found.add(self._child.identity)
        return list(found)

    def _signal(self, number: signal.Signals) -> int:
        processes = self.processes
        instant_ns = time.monotonic_ns()
        for process in processes:
            send_signal(process, number)
        return instant_ns


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:  # it is gone
        return []
