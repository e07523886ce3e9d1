"""What runs a command with no more rights than the unit leaves."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

UNIT = Path(__file__).parents[2] / "deploy/systemd/hanat.service"
NOBODY = 65534


def unit(key: str) -> list[str]:
    """Return the words of a setting of the unit."""
    found = [x for x in UNIT.read_text().splitlines() if x.startswith(f"{key}=")]
    assert len(found) == 1, key
    return found[0].partition("=")[2].split()


def unprivileged() -> list[str]:
    """Return what starts a command with the rights that the unit leaves."""
    assert unit("CapabilityBoundingSet") == unit("AmbientCapabilities")
    kept = [name.removeprefix("CAP_").lower() for name in unit("AmbientCapabilities")]
    sets = ",".join(["-all", *(f"+{name}" for name in kept)])
    return [
        *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
        *(f"--inh-caps={sets}", f"--ambient-caps={sets}", f"--bounding-set={sets}"),
        "--no-new-privs",
        "--",
    ]


def python() -> list[str] | None:
    """Return an interpreter that everybody may run and that finds what this one finds."""
    if shutil.which("setpriv") is None:
        return None
    packages = sysconfig.get_path("purelib")
    repository = str(UNIT.parents[2])
    for candidate in (sys.executable, "/usr/bin/python3"):
        folder = Path(tempfile.mkdtemp(prefix="hanat-python-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        command = [interpreter(folder, candidate, repository, packages)]
        # By env(1): setpriv(1) itself may still look into the folders of root.
        tried = [*unprivileged(), "env", *command, "-I", "-c", "import hanat.daemon.main"]
        done = subprocess.run(tried, cwd="/", capture_output=True, check=False, timeout=60)
        if done.returncode == 0:
            return command
    return None


def interpreter(folder: Path, base: str, *lines: str) -> str:
    """Return a Python of its own, as in a virtual environment.

    Args:
        folder: Where to put it.
        base: The Python behind it.
        lines: What its every process finds: folders to search, or an import (site, .pth).
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    real = Path(base).resolve()
    packages = folder / "lib" / version / "site-packages"
    for place in (folder / "bin", packages):
        place.mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(f"home = {real.parent}\n")
    (packages / "found.pth").write_text("".join(f"{line}\n" for line in lines))
    (folder / "bin" / "python").symlink_to(real)
    return str(folder / "bin" / "python")
