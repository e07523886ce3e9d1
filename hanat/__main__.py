"""Run the command line as ``python -m hanat``."""

import sys

if not sys.flags.safe_path:
    # The current directory comes last: it may have a json.py, and root may stand in it.
    sys.path.append(sys.path.pop(0))

from hanat.cli import main

if __name__ == "__main__":
    main()
