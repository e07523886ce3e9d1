"""The one place that touches PySyncObj's module globals.

The library reads the clock and the random source, and creates its journal,
poller and wake-up pipe, through names of its module `syncobj`. We replace those
names once per process, so that time and randomness are parameters (the
simulation runs the unmodified Raft code in virtual time), the journal is ours,
and no pipe or epoll is made: our own event loop drives every tick.

What we know of the library holds for one version; any other is refused.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

# The library replaces two functions of the standard library by versions that only
# work on Windows, for the whole process; put them back at once.
_inet_pton, _inet_ntop = socket.inet_pton, socket.inet_ntop

from pysyncobj import (  # noqa: E402 - see above
    SERIALIZER_STATE,
    SyncObj,
    SyncObjConf,
    syncobj,
)
from pysyncobj.journal import FileJournal, MemoryJournal  # noqa: E402 - see above
from pysyncobj.node import Node as LibraryNode  # noqa: E402 - see above
from pysyncobj.transport import Transport  # noqa: E402 - see above
from pysyncobj.version import VERSION  # noqa: E402 - see above

from hanat.errors import StartupError  # noqa: E402 - see above

socket.inet_pton, socket.inet_ntop = _inet_pton, _inet_ntop

PINNED = "0.3.17"

__all__ = [
    "SERIALIZER_STATE",
    "FileJournal",
    "LibraryNode",
    "MemoryJournal",
    "SyncObj",
    "SyncObjConf",
    "Transport",
    "prepare",
]


class _NullPoller:
    """A poller that never has anything: sockets belong to our own event loop."""

    def subscribe(self, *_: object) -> None: ...

    def unsubscribe(self, *_: object) -> None: ...

    def poll(self, *_: object) -> None: ...


class _Random:
    """The only call the library makes, on a source that we choose."""

    def __init__(self, uniform: Callable[[], float]) -> None:
        self.random = uniform


def prepare(*, clock: Callable[[], float], uniform: Callable[[], float]) -> None:
    """Replace the library's clock, randomness, journal and poller, for this process.

    Args:
        clock: Seconds, monotonic.
        uniform: Random numbers in [0, 1).

    Raises:
        StartupError: Another version of pysyncobj is installed.
    """
    if VERSION != PINNED:
        raise StartupError(
            tried="load the Raft library",
            found=f"pysyncobj {VERSION} is installed",
            to_do=f"install pysyncobj=={PINNED}, the version hanat's repairs are proven for",
        )
    syncobj.monotonicTime = clock
    syncobj.random = _Random(uniform)
    syncobj.createPoller = lambda _kind: _NullPoller()
    syncobj.PIPE_NOTIFIER_ENABLED = False
    # The configuration only takes a file name; we pass the journal itself in its place.
    syncobj.createJournal = lambda journal: journal
    # So with what writes and reads snapshots: it is both "serializer" and "deserializer".
    syncobj.Serializer = lambda _file, _size, _fork, serializer, *_: serializer
