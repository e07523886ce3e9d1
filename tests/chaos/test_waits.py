"""How long a checker waited for a core is asked of the kernel."""

from __future__ import annotations

import os
import subprocess
import sys

from chaos.judge.availability import requests_succeed
from chaos.lab.waiting import wait_until
from chaos.observe.observed import Lag
from chaos.observe.run_history import MS, Request
from chaos.observe.waits import Waits, checkers
from tests.chaos.runs import of

BUSY = "while True: pass"


def test_only_checkers_are_looked_at() -> None:
    named = [sys.executable, "-c", "input()", "hanat.checker"]
    with subprocess.Popen(named, stdin=subprocess.PIPE) as child:
        wait_until(lambda: checkers([child.pid]) == [child.pid], 5, "the command to be there")
        assert checkers([os.getpid(), child.pid, 1 << 22]) == [child.pid]
        child.kill()


def test_process_that_has_to_share_a_core_is_seen_to_wait_and_one_that_sleeps_is_not() -> None:
    core = {min(os.sched_getaffinity(0))}
    children = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(3)]
    idle = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        for child in children:
            os.sched_setaffinity(child.pid, core)
        busy, sleeping = Waits(late_ns=0), Waits()
        busy.watch([children[0].pid, 1 << 22])
        assert wait_until(busy.look, 20, "a wait for a core").late_ns > 0
        sleeping.watch([idle.pid])
        assert sleeping.look() is None
    finally:
        for child in (*children, idle):
            child.kill()
            child.wait()
            if child.stdin is not None:
                child.stdin.close()


def test_process_that_has_ended_waits_no_more() -> None:
    waits = Waits()
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        waits.watch([child.pid])
    assert waits.look() is None


def test_requests_that_fail_while_checkers_have_no_core_are_counted_and_not_judged() -> None:
    failed = Request("http", 2000 * MS, 2001 * MS, "fail", None, "refused")
    fine = Request("http", 3000 * MS, 3001 * MS, "ok", "s1", None)
    bounds = (0, 10_000 * MS)
    assert requests_succeed(of(failed, fine), bounds).valid is False
    found = requests_succeed(of(failed, fine, Lag(1800 * MS, 150 * MS)), bounds)
    assert (found.valid, "1 excused" in found.summary) == (True, True)
