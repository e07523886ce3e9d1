"""The status of a node as one immutable document.

The driver publishes a new `NodeStatus` whenever it is asked for one; the API,
the metrics and the command line only render it. Times are durations in
seconds, never clock readings, because clocks of different nodes do not compare.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from hanat.core.configuration import GateKind


class Role(Enum):
    """What a node is right now; `core.node` holds the transitions."""

    BACKUP = "BACKUP"  # follows, installs flows, holds nothing
    TAKEOVER = "TAKEOVER"  # elected, gate still shut
    ACTIVE = "ACTIVE"  # the holder
    RELEASING = "RELEASING"  # answers no more, hands leadership on
    FENCED = "FENCED"  # elected, but without a lease


@dataclass(frozen=True, slots=True)
class VipStatus:
    """One floating address on this node; `held` means it is on the device and answered."""

    name: str
    address: str
    device: str
    held: bool


@dataclass(frozen=True, slots=True)
class PathStatus:
    """One way to a peer; `beacon_s` since its last beacon on it, None before the first."""

    address: str
    beacon_s: float | None


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """Another node as seen from here.

    Attributes:
        connected: Whether the log's connection is up.
        heard_s: Since its last message on that, None before the first.
        address: Where that goes to, None if there is none.
        paths: Its beacons.
        fit: It said just now that it can stand in for a holder: vote, store, and hold safely.
        unsafe: It said that it must not hold.
        handicap: What speaks against it, as a number; 0 is best. None if it was not heard.
        hindrances: The same in words.
        complete: It said just now that it has all flows.
        refused: Why its newest beacon was not believed; empty if it was.
    """

    name: str
    node_id: int
    connected: bool
    heard_s: float | None
    address: str | None
    paths: tuple[PathStatus, ...] = ()
    fit: bool = False
    complete: bool = False
    refused: str = ""
    unsafe: bool = False
    handicap: int | None = None
    hindrances: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A real server; `flows` counts established, translated flows known here.

    Attributes:
        priority: Of scheduler ``fo``; 1 is the best.
    """

    name: str
    address: str
    weight: int
    flows: int
    priority: int = 1


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """A virtual service with its servers in configured order.

    Attributes:
        checks: What is probed at each server, in words; the first is the kind.
        options: What else is configured and not the default, in words.
    """

    name: str
    listen: tuple[str, ...]
    scheduler: str
    flows: int
    servers: tuple[ServerStatus, ...]
    checks: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FlowStatus:
    """Flow replication since the start of this process, in records.

    Attributes:
        captured: Changes read from this node's kernel while it was the holder, as the kernel
            told of them or in a resync.
        committed: Of those, known to be in the log of a majority.
        pending: Captured, not yet committed: what a failover now would lose.
        received: Records committed by other holders and handed to this kernel.
        installed: Of those, created or replaced.
        deleted: Of those, deletions.
        clashed: Not installed because another entry uses the translated tuple.
        failed: Not installed for another reason.
        repaired: Entries that were missing here, or had stayed, and a resync found.
        dropped: Captured but given up because commits stalled.
        overruns: Times the kernel dropped events.
        lag_s: From the first change of the newest committed batch to its commit; None before one.
        kernel_entries: Entries in this kernel's table, of any kind.
        kernel_limit: The most there may be.
        uninserted, table_drops: See `core.table_pressure.TableStatistics`.
        alarms: What is alarming about the table, a clause each.
        flows: Translated, established flows known here.
        complete: This kernel has every committed flow.
        resyncs: Times everything was told anew.
        ended: Flows that this node, as holder, ended because they did not fit the rules, or their
            server went; those that await a reset, too.
        clients: Entries of services with persistence known here.
        clients_refused: Times that one was not taken, since there was no room.
        restarts: Times the flow worker ended and was started again.
        age_s: Since the flow worker told all this; None before it ever did. Not a moment,
            unless it hangs.
    """

    captured: int = 0
    committed: int = 0
    pending: int = 0
    received: int = 0
    installed: int = 0
    deleted: int = 0
    clashed: int = 0
    failed: int = 0
    repaired: int = 0
    dropped: int = 0
    overruns: int = 0
    lag_s: float | None = None
    kernel_entries: int = 0
    kernel_limit: int = 0
    uninserted: int = 0
    table_drops: int = 0
    alarms: tuple[str, ...] = ()
    flows: int = 0
    complete: bool = False
    resyncs: int = 0
    ended: int = 0
    clients: int = 0
    clients_refused: int = 0
    restarts: int = 0
    age_s: float | None = None


@dataclass(frozen=True, slots=True)
class LogStatus:
    """Where this node is in the replicated log."""

    commit_index: int = 0
    applied_index: int = 0
    last_index: int = 0


@dataclass(frozen=True, slots=True)
class RefusedStatus:
    """What came in from peers, or in their name, and was not believed; the log says why.

    Attributes:
        raft: Connections that were cut.
        mesh: Datagrams that were dropped.
    """

    raft: int = 0
    mesh: int = 0


@dataclass(frozen=True, slots=True)
class MeshStatus:
    """Beacons since the start of this process, in datagrams.

    Attributes:
        unsent: Not taken by the kernel: no route, interface down, buffer full.
        heard: Believed.
    """

    sent: int = 0
    unsent: int = 0
    heard: int = 0


@dataclass(frozen=True, slots=True)
class HistogramStatus:
    """Durations since the start of this process, in seconds.

    Attributes:
        max_s: The longest.
        sum_s: All together.
        bounds_s: Upper bounds of the classes, ascending; the last class has none.
        counts: How many fell into each class, one entry more than bounds.
    """

    max_s: float = 0.0
    sum_s: float = 0.0
    bounds_s: tuple[float, ...] = ()
    counts: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """Everything `/v1/status` shows.

    Attributes:
        leader: Name of the Raft leader this node follows, None when it knows none.
        holder: Name of the node that holds the addresses as far as known here: this node
            when it is ACTIVE, else the leader when it announced itself, else None.
        lease_s: How long a lease lasts in this profile.
        late: How late the daemon's loop ran its timers.
        commits: From proposing an entry, as leader, to applying it.
        reason: Why the role was entered last, a word of `core.node.Reason`.
        lease_left_s: On the holder, what is left of the lease; else None.
        unsafe: Why this node must not hold the addresses; empty when it may.
        hindrances: Why another node may be better; each gives up only for one that is.
        handicap: The same as a number; 0 is best.
        nobody: Why nobody holds the addresses, as far as this node knows; empty when one does.
        unannounced: Announcements that the kernel refused; they are tried again.
        revision: Number of the configuration in force, 0 before the first.
        quorum: Whether a majority is connected, this node included.
    """

    node: str
    node_id: int
    cluster: str
    version: str
    profile: str
    lease_s: float
    role: Role
    role_s: float
    reason: str
    term: int
    leader: str | None
    holder: str | None
    quorum: bool
    lease_left_s: float | None
    unsafe: tuple[str, ...]
    hindrances: tuple[str, ...]
    revision: int
    uptime_s: float
    vips: tuple[VipStatus, ...]
    peers: tuple[PeerStatus, ...]
    services: tuple[ServiceStatus, ...]
    flows: FlowStatus
    log: LogStatus
    late: HistogramStatus = HistogramStatus()
    commits: HistogramStatus = HistogramStatus()
    refused: RefusedStatus = RefusedStatus()
    mesh: MeshStatus = MeshStatus()
    transitions: tuple[tuple[str, int], ...] = ()  # (reason, how often a role was entered for it)
    repairs: tuple[
        tuple[str, int], ...
    ] = ()  # (kind, how often other programs' changes were undone)
    handicap: int = 0
    nobody: tuple[str, ...] = ()
    unannounced: int = 0
    missing: tuple[str, ...] = ()  # this node's own addresses that no device has
    restored: int = 0  # floating addresses put back after another program removed them
    gate: str = GateKind.TIMEOUTS.value  # what ends this node's rights
    gate_found: str = ""  # why that is no deadline
    keys: tuple[str, ...] = ()  # that peers may use, by their fingerprints; this node's own first
    level: int = 0  # the feature level in force, 0 before the first (`core.feature_level`)
    levels: tuple[tuple[str, int], ...] = ()  # (node, what it has reached), of those ever heard

    def to_document(self) -> dict[str, Any]:
        """Return the status as JSON-ready values; `role` as its name."""
        document = asdict(self)
        document["role"] = self.role.value
        document["transitions"] = dict(self.transitions)
        document["repairs"] = dict(self.repairs)
        document["levels"] = dict(self.levels)
        return document
