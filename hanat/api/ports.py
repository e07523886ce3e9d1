"""What the API needs of the daemon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from hanat.core.configuration import Address
from hanat.core.status import NodeStatus


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which connections: those that fit all of what is given.

    Attributes:
        service: Name of the service they were asked of.
        protocol: ``tcp``, ``udp`` or ``icmp``.
        client: Who began.
        server: Who answers.
        limit: How many to return at most.
    """

    service: str | None = None
    protocol: str | None = None
    client: Address | None = None
    server: Address | None = None
    limit: int = 100


class Backend(Protocol):
    """The daemon as the API sees it."""

    def status(self) -> NodeStatus:
        """Return the newest snapshot; never blocks, asks nobody."""
        ...

    async def refresh(self) -> None:
        """Let the next status have the figures of now from who has them; takes 50 ms at most."""
        ...

    async def connections(self, wanted: Wanted, *, kill: bool) -> dict[str, Any]:
        """Look connections up in this node's table; on the holder delete them everywhere.

        Returns:
            ``count`` of what fits, and ``connections``, some of them.

        Raises:
            RefusedError: No such service, to be deleted by a backup, or no answer in time.
        """
        ...

    async def switchover(self, to: str | None) -> str:
        """Hand the addresses to another node; return the name of the new holder.

        Args:
            to: A node's name; None lets the holder choose.

        Raises:
            RefusedError: Not the holder (the text names who is), no such node, target not
                eligible or not caught up, or a change of holder is under way.
            NoQuorumError: No majority, or it did not finish in time.
        """
        ...
