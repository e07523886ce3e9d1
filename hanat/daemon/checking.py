"""The checker of a node: its process, and what it tells."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from subprocess import DEVNULL, Popen

from hanat.config.settings import NodeSettings
from hanat.core.probing import Sighting
from hanat.daemon import realtime
from hanat.daemon.checker_link import CheckerLink
from hanat.supervisor.supervisor import python_command

CHECKER = "hanat.checker"


def make_checker(
    settings: NodeSettings, *, sighted: Callable[[Sighting], None], lost: Callable[[], None]
) -> CheckerLink:
    """Return the daemon's end of a checker; `start` it when the loop runs.

    Args:
        settings: Where its scripts are, and who runs them.
        sighted: Takes each sighting with news.
        lost: Called when it ended by itself.
    """
    return CheckerLink(partial(_spawn, settings), sighted=sighted, lost=lost)


def _spawn(settings: NodeSettings, theirs: socket.socket) -> Popen[bytes]:
    words = ["--scripts", str(settings.scripts), "--user", settings.script_user]
    with realtime.ordinary_children():
        return Popen(
            [*python_command(CHECKER), str(theirs.fileno()), *words],
            stdin=DEVNULL,
            pass_fds=[theirs.fileno()],
        )
