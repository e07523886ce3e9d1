"""Somebody holds the addresses whenever somebody could."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from hanat.core.status import Role
from tests.sim.storage import WORK_S

if TYPE_CHECKING:
    from tests.sim.world import World

LOOK_S = 0.02
BOUND_LEASES, BOUND_S = 10, 1.0


class Liveness:
    """Checks how long nobody holds although a majority runs, is not unsafe and is connected.

    That these are hindered, by carriers, rulesets or flows, is no excuse.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        majority = len(world.node_ids) // 2 + 1
        # Each majority, since when nothing is wrong with it.
        self._well_since = {
            nodes: world.now
            for size in range(majority, len(world.node_ids) + 1)
            for nodes in combinations(world.node_ids, size)
        }
        self._held_at = world.now
        profile = next(iter(world.processes.values())).configuration.profile
        self._bound_s = BOUND_LEASES * profile.lease_s + BOUND_S

    def look(self) -> None:
        """Look now, and again and again."""
        world = self._world
        if any(process.role is Role.ACTIVE for process in world.processes.values()):
            self._held_at = world.now
        fine = {node_id for node_id in world.node_ids if self._is_fine(node_id)}
        apart = {pair for pair in combinations(world.node_ids, 2) if not self._joined(pair)}
        for nodes in self._well_since:
            if not fine.issuperset(nodes) or apart.intersection(combinations(nodes, 2)):
                self._well_since[nodes] = world.now
        since, nodes = min((since, nodes) for nodes, since in self._well_since.items())
        if world.now - max(since, self._held_at) > self._bound_s:
            world.violate(f"nobody holds for {self._bound_s:.1f} s although {nodes} could")
            self._held_at = world.now
        world.after(LOOK_S, self.look)

    def _is_fine(self, node_id: int) -> bool:
        p = self._world.processes[node_id]
        runs = p.alive and not p.paused and p.withdraw_s == 0.0
        return bool(
            runs
            and not p.refusing.unsafe
            and p.guard.able
            and not p.guard.recovery.needed
            and not (p.journal.disk.failing or p.journal.facts.failing)
            and p.disk.work_s == WORK_S
        )

    def _joined(self, pair: tuple[int, int]) -> bool:
        link = self._world.link(*pair)
        connected = link.number and all(n == link.number for n in link.believes.values())
        return bool(connected) and not any(
            d.blocks or d.stuck or d.loss for d in link.directions.values()
        )
