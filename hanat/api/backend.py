"""What the API needs of the daemon."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from hanat.core.configuration import Address
from hanat.core.server_facts import Mode, ServerId
from hanat.core.service_view import ServiceView
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


@dataclass(frozen=True, slots=True)
class Shown:
    """The replicated configuration.

    Attributes:
        revision: Its number, 0 before the first.
        text: As its author wrote it.
        profile: That nodes run with; the text may name another, which has no effect.
        nodes: For each node ``node``, its name, ``revision``, the newest one it has settled
            (None if it was not heard just now), and ``state``, a word of
            `core.config_diff.Rollout`.
    """

    revision: int
    text: str
    profile: str
    nodes: tuple[dict[str, Any], ...]


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
                fit, worse off or not caught up, or a change of holder is under way.
            NoQuorumError: No majority, or it did not finish in time.
        """
        ...

    def configuration(self) -> Shown:
        """Return the replicated configuration and who has it in force; asks nobody."""
        ...

    async def change(
        self, text: str, based_on: int, *, dry_run: bool, force: bool = False
    ) -> dict[str, Any]:
        """Replace the replicated configuration; the leader must be asked.

        Args:
            text: Of the new one.
            based_on: The revision that its author saw.
            dry_run: Only say what would change; then any node may be asked.
            force: Also if no other node could hold then, and without rolling it back when
                fewer than a majority have it in force.

        Returns:
            ``revision``, ``changes`` (one line each), ``same_text``, ``applied``; if it was,
            also ``nodes``, as in `Shown`, and ``ended``, the number of flows that did not fit
            any more, by reason.

        Raises:
            ConfigError: With every problem; nothing was changed, as with the next three.
            RefusedError: Not the leader (the text names who is).
            StaleRevisionError: Somebody else changed it meanwhile.
            NoQuorumError: No majority or no leader.
            OutcomeUnknownError: Proposed, and not confirmed in time.
        """
        ...

    async def finish_upgrade(self) -> int:
        """Bring the feature level that all nodes have reached into force; return it.

        Raises:
            RefusedError: It is in force, a node has not reached it, or this node is not the leader.
            NoQuorumError: No leader, or it was not committed in time.
        """
        ...

    def history(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest events of the replicated history, oldest first; asks nobody.

        Each with ``at`` (RFC 3339, wall clock of the node that told it) and ``at_s``, ``term``,
        ``node``, ``what``, ``why``, ``previous`` and the rest of `core.history.Event`; ``text``
        is all that as a sentence.
        """
        ...

    def server_history(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest changes of servers in the log, oldest first; asks nobody.

        Each with ``at`` (RFC 3339) and ``at_s``, ``what`` (``verdict``, ``mode``, ``weight``),
        ``servers``, ``node`` (the holder that decided, null for an operator) and ``text``.
        """
        ...

    def services(self) -> Iterable[ServiceView]:
        """Return all services, in the order of the configuration; asks nobody.

        They may be made while they are iterated over, so that the loop can turn between them: a
        thousand services of ten servers take longer than a lease.
        """
        ...

    def service(self, name: str) -> ServiceView:
        """Return one service; asks nobody.

        Raises:
            NoSuchError: There is none of that name.
        """
        ...

    async def administer(
        self, server: ServerId, *, mode: Mode, reason: str, for_s: float | None, by: str
    ) -> ServiceView:
        """Make a server ready, drain it, or put it into maintenance; return its service then.

        Args:
            server: Of a service.
            mode: What becomes of it.
            reason: Why, in words; may be empty.
            for_s: How long, then it is ready again; None: until somebody says so.
            by: Who does it, in words.

        Raises:
            NoSuchError: No such service or server; the text names the nearest.
            RefusedError: It is just coming into force, somebody else changed it at the same time,
                or the log has no room for it.
            NoQuorumError: No majority, or not in time.
        """
        ...

    async def weigh(self, server: ServerId, factor: float, by: str) -> ServiceView:
        """Multiply a server's configured weight by a factor; return its service then.

        Args:
            server: Of a service.
            factor: 0 or more, replaces the one before.
            by: Who does it, in words.

        Raises:
            NoSuchError: As `administer`, and likewise the others.
        """
        ...
