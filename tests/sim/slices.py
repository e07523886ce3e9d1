"""A tick of a simulated node, and a look at whether it held the loop for too long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hanat.raft.replica import APPLIED_MAX

if TYPE_CHECKING:
    from tests.sim.process import Process

TICKED_MAX = 2 * APPLIED_MAX  # entries: a tick of the replica is at most two of the library


def tick(process: Process) -> None:
    """Let time and messages take effect, as the daemon does in a turn."""
    before = process.state.count
    process.replica.tick()
    if process.state.count - before > TICKED_MAX:
        process.world.violate(f"{process.node_id} holds its loop for too many entries")
    if process.replica.behind:
        process._kick_soon()
