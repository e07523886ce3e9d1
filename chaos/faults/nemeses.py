"""The nemeses of ``chaos run``: what each does to which nodes, and what that excuses.

A nemesis is a name, the words it may be aimed with, and a function from an *aim* (whom to hit,
what to draw from) to an *attack*: a fault with its undoing, and what a judge has to know about
it. Whoever adds one adds an entry to `NEMESES` and nothing else.
"""

from __future__ import annotations

import difflib
import os
from functools import partial

from chaos.faults import ordinary_nemeses, server_nemeses
from chaos.faults.afflictions import ClockStepped, Misled, Plagued
from chaos.faults.attack import Aim, Attack, Names, Nemesis, each
from chaos.faults.faults import (
    CutOff,
    DaemonKilled,
    Fault,
    Frozen,
    HandedOver,
    Killed,
    Lossy,
    Partitioned,
    Stopped,
    Together,
    Unplugged,
    WorkerKilled,
)
from chaos.lab.lab_error import UsageError
from chaos.lab.removal import FREEZER
from chaos.lab.switch import bridge_grudge, complete_grudge, one_way_grudge
from chaos.lab.topology import BRIDGES, CLIENT, DEVICES, SWITCH, floating

LOSS_PERCENT = (1, 30)
BEARABLE_PERCENT = 10  # above, three beacons or answers in a row are lost every few seconds


def _kill(aim: Aim) -> Attack:
    fault = each(aim, lambda name: Killed(aim.site.lab.nodes[name]))
    return Attack(
        fault, aim.words, aim.victims, out=aim.victims, heal_limit="restart", ends=aim.victims
    )


def _kill_daemon(aim: Aim) -> Attack:
    fault = each(aim, lambda name: DaemonKilled(aim.site.lab.nodes[name]))
    # Supervisors wait longer with each death: how long is their business, that they come is ours.
    return Attack(
        fault, aim.words, aim.victims, out=aim.victims, start_limit="release",
        heal_limit="unbounded", ends=aim.victims,
    )  # fmt: skip


def _kill_worker(aim: Aim) -> Attack:
    fault = each(aim, lambda name: WorkerKilled(aim.site.lab.nodes[name]))
    return Attack(fault, aim.words, aim.victims, start_limit="noise", ends=aim.victims)


def _pause(aim: Aim) -> Attack:
    fault = each(aim, lambda name: Frozen(aim.site.lab.nodes[name]))
    return Attack(fault, aim.words, aim.victims, out=aim.victims)


def _partition(aim: Aim) -> Attack:
    """Every victim alone, the others together; all of them reach clients and servers."""
    parts = [*([name] for name in aim.victims), list(aim.others)]
    grudge = complete_grudge([part for part in parts if part])
    detail = "|".join("+".join(part) for part in parts if part)
    return Attack(Partitioned(aim.site.net(), grudge), detail, aim.victims, out=aim.victims)


def _bridge(aim: Aim) -> Attack:
    (middle,) = aim.victims
    one, other = aim.others
    grudge = bridge_grudge(middle, [one], [other])
    detail = f"{one}|{other} hear {middle} only"
    return Attack(Partitioned(aim.site.net(), grudge), detail, (one, other))


def _one_way(aim: Aim) -> Attack:
    """Four kinds: deaf or mute to all, deaf to the peers, deaf to one of them."""
    (name,) = aim.victims
    kind = aim.draw.choice(("in", "out", "peers", "peer"))
    peer = aim.draw.choice(aim.others)
    net = aim.site.net()
    fault: Fault
    if kind == "in":
        fault, detail = CutOff(net, name, "in"), f"{name} hears nobody"
    elif kind == "out":
        fault, detail = CutOff(net, name, "out"), f"nobody hears {name}"
    elif kind == "peers":
        fault, detail = (
            Partitioned(net, one_way_grudge([name], aim.others)),
            f"{name} hears no peer",
        )
    else:
        fault, detail = Partitioned(net, one_way_grudge([name], [peer])), f"{name} hears not {peer}"
    return Attack(fault, detail, (name,), out=(name,), start_limit="deaf")


def _unplug(networks: Names, aim: Aim) -> Attack:
    topology = aim.site.lab.topology
    fault = Together([Unplugged(topology, name, net) for name in aim.victims for net in networks])
    apart = len(networks) == len(DEVICES)
    return Attack(
        fault, aim.words, aim.victims, out=aim.victims if apart else (), hindered=aim.victims,
        start_limit="lease" if apart else "release",
        severs="private" in networks and not aim.others,
    )  # fmt: skip


def _cut_all(aim: Aim) -> Attack:
    fault = each(aim, lambda name: CutOff(aim.site.net(), name))
    return Attack(fault, aim.words, aim.victims, out=aim.victims, severs=not aim.others)


def _lose(aim: Aim) -> Attack:
    percent = aim.draw.randint(*LOSS_PERCENT)
    fault = each(aim, lambda name: Lossy(aim.site.net(), name, percent))
    bearable = percent <= BEARABLE_PERCENT and len(aim.victims) == 1
    return Attack(
        fault, f"{aim.words} {percent} %", aim.victims, out=() if bearable else aim.victims,
        start_limit="deaf" if bearable else "unbounded", severs=True,
    )  # fmt: skip


def _switch_over(aim: Aim) -> Attack:
    (name,) = aim.victims
    return Attack(HandedOver(aim.site.lab, name), f"to {name}", (name,), start_limit="release")


def _restart(aim: Aim) -> Attack:
    fault = each(aim, lambda name: Stopped(aim.site.lab.nodes[name]))
    return Attack(
        fault, aim.words, aim.victims, out=aim.victims, start_limit="release",
        heal_limit="restart", ends=aim.victims,
    )  # fmt: skip


def _burn(aim: Aim) -> Attack:
    cores = os.cpu_count() or 1
    programs = {aim.site.name("burner"): (SWITCH, ["chaos.workloads.burner"]) for _ in range(cores)}
    fault = Plagued(aim.site.lab, programs)
    return Attack(fault, f"{cores} cores", (), start_limit="lease")


def _slow_disk(aim: Aim) -> Attack:
    folders = [str(aim.site.lab.nodes[name].folder / "data") for name in aim.victims]
    words = ["chaos.workloads.freezer", *folders]
    fault = Plagued(aim.site.lab, {FREEZER: (SWITCH, words)})
    return Attack(fault, aim.words, aim.victims, out=aim.victims, start_limit="deaf")


def _step_clock(aim: Aim) -> Attack:
    offset_s = aim.draw.choice((-86_400, -3_600, -10, 10, 3_600, 86_400))
    fault = each(aim, lambda name: ClockStepped(aim.site.lab.nodes[name], offset_s))
    return Attack(fault, f"{aim.words} {offset_s:+d} s", (), start_limit="noise")


def _forge_arp(aim: Aim) -> Attack:
    network = aim.draw.choice(tuple(BRIDGES))
    addresses = floating(network)
    words = ["chaos.workloads.stranger", BRIDGES[network], *addresses]
    claiming = Plagued(aim.site.lab, {aim.site.name("stranger"): (SWITCH, words)})
    # Hosts believe whom they heard last. That the holder does not move is judged.
    return Attack(
        Misled(aim.site.lab, claiming, network), f"claims {' and '.join(addresses)}", (),
        start_limit="unbounded",
    )  # fmt: skip


def _garbage(aim: Aim) -> Attack:
    routers = [aim.site.lab.topology.router(name) for name in aim.victims]
    addresses = [
        p.address.partition("/")[0] for r in routers for p in r.ports if p.network == "public"
    ]
    words = ["chaos.workloads.garbage", *addresses, "--seed", str(aim.draw.getrandbits(32))]
    fault = Plagued(aim.site.lab, {aim.site.name("garbage"): (CLIENT, words)})
    return Attack(fault, f"to {aim.words}", (), start_limit="lease")


FEW = ordinary_nemeses.FEW
MANY = ordinary_nemeses.MANY

_ALL = (
    Nemesis("kill", "SIGKILL to all processes of a node", MANY, _kill, pairs=True),
    Nemesis("kill-daemon", "SIGKILL to its daemon alone", (*FEW, "all"), _kill_daemon, pairs=True),
    Nemesis("kill-worker", "SIGKILL to its flow worker", (*FEW, "all"), _kill_worker, (1, 1.5),
            pairs=True),
    Nemesis("pause", "SIGSTOP to all its processes, later SIGCONT", MANY, _pause, pairs=True),
    Nemesis("partition", "routers do not hear each other", (*FEW, "all"), _partition),
    Nemesis("partition-bridge", "two routers hear each other only by the third", FEW, _bridge,
            three=True),
    Nemesis("partition-oneway", "a router does not hear, or is not heard", FEW, _one_way),
    Nemesis(
        "link-public", "the public cable is pulled (carrier lost)", MANY,
        partial(_unplug, ("public",)), pairs=True,
    ),
    Nemesis(
        "link-private", "the private cable is pulled (carrier lost)", MANY,
        partial(_unplug, ("private",)), pairs=True,
    ),
    Nemesis("link-both", "both cables are pulled", MANY, partial(_unplug, tuple(DEVICES))),
    Nemesis("cut", "both cables carry nothing, the carrier stays", MANY, _cut_all, pairs=True),
    Nemesis("loss", "1 to 30 % of a router's frames are lost", (*FEW, "all"), _lose, (1.5, 2.5)),
    Nemesis("switchover", "the operator wants another holder", ("backup",), _switch_over, (1, 2)),
    Nemesis("restart", "SIGTERM, and a start after its end", FEW, _restart),
    Nemesis("cpu", "as many busy loops as there are cores", ("all",), _burn, (1.5, 2.5)),
    Nemesis("disk-slow", "that disk stands still three quarters of the time", FEW, _slow_disk,
            needs="disk"),
    Nemesis("clock", "a node's wall clock is stepped (libfaketime)", MANY, _step_clock,
            needs="clock"),
    Nemesis("forged-arp", "a stranger claims a floating address", ("all",), _forge_arp),
    Nemesis("garbage", "a host floods Raft and mesh ports with garbage", (*FEW, "all"), _garbage,
            pairs=True),
    *ordinary_nemeses.NEMESES,
    *server_nemeses.NEMESES,
)  # fmt: skip
NEMESES = {nemesis.name: nemesis for nemesis in _ALL}
"""By name, in the order of the help."""


def select(words: str) -> tuple[Nemesis, ...]:
    """Return the nemeses that a comma-separated list means, in the order of `NEMESES`.

    Args:
        words: ``all``, ``none``, names, or families: ``link`` means every ``link-...``.

    Raises:
        UsageError: There is none of a name, or the words contradict each other.
    """
    names = [word.strip() for word in words.split(",") if word.strip()]
    if not names:
        raise UsageError("no nemesis is named; --nemesis none runs without faults")
    if names == ["none"]:
        return ()
    if "none" in names:
        raise UsageError(f'"none" and {", ".join(n for n in names if n != "none")} contradict')
    families = {name.partition("-")[0] for name in NEMESES}
    chosen: set[str] = set()
    for name in names:
        found = {n for n in NEMESES if name in ("all", n)}
        if name in families:
            found |= {n for n in NEMESES if n.partition("-")[0] == name}
        if not found:
            known = [*NEMESES, *families, "all", "none"]
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise UsageError(f'there is no nemesis "{name}"{hint} There are {", ".join(NEMESES)}')
        chosen |= found
    return tuple(nemesis for name, nemesis in NEMESES.items() if name in chosen)
