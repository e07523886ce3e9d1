"""How the nodes see the targets, and whether the holder is blind.

If the holder sees more than half of all targets down (at least two of them) which one eligible
backup sees up, its own network is at fault, not the servers.

Two refinements. Targets fail one after the other: so that the first half is not out of rotation
when the rule strikes, the holder is *in doubt* as soon as the last probe of so many failed; it is
*blind* when so many are down. And servers that die together are seen by one node before the
other: a backup is sure that a target is up only if its last probe succeeded, too.

Both are counted at each change, per backup: no target is looked at but the one that changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from hanat.core.probing import Operational

BLIND_MIN = 2  # targets; one alone is at fault itself


class View(NamedTuple):
    """What a node makes known of how it sees a target.

    Attributes:
        state: By its own `fall` and `rise`.
        ok: Its last probe succeeded.
    """

    state: Operational
    ok: bool

    @property
    def fails(self) -> bool:
        """The last probe failed, or the target is down."""
        return not self.ok or self.state is Operational.DOWN

    @property
    def is_sure(self) -> bool:
        """The target is up, and nothing points to the contrary."""
        return self.ok and self.state is Operational.UP


@dataclass(slots=True)
class Contrast:
    """How many targets fail, or are down, for this node while a backup is sure they are up."""

    failing: int = 0
    down: int = 0

    def count(self, own: View | None, other: View | None, by: int) -> None:
        """Count one target `by` times."""
        if own is not None and other is not None and other.is_sure:
            self.failing += by * own.fails
            self.down += by * (own.state is Operational.DOWN)


@dataclass(slots=True)
class _Backup:
    views: dict[str, View] = field(default_factory=dict)
    old: set[str] = field(default_factory=set)  # of before it began to tell all anew
    contrast: Contrast = field(default_factory=Contrast)


class Views:
    """The views of all nodes, as one of them has them."""

    def __init__(self) -> None:
        self._targets = 0
        self._own: dict[str, View] = {}
        self._backups: dict[int, _Backup] = {}
        self._eligible: frozenset[int] = frozenset()

    def configure(self, *, count: int, gone: Collection[str]) -> None:
        """Note how many targets there are now, and which are none any more."""
        self._targets = count
        for target in gone:
            self._own.pop(target, None)
            for backup in self._backups.values():
                backup.views.pop(target, None)
                backup.old.discard(target)
        self._count_anew()

    def see(self, target: str, view: View) -> None:
        """Note how this node sees a target."""
        before = self._own.get(target)
        if before == view:
            return
        self._own[target] = view
        for backup in self._backups.values():
            other = backup.views.get(target)
            backup.contrast.count(before, other, -1)
            backup.contrast.count(view, other, +1)

    def hear(self, node_id: int, target: str, view: View) -> None:
        """Note how another node sees a target, also one that is not configured here yet."""
        backup = self._backups.setdefault(node_id, _Backup())
        own = self._own.get(target)
        backup.contrast.count(own, backup.views.get(target), -1)
        backup.contrast.count(own, view, +1)
        backup.views[target] = view
        backup.old.discard(target)

    def renew(self, node_id: int) -> None:
        """Note that another node tells all its views anew; until `renewed` the old ones count."""
        backup = self._backups.setdefault(node_id, _Backup())
        backup.old = set(backup.views)

    def renewed(self, node_id: int) -> None:
        """Drop the views that another node did not renew: it has none of these targets."""
        backup = self._backups.get(node_id)
        if backup is None:
            return
        for target in backup.old:
            backup.contrast.count(self._own.get(target), backup.views.pop(target), -1)
        backup.old.clear()

    def forget(self, node_id: int) -> None:
        """Drop the views of another node."""
        self._backups.pop(node_id, None)

    def forget_own(self) -> None:
        """Drop this node's views."""
        self._own.clear()
        self._count_anew()

    def eligible(self, nodes: Collection[int]) -> None:
        """Note which other nodes could hold the addresses."""
        self._eligible = frozenset(nodes)

    def of(self, target: str) -> Mapping[int, View]:
        """Return how other nodes see a target, by node in ascending order."""
        views = ((n, b.views.get(target)) for n, b in sorted(self._backups.items()))
        return {node_id: view for node_id, view in views if view is not None}

    def contrasts(self) -> dict[int, Contrast]:
        """Return how much each eligible backup contradicts this node."""
        return {n: b.contrast for n, b in self._backups.items() if n in self._eligible}

    def is_sure(self, target: str) -> bool:
        """Say whether an eligible backup is sure that a target is up."""
        views = (b.views.get(target) for n, b in self._backups.items() if n in self._eligible)
        return any(view is not None and view.is_sure for view in views)

    def is_in_doubt(self) -> bool:
        """Say whether a holder with these views may be blind."""
        return any(self._is_most(c.failing) for c in self.contrasts().values())

    def witness(self) -> tuple[int, int] | None:
        """Return the backup that sees most of what this node does not, and how many targets.

        None: this node is not blind.
        """
        order = ((c.down, -node_id) for node_id, c in self.contrasts().items())
        down, node_id = max(order, default=(0, 0))
        return (-node_id, down) if self._is_most(down) else None

    def _is_most(self, count: int) -> bool:
        return count >= BLIND_MIN and 2 * count > self._targets

    def _count_anew(self) -> None:
        for backup in self._backups.values():
            backup.contrast = Contrast()
            for target, view in backup.views.items():
                backup.contrast.count(self._own.get(target), view, +1)
