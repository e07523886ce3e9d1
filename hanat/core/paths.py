"""Is a path silent here although others hear each other on it?

A device can have its carrier while its network carries nothing: a port in the wrong VLAN, a
switch that forwards no more, a filter. Beacons go over every path, and say which nodes the
sender hears on each. So a node that hears nobody on a path on which two others hear each other
is the one whose end is broken. With two nodes left nobody else can say so; then both ask the
hosts of that network (`Paths.asks`), and it is the one whom nobody answers for `IN_VAIN_S` while
somebody answers the other. Where no host answers anybody it is the one whose device received no
frame at all for `FRAMES_S` while that of the other did. That alone would not do: what is at the
other end of the cable speaks by itself (a switch sends BPDUs each two seconds, a port in the
wrong VLAN brings that VLAN's broadcasts). If neither decides, nobody is hindered, and the holder
stays.

Silence counts from the newest beacon on *any* path: a process that stood still, or a peer that
is gone, makes no path silent.

When a network dies for all, one node finds out first, and has the others' older word that they
hear each other. So what it finds must hold until each of them has looked and said so: half of
the silence again, more than the five beacons between two words of followers.

A node that leaves takes its word with it, but mends no cable: what was found by that word holds
until this node hears somebody there, or a host answers it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hanat.core.beacon import PATHS_MAX

FRAMES_S = 2.0  # without any frame, although hosts were asked
ASK_S = 0.5  # between two questions to the hosts of a network
# A question may be lost, or its answer. Of two whose network dies at one instant neither has
# asked in vain for long while the other counts as answered.
ANSWERED_S, IN_VAIN_S = 2 * ASK_S, 4 * ASK_S
SILENT_BEACONS = 15  # three of those that followers send each other
HEARD_S_MIN = 0.3  # a burst of loss, or a busy machine, is no silence
LOOK_S = 0.1  # between two looks of a node

HeardAt = Mapping[tuple[int, int], float]
"""Peer and path to when it was heard there last, seconds."""


class Word(NamedTuple):
    """What a node says of its paths, see `core.beacon.Beacon`."""

    hears: Sequence[int]
    lively: int
    answered: int = 0


@dataclass(slots=True)
class _Silence:
    """Of one path.

    Attributes:
        since: When it was found first, seconds.
        witnesses: Peers by whose words it is this node's end that is broken.
        confirmed: They said so for `Paths.confirm_s`.
        lapsed: Since when they are all heard and say so no more, None: they say so, or one
            is not heard.
    """

    since: float
    witnesses: frozenset[int]
    confirmed: bool = False
    lapsed: float | None = None


class Paths:
    """What one node hears on its paths.

    Args:
        node_id: This node.
        peers: The others.
        paths: How many paths there are; the first ones count.
        beacon_s: Period of a leader's beacons.
    """

    def __init__(
        self, node_id: int, peers: Collection[int], *, paths: int, beacon_s: float
    ) -> None:
        ids = sorted({node_id, *peers})
        self._bits = {node: 1 << place for place, node in enumerate(ids)}
        self._me, self._peers = node_id, tuple(sorted(peers))
        self.count = min(paths, PATHS_MAX)
        self._silent_s = max(SILENT_BEACONS * beacon_s, HEARD_S_MIN)
        self.confirm_s = self._silent_s / 2 + LOOK_S
        self._found: dict[int, _Silence] = {}  # by path

    def hears(self, heard_at: HeardAt) -> tuple[int, ...]:
        """Return for each path who is heard there, as in beacons.

        A peer that is heard elsewhere, and not here for long, is not heard here.
        """
        newest = {
            peer: max((at for (p, _), at in heard_at.items() if p == peer), default=None)
            for peer in self._peers
        }
        found = []
        for path in range(PATHS_MAX):
            bits = 0
            for peer, at in newest.items():
                here = heard_at.get((peer, path))
                if at is not None and here is not None and at - here <= self._silent_s:
                    bits |= self._bits[peer]
            found.append(bits)
        return tuple(found)

    def silent(
        self, mine: Word, unanswered: int, told: Mapping[int, Word], now: float
    ) -> tuple[bool, ...]:
        """Say of each path whether this node's end of it is broken, for `confirm_s` already.

        Args:
            mine: What this node says.
            unanswered: Paths on which it asks hosts, long in vain, one bit each.
            told: What each peer says that is heard now, on whatever path.
            now: Seconds.
        """
        return tuple(
            self._is_silent(path, mine, unanswered, told, now) for path in range(self.count)
        )

    def _is_silent(
        self, path: int, mine: Word, unanswered: int, told: Mapping[int, Word], now: float
    ) -> bool:
        found = self._found.get(path)
        if witnesses := self._witnesses(path, mine, unanswered, told):
            found = self._found.setdefault(path, _Silence(now, witnesses))
            found.witnesses, found.lapsed = witnesses, None
            found.confirmed = now - found.since >= self.confirm_s
        elif found is not None and self._ends(found, path, mine, told, now):
            self._found.pop(path)
            return False
        return found is not None and found.confirmed

    def _ends(
        self, found: _Silence, path: int, mine: Word, told: Mapping[int, Word], now: float
    ) -> bool:
        """Say whether a silence is none, now that nobody's word says that it is one."""
        bit = 1 << path
        if mine.hears[path] or mine.answered & bit or not found.confirmed:
            return True
        deaf = told and not any(word.lively & bit for word in told.values())
        if mine.lively & bit and deaf:
            return True  # whoever else is there is as deaf
        if not found.witnesses <= told.keys():
            found.lapsed = None
            return False
        # Who returned has not heard the other yet.
        found.lapsed = now if found.lapsed is None else found.lapsed
        return now - found.lapsed >= self.confirm_s

    def asks(self, mine: Sequence[int], told: Mapping[int, Word]) -> tuple[int, ...]:
        """Return the paths on which somebody hears nobody and nobody can say why: ask hosts there.

        Also where this node hears a peer: that one may only be deaf.

        Args:
            mine: From `hears`.
            told: See `silent`.
        """
        return tuple(
            path
            for path in range(self.count)
            if told
            and not (mine[path] and all(word.hears[path] for word in told.values()))
            and not self._hear_each_other(path, told)
        )

    def _witnesses(
        self, path: int, mine: Word, unanswered: int, told: Mapping[int, Word]
    ) -> frozenset[int]:
        """Return by whose words this node's end of a path is broken; empty if it is not."""
        if mine.hears[path]:
            return frozenset()
        if pair := self._hear_each_other(path, told):
            return frozenset(pair)
        if unanswered >> path & 1:
            answered = frozenset(p for p, word in told.items() if word.answered >> path & 1)
            if answered:
                return answered
        if mine.lively >> path & 1:
            return frozenset()
        return frozenset(peer for peer, word in told.items() if word.lively >> path & 1)

    def _hear_each_other(self, path: int, told: Mapping[int, Word]) -> tuple[int, ...]:
        """Return two peers that do, or nobody."""

        def hears(one: int, other: int) -> bool:
            return bool(told[one].hears[path] & self._bits[other])

        pairs = _pairs(tuple(told))
        return next((p for p in pairs if hears(p[0], p[1]) and hears(p[1], p[0])), ())


def heard_again(was: Sequence[int], now: Sequence[int]) -> bool:
    """Say whether some peer is heard on a path where it was not: that network may have healed.

    Args:
        was: From `Paths.hears`, at the look before.
        now: The same, at this look.
    """
    return any(here & ~before for before, here in zip(was, now, strict=True))


def _pairs(nodes: Sequence[int]) -> Iterable[tuple[int, int]]:
    return ((one, other) for i, one in enumerate(nodes) for other in nodes[i + 1 :])


class Frames:
    """Which devices received frames lately.

    Args:
        devices: Kernel names.
    """

    def __init__(self, devices: Iterable[str]) -> None:
        self._counts: dict[str, int] = {}
        self._moved_at = dict.fromkeys(devices, float("-inf"))
        self._since: float | None = None

    def look(self, counts: Mapping[str, int], now: float) -> None:
        """Take the counters of received frames; those of the first time say nothing."""
        self._since = now if self._since is None else self._since
        for device, count in counts.items():
            if device not in self._counts or count != self._counts[device]:
                self._moved_at[device] = now
            self._counts[device] = count

    def lives(self, device: str, now: float) -> bool:
        """Say whether a device received something in the last seconds, as far as known."""
        return now - self._moved_at.get(device, now) <= FRAMES_S


@dataclass(slots=True)
class Questions:
    """To the hosts of one network, as long as they are asked.

    Attributes:
        began: When the first was asked, seconds.
        asked: When the newest was.
        answered: When an answer came last.
    """

    began: float
    asked: float = float("-inf")
    answered: float = float("-inf")

    def due(self, now: float) -> bool:
        """Say whether it is time to ask; note that it was done, if it is."""
        due = now - self.asked >= ASK_S
        self.asked = now if due else self.asked
        return due

    def are_answered(self, now: float) -> bool:
        """Say whether an answer came lately."""
        return now - self.answered <= ANSWERED_S

    def are_in_vain(self, now: float) -> bool:
        """Say whether none did for long."""
        return now - max(self.began, self.answered) > IN_VAIN_S
