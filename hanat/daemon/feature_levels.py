"""The feature level of the cluster, in the log: what nodes have reached, and what is in force."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hanat.config.settings import NodeSettings
from hanat.core.beacon import NOBODY
from hanat.core.feature_level import LEVEL, first, news, raised
from hanat.errors import NoQuorumError, RefusedError
from hanat.raft.replica import Replica
from hanat.raft.state import FeatureLevel

LOOK_S = 1.0
COMMIT_S_MAX = 5.0  # a healthy commit takes some milliseconds


class FeatureLevels:
    """Tells the log, as leader, what nodes have reached; raises the level when it is told to.

    Args:
        settings: Of this node.
        replica: The log.
        kick: Called when something was proposed.
    """

    def __init__(self, settings: NodeSettings, replica: Replica, kick: Callable[[], None]) -> None:
        self._members = {peer.node_id: peer.name for peer in settings.peers}
        self._node_id = settings.node_id
        self._replica, self._kick = replica, kick
        self._look_at = 0.0

    @property
    def reached(self) -> dict[str, int]:
        """What each node that was ever heard has reached, by its name."""
        known = self._replica.state.levels
        return {name: known[node] for node, name in self._members.items() if node in known}

    def look(self, now: float) -> None:
        """Propose what the log does not have yet; call it often."""
        if now < self._look_at or not self._replica.leading:
            return
        self._look_at = now + LOOK_S
        state, wanted = self._replica.state, self._news()
        if not wanted and (level := first(state.level, self._members, state.levels)) is not None:
            wanted = [FeatureLevel(NOBODY, level)]
        for command in wanted:
            self._replica.propose_once(command)
            self._kick()

    def _news(self) -> list[FeatureLevel]:
        """Return what nodes say just now and the log does not have."""
        heard = {peer: beacon.level for peer, beacon in self._replica.beacons.items()}
        said = {self._node_id: LEVEL, **heard}
        known = self._replica.state.levels
        return [FeatureLevel(*one) for one in news(self._members, known, said)]

    async def finish(self) -> int:
        """Bring the level that all nodes have reached into force; return it.

        Raises:
            RefusedError: It is in force already, a node has not reached it, or this node does not
                lead; the text names what is to be done.
            NoQuorumError: It was not committed in time; it may still come.
        """
        replica, state = self._replica, self._replica.state
        if not replica.leading:
            leader = None if replica.leader is None else self._members.get(replica.leader)
            if leader is None:
                raise NoQuorumError("upgrade not finished: this node knows no leader; try again")
            raise RefusedError(
                f"upgrade not finished: {self._members[self._node_id]} is not the leader; ask the "
                f"leader, which is {leader}"
            )
        if unknown := self._news():
            names = ", ".join(self._members.get(one.node_id, str(one.node_id)) for one in unknown)
            raise RefusedError(
                f"upgrade not finished: the log does not have yet what {names} can do; try again "
                "in some seconds"
            )
        level = raised(state.level, self._members, state.levels)
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        proposed = replica.propose(
            FeatureLevel(NOBODY, level),
            lambda applied: None if future.done() else future.set_result(applied),
        )
        if not proposed:
            raise NoQuorumError(
                "upgrade not finished: the log takes no entry now; see the status of this node"
            )
        self._kick()
        try:
            async with asyncio.timeout(COMMIT_S_MAX):
                applied = await future
        except TimeoutError:
            raise NoQuorumError(
                f"upgrade not finished: no majority within {COMMIT_S_MAX:.0f} s; it may still come"
            ) from None
        if not applied or state.level < level:
            raise RefusedError(
                "upgrade not finished: the leader changed, or a node of another version came; see "
                "the status, and try again"
            )
        return level
