"""What a thousand of it costs: ``python -m benchmarks.scale``.

Labs for each build in each round: three routers with so many services of ten servers each (loading
them by `hanat config apply`, one weight at a time), then with so many floating addresses (start,
takeovers by `hanat switchover` and after a SIGKILL of all the holder's processes: how long until
the first ones are served, and until the kernel takes packets to all of them for its own).
Builds take turns. Printed as a Markdown table of medians; the worst is in brackets. Needs root.

Exit codes: 0 measured, 1 not so, 2 this machine or the command line is not fit.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from benchmarks.failover import machine
from benchmarks.load import wait_for_quiet
from benchmarks.steady import SETTLE_S, cpu_s
from benchmarks.systems import other_build
from chaos.lab.lab import Lab, require_machine
from chaos.lab.lab_error import LabError, UsageError
from chaos.lab.node_files import cluster_toml

PREFIX = "hanat-scale"
START_S_MAX, APPLY_S_MAX = 60.0, 60.0
IDLE_S = 10.0
TAKEOVERS, KILLS, WEIGHTS = 4, 3, 4
MEASURED = ("start", "switchover", "switchover, all there", "kill", "kill, all there")
# Written when a node becomes the holder: the first addresses are served.
_OPENED = re.compile(r"^(\S+) .*role=ACTIVE was=TAKEOVER .* after_ms=(\d+)", re.MULTILINE)
# Written by ip-monitor(8) when the kernel takes an address for its own.
_LOCAL = re.compile(r"^\[(\S+)\] local (?:10\.99\.|fd00:99:)", re.MULTILINE)
_LOST = re.compile(r"role=\S+ was=ACTIVE .* reason=(\S+)")

Found = dict[str, list[float]]


def addresses(count: int, *, version: int) -> str:
    """Return floating addresses in the form of a cluster file."""
    parts = []
    for n in range(count):
        address = f"fd00:99::{n + 1:x}/128"
        if version == 4:
            address = f"10.99.{n // 250}.{n % 250 + 1}/32"
        parts.append(f'\n[[vip]]\nname = "v{n}"\naddress = ["{address}"]\ninterface = "public"\n')
    return "".join(parts)


def services(count: int, *, weight: int) -> str:
    """Return services of ten servers; the first server of the first one has that weight."""
    parts = []
    for n in range(count):
        listen = f"vip:public tcp/{20_000 + n}"
        parts.append(f'\n[[service]]\nname = "s{n}"\nlisten = ["{listen}"]\n')
        for k in range(10):
            mine = weight if n == k == 0 else 1
            parts.append(
                f'  [[service.server]]\n  name = "w{k}"\n'
                f'  address = "10.11.{20 + n // 250}.{k + 1}:80"\n  weight = {mine}\n'
            )
    return "".join(parts)


def measure_addresses(lab: Lab, found: Found) -> None:
    """Start a lab, hand the addresses on some times, then kill the holder some times.

    Raises:
        LabError: The cluster did not come up, or a switchover did not end.
    """
    began = time.monotonic()
    lab.start()
    for name in lab.nodes:
        lab.spawn_in(name, _routes(name), ["ip", "-ts", "monitor", "route"])
    lab.wait_for_holder(START_S_MAX)
    found["start"].append(1000 * (time.monotonic() - began))
    before = _takeovers(lab)
    for number in range(TAKEOVERS):
        to = f"r{number % 3 + 1}"
        if lab.holder() == to:
            continue
        lab.wait_for(partial(_is_ready, lab, to), 30, f"{to} to be ready")
        code, answer = lab.switchover(to, timeout_s=20)
        if code != 200:
            raise LabError(f"switchover to {to}: {code} {answer}")
        lab.wait_for_holder(START_S_MAX)
    handed_over = _takeovers(lab)
    for _ in range(KILLS):
        # The former holder's kernel, which is the same, has nothing to do meanwhile.
        holder = lab.wait_for_holder(START_S_MAX)
        lab.wait_for(partial(_all_ready, lab, holder), 30, "all nodes to be ready")
        lab.kill_node(holder)
        lab.wait_for_holder(START_S_MAX)
        time.sleep(SETTLE_S)
        lab.start_node(holder)
    for kind, takeovers in (
        ("switchover", handed_over - before), ("kill", _takeovers(lab) - handed_over)
    ):  # fmt: skip
        for name, _, first_ms, all_ms in takeovers:
            print(f"benchmarks.scale: {kind} to {name}: {first_ms}, {all_ms} ms", file=sys.stderr)
            found[kind].append(first_ms)
            found[f"{kind}, all there"] += [] if all_ms is None else [all_ms]


def _takeovers(lab: Lab) -> set[tuple[str, float, float, float | None]]:
    """Return of each takeover so far who, when, and the ms to the first and to the last address."""
    found = set()
    for name in lab.nodes:
        log = lab.log(name)
        routes = (lab.folder / f"{_routes(name)}.log").read_text()
        local = sorted(_seconds(stamp) for stamp in _LOCAL.findall(routes))
        opened = [(_seconds(stamp), float(ms)) for stamp, ms in _OPENED.findall(log)]
        for number, (at, ms) in enumerate(opened):
            began = at - ms / 1000
            last = opened[number + 1][0] - 1.0 if number + 1 < len(opened) else float("inf")
            then = [stamp for stamp in local if began - 0.001 <= stamp < last]
            found.add((name, at, ms, 1000 * (then[-1] - began) if then else None))
    return found


def _routes(name: str) -> str:
    """Return the name of the file in which a router's local routes are noted."""
    return f"{name}-routes"


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def _all_ready(lab: Lab, holder: str) -> bool:
    return all(_is_ready(lab, name) for name in lab.nodes if name != holder)


def _is_ready(lab: Lab, to: str) -> bool:
    return lab.unready(to) is None


def measure_services(lab: Lab, text: Callable[[int], str], found: Found) -> None:
    """Load services, then change one weight some times.

    Raises:
        LabError: The cluster did not come up, or a change was refused.
    """
    lab.start()
    holder = lab.wait_for_holder(START_S_MAX)
    time.sleep(SETTLE_S)
    found["few"].append(_cpu(lab, holder))
    before = _losses(lab)
    found["load"].append(_apply(lab, holder, text(1)))
    for weight in range(2, 2 + WEIGHTS):
        found["weight"].append(_apply(lab, lab.wait_for_holder(START_S_MAX), text(weight)))
    time.sleep(1)
    # Who holds may have changed meanwhile; then there is nothing to compare with.
    if lab.wait_for_holder(START_S_MAX) == holder:
        found["cpu"].append(_cpu(lab, holder))
        found["more"].append(found["cpu"][-1] - found["few"][-1])
    found["lost"].append(_losses(lab) - before)


def _cpu(lab: Lab, node: str) -> float:
    """Return what an idle node uses of a processor, in percent of a core."""
    began = cpu_s(lab, node)
    time.sleep(IDLE_S)
    return 100 * (cpu_s(lab, node) - began) / IDLE_S


def _losses(lab: Lab) -> int:
    return sum(len(_LOST.findall(lab.log(name))) for name in lab.nodes)


def _apply(lab: Lab, node: str, text: str) -> float:
    """Apply a configuration; return the milliseconds until all nodes have it in force."""
    file = lab.folder / "scale.toml"
    file.write_text(text)
    began = time.monotonic()
    # Refused while a node is busy: tried again, as an operator would.
    problem = ""
    while time.monotonic() - began < APPLY_S_MAX:
        done = lab.exec_in(
            node,
            [*lab.hanat, "config", "apply", str(file), "--json", "--api",
             f"unix:{lab.nodes[node].socket}"],
            APPLY_S_MAX,
        )  # fmt: skip
        if done.returncode == 0:
            nodes = json.loads(done.stdout).get("nodes", [])
            if nodes and all(n["state"] == "in force" for n in nodes):
                return 1000 * (time.monotonic() - began)
            # Not known when it answered, or what had failed before was done nevertheless.
        problem = done.stderr or done.stdout
        print(f"benchmarks.scale: config apply: {problem}", file=sys.stderr)
        node = lab.wait_for_holder(START_S_MAX)
        if _in_force(lab, node, text):
            return 1000 * (time.monotonic() - began)
    raise LabError(f"config apply: {problem}")


def _in_force(lab: Lab, node: str, text: str) -> bool:
    api = f"unix:{lab.nodes[node].socket}"
    done = lab.exec_in(node, [*lab.hanat, "config", "show", "--json", "--api", api], APPLY_S_MAX)
    if done.returncode:
        return False
    found = json.loads(done.stdout)
    return found["text"] == text and all(n["state"] == "in force" for n in found["nodes"])


def shown(values: Sequence[float]) -> str:
    """Return the median, and the worst in brackets."""
    return f"{_figure(statistics.median(values))} ({_figure(max(values))})" if values else "-"


def _figure(value: float) -> str:
    return f"{value:.1f}" if value % 1 and abs(value) < 20 else f"{value:.0f}"


def run(options: argparse.Namespace, hanat: str, found: Found) -> None:
    """Measure one build once."""
    command = other_build([hanat]) if hanat else None
    base = cluster_toml(profile=options.profile, checked=False)
    many: Found = {"load": [], "weight": [], "few": [], "cpu": [], "more": [], "lost": []}
    with Lab(options.prefix, hanat=command, cluster_toml=base) as lab:
        measure_services(lab, lambda w: base + services(options.services, weight=w), many)
    names = {
        "load": f"load {options.services} services", "weight": "change one weight of them",
        "few": "holder's processor before, with 3 services, % of a core",
        "cpu": "the same afterwards", "more": "that is more by", "lost": "leases lost meanwhile",
    }  # fmt: skip
    for what, values in many.items():
        found.setdefault(names[what], []).extend(values)
    for version in (4, 6):
        for count in (0, options.addresses):
            text = base + addresses(count, version=version)
            part: Found = {what: [] for what in MEASURED}
            with Lab(options.prefix, hanat=command, cluster_toml=text) as lab:
                measure_addresses(lab, part)
            for what, values in part.items():
                kind = what if what == "start" else f"takeover, {what}"
                found.setdefault(f"{kind}, {count + 2} addresses, IPv{version}", []).extend(values)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--addresses", type=int, default=1000)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--profile", default="default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--hanat", nargs="*", default=[], metavar="COMMAND",
        help="other builds to compare with, such as OTHER/.venv/bin/hanat of a checkout",
    )  # fmt: skip
    parser.add_argument("--patience", type=float, default=0, metavar="SECONDS")
    parser.add_argument("--prefix", default=PREFIX, help="of the lab (default: %(default)s)")
    return parser.parse_args(arguments)


def main() -> int:
    """Measure and print."""
    options = parse()
    builds = ["", *options.hanat]
    found: dict[str, Found] = {build: {} for build in builds}
    try:
        require_machine()
        others = wait_for_quiet(options.patience)
        for _ in range(options.rounds):
            for build in builds:
                run(options, build, found[build])
    except UsageError as error:
        print(f"benchmarks.scale: {error}", file=sys.stderr)
        return error.exit_code
    except LabError as error:
        print(f"benchmarks.scale: {error}; so far: {found}", file=sys.stderr)
        return 1
    heads = ["median (worst), ms", *(Path(b).parent.parent.parent.name or "this" for b in builds)]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for what in found[""]:
        print(f"| {what} | {' | '.join(shown(found[b].get(what, [])) for b in builds)} |")
    where = ", ".join(f"{key} {value}" for key, value in machine().items())
    print(f"\n{where}, {os.cpu_count()} cores; others used {100 * others:.0f} % before.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
