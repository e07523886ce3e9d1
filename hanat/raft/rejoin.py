"""A node that may have forgotten: when it may vote again.

A node with a new journal, or one that was damaged and moved away, may have acknowledged
entries before that it does not have, and voted; so may one whose disk failed before its process
ended (`durability`). If it went on as if nothing had been, it could help to elect a leader
without entries that are committed. So it stores and acknowledges what a leader sends, but
neither votes nor stands, until

- it holds what the leader had when they first met: whatever of it is committed is
  there, as the leader was elected by nodes that did not forget; or
- all nodes take part in the election (the cluster is new): then the longest log that is left wins,
  and nobody who knows more is missing.

A node whose member list is not the one of its journal (`core.members`) was perhaps a part
of another majority, and may be missed there. For it only the second way is open, and until
then it neither promises nor acknowledges: a leader of the new list that all others have
left for a third one must not get a majority by it. With its vote it saves the new list,
before anybody sees the vote, and such a leader needs the votes of all: from then on no node
counts for the old list any more.

It holds the leader's log when its newest entry is of the leader's term: logs that agree
in an entry agree in all before. An entry of that term also keeps the vote of the
term, should it be forgotten, from being given twice.

Source: Ongaro, "Consensus: Bridging Theory and Practice", 2014, section 3.8 (what
must be persistent) and 11.7.3 (what if it is not).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hanat.raft.durability import Durability
    from hanat.raft.messages import Entry


class Rejoin:
    """What one node must hold before it votes again.

    Args:
        durability: Knows whether it may have forgotten anything.
    """

    def __init__(self, durability: Durability) -> None:
        self._durability = durability
        self._target: tuple[int, int] | None = None  # a leader's term, and where its log ended

    @property
    def needed(self) -> bool:
        """Whether this node must neither vote nor stand unless all take part."""
        return self._durability.recovering

    def appended(self, *, term: int, leader_last: int, newest: Entry) -> None:
        """Note what this node holds after a message of the leader.

        Args:
            term: The leader's.
            leader_last: Index of the end of the leader's log.
            newest: The end of what this node's disk has of the log.
        """
        if not self.needed:
            return
        if self._target is None or self._target[0] != term:
            self._target = (term, leader_last)
        _, index, entry_term = newest
        if index >= self._target[1] and entry_term == term:
            self._durability.recovered()

    def elected(self) -> None:
        """Note that all nodes took part in the election of this one."""
        if self.needed:
            self._durability.recovered()
