"""What the API needs of the daemon."""

from __future__ import annotations

from typing import Protocol

from hanat.core.status import NodeStatus


class Backend(Protocol):
    """The daemon as the API sees it."""

    def status(self) -> NodeStatus:
        """Return the newest snapshot; never blocks, asks nobody."""
        ...

    async def refresh(self) -> None:
        """Let the next status have the figures of now from who has them; takes 50 ms at most."""
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
