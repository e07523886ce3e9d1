"""Run a module of this installation: ``python -I .../hanat/start.py -m MODULE ARGUMENTS``.

Every process of a node is started so. Isolated (`-I`), Python searches neither the current
directory nor the user's packages and heeds no variable such as ``PYTHONPATH``: a node that
root starts in a folder with a ``json.py`` must not import it. But then it would not find a
hanat that is not installed, in a folder of its own. So this file, which is started by its
path, adds that folder: behind the standard library, before installed packages.

The flow worker speaks no TLS. Without the module `ssl` asyncio goes on, and has 1 MiB less of
its own and 2 MiB less of the library; so there is none.

Processes of one node are of one version: what they say to each other is not negotiated. The
supervisor tells its version to all that are started below it. If another one was installed
meanwhile, they end with a sentence, and the supervisor with them: whoever keeps it running starts
all of the new one.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

WITHOUT_TLS = ("hanat.worker",)
PACKAGES = ("site-packages", "dist-packages")
SUPERVISOR = "hanat.supervisor"
RUNNING = "HANAT_VERSION"  # variable of the environment: of the supervisor above


def main() -> None:
    """Find the package that this file is in, and run the module in place of this one."""
    root = Path(__file__).resolve().parents[1]
    if root.name not in PACKAGES:
        packages = (i for i, path in enumerate(sys.path) if Path(path).name in PACKAGES)
        sys.path.insert(next(packages, len(sys.path)), str(root))
    option, module, *arguments = sys.argv[1:]
    assert option == "-m", sys.argv
    if module in WITHOUT_TLS:
        sys.modules["ssl"] = None  # type: ignore[assignment]  # what imports it gets an ImportError
    _demand_one_version(module)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _demand_one_version(module: str) -> None:
    from hanat import __version__

    if module == SUPERVISOR:
        os.environ[RUNNING] = __version__
    running = os.environ.get(RUNNING, __version__)
    if running != __version__:
        from hanat.errors import EXIT_OTHER_VERSION

        sys.stderr.write(
            f"hanat: cannot start {module}: version {__version__} is installed, and this node runs "
            f"{running}; restart the node\n"
        )
        sys.exit(EXIT_OTHER_VERSION)


if __name__ == "__main__":
    main()
