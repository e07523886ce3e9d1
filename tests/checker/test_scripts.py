"""Scripts that end well, badly, or not; that fork, print without end, or are not trusted."""

from __future__ import annotations

import os
import pwd
import signal
from ipaddress import ip_address
from pathlib import Path

import pytest

from hanat.checker.probers import Probers
from hanat.checker.scripts import ScriptProber, judge_exit
from hanat.core.checks import ScriptCheck, Target
from hanat.core.probing import Check, Reply
from tests.checker.servers import LONG_S, SHORT_S, probe
from tests.kernel.namespaces import until

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("inside")]


def write(folder: Path, text: str, name: str = "check") -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


async def run(
    folder: Path, text: str, *arguments: str, timeout_s: float = LONG_S, user: str = "nobody"
) -> Reply:
    write(folder, text)
    check = ScriptCheck("check", arguments)
    return await probe(check, 80, timeout_s=timeout_s, scripts=ScriptProber(folder, user))


def lives(pid: str) -> bool:
    """Say whether a process is there, and not only waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("text", "ok", "percent", "answer"),
    [
        ("echo fine; echo more", True, None, "fine (exit 0)"),
        ("echo overloaded >&2; exit 1", False, None, "overloaded (exit 1)"),
        ("exit 2", True, 0, "exit 2"),
        ("exit 52", True, 50, "exit 52"),
        ("exit 254", True, 252, "exit 254"),
        ("exit 255", False, None, "exit 255"),
        ("kill -TERM $$", False, None, "killed by signal 15"),
        ("printf '\\377\\033[2J'", True, None, "\ufffd?[2J (exit 0)"),
    ],
)
async def test_exit_code_counts(
    folder: Path,
    text: str,
    ok: bool,  # noqa: FBT001
    percent: int | None,
    answer: str,
) -> None:
    reply = await run(folder, text)
    assert (reply.ok, reply.percent, reply.answer) == (ok, percent, answer)


async def test_script_knows_who_is_asked_for_and_nothing_else(folder: Path) -> None:
    write(folder, 'env | sort | tr "\\n" " "; echo "$@"; exit 0')
    target = Target(
        ScriptCheck("check", ("a b", "$HOME")),
        Check(1.0, LONG_S),
        ip_address("fd00::1"),
        80,
        service="web",
        server="web1",
    )
    reply = await Probers(ScriptProber(folder)).probe(target, LONG_S)
    assert reply.answer == (
        "HANAT_ADDRESS=fd00::1 HANAT_PORT=80 HANAT_SERVER=web1 HANAT_SERVICE=web "
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PWD=/ a b $HOME (exit 0)"
    )


async def test_script_runs_as_nobody_without_rights(folder: Path) -> None:
    reply = await run(
        folder, "echo $(id -u) $(id -G) $(grep CapEff /proc/self/status) $(ulimit -n)"
    )
    nobody = pwd.getpwnam("nobody")
    assert reply.answer == f"{nobody.pw_uid} {nobody.pw_gid} CapEff: {0:016x} 1024 (exit 0)"


@pytest.mark.parametrize(
    ("user", "found"),
    [
        ("root", "scripts do not run as root; name another user"),
        ("no-such-user", "there is no such user"),
    ],
)
async def test_script_never_runs_as_root(folder: Path, user: str, found: str) -> None:
    reply = await run(folder, "exit 0", user=user)
    assert (reply.ok, reply.answer) == (False, f"cannot run {folder}/check as {user}: {found}")


async def test_script_that_hangs_is_killed_with_its_children(folder: Path) -> None:
    reply = await run(folder, "sleep 1000 & echo $$ $!; sleep 1000 | sleep 1000", timeout_s=SHORT_S)
    assert not reply.ok
    start, _, pids = reply.answer.partition(": ")
    assert start == "no end of check within 0.5 s, only"
    until(lambda: not any(map(lives, pids.split())), f"death of {pids}")


async def test_child_that_holds_the_output_is_not_waited_for(folder: Path) -> None:
    reply = await run(folder, "sleep 1000 & echo $!")
    pid, _, ended = reply.answer.partition(" ")
    assert (reply.ok, ended) == (True, "(exit 0)")
    until(lambda: not lives(pid), "death of the child")


async def test_script_that_ignores_signals_is_killed(folder: Path) -> None:
    reply = await run(
        folder, "trap '' TERM HUP INT; echo $$; while :; do :; done", timeout_s=SHORT_S
    )
    assert not reply.ok
    until(lambda: not lives(reply.answer.rpartition(" ")[2]), "death of the script")


async def test_output_without_end_is_cut_off(folder: Path) -> None:
    reply = await run(folder, "yes")
    assert (reply.ok, reply.answer) == (False, "printed more than 65536 bytes: y")


async def test_script_without_output_ends_at_the_timeout(folder: Path) -> None:
    reply = await run(folder, "exec sleep 1000", timeout_s=SHORT_S)
    assert (reply.ok, reply.answer) == (False, "no end of check within 0.5 s")


async def test_descriptors_are_released(folder: Path) -> None:
    scripts = ScriptProber(folder)
    write(folder, "exit 0")
    await probe(ScriptCheck("check"), scripts=scripts)
    before = len([*Path("/proc/self/fd").iterdir()])
    write(folder, "exec sleep 1000")
    await probe(ScriptCheck("check"), scripts=scripts, timeout_s=SHORT_S)
    assert len([*Path("/proc/self/fd").iterdir()]) == before


# ----------------------------------------------------------------------------- trusted


@pytest.mark.parametrize("name", ["", ".", "..", "../check", "/bin/true", "a/b", "a\0b", "absent"])
async def test_name_of_no_file_in_the_folder_is_refused(folder: Path, name: str) -> None:
    reply = await probe(ScriptCheck(name), scripts=ScriptProber(folder))
    assert not reply.ok
    assert reply.answer.startswith("cannot run ")


async def test_nothing_runs_without_a_folder() -> None:
    reply = await probe(ScriptCheck("check"))
    assert (reply.ok, reply.answer) == (
        False,
        "cannot run check: node.toml names no folder of scripts",
    )


@pytest.mark.parametrize("place", ["", "check"])
@pytest.mark.parametrize("how", ["group", "others", "owner"])
async def test_what_others_can_write_does_not_run(folder: Path, place: str, how: str) -> None:
    write(folder, "exit 0")
    path = folder / place
    match how:
        case "group":
            path.chmod(0o775)
        case "others":
            path.chmod(0o757)
        case _:
            os.chown(path, pwd.getpwnam("nobody").pw_uid, 0)
    reply = await probe(ScriptCheck("check"), scripts=ScriptProber(folder))
    assert not reply.ok
    assert reply.answer.endswith(f"{path} is not of root alone; chown root, chmod go-w")


async def test_link_does_not_run(folder: Path) -> None:
    write(folder, "exit 0", "real")
    (folder / "check").symlink_to("real")
    assert (await probe(ScriptCheck("real"), scripts=ScriptProber(folder))).ok
    reply = await probe(ScriptCheck("check"), scripts=ScriptProber(folder))
    assert (reply.ok, reply.answer[-14:]) == (False, " is not a file")


@pytest.mark.parametrize("mode", [0o644, 0o600])
async def test_file_that_cannot_be_executed_is_said(folder: Path, mode: int) -> None:
    write(folder, "exit 0")
    (folder / "check").chmod(mode)
    reply = await probe(ScriptCheck("check"), scripts=ScriptProber(folder))
    assert (reply.ok, reply.answer) == (
        False,
        f"cannot run {folder}/check as nobody: permission denied",
    )


async def test_file_that_is_no_program_is_said(folder: Path) -> None:
    (folder / "check").write_bytes(b"\x7fELF garbage")
    (folder / "check").chmod(0o755)
    reply = await probe(ScriptCheck("check"), scripts=ScriptProber(folder))
    assert (reply.ok, reply.answer) == (
        False,
        f"cannot run {folder}/check as nobody: exec format error",
    )


def test_signal_is_no_exit_code() -> None:
    assert judge_exit(-signal.SIGKILL, "half") == Reply(
        ok=False, answer="half (killed by signal 9)"
    )
