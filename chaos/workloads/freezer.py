"""Make file systems slow by freezing them again and again: what writes waits in between.

``python -m chaos.workloads.freezer FOLDER... --seconds 5``; they are thawed at the end.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from chaos.lab import mounts
from chaos.lab.stop import Stop

FROZEN_S, THAWED_S = 0.06, 0.02


def main() -> None:
    """Freeze and thaw until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m chaos.workloads.freezer", description=__doc__)
    parser.add_argument("folder", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    stop = Stop(options.seconds)
    try:
        while not stop:
            for folder in options.folder:
                mounts.freeze(folder)
            time.sleep(FROZEN_S)
            for folder in options.folder:
                mounts.thaw(folder)
            time.sleep(THAWED_S)
    finally:
        for folder in options.folder:
            mounts.thaw(folder)


if __name__ == "__main__":
    main()
