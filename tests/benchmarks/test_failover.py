"""The command line, what is stored, and the files the other system gets."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import keepalived, load, scale
from benchmarks.cases import CASES
from benchmarks.failover import Results, Trial, parse, systems
from benchmarks.figures import ENDLESS, Figures
from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError, UsageError
from chaos.lab.processes import environment
from chaos.lab.topology import three_routers

GOOD = Figures(
    lost={"udp-in": 0},
    gap_ms={"udp-in": 1},
    new_ms={"new-in": ENDLESS},
    again_ms={"new-in": ENDLESS},
    arp_ms=0,
    two_ms=0,
    tcp_dead={},
    changes=1,
    announcements=10,
)
TWO = Figures(
    lost={"udp-in": 0},
    gap_ms={"udp-in": 1},
    new_ms={"new-in": 1},
    again_ms={"new-in": 5},
    arp_ms=0,
    two_ms=1,
    tcp_dead={},
    changes=1,
    announcements=10,
)


def test_without_arguments_every_fault_twenty_times_in_profile_fast() -> None:
    options = parse([])
    assert (options.profile, options.trials, options.fault) == ("fast", 20, None)
    assert list(systems(options)) == ["hanat, profile fast"]


def test_keepalived_beside_it_with_all_intervals_or_some() -> None:
    assert list(systems(parse(["--keepalived"]))) == [
        "hanat, profile fast",
        "keepalived, advert_int 1 s",
        "keepalived, advert_int 0.1 s",
        "keepalived, advert_int 0.01 s",
    ]
    assert parse(["--keepalived", "0.02", "3"]).keepalived == [0.02, 3]


def test_other_builds_take_turns_with_this_one() -> None:
    assert list(systems(parse(["--beside", "/old/hanat", "ionice hanat"]))) == [
        "hanat, profile fast",
        "/old/hanat, profile fast",
        "ionice hanat, profile fast",
    ]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--trials", "0"], '"0" is no number of trials'),
        (["--trials", "-1"], '"-1" is no number of trials'),
        (["--fault", "cut", "meteor"], "invalid choice: 'meteor'"),
        (["--profile", "slow"], "invalid choice: 'slow'"),
        (["--keepalived", "0.001"], '"0.001" is no advert interval'),
        (["--keepalived", "nan"], '"nan" is no advert interval'),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    assert found in capsys.readouterr().err


def test_help_names_every_fault(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    said = "".join(capsys.readouterr().out.split())  # lines are broken at hyphens, too
    assert [name for name in CASES if name not in said] == []
    assert "lessthan10%ofthemachine" in said


def test_a_file_in_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        parse(["--json", str(tmp_path / "none" / "x.json")])


def test_every_trial_is_stored_when_it_is_done(tmp_path: Path) -> None:
    results = Results(tmp_path / "x.json")
    results.add(Trial("hanat, profile fast", "cut", 0.5, figures=GOOD))
    results.add(Trial("hanat, profile fast", "kill", 0.5, error="no holder"))
    stored = json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail)
    assert [t["fault"] for t in stored["trials"]] == ["cut", "kill"]
    assert stored["trials"][0]["figures"]["new_ms"] == {"new-in": None}
    assert stored["trials"][1]["error"] == "no holder"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_the_run_is_good_when_all_was_measured_and_hanat_was_never_two() -> None:
    def good(*trials: Trial) -> bool:
        return Results(None, list(trials)).good

    measured = Trial("hanat, profile fast", "cut", 0.5, figures=GOOD)
    assert good(measured)
    assert good(measured, Trial("keepalived, advert_int 1 s", "kill", 0.5, figures=TWO))
    assert not good(measured, Trial("hanat, profile calm", "kill", 0.5, figures=TWO))
    assert not good(measured, Trial("keepalived, advert_int 1 s", "kill", 0.5, error="no holder"))


def test_the_tables_keep_the_order_of_systems_and_faults() -> None:
    results = Results(None)
    for system in ("b", "a"):
        for fault in ("kill", "none"):
            results.add(Trial(system, fault, 0.5, figures=GOOD))
    lines = results.tables().splitlines()
    assert [line.split("**")[1] for line in lines if "**" in line] == ["b", "a"]
    labels = [line.split(" | ")[0][2:] for line in lines if line.endswith("| 10 / 10 |")]
    assert labels == [CASES["none"].label, CASES["kill"].label] * 2


def test_the_files_of_keepalived_name_their_own_router() -> None:
    first, second, _ = three_routers("x").routers
    conf = keepalived.keepalived_conf(second, home=Path("/lab/r2"), advert_s=0.01)
    assert "advert_int 0.01\n" in conf
    assert "203.0.113.10/24 dev eth0" in conf
    assert "10.11.12.1/24 dev eth1" in conf
    assert 'notify_master "/lab/r2/primary-backup.sh primary"' in conf
    states = keepalived.conntrackd_conf(second, first, home=Path("/lab/r2"))
    assert "IPv4_address 10.11.12.12\n    IPv4_Destination_Address 10.11.12.11\n" in states


def test_without_keepalived_the_comparison_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UsageError, match="keepalived and conntrackd and conntrack, not found"):
        keepalived.require_programs()


def test_the_machine_is_as_busy_as_its_cores_are_not_idle() -> None:
    # proc(5): user nice system idle iowait irq softirq steal guest guest_nice
    before = "cpu 100 0 50 1000 10 0 5 0 40 0\ncpu0 1 2 3 4\n"
    after = "cpu 110 5 60 1060 20 0 10 0 45 0\ncpu0 1 2 3 4\n"
    assert load.busy_share(before, after) == pytest.approx(0.3)
    assert load.busy_share(before, before) == 0


def test_sleeper_leaves_the_scheduling_as_it_was() -> None:
    before = os.sched_getscheduler(0)
    assert load.lateness_s(0.01) >= 0
    assert os.sched_getscheduler(0) == before


def test_other_build_does_not_find_the_code_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "hanat"
    program.write_text('#!/bin/sh\nprintf "%s" "$PYTHONPATH"\n')
    program.chmod(0o755)
    commands: list[Sequence[str]] = []

    def seen(lab: Lab) -> Lab:
        commands.append(lab.hanat)
        raise LabError("that is all")

    monkeypatch.setattr(Lab, "__enter__", seen)
    options = parse(["--beside", str(program)])
    commands.append([*systems(options).values()][1]().lab.hanat)
    with pytest.raises(LabError):
        scale.run(scale.parse(["--hanat", str(program)]), str(program), {})
    for command in commands:
        done = subprocess.run(
            command, env=environment("none", "t"), capture_output=True, text=True, check=True
        )
        assert done.stdout == ""
