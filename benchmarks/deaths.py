"""How the death of a server is felt: ``python -m benchmarks.deaths``.

Three real nodes in namespaces publish a web service of three servers, of weights 2, 1 and 1.
Clients open 200 connections a second, one HTTP request each, and give up after 2.5 s. Again and
again one of the servers with a quarter of them dies in one of six ways, and serves again once it
has been out of rotation for a while. Side by side: the default check, and with ``fast_interval``.

Counted from the death on: how many clients got an error (or gave up), how many of the others
waited for longer than a second, and when the last of those began; and how long after it served
again the server had clients again. Printed as a Markdown table. Needs root.

Each round has a lab of its own, and the two servers die in turns: one that falls four times in a
minute or two is kept out for flapping.

Exit codes: 0 measured, 2 this machine or the command line is not fit.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from benchmarks.failover import machine
from benchmarks.verdicts import WEB
from chaos.faults.outages import HOW, ServerAils
from chaos.lab import node_api
from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError
from chaos.lab.node_files import cluster_toml
from chaos.observe.run_history import History, Request
from chaos.observe.traffic import HTTP, Traffic, Workload

PER_SECOND = 200
SERVERS = {"s3": "web3", "s2": "web2"}  # with a quarter of the clients each
SLOW_S = 2.0  # longer than the default timeout
LONG_S = 1.0
WARM_UP_S = 4.0
PHASE_S = 2.0  # a death comes at any phase of the interval
SETTLED_S = 3.0  # longer than a client waits
NOTICE_S = 20.0
FIRST_S = 60.0
OK = 200
CHECKS: Mapping[str, str] = {
    "default": "",
    "fast": '  fast_interval = "500ms"\n',
}
WAYS: Mapping[str, str] = {
    "killed": "the process ends",
    "stopped": "the process hangs",
    "unplugged": "the machine is gone",
    "filtered": "the port is filtered",
    "failing": "HTTP 500",
    "slow": f"answers {SLOW_S:g} s late",
}
"""By a word of `outages.HOW`."""


def configuration(more: str) -> str:
    """Return the lab's configuration with a default check of the web service, and more of it."""
    base = cluster_toml(profile="default", checked=False)
    assert WEB in base, "the lab's configuration is another one"
    return base.replace(WEB, f'{WEB}  [[service.check]]\n  kind = "http"\n{more}')


@dataclass(frozen=True, slots=True)
class Outage:
    """What was done when, monotonic ns; `until_ns` is when the next trial may have begun."""

    host: str
    how: str
    t_ns: int
    back_ns: int
    until_ns: int


@dataclass(frozen=True, slots=True)
class Felt:
    """How an outage was felt.

    Attributes:
        errors: Clients that got an error, or none but gave up.
        waited: Others that waited for longer than `LONG_S`.
        last_s: From the death until the last of those began; 0 if there was none.
        back_s: From the return until the server answered a client; None: it never did.
        late: Errors and long waits from the return on.
    """

    errors: int
    waited: int
    last_s: float
    back_s: float | None
    late: int


def felt(outage: Outage, requests: Sequence[Request]) -> Felt:
    """Return how the requests of an outage and of the return after it ended.

    Args:
        outage: Which one.
        requests: Of the whole run.
    """
    during = [r for r in requests if outage.t_ns - LONG_S * 1e9 <= r.t_ns < outage.back_ns]
    during = [r for r in during if r.end_ns >= outage.t_ns]
    after = [r for r in requests if outage.back_ns <= r.t_ns < outage.until_ns]
    errors = [r for r in during if r.outcome != "ok"]
    waited = [r for r in during if r.outcome == "ok" and _is_long(r)]
    last_ns = max((r.t_ns for r in (*errors, *waited)), default=outage.t_ns)
    back = (r.end_ns for r in after if r.outcome == "ok" and r.server == outage.host)
    first_ns = min(back, default=None)
    return Felt(
        errors=len(errors),
        waited=len(waited),
        last_s=max(0, last_ns - outage.t_ns) / 1e9,
        back_s=None if first_ns is None else (first_ns - outage.back_ns) / 1e9,
        late=sum(r.outcome != "ok" or _is_long(r) for r in after),
    )


def _is_long(request: Request) -> bool:
    return request.end_ns - request.t_ns > LONG_S * 1e9


def measure(lab: Lab) -> dict[str, Felt]:
    """Let servers die, once in every way; return how each was felt."""
    lab.start()
    lab.wait_for_holder(FIRST_S)
    lab.wait_for(lambda: all(_serves(lab, h, wanted=True) for h in SERVERS), NOTICE_S, "all up")
    limit_s = WARM_UP_S + len(WAYS) * (PHASE_S + 2 * NOTICE_S + 3 * SETTLED_S)
    clients = Workload(HTTP.name, HTTP.kind, HTTP.host, HTTP.target, 1000 / PER_SECOND)
    traffic = Traffic(lab, [clients], limit_s=limit_s)
    traffic.start()
    traffic.run_for(WARM_UP_S)
    hosts = cycle(SERVERS)
    outages = [_die(lab, traffic, next(hosts), how) for how in WAYS]
    traffic.stop()
    requests = sorted(History.of(traffic.facts()).requests, key=lambda r: r.t_ns)
    span_s = (requests[-1].t_ns - requests[0].t_ns) / 1e9
    if len(requests) < 0.9 * PER_SECOND * span_s:
        raise LabError(f"{len(requests) / span_s:.0f} requests a second: the machine is busy")
    return {outage.how: felt(outage, requests) for outage in outages}


def _die(lab: Lab, traffic: Traffic, host: str, how: str) -> Outage:
    traffic.run_for(random.uniform(0, PHASE_S))
    fault = ServerAils(lab, host, how, lab.folder / "deaths.jsonl")
    t_ns = fault.start()
    what = f"{host} {{}} rotation, {how}"
    lab.wait_for(lambda: _serves(lab, host, wanted=False), NOTICE_S, what.format("out of"))
    traffic.run_for(SETTLED_S)
    fault.stop()
    back_ns = time.monotonic_ns()
    lab.wait_for(lambda: _serves(lab, host, wanted=True), NOTICE_S, what.format("in"))
    traffic.run_for(SETTLED_S)
    return Outage(host, how, t_ns, back_ns, time.monotonic_ns())


def _serves(lab: Lab, host: str, *, wanted: bool) -> bool:
    """Say whether every node has a server in rotation, or every node has it out."""
    found = []
    for node in lab.nodes.values():
        code, document = node_api.request(node.socket, "GET", "/v1/services/web")
        if code != OK:
            return False
        found += [s["gets_clients"] for s in document["servers"] if s["name"] == SERVERS[host]]
    return len(found) == len(lab.nodes) and all(one is wanted for one in found)


def row(how: str, check: str, found: Sequence[Felt]) -> str:
    """Return a line of the table: of several rounds the worst."""
    backs = [one.back_s for one in found]
    back = "never" if None in backs else f"{max(b for b in backs if b is not None):.1f}"
    return (
        f"| {WAYS[how]} | {check} | {max(f.errors for f in found)} | "
        f"{max(f.waited for f in found)} | {max(f.last_s for f in found):.1f} | "
        f"{back} | {max(f.late for f in found)} |"
    )


def main() -> int:
    """Measure, print, return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deaths", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prefix", default="hndeath")
    options = parser.parse_args()
    assert WAYS.keys() <= HOW.keys()
    found: dict[tuple[str, str], list[Felt]] = {}
    try:
        for _ in range(options.rounds):
            for check, more in CHECKS.items():
                lab = Lab(options.prefix, cluster_toml=configuration(more))
                lab.server_options = ("--slow-s", str(SLOW_S))
                with lab:
                    for how, one in measure(lab).items():
                        found.setdefault((how, check), []).append(one)
    except LabError as error:
        print(f"benchmarks.deaths: {error}", file=sys.stderr)
        return 2
    print("| the server | check | errors | waited | last, s | back, s | afterwards |")
    print(f"|{' --- |' * 7}")
    for how in WAYS:
        for check in CHECKS:
            print(row(how, check, found[how, check]))
    print(f"\n{machine()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
