"""What one node knows of itself, and what it shows: the state that `core.node` moves.

Kept apart from the transitions so that either can be read alone.
"""

from __future__ import annotations

from hanat.core.actions import AddAddresses, Proposal, ProposeHolder
from hanat.core.address_schedule import AddressSchedule
from hanat.core.configuration import Configuration, FloatingAddress
from hanat.core.drift import Repairs
from hanat.core.eligibility import Damping, Eligibility, Fitness, Hindrance, Seen, handicap
from hanat.core.node_snapshot import NodeSnapshot, Reason
from hanat.core.status import Role


class NodeState:
    """The state of one node.

    Args:
        node_id: This node in the cluster.
        configuration: From this node's own file. Its profile is in force as long as the
            node runs, whatever a committed configuration says: promises are made by it.
            Its addresses and services never are.
        now: Seconds of CLOCK_BOOTTIME.

    Attributes:
        settled: Newest revision of which it is known whether it is in force here.
        refuses: It is not: this node cannot read or use it, or its kernel refused it.
    """

    _ready = False  # the first addresses are there, and the gate was not opened yet
    _captures = False  # the capture of flows was begun, and not ended

    def __init__(self, *, node_id: int, configuration: Configuration, now: float) -> None:
        self.node_id = node_id
        self._configuration, self._profile = configuration, configuration.profile
        self._revision = self._committed = 0  # in force; newest, perhaps still being read
        self.settled, self.refuses = 0, False
        self._installed: Configuration | None = None  # whose gate and ruleset are in place
        self._drifted: Configuration | None = None  # were, before somebody changed them
        self.role, self._reason, self.role_since = Role.BACKUP, Reason.STARTED, now
        self._started_at = now
        self._term = 0
        self._leader: int | None = None
        self._flows_term = -1  # in which the flows are in the kernel, or were waited for
        self._flows_due: float | None = None
        self._proposal: Proposal | None = None  # that did not take effect yet
        self._proposal_due: float | None = None  # when it is proposed again
        self._holder_term = -1  # in which everybody knows that this node is the holder
        self._lease_until = 0.0
        self._armed_until = 0.0
        self._pending: tuple[Configuration, ...] = ()  # on their way to be installed
        self._eligibility = Eligibility()
        self._damping = Damping()
        self._told, self._told_at = Fitness(), now
        self._seen: tuple[Seen, ...] = ()
        self._electable = False
        self._weigh_due: float | None = None  # when a better node may be given up for
        self._held: tuple[FloatingAddress, ...] = ()  # what may be on the devices
        self._cleared = True  # its removal was asked for since the last opening
        self._gate_until = 0.0  # until when the kernel may let this node answer
        self._opening = False
        self._adding: AddAddresses | None = None  # what the gate waits for to open
        self._release_to: tuple[int, ...] = ()
        self._release_due: float | None = None
        self._handing_over = False
        self._step_down_due: float | None = None
        self._hand_on_due: float | None = None
        self._upkeep = AddressSchedule(self._profile.beacon_s)
        self._repairs = Repairs()
        self._rearm = False  # the gate's sets were made anew, and are empty
        self._finishing = False
        self._transitions: dict[str, int] = {}

    # ------------------------------------------------------------------ reading

    @property
    def deadline(self) -> float | None:
        """When to call `step(TimerDue())`, None: not before the next input."""
        dues = (
            self._lease_until if self.role is Role.ACTIVE or self._opening else None,
            self._eligibility.due, self._upkeep.due, self._weigh_due,
            self._release_due, self._step_down_due, self._hand_on_due, self._flows_due,
            self._proposal_due,
        )  # fmt: skip
        return min((due for due in dues if due is not None), default=None)

    @property
    def unsafe(self) -> tuple[str, ...]:
        """Why this node must not hold the addresses; empty when it may."""
        return self._eligibility.reasons

    @property
    def hindrances(self) -> tuple[str, ...]:
        """Why another node may be better; empty when nothing speaks against this one."""
        return tuple(hindrance.found for hindrance in self._hindrances)

    @property
    def _hindrances(self) -> tuple[Hindrance, ...]:
        # The kernel of the node that captures is where the flows are.
        interfaces = self._configuration.interfaces
        return self._eligibility.hindrances(interfaces, holds=self._captures)

    def snapshot(self) -> NodeSnapshot:
        """Return an immutable copy of the state."""
        return NodeSnapshot(
            started_at=self._started_at,
            role=self.role,
            role_since=self.role_since,
            reason=self._reason,
            term=self._term,
            leader=self._leader,
            lease_until=self._lease_until,
            gate_until=self._gate_until,
            unsafe=self.unsafe,
            hindrances=self.hindrances,
            handicap=handicap(self._hindrances),
            revision=self._revision,
            settled=self.settled,
            refuses=self.refuses,
            configuration=self._configuration,
            profile=self._profile,
            transitions=tuple(sorted(self._transitions.items())),
            restored=self._upkeep.restored,
            repairs=tuple(sorted(self._repairs.counts.items())),
        )

    # ------------------------------------------------------------------ changing

    @property
    def _leading(self) -> bool:
        return self._leader == self.node_id

    @property
    def _flushing(self) -> bool:
        return self.role is Role.RELEASING and not self._handing_over

    def _enter(self, role: Role, reason: Reason, now: float) -> None:
        self.role, self._reason, self.role_since = role, reason, now
        self._transitions[reason.value] = self._transitions.get(reason.value, 0) + 1
        self._opening = False
        self._upkeep.end()
        self._step_down_due = self._hand_on_due = self._weigh_due = None
        if isinstance(self._proposal, ProposeHolder):
            self._proposal = self._proposal_due = None
        if role is not Role.RELEASING:
            self._release_due, self._release_to, self._handing_over = None, (), False
