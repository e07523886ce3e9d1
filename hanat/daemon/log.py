"""Where a node's processes log to: standard error, one line a fact."""

from __future__ import annotations

import logging
import sys

FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-5s %(message)s"


def to_stderr() -> None:
    """Log from INFO on."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format=FORMAT, datefmt="%Y-%m-%dT%H:%M:%S"
    )
