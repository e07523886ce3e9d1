"""Judge whether the scripts of checks can run on this machine; a part of `doctor.examine`."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from hanat.config.settings import NodeSettings
from hanat.core.checks import ScriptCheck
from hanat.core.configuration import Configuration
from hanat.core.script_files import distrust
from hanat.doctor.findings import Finding, Level
from hanat.kernel.script_facts import FileFacts, ScriptFacts, UnitFacts, gather_scripts

# To become another user, and to kill what runs as one.
CAPABILITIES = ("CAP_SETUID", "CAP_SETGID", "CAP_KILL")
SYSTEM_CALLS = "@setuid"
DROP_IN = (
    "systemctl edit hanat, with the lines that docs/services.md has under script; then restart"
)


def look_at_scripts(settings: NodeSettings, configuration: Configuration) -> Iterator[Finding]:
    """Yield what is found of the scripts of a configuration; nothing if it has none."""
    checks = (check.kind for service in configuration.services for check in service.checks)
    names = sorted({kind.name for kind in checks if isinstance(kind, ScriptCheck)})
    if names:
        facts = gather_scripts(settings.scripts, names, settings.script_user)
        yield from judge_scripts(settings, facts)


def judge_scripts(settings: NodeSettings, facts: ScriptFacts) -> Iterator[Finding]:
    """Yield what is found of scripts that a configuration names."""
    folder, user = settings.scripts, settings.script_user
    if not facts.is_user:
        fix = f"write another name into [checker] user of the node file, or useradd -r {user}"
        yield Finding(Level.FAIL, "scripts", f"they run as {user}, and there is no such user", fix)
    if facts.closed is not None and facts.folder is not None:
        found = f"{user} may not enter it, so it can run nothing below"
        yield Finding(Level.FAIL, f"scripts {facts.closed}", found, f"chmod o+x {facts.closed}")
    found = _complaint(facts.folder, is_folder=True)
    if found:
        fix = f"install -d -o root -m 0755 {folder}, and put the scripts there; on every node"
        yield Finding(Level.FAIL, f"scripts {folder}", found, fix)
    else:
        yield Finding(Level.OK, f"scripts {folder}", "of root alone")
    for name, file in facts.files.items() if not found else ():
        yield _judge_script(str(folder / name), file)
    if facts.unit is not None and facts.unit.user not in {"", user}:
        yield _judge_unit(facts.unit)


def _complaint(file: FileFacts | None, *, is_folder: bool) -> str:
    """Return what speaks against a file or a folder; empty: nothing."""
    if file is None:
        return "is not there: every server that it checks counts as down"
    return distrust(file.mode, file.uid, is_folder=is_folder)


def _judge_script(path: str, file: FileFacts | None) -> Finding:
    found = _complaint(file, is_folder=False)
    if not found and file is not None and not file.mode & stat.S_IXOTH:
        found = "may not be run by other users than root"
    if not found:
        return Finding(Level.OK, f"script {path}", "of root alone, and may be run")
    return Finding(
        Level.FAIL,
        f"script {path}",
        found,
        f"install -o root -m 0755 YOUR_SCRIPT {path}; on every node",
    )


def _judge_unit(unit: UnitFacts) -> Finding:
    """Judge whether the service may run a program as another user."""
    missing = [
        f"{name} in {key}="
        for key in ("AmbientCapabilities", "CapabilityBoundingSet")
        for name in CAPABILITIES
        if name not in unit.words.get(key, () if key == "AmbientCapabilities" else CAPABILITIES)
    ]
    calls = unit.words.get("SystemCallFilter", (SYSTEM_CALLS,))
    if SYSTEM_CALLS not in calls:
        missing.append(f"{SYSTEM_CALLS} in SystemCallFilter=")
    if not missing:
        return Finding(Level.OK, "scripts, unit", "the service may run them as another user")
    found = (
        "the service may not run them as another user, so every server that they check counts as "
        f"down: it lacks {', '.join(missing)}"
    )
    return Finding(Level.FAIL, "scripts, unit", found, DROP_IN)
