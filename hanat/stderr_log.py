"""Where a node's processes log to: standard error, one line a fact.

Complaints about what strangers or peers send go to a logger of their own, which is
bounded (`core.complaints`): nobody outside can fill a disk with them.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

from hanat.core.complaints import Complaints

FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-5s %(message)s"
COMPLAINTS = "hanat.complaints"


class Bounded(logging.Filter):
    """Lets as many complaints pass as `Complaints` admits, and says how many it left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._complaints, self._clock = Complaints(), clock

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is written."""
        text = record.getMessage()
        left_out = self._complaints.admit(text, self._clock())
        if left_out:
            record.msg, record.args = "%s left_out=%d", (text, left_out)
        return left_out is not None


def to_stderr() -> None:
    """Log from INFO on."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format=FORMAT, datefmt="%Y-%m-%dT%H:%M:%S"
    )
    complaints = logging.getLogger(COMPLAINTS)
    if not complaints.filters:
        complaints.addFilter(Bounded())
