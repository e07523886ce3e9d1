"""Render the status of a node as Prometheus metrics.

Nothing is counted here: the newest snapshot is translated when it is scraped, so
the metrics, ``/v1/status`` and ``/v1/services`` cannot disagree and an unscraped node
spends nothing. There is no registry; the global one of the library brings
collectors for the garbage collector and the platform, which nobody asked for.

Counters start at zero with the process, as Prometheus expects. No label holds
anything that grows with traffic: services, servers and peers are configured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import Final

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from hanat.api.families import counter, gauge
from hanat.api.service_metrics import service_families
from hanat.api.service_routes import in_slices
from hanat.core.service_view import ServiceView
from hanat.core.status import FlowStatus, HistogramStatus, NodeStatus, Role

NO_REPAIRS: Final = {"ruleset": 0, "sysctl": 0}  # a counter that is absent cannot be seen to grow
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The text of ``/metrics``, rendered on request."""

    def __init__(
        self, status: Callable[[], NodeStatus], services: Callable[[], Iterable[ServiceView]]
    ) -> None:
        self._status, self._services = status, services
        self._process = ProcessCollector(registry=None)

    async def render(self) -> bytes:
        """Return all metrics of one snapshot in the Prometheus text format 0.0.4.

        The loop turns after each family, and within those that have a sample for each service
        or server after some of those.
        """
        views = [view async for view in in_slices(self._services())]
        parts, name = [], ""
        for family in chain(_families(self._status(), views), self._process.collect()):
            text = generate_latest(_Single(family))
            if family.name == name:  # a further part of it
                text = b"".join(x for x in text.splitlines(keepends=True) if x[:1] != b"#")
            parts.append(text)
            name = family.name
            await asyncio.sleep(0)
        return b"".join(parts)


class _Single(Collector):
    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


def _families(status: NodeStatus, services: Sequence[ServiceView]) -> Iterator[Metric]:
    yield from _node(status)
    yield from _log(status)
    yield from _lease(status)
    yield from _flows(status.flows)
    yield from _completeness(status.flows)
    yield from service_families(services)
    yield from _durations(status)


def _eligibility(status: NodeStatus) -> Iterator[Metric]:
    yield gauge(
        "hanat_node_eligible",
        "1 when this node may hold the addresses; else 0, once for each reason.",
        [((reason,), 0) for reason in status.unsafe] or [(("",), 1)],
        labels=("reason",),
    )
    yield gauge(
        "hanat_node_hindered",
        "1 for each reason for which another node may be better.",
        [((reason,), 1) for reason in status.hindrances],
        labels=("reason",),
    )
    yield gauge(
        "hanat_node_handicap",
        "What speaks against this node, as a number that all nodes compare; 0 is best.",
        [((), status.handicap)],
    )
    yield counter(
        "hanat_announcements_refused",
        "Announcements that the kernel did not take, by address and round; they are repeated.",
        [((), status.unannounced)],
    )


def _node(status: NodeStatus) -> Iterator[Metric]:
    yield gauge(
        "hanat_build_info",
        "Always 1; the version is in the label.",
        [((status.version,), 1)],
        labels=("version",),
    )
    yield gauge(
        "hanat_role",
        "1 for the role of this node, 0 for the others; the holder is ACTIVE.",
        [((role.value,), role is status.role) for role in Role],
        labels=("role",),
    )
    yield from _eligibility(status)
    yield gauge(
        "hanat_peer_connected",
        "1 when the log's connection to this peer is up.",
        [((peer.name,), peer.connected) for peer in status.peers],
        labels=("peer",),
    )
    yield gauge(
        "hanat_peer_beacon_age_seconds",
        "Since the last beacon of this peer on this path; none before the first.",
        [
            ((peer.name, path.address), path.beacon_s)
            for peer in status.peers
            for path in peer.paths
            if path.beacon_s is not None
        ],
        labels=("peer", "path"),
    )
    yield counter(
        "hanat_beacons",
        "Datagrams between the routers: sent, not taken by the kernel, believed.",
        [
            (("sent",), status.mesh.sent),
            (("unsent",), status.mesh.unsent),
            (("heard",), status.mesh.heard),
        ],
        labels=("result",),
    )
    yield counter(
        "hanat_peer_refused",
        "Connections cut and datagrams dropped: forged, damaged, or of a wrong peer.",
        [(("raft",), status.refused.raft), (("mesh",), status.refused.mesh)],
        labels=("transport",),
    )
    yield counter(
        "hanat_leader_transitions",
        "How often this node entered a role, by reason.",
        [((reason,), count) for reason, count in status.transitions],
        labels=("reason",),
    )


def _log(status: NodeStatus) -> Iterator[Metric]:
    yield gauge(
        "hanat_is_leader",
        "1 when this node is the Raft leader; whether it holds the addresses is hanat_role.",
        [((), status.leader == status.node)],
    )
    yield gauge("hanat_raft_term", "Term of the replicated log.", [((), status.term)])
    yield gauge(
        "hanat_raft_commit_index",
        "Newest entry known to be committed.",
        [((), status.log.commit_index)],
    )
    yield gauge(
        "hanat_raft_applied_index", "Newest entry applied here.", [((), status.log.applied_index)]
    )
    yield gauge(
        "hanat_config_revision",
        "Configuration in force, 0 before the first.",
        [((), status.revision)],
    )


def _lease(status: NodeStatus) -> Iterator[Metric]:
    owned: dict[str, bool] = {}  # a vip may have two addresses, and a metric no two values
    for vip in status.vips:
        owned[vip.name] = owned.get(vip.name, True) and vip.held
    yield gauge(
        "hanat_vip_owned",
        "1 when this node holds the floating address, all of them.",
        [((name,), held) for name, held in owned.items()],
        labels=("vip",),
    )
    yield counter(
        "hanat_vip_restored",
        "Floating addresses put back after another program removed them.",
        [((), status.restored)],
    )
    yield counter(
        "hanat_drift_repairs",
        "Changes of other programs that were undone.",
        [((kind,), count) for kind, count in {**NO_REPAIRS, **dict(status.repairs)}.items()],
        labels=("kind",),
    )
    yield gauge(
        "hanat_lease_remaining_seconds",
        "What is left of the lease; 0 on a node that is not the holder.",
        [((), status.lease_left_s or 0.0)],
    )


def _flows(flows: FlowStatus) -> Iterator[Metric]:
    yield counter(
        "hanat_conn_captured", "Changes of flows read from this kernel.", [((), flows.captured)]
    )
    yield counter(
        "hanat_conn_replicated", "Of those, committed by a majority.", [((), flows.committed)]
    )
    yield counter(
        "hanat_conn_installed",
        "Changes from other holders installed in this kernel.",
        [((), flows.installed)],
    )
    yield counter(
        "hanat_conn_dropped",
        "Changes given up: commits stalled, tuple in use, or refused by the kernel.",
        [
            (("stalled",), flows.dropped),
            (("clashed",), flows.clashed),
            (("failed",), flows.failed),
        ],
        labels=("reason",),
    )
    yield counter(
        "hanat_conn_overruns",
        "Times the kernel dropped an unknown number of events.",
        [((), flows.overruns)],
    )
    yield gauge(
        "hanat_conn_pending",
        "Captured and not yet committed: what a failover at this moment would lose.",
        [((), flows.pending)],
    )
    yield gauge(
        "hanat_conn_replication_lag_seconds",
        "From the first change in the newest committed batch to its commit; absent before one.",
        [] if flows.lag_s is None else [((), flows.lag_s)],
    )
    yield counter(
        "hanat_persistence_refused",
        "Times a client was not remembered, since 500,000 were, or 65,536 of its server.",
        [((), flows.clients_refused)],
    )
    yield from _table(flows)


def _table(flows: FlowStatus) -> Iterator[Metric]:
    yield gauge(
        "hanat_conntrack_entries",
        "Entries of any kind in this kernel's table.",
        [((), flows.kernel_entries)],
    )
    yield gauge(
        "hanat_conntrack_limit",
        "The most entries that this kernel's table may have.",
        [((), flows.kernel_limit)],
    )
    yield counter(
        "hanat_conntrack_uninserted",
        "Entries that found no free translated tuple (insert_failed), since the kernel's start.",
        [((), flows.uninserted)],
    )
    yield counter(
        "hanat_conntrack_drops",
        "Packets that found the table full, since the kernel's start.",
        [((), flows.table_drops)],
    )


def _completeness(flows: FlowStatus) -> Iterator[Metric]:
    yield counter(
        "hanat_conn_resyncs",
        "Times this node told all flows anew, as holder.",
        [((), flows.resyncs)],
    )
    yield counter(
        "hanat_conn_ended",
        "Flows that this node, as holder, ended: the rules changed, or their server went.",
        [((), flows.ended)],
    )
    yield counter(
        "hanat_conn_repaired",
        "Entries that were missing here, or had stayed, and a resync found.",
        [((), flows.repaired)],
    )
    yield counter(
        "hanat_conn_worker_restarts",
        "Times the flow worker ended and was started again.",
        [((), flows.restarts)],
    )
    yield gauge(
        "hanat_persistence_clients",
        "Clients of services with persistence whose server this node knows.",
        [((), flows.clients)],
    )
    yield gauge(
        "hanat_conn_complete",
        "1 when this kernel has every committed flow.",
        [((), flows.complete)],
    )
    yield gauge(
        "hanat_conn_flows", "Translated, established flows known here.", [((), flows.flows)]
    )


def _durations(status: NodeStatus) -> Iterator[Metric]:
    yield from _histogram(
        "hanat_loop_late_seconds", "How late the event loop ran its timers.", status.late
    )
    yield from _histogram(
        "hanat_log_commit_seconds",
        "From proposing an entry, as leader, to applying it.",
        status.commits,
    )


def _histogram(name: str, text: str, found: HistogramStatus) -> Iterator[Metric]:
    bounds = (*map(str, found.bounds_s), "+Inf")
    histogram = HistogramMetricFamily(name, text)
    buckets = list(zip(bounds, accumulate(found.counts), strict=True))
    histogram.add_metric([], buckets, found.sum_s)
    yield histogram
    yield gauge(f"{name}_max", "The longest of them since the start.", [((), found.max_s)])
