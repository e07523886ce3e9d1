"""The daemon's end of the line to its supervisor (see `supervisor.last_will`).

Without a supervisor a crash would cost a lease instead of milliseconds, and nobody
would start the node again. So a daemon whose supervisor died ends in good order,
as if it had been told to: whoever started the supervisor then starts both. The end
of the stream tells it, at once and without a race; PR_SET_PDEATHSIG was
considered, but it is lost when the parent dies before the child asked for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress

from hanat.config.settings import NodeSettings
from hanat.core.configuration import FloatingAddress
from hanat.core.placements import placements
from hanat.supervisor.death_watch import hold
from hanat.supervisor.last_will import BEAT, BEAT_S, LastWill, Route

log = logging.getLogger(__name__)


def write_will(
    settings: NodeSettings, vips: tuple[FloatingAddress, ...], *, release: bytes, grace_s: float
) -> LastWill:
    """Return what is to be done when this node's daemon is dead.

    Args:
        settings: Where the peers are.
        vips: Of the configuration in force.
        release: Sealed for this incarnation.
        grace_s: Of the profile this node runs with.
    """
    others = [peer for peer in settings.peers if peer.node_id != settings.node_id]
    return LastWill(
        release=release,
        port=settings.mesh_port,
        routes=tuple(
            Route(str(own), tuple(str(p.addresses[i]) for p in others if i < len(p.addresses)))
            for i, own in enumerate(settings.myself.addresses)
        ),
        addresses=tuple(
            (placement.device, str(placement.address))
            for placement in placements(vips, settings.interfaces)
        ),
        grace_s=grace_s,
    )


def _rights(descriptor: int | None) -> list[tuple[int, int, bytes]]:
    """Return what sends a descriptor along with a message, unix(7)."""
    if descriptor is None:
        return []
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("=i", descriptor))]


class SupervisorLink:
    """Leaves the will and says that the loop turns.

    Made by the thread that the loop will run in: it holds the pulse from then on.

    Args:
        descriptors: Of a socket to the supervisor and of the pulse, ours from here on;
            None: there is no supervisor.
    """

    def __init__(self, descriptors: Sequence[int] | None) -> None:
        self._socket: socket.socket | None = None
        if descriptors is not None:
            line, pulse = descriptors
            self._socket = socket.socket(fileno=line)
            self._socket.set_inheritable(False)
            hold(pulse)
            os.close(pulse)

    def leave(self, will: LastWill, deadlines: int | None = None) -> None:
        """Leave a will in place of the last.

        Args:
            will: What is to be done.
            deadlines: Descriptor of the map with the rights; None: they are timeouts.
        """
        if self._socket is None:
            log.warning("supervisor=none to_do=%r", "start the node by `hanat run`")
            return
        try:
            # Not `socket.send_fds`: in Python 3.11 it leaves the flags out.
            self._socket.sendmsg([will.encode()], _rights(deadlines), socket.MSG_DONTWAIT)
        except BlockingIOError:
            log.warning("supervisor=frozen found=%r", "it has not read for minutes")
        except ConnectionError:
            return  # the reader of `watch` finds the end too

    def watch(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        describe: Callable[[], str],
        orphaned: Callable[[], None],
    ) -> None:
        """Say from now on that the loop turns.

        Args:
            loop: Whose turning it is.
            describe: Returns what the daemon is at the moment, for people.
            orphaned: Called when the supervisor is dead.
        """
        if self._socket is None:
            return
        line = self._socket

        def ended() -> None:
            with suppress(ConnectionError):  # beats it had not read
                assert not line.recv(1), "the supervisor says nothing"
            log.error("supervisor=dead action=shutdown")
            loop.remove_reader(line)
            orphaned()

        loop.add_reader(line, ended)
        self._beat(loop, line, describe)

    def _beat(
        self, loop: asyncio.AbstractEventLoop, line: socket.socket, describe: Callable[[], str]
    ) -> None:
        try:
            line.send(BEAT + describe().encode(), socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass  # it is frozen and has beats enough to read
        except ConnectionError:
            return
        loop.call_later(BEAT_S, self._beat, loop, line, describe)
