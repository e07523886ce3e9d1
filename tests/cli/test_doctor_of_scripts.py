"""``hanat doctor``: whether the scripts of checks can run here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from hanat.config import load_cluster, load_node
from hanat.config.settings import NodeSettings
from hanat.core.checks import ScriptCheck, ServiceCheck
from hanat.core.configuration import Configuration, Listen, Protocol, Scheduler, VirtualService
from hanat.core.probing import Check
from hanat.doctor.findings import Finding, Level
from hanat.doctor.script_findings import judge_scripts, look_at_scripts
from hanat.kernel.script_facts import UnitFacts, gather_scripts
from tests.cli.helpers import REPOSITORY

EXAMPLES = REPOSITORY / "deploy" / "examples" / "three-node"
NODE, CLUSTER = load_node(EXAMPLES / "r1" / "node.toml"), load_cluster(EXAMPLES / "cluster.toml")
UNIT = (
    "[Service]\nUser=hanat\nCapabilityBoundingSet=CAP_NET_ADMIN\nSystemCallFilter=@system-service"
)
DROP_IN = (
    "[Service]\n# a comment\nAmbientCapabilities=CAP_SETUID CAP_SETGID CAP_KILL\n"
    "CapabilityBoundingSet=CAP_SETUID \\\n  CAP_SETGID CAP_KILL\nSystemCallFilter=@setuid\n"
)

pytestmark = pytest.mark.usefixtures("_is_root")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of root that others may enter; pytest's own they may not."""
    with TemporaryDirectory(dir="/var/tmp") as made:
        Path(made).chmod(0o755)
        script = Path(made) / "check"
        script.write_text("#!/bin/sh\n")
        script.chmod(0o755)
        yield Path(made)


def with_scripts(*names: str) -> Configuration:
    """Return a configuration whose one service is checked by scripts."""
    timing = Check(interval_s=2.0, timeout_s=1.0)
    checks = tuple(ServiceCheck(ScriptCheck(name), timing) for name in names)
    listen = Listen(ip_address("203.0.113.10"), Protocol.TCP, 80, 80)
    service = VirtualService("web", (listen,), Scheduler.WRR, (), checks=checks)
    return replace(CLUSTER, services=(service,))


def node(folder: Path, user: str = "nobody") -> NodeSettings:
    return replace(NODE, scripts=folder, script_user=user)


def complaints(folder: Path, *names: str, user: str = "nobody") -> list[Finding]:
    found = look_at_scripts(node(folder, user), with_scripts(*names))
    return [one for one in found if one.level is not Level.OK and one.check != "scripts, unit"]


def only(folder: Path, *names: str, user: str = "nobody") -> Finding:
    (finding,) = complaints(folder, *names, user=user)
    assert finding.level is Level.FAIL
    assert finding.fix, "a complaint says what helps"
    return finding


def test_script_that_can_run_is_no_complaint(folder: Path) -> None:
    assert complaints(folder, "check", "check") == []


def test_configuration_without_scripts_needs_nothing() -> None:
    assert list(look_at_scripts(node(Path("/nowhere")), CLUSTER)) == []


def test_folder_that_is_not_there_is_told_once(folder: Path) -> None:
    found = only(folder / "none", "check", "other")
    assert found.found.startswith("is not there: every server")
    assert found.fix.startswith(f"install -d -o root -m 0755 {folder}/none")


def test_script_that_is_not_there_is_told_with_its_path(folder: Path) -> None:
    found = only(folder, "check", "other")
    assert (found.check, "on every node" in found.fix) == (f"script {folder}/other", True)


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_script_that_others_may_write_is_told(folder: Path, mode: int) -> None:
    (folder / "check").chmod(mode)
    assert "not of root alone" in only(folder, "check").found


def test_script_of_somebody_else_is_told_and_so_is_a_link(folder: Path) -> None:
    os.chown(folder / "check", 12345, -1)
    assert "not of root alone" in only(folder, "check").found
    (folder / "link").symlink_to("/bin/true")
    assert "is not a file" in only(folder, "link").found


def test_script_that_nobody_else_may_run_is_told(folder: Path) -> None:
    (folder / "check").chmod(0o744)
    assert "may not be run" in only(folder, "check").found


def test_folder_that_its_user_may_not_enter_is_told(folder: Path) -> None:
    (folder / "below").mkdir()
    (folder / "check").rename(folder / "below" / "check")
    folder.chmod(0o750)
    with ExitStack() as cleanup:
        cleanup.callback(folder.chmod, 0o755)
        found = only(folder / "below", "check")
    assert (found.check, found.fix) == (f"scripts {folder}", f"chmod o+x {folder}")


def test_user_that_there_is_not_is_told(folder: Path) -> None:
    assert "no such user" in only(folder, "check", user="no-such-user").found


def unit_facts(root: Path, *drop_ins: str, unit: str = UNIT) -> UnitFacts | None:
    files = {"usr/lib/systemd/system/hanat.service": unit} | {
        f"etc/systemd/system/hanat.service.d/{n}.conf": text for n, text in enumerate(drop_ins)
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return gather_scripts(root, (), "nobody", root=root).unit


def of_unit(folder: Path, unit: UnitFacts | None, user: str = "nobody") -> list[Finding]:
    facts = replace(gather_scripts(folder, (), "nobody"), unit=unit)
    found = judge_scripts(node(folder, user), facts)
    return [one for one in found if one.check == "scripts, unit"]


def test_unit_without_the_right_to_become_another_user_is_told(
    folder: Path, tmp_path: Path
) -> None:
    (found,) = of_unit(folder, unit_facts(tmp_path))
    assert found.level is Level.FAIL
    assert "CAP_SETUID in AmbientCapabilities=" in found.found
    assert "CAP_KILL in CapabilityBoundingSet=" in found.found
    assert "@setuid in SystemCallFilter=" in found.found
    assert "systemctl edit hanat" in found.fix
    (found,) = of_unit(folder, unit_facts(tmp_path, DROP_IN))
    assert found.level is Level.OK
    taken_back = "[Service]\nAmbientCapabilities=\n"
    (found,) = of_unit(folder, unit_facts(tmp_path, DROP_IN, taken_back))
    assert found.level is Level.FAIL
    assert "CapabilityBoundingSet" not in found.found


def test_unit_needs_no_rights_for_a_user_of_its_own_nor_as_root(
    folder: Path, tmp_path: Path
) -> None:
    assert of_unit(folder, unit_facts(tmp_path), user="hanat") == []
    assert of_unit(folder, unit_facts(tmp_path, unit="[Service]\n")) == []
    assert of_unit(folder, None) == []  # no package
