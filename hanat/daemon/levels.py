"""How many connections servers have, for those services whose clients are chosen by that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hanat.core.configuration import VirtualService
from hanat.core.levelling import Load
from hanat.core.server_facts import ServerId
from hanat.daemon.shown_services import count_flows
from hanat.flowsync.client import FlowClient


def loads_of(worker: FlowClient, services: Iterable[VirtualService]) -> Mapping[ServerId, Load]:
    """Return the load of each server that has or had connections; ask for the next time.

    What the flow worker told last is a period old.
    """
    counted = tuple(services)
    now, opened = (count_flows(counted, counts) for counts in (worker.counts(), worker.opened()))
    worker.ask()
    return {ServerId(*key): Load(now.get(key, 0), opened.get(key, 0)) for key in {*now, *opened}}
