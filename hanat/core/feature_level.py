"""The feature level: which formats the nodes of a cluster write, one number for all of them.

Whatever a node says to another one, or keeps on its disk, begins with the level it was written
in: frames, beacons, entries of the log, snapshots, files. A node reads the level of its own
version and the one before. It writes the level *in force*, which the log carries. So nodes of two
successive versions run together, and a node may go back to the version before, until an operator
raises the level (``hanat cluster finish-upgrade``). That takes all nodes: an absent one counts
with what it said last, which the log carries as well.

A new cluster has the level of its nodes once each of them was heard.

Levels begin at 5: before, each format had a number of its own, of at most 4.

Source: the same in ZooKeeper and Kafka ("metadata.version"), CockroachDB ("cluster version").
"""

from __future__ import annotations

from collections.abc import Mapping

from hanat.errors import RefusedError

LEVEL = 5  # of this version
OLDEST = 5  # that it reads and writes
LEVEL_MAX = 255  # it travels as one byte


def is_readable(level: int) -> bool:
    """Say whether this version reads a level."""
    return OLDEST <= level <= LEVEL


def readable() -> str:
    """Return which levels this version reads, for people."""
    return span(OLDEST, LEVEL)


def span(oldest: int, newest: int) -> str:
    """Return a range of levels for people."""
    return f"{oldest}" if oldest == newest else f"{oldest} to {newest}"


def written(in_force: int) -> int:
    """Return which level to write.

    Args:
        in_force: What the log says, 0 if it says nothing yet.
    """
    return max(OLDEST, min(in_force, LEVEL))


def news(
    members: Mapping[int, str], recorded: Mapping[int, int], said: Mapping[int, int]
) -> list[tuple[int, int]]:
    """Return the nodes, and their levels, that the log does not have so; 0 for who left.

    Args:
        members: The names of all nodes, by their ids.
        recorded: The level of each node, by its id, as the log has it.
        said: The same as the nodes themselves say just now.
    """
    left = [(node, 0) for node in sorted(recorded.keys() - members.keys())]
    return left + [one for one in sorted(said.items()) if recorded.get(one[0]) != one[1]]


def first(in_force: int, members: Mapping[int, str], recorded: Mapping[int, int]) -> int | None:
    """Return the level that a new cluster is to have; None if it has one, or not yet.

    Args:
        in_force: What the log says, 0 if it says nothing yet.
        members: The names of all nodes, by their ids.
        recorded: The level of each node that was ever heard.
    """
    if in_force or members.keys() - recorded.keys():
        return None
    return min(recorded[node] for node in members)


def raised(in_force: int, members: Mapping[int, str], recorded: Mapping[int, int]) -> int:
    """Return the level that all nodes have reached.

    Args:
        in_force: What the log says.
        members: The names of all nodes, by their ids.
        recorded: The level of each node that was ever heard.

    Raises:
        RefusedError: It is in force already, or a node holds the others back.
    """
    unknown = sorted(members[node] for node in members.keys() - recorded.keys())
    if unknown:
        raise RefusedError(
            f"upgrade not finished: nothing is known yet of {', '.join(unknown)}; "
            "it counts once it has run"
        )
    reached = {node: recorded[node] for node in members}
    level, highest = min(reached.values()), max(reached.values())
    if level > in_force:
        return level
    if highest > in_force:
        behind = ", ".join(sorted(members[node] for node in reached if reached[node] == level))
        raise RefusedError(
            f"upgrade not finished: {behind} can do feature level {level}, others {highest}; "
            f"upgrade {behind} first, or, if it is absent for good, replace it by a node of this "
            "version"
        )
    raise RefusedError(f"no upgrade to finish: feature level {in_force} is in force on all nodes")


def has_agreed(level: int, in_force: int, recorded: Mapping[int, int]) -> bool:
    """Say whether a level may come into force: it grows, and no node is known to lack it."""
    return level > in_force and all(known >= level for known in recorded.values())
