"""Run a module of this installation: ``python -I .../hanat/start.py -m MODULE ARGUMENTS``.

Every process of a node is started so. Isolated (`-I`), Python searches neither the current
directory nor the user's packages and heeds no variable such as ``PYTHONPATH``: a node that
root starts in a folder with a ``json.py`` must not import it. But then it would not find a
hanat that is not installed, in a folder of its own. So this file, which is started by its
path, adds that folder: behind the standard library, before installed packages.

The flow worker speaks no TLS. Without the module `ssl` asyncio goes on, and has 1 MiB less of
its own and 2 MiB less of the library; so there is none. It imports nothing of hanat itself.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

WITHOUT_TLS = ("hanat.worker",)
PACKAGES = ("site-packages", "dist-packages")


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
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
