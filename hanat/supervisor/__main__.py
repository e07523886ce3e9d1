"""Run the supervisor: ``python -m hanat.supervisor --config FILE``."""

from __future__ import annotations

import sys

from hanat.supervisor.supervisor import main

if __name__ == "__main__":
    sys.exit(main())
