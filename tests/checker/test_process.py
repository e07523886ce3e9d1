"""The checker as a process of its own, commanded by the daemon's end of it."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from subprocess import DEVNULL, Popen

import pytest

from hanat.checker.__main__ import DESCRIPTORS_KEPT
from hanat.checker.probe_service import PROBES_MAX, SCRIPTS_MAX
from hanat.core.checks import Kind, ScriptCheck, Target, TcpCheck
from hanat.core.probing import Check, Operational, Sighting
from hanat.daemon import checker_link
from hanat.daemon.checker_link import CheckerLink
from hanat.supervisor.supervisor import python_command
from tests.checker.servers import LONG_S, closed_port, says_and_waits, tcp_server
from tests.kernel.namespaces import run

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("inside")]

CHECKER = python_command("hanat.checker")
FAST = Check(interval_s=0.05, timeout_s=0.5, fall=2, rise=2)
UP, DOWN = Operational.UP, Operational.DOWN


class Node:
    """A daemon's end, and what it is told."""

    def __init__(self, *options: str, descriptors: int = 0) -> None:
        self._options, self._descriptors = options, descriptors
        self.processes: list[Popen[bytes]] = []
        self.seen: list[Sighting] = []
        self.lost = 0
        self.client = CheckerLink(self._spawn, sighted=self.seen.append, lost=self._lose)

    def _spawn(self, theirs: socket.socket) -> Popen[bytes]:
        process = Popen(
            [*CHECKER, str(theirs.fileno()), *self._options],
            stdin=DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        if self._descriptors:
            limits = (self._descriptors // 2, self._descriptors)
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
        self.processes.append(process)
        return process

    def _lose(self) -> None:
        self.lost += 1

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait, and look after the checker as a daemon does."""
        try:
            async with asyncio.timeout(LONG_S):
                while not condition():
                    self.client.look()
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pytest.fail(f"waited for: {what}; seen: {self.seen[-5:]}")

    async def sees(self, name: str, state: Operational) -> Sighting:
        """Wait until a target is in a state."""
        await self.until(lambda: self._last(name, state), f"{name} {state}")
        found = self._last(name, state)
        assert found is not None
        return found

    def _last(self, name: str, state: Operational) -> Sighting | None:
        last = next((s for s in reversed(self.seen) if s.target == name), None)
        return last if last is not None and last.state is state else None

    async def shown(self) -> tuple[Sighting, ...]:
        told: asyncio.Future[tuple[Sighting, ...]] = asyncio.get_running_loop().create_future()
        self.client.show(told.set_result)
        async with asyncio.timeout(LONG_S):
            return await told


@asynccontextmanager
async def node(*options: str, descriptors: int = 0) -> AsyncIterator[Node]:
    made = Node(*options, descriptors=descriptors)
    made.client.start()
    try:
        yield made
    finally:
        made.client.close()
        await asyncio.sleep(0)
        assert all(process.poll() is not None for process in made.processes)


def target(kind: Kind, port: int, timing: Check = FAST, address: str = "127.0.0.1") -> Target:
    return Target(kind, timing, ip_address(address), port)


async def test_server_that_goes_and_comes_back_is_seen() -> None:
    port = closed_port()
    async with node() as made:
        made.client.configure({"a": target(TcpCheck(), port)})
        for _ in range(2):
            assert (await made.sees("a", DOWN)).answer == "connection refused"
            with socket.create_server(("127.0.0.1", port)):
                await made.sees("a", UP)


SERVER = """
import contextlib, socket
with socket.create_server(("127.0.0.1", 0)) as listening:
    print(listening.getsockname()[1], flush=True)
    while True:
        opened, _ = listening.accept()
        with opened, contextlib.suppress(ConnectionError):
            opened.sendall(b"220 ready\\r\\n")
"""


async def test_server_that_stands_still_is_seen() -> None:
    with Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE) as server:  # noqa: ASYNC220
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            async with node() as made:
                made.client.configure({"a": target(TcpCheck(expect=b"220"), port)})
                await made.sees("a", UP)
                server.send_signal(signal.SIGSTOP)
                assert (await made.sees("a", DOWN)).answer == "no answer within 0.5 s"
                server.send_signal(signal.SIGCONT)
                await made.sees("a", UP)
        finally:
            server.kill()


async def test_holder_is_told_what_it_decided() -> None:
    async with node() as made, tcp_server(says_and_waits(b"")) as port:
        made.client.configure({"a": target(TcpCheck(), port)})
        seen = await made.sees("a", UP)
        assert (seen.tenure, seen.decided) == (None, Operational.UNKNOWN)
        made.client.hold(7)
        await made.until(lambda: made.seen[-1].decided is UP, "a decision")
        assert made.seen[-1].tenure == 7


async def test_checker_that_is_killed_is_started_again_and_told_everything() -> None:
    async with node() as made, tcp_server(says_and_waits(b"")) as port:
        made.client.configure({"a": target(TcpCheck(), port), "b": target(TcpCheck(), 1)})
        made.client.hold(7)
        await made.until(lambda: any(s.decided is UP for s in made.seen), "a decision")
        made.processes[0].kill()
        await made.until(lambda: made.lost, "the loss")
        made.seen.clear()
        await made.until(lambda: any(s.decided is UP for s in made.seen), "a decision")
        await made.until(lambda: any(s.decided is DOWN for s in made.seen), "another decision")
        assert {s.tenure for s in made.seen} == {7}
        assert (made.lost, made.client.restarts, len(made.processes)) == (1, 1, 2)


async def test_checker_that_hangs_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker_link, "LOOK_S", 0.1)
    monkeypatch.setattr(checker_link, "HUNG_S", 2.0)
    async with node() as made, tcp_server(says_and_waits(b"")) as port:
        made.client.configure({"a": target(TcpCheck(), port)})
        await made.sees("a", UP)
        made.processes[0].send_signal(signal.SIGSTOP)
        await made.until(lambda: made.lost, "the loss")
        made.seen.clear()
        await made.sees("a", UP)
        assert made.processes[0].poll() == -signal.SIGKILL


async def test_there_is_no_checker_without_a_target() -> None:
    async with node() as made, tcp_server(says_and_waits(b"")) as port:
        made.client.configure({})
        made.client.hold(7)
        assert await made.shown() == ()
        assert made.processes == []
        made.client.configure({"a": target(TcpCheck(), port)})
        await made.sees("a", UP)
        made.client.configure({})
        await made.until(lambda: made.processes[0].poll() is not None, "its end")
        made.seen.clear()
        made.client.configure({"a": target(TcpCheck(), port)})
        await made.sees("a", UP)
        assert (made.lost, len(made.processes)) == (0, 2)


@pytest.mark.parametrize("said", [b"", b"garbage\n", b'["confused", 1]\n', b"[" * 200_000 + b"\n"])
def test_checker_ends_with_its_daemon(said: bytes) -> None:
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        Popen([*CHECKER, str(theirs.fileno())], pass_fds=[theirs.fileno()]) as process,
    ):
        theirs.close()
        if said:
            ours.sendall(said)
        else:
            ours.close()
        assert process.wait(LONG_S) in {0, 1}


async def test_target_that_stays_is_not_begun_anew() -> None:
    slow = Check(interval_s=0.05, timeout_s=0.5, fall=2, rise=2)
    async with node() as made, tcp_server(says_and_waits(b"")) as port:
        made.client.configure({"a": target(TcpCheck(), port, slow)})
        await made.sees("a", UP)
        (before,) = await made.shown()
        made.client.configure(
            {"a": target(TcpCheck(), port, slow), "b": target(TcpCheck(), port, slow)}
        )
        await made.sees("b", UP)
        after = next(s for s in await made.shown() if s.target == "a")
        assert after.since == before.since
        assert after.in_a_row > before.in_a_row


# ----------------------------------------------------------------------------- scripts


async def test_checker_keeps_no_right_that_it_does_not_need() -> None:
    async with node() as made:
        made.client.configure({"a": target(TcpCheck(), 1)})
        await made.sees("a", DOWN)
        status = Path(f"/proc/{made.processes[0].pid}/status").read_text()
    found = dict(re.findall(r"^(Cap\w+):\s+(\w+)$", status, re.MULTILINE))
    kept = f"{1 << 5 | 1 << 6 | 1 << 7 | 1 << 13:016x}"  # kill, setgid, setuid, net_raw
    assert (found["CapEff"], found["CapPrm"], found["CapInh"], found["CapAmb"]) == (
        kept, kept, "0" * 16, "0" * 16,
    )  # fmt: skip


def lives(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_child_that_leaves_its_session_is_killed_too(folder: Path) -> None:
    script = folder / "check"
    # A shell in a session of its own, with a child in another one: each survives its parent.
    script.write_text("#!/bin/sh\nsetsid sh -c 'setsid sleep 1000 & sleep 1000' &\necho $!\n")
    script.chmod(0o755)
    timing = Check(interval_s=60.0, timeout_s=LONG_S, fall=1, rise=1)
    async with node("--scripts", str(folder)) as made:
        made.client.configure({"a": target(ScriptCheck("check"), 0, Check(0.05, LONG_S, 1, 1))})
        seen = await made.sees("a", UP)
        await made.until(lambda: not lives(seen.answer.split()[0]), "death of the child")
        made.client.configure({"a": target(TcpCheck(), 1, timing)})
        checker = made.processes[0].pid
        await made.until(lambda: not children(checker), "death of all others")


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


async def test_script_ends_with_the_checker(folder: Path) -> None:
    script = folder / "check"
    script.write_text("#!/bin/sh\nexec sleep 1000\n")
    script.chmod(0o755)
    async with node("--scripts", str(folder)) as made:
        made.client.configure({"a": target(ScriptCheck("check"), 0, Check(0.05, LONG_S))})
        await made.until(lambda: made.processes, "a checker")
        checker = made.processes[0].pid
        await made.until(lambda: children(checker), "a script")
        (script_pid, *_) = children(checker)
        comm = Path(f"/proc/{script_pid}/comm")
        await made.until(lambda: comm.read_text() == "sleep\n", "its beginning")
        os.kill(checker, signal.SIGKILL)
        await made.until(lambda: not lives(script_pid), "death of the script")


# ------------------------------------------------------------------------------- scale


async def test_silent_targets_exhaust_no_descriptors_and_hide_no_other(inside: str) -> None:
    run("nft add table inet filtered", inside)
    run("nft add chain inet filtered in { type filter hook input priority 0 ; }", inside)
    run("nft add rule inet filtered in tcp dport 81 drop", inside)
    # A thousand at once, if all could be made.
    timing = Check(interval_s=1.0, timeout_s=0.5, fall=1, rise=1)
    silent = {
        f"{third}.{last}": target(TcpCheck(), 81, timing, f"127.0.{third}.{last}")
        for third in range(8)
        for last in range(1, 251)
    }
    kept = 3 * SCRIPTS_MAX + DESCRIPTORS_KEPT
    async with (
        node(descriptors=kept + 400) as made,
        tcp_server(says_and_waits(b"")) as port,
    ):
        patient = Check(interval_s=1.0, timeout_s=LONG_S, fall=1, rise=1)
        made.client.configure({**silent, "open": target(TcpCheck(), port, patient)})

        def all_down() -> bool:
            return len({s.target for s in made.seen if s.state is DOWN}) == len(silent)

        most = 0
        while not all_down():
            await made.until(lambda: True, "a look")
            await asyncio.sleep(0.05)
            if made.processes:
                most = max(most, len([*Path(f"/proc/{made.processes[0].pid}/fd").iterdir()]))
        assert {s.answer for s in made.seen if s.target in silent} == {"no connection within 0.5 s"}
        assert {s.ok for s in made.seen if s.target == "open"} == {True}
        assert 200 < most <= kept + 400
        shown = await made.shown()
        assert {s.target for s in shown} == {*silent, "open"}


def test_limit_of_descriptors_is_raised_and_kept_to() -> None:
    code = (
        "from hanat.checker.__main__ import probes_max; import resource as r; print(probes_max())"
    )
    kept = 3 * SCRIPTS_MAX + DESCRIPTORS_KEPT
    for soft, hard, expected in (
        (256, 20_000, PROBES_MAX), (256, kept + 400, 400), (64, 64, 1),
    ):  # fmt: skip
        limits = f"import resource as r; r.setrlimit(r.RLIMIT_NOFILE, ({soft}, {hard})); "
        done = subprocess.run(
            [sys.executable, "-c", limits + code], capture_output=True, text=True, check=True
        )
        assert int(done.stdout) == expected
