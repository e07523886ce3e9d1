"""Decide what is committed about each target: up or down.

The holder's packets are what clients feel, so the holder's sightings decide, and its verdict is
proposed to the log; every node has the same. Other nodes' views are kept for people and for
one rule. Nothing here acts: methods return proposals, and what else must be known.

**Takeover.** A new holder starts from the committed verdicts. It changes one only by its own
`fall` or `rise` in a row within its tenure (`Sighting.decided`). A proposal of an earlier tenure
that comes late into the log counts nowhere.

**A blind node is not believed**, see `core.views`. A holder in doubt proposes nothing: verdicts
are frozen, but for what it proposed before. A blind one says, too, that a backup should hold,
once per `HAND_OVER_GAP_S`, or again soon if that could not begin. When it is in doubt no longer,
it proposes what it decided meanwhile, but for targets that a backup is sure of: if its own network
has come back, these answer next, and get the time to.

**Flapping** servers stay down for a while, see `core.flap_damping`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import islice
from types import MappingProxyType

from hanat.core.flap_damping import FlapDamping
from hanat.core.probing import Operational, Sighting
from hanat.core.views import View, Views

PROPOSE_AGAIN_S = 1.0  # a proposal that is in no log by then was lost
HAND_OVER_GAP_S = 60.0
HAND_OVER_AGAIN_S = 1.0  # after one that could not even begin
# Of what is due together so many targets are looked at in one call; each costs 20 us, until it is
# a record for the log.
SLICE_TARGETS = 200


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the log has of a target.

    Attributes:
        since: When this node applied it, seconds of its clock.
        answer: The last of those that decided, one line; they were `in_a_row`.
        node_id: The holder that decided; None: nobody yet.
    """

    state: Operational = Operational.UNKNOWN
    since: float = 0.0
    answer: str = ""
    in_a_row: int = 0
    latency_s: float = 0.0
    node_id: int | None = None


NO_VERDICT = Verdict()


@dataclass(frozen=True, slots=True)
class VerdictChanged:
    """A record for the log: to be proposed by the holder, and applied by every node."""

    target: str
    state: Operational
    answer: str
    in_a_row: int
    latency_s: float
    node_id: int
    tenure: int

    def verdict(self, now: float) -> Verdict:
        """Return the verdict, as of a node that applied the record now."""
        return Verdict(
            state=self.state,
            since=now,
            answer=self.answer,
            in_a_row=self.in_a_row,
            latency_s=self.latency_s,
            node_id=self.node_id,
        )


@dataclass(frozen=True, slots=True)
class Froze:
    """The holder is blind: `down` of `targets` are up for the backup `witness`."""

    witness: int
    down: int
    targets: int


@dataclass(frozen=True, slots=True)
class Thawed:
    """The holder is not blind any more."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """The holder should hand over to the backup `witness`, which sees what it does not."""

    witness: int
    down: int
    targets: int

    def __str__(self) -> str:
        return (
            f"{self.down} of {self.targets} targets are down for it and up for node {self.witness}"
        )


Event = VerdictChanged | Froze | Thawed | HandOver


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """What is known of a target, for people.

    Attributes:
        own: This node's last sighting.
        views: Of other nodes, by node.
        penalty: For its falls, see `core.flap_damping`.
        note: Why the verdict is not what this node sees; empty if there is nothing to say.
    """

    verdict: Verdict
    own: Sighting | None
    views: Mapping[int, View]
    penalty: float
    note: str


class Verdicts:
    """The verdicts of a cluster, as one node has them.

    Times are seconds of this node's clock. After each call, `due` says when to call `tick`.

    Args:
        node_id: This node.
    """

    def __init__(self, node_id: int) -> None:
        self._node_id = node_id
        self._targets: frozenset[str] = frozenset()
        self._committed: dict[str, Verdict] = {}
        self.committed: Mapping[str, Verdict] = MappingProxyType(self._committed)
        self._damping = FlapDamping()
        self._own: dict[str, Sighting] = {}
        self._views = Views()
        self._holder: int | None = None
        self._tenure = 0
        # Of this tenure: what decided, what is proposed until when, what waits for its time.
        self._decided: dict[str, Sighting] = {}
        self._proposed: dict[str, tuple[Operational, float]] = {}
        self._agenda: list[tuple[float, str]] = []
        self._contradicted: dict[str, None] = {}  # by what was decided; ordered
        self._thawing: dict[str, None] = {}  # contradicted in a doubt, to be looked at; ordered
        self._recovers: dict[str, float] = {}  # until when it may, after a doubt
        self._recovery_s: Callable[[str], float] = lambda _target: 0.0
        self._doubtful = False
        self._blind = False
        self._hand_over_at = float("-inf")  # the next one, at the earliest

    # ---------------------------------------------------------------- from the log

    def configure(
        self,
        targets: Collection[str],
        now: float,
        recovery_s: Callable[[str], float] = lambda _target: 0.0,
    ) -> tuple[Event, ...]:
        """Take these targets and no others; new ones are unknown.

        Args:
            targets: All of them.
            now: The time.
            recovery_s: How long it takes until a target is seen up that can be reached again.
        """
        self._recovery_s = recovery_s
        before, self._targets = self._targets, frozenset(targets)
        gone = before - self._targets
        self._damping.forget(gone)
        for target in gone:
            for known in (self._committed, self._own, self._decided, self._proposed):
                known.pop(target, None)
            self._recovers.pop(target, None)
            self._contradicted.pop(target, None)
            self._thawing.pop(target, None)
        self._views.configure(count=len(self._targets), gone=gone)
        return self._judge(now)

    def drop(self, target: str) -> bool:
        """Take back what is committed of a target; say whether there was something."""
        return self._committed.pop(target, None) is not None

    def adopt(self, target: str, verdict: Verdict) -> None:
        """Take the verdict that the log had of a target before it was configured."""
        if target in self._targets:
            self._committed[target] = verdict

    def hold(self, node_id: int | None, tenure: int, now: float) -> tuple[Event, ...]:
        """Note who holds the addresses from here on in the log; None: nobody."""
        if (node_id, tenure) == (self._holder, self._tenure):
            return ()
        self._holder, self._tenure = node_id, tenure
        self._undecided()
        return self._judge(now)

    def _undecided(self) -> None:
        self._decided.clear()
        self._proposed.clear()
        self._contradicted.clear()
        self._thawing.clear()
        self._recovers.clear()
        self._agenda.clear()

    def commit(self, change: VerdictChanged, now: float) -> bool:
        """Apply a record of the log.

        Returns:
            Whether the verdict is another one now. It is not if the record is of another than
            the present tenure, or of a target that is gone.
        """
        current = (change.node_id, change.tenure) == (self._holder, self._tenure)
        if not current or change.target not in self._targets:
            return False
        self._proposed.pop(change.target, None)
        was = self.verdict(change.target).state
        if change.state is was:
            return False
        if was is Operational.UP:
            self._damping.fall(change.target, now)
        self._committed[change.target] = change.verdict(now)
        if change.target in self._decided:  # it may have decided otherwise meanwhile
            heappush(self._agenda, (now, change.target))
        return True

    # ------------------------------------------------------------------ what is seen

    def sight(self, sighting: Sighting, now: float) -> tuple[Event, ...]:
        """Take what this node sees; one without news may be left out."""
        target = sighting.target
        if target not in self._targets:
            return ()
        self._own[target] = sighting
        self._views.see(target, View(sighting.state, sighting.ok))
        if self._is_decision(sighting):
            self._decided[target] = sighting
            return (*self._judge(now), *self._consider(target, now))
        return self._judge(now)

    def _is_decision(self, sighting: Sighting) -> bool:
        if self._holder != self._node_id or sighting.tenure != self._tenure:
            return False
        known = self._decided.get(sighting.target)
        before = Operational.UNKNOWN if known is None else known.decided
        return sighting.decided not in {before, Operational.UNKNOWN}

    def hear(self, node_id: int, target: str, view: View, now: float) -> tuple[Event, ...]:
        """Take how another node sees a target."""
        assert node_id != self._node_id
        self._views.hear(node_id, target, view)
        events = self._judge(now)
        if target in self._recovers and not self._views.is_sure(target):
            del self._recovers[target]
            events += self._consider(target, now)
        return events

    def renew(self, node_id: int) -> None:
        """Note that another node begins to tell all its views anew."""
        self._views.renew(node_id)

    def renewed(self, node_id: int, now: float) -> tuple[Event, ...]:
        """Note that it told them all, and drop those that it has no more."""
        self._views.renewed(node_id)
        return self._judge(now)

    def forget(self, node_id: int, now: float) -> tuple[Event, ...]:
        """Drop the views of a node that is not heard, or does not probe, any more.

        What this node decided in its tenure is dropped with its own views; what is committed
        stays.
        """
        if node_id != self._node_id:
            self._views.forget(node_id)
            return self._judge(now)
        self._own.clear()
        self._views.forget_own()
        self._undecided()
        return self._judge(now)

    def eligible(self, nodes: Collection[int], now: float) -> tuple[Event, ...]:
        """Note which other nodes could hold the addresses."""
        self._views.eligible(nodes)
        return self._judge(now)

    # -------------------------------------------------------------------------- time

    def due(self) -> float | None:
        """Return when `tick` is to be called next."""
        if self._thawing:
            return 0.0
        times = [self._agenda[0][0]] if self._agenda else []
        return min([*times, *([self._hand_over_at] if self._blind else [])], default=None)

    def tick(self, now: float) -> tuple[Event, ...]:
        """Return what is due: proposals that were lost, or had to wait.

        Of many targets some are looked at; `due` is past as long as there are others.
        """
        events = list(self._judge(now))
        targets: dict[str, None] = {}
        while self._agenda and self._agenda[0][0] <= now and len(targets) < SLICE_TARGETS:
            targets[heappop(self._agenda)[1]] = None
        for target in targets:
            events += self._consider(target, now)
        return (*events, *self._thaw(now, SLICE_TARGETS - len(targets)))

    # -------------------------------------------------------------------- for people

    def not_handed_over(self, now: float) -> None:
        """Note that a hand-over could not even begin: it does not count as this minute's."""
        self._hand_over_at = now + HAND_OVER_AGAIN_S

    @property
    def frozen(self) -> bool:
        """This node holds, but proposes no verdicts."""
        return self._doubtful

    def verdict(self, target: str) -> Verdict:
        """Return what the log has of a target."""
        return self._committed.get(target, NO_VERDICT)

    def show(self, target: str, now: float) -> TargetStatus:
        """Return what is known of a target."""
        return TargetStatus(
            verdict=self.verdict(target),
            own=self._own.get(target),
            views=self._views.of(target),
            penalty=self._damping.penalty(target, now),
            note=self._note(target, now),
        )

    def _note(self, target: str, now: float) -> str:
        own = self._own.get(target)
        verdict = self.verdict(target).state
        wait_s = self._damping.reuse_at(target) - now
        if verdict is Operational.DOWN and wait_s > 0:
            return (
                f"it fell too often and stays down for another {wait_s:.0f} s, whatever it answers"
            )
        if self._doubtful and own is not None and own.state is not verdict:
            return (
                f"this node sees it {own.state.value}, but verdicts are frozen: it fails to reach "
                "more than half of all targets, which a backup reaches"
            )
        return ""

    # ---------------------------------------------------------------------- the rules

    def _judge(self, now: float) -> tuple[Event, ...]:
        """Freeze or thaw, and say when to hand over."""
        holds = self._holder == self._node_id
        was_doubtful, was_blind = self._doubtful, self._blind
        self._doubtful = holds and self._views.is_in_doubt()
        found = self._views.witness() if holds else None
        self._blind = found is not None
        events: list[Event] = []
        if was_blind and found is None:
            events.append(Thawed())
        if found is not None and not was_blind:
            events.append(Froze(*found, len(self._targets)))
        if found is not None and now >= self._hand_over_at:
            self._hand_over_at = now + HAND_OVER_GAP_S
            events.append(HandOver(*found, len(self._targets)))
        if self._doubtful:
            self._thawing.clear()
        elif was_doubtful:
            self._thawing.update(self._contradicted)
            events += self._thaw(now, SLICE_TARGETS)
        return tuple(events)

    def _thaw(self, now: float, count_max: int) -> list[Event]:
        """Look at some of the targets that were decided upon in a doubt."""
        events: list[Event] = []
        for target in list(islice(self._thawing, count_max)):
            events += self._consider(target, now)
        return events

    def _consider(self, target: str, now: float) -> tuple[Event, ...]:
        """Propose what this node decided, unless something speaks against it."""
        if target in self._thawing:
            del self._thawing[target]
            if self._views.is_sure(target):
                self._recovers[target] = now + self._recovery_s(target)
        decided = self._decided.get(target)
        verdict = self.verdict(target).state
        if decided is None or decided.decided is verdict:
            self._contradicted.pop(target, None)
            self._recovers.pop(target, None)
            return ()
        self._contradicted[target] = None
        if self._doubtful:
            return ()
        recovers_until = self._recovers.get(target, now)
        if now < recovers_until and decided.decided is Operational.DOWN:
            heappush(self._agenda, (recovers_until, target))
            return ()
        state, again_at = self._proposed.get(target, (None, now))
        if verdict is Operational.DOWN:
            again_at = max(again_at, self._damping.reuse_at(target))
            state = decided.decided  # it waits, proposed or not
        if state is decided.decided and now < again_at:
            heappush(self._agenda, (again_at, target))
            return ()
        self._proposed[target] = (decided.decided, now + PROPOSE_AGAIN_S)
        heappush(self._agenda, (now + PROPOSE_AGAIN_S, target))
        return (
            VerdictChanged(
                target=target,
                state=decided.decided,
                answer=decided.answer,
                in_a_row=decided.in_a_row,
                latency_s=decided.latency_s,
                node_id=self._node_id,
                tenure=self._tenure,
            ),
        )
