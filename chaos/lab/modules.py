"""Load the kernel modules that routers load at boot, or say that they are not there.

A new network namespace has the settings of connection tracking only once the module is loaded;
a lab without them would run what "hanat doctor" calls a failure. The names are those of
``deploy/modules-load.d``. In a kernel that was built with them there is nothing to load.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from chaos.lab.lab_error import UsageError

LIST = Path(__file__).parents[2] / "deploy" / "modules-load.d" / "hanat.conf"
CONNTRACK = Path("/proc/sys/net/netfilter/nf_conntrack_max")
MODPROBE_S_MAX = 30.0

_loaded: set[str] = set()  # by this process: a test suite builds hundreds of namespaces


def listed(file: Path = LIST) -> list[str]:
    """Return the modules that a router loads at boot."""
    lines = (line.strip() for line in file.read_text().splitlines())
    return [line for line in lines if line and not line.startswith(("#", ";"))]


def load(names: Sequence[str]) -> str | None:
    """Load modules; those that are there already, or part of the kernel, are well.

    Returns:
        Why they could not be loaded, in words; None if nothing was refused.
    """
    wanted = [name for name in names if name not in _loaded]
    if not wanted:
        return None
    if shutil.which("modprobe") is None:
        return "modprobe not found (Debian: apt install kmod)"
    try:
        done = subprocess.run(
            ["modprobe", "--all", *wanted],
            capture_output=True,
            text=True,
            timeout=MODPROBE_S_MAX,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"modprobe: {error}"
    if done.returncode != 0:
        return done.stderr.strip().partition("\n")[0] or f"modprobe ended with {done.returncode}"
    _loaded.update(wanted)
    return None


def require(names: Sequence[str], needed: Path = CONNTRACK) -> None:
    """Load modules; fail if what they make is absent all the same.

    Args:
        names: What to load.
        needed: A file that exists once they are there. It decides, not what modprobe says:
            this kernel may have been built with them.

    Raises:
        UsageError: They are not to be had here.
    """
    problem = load(names)
    if not needed.exists():
        raise UsageError(
            f"this kernel lacks {needed}, and {', '.join(names)} could not be loaded "
            f"({problem or 'modprobe has loaded them'}); load them as root, on the host if this "
            "is a container"
        )
