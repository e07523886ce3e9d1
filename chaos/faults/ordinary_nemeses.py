"""Nemeses of ordinary trouble: full queues, silent switches, Docker, full and broken disks.

What of them is the holder's own trouble, and what is everybody's or nobody's, follows from one
rule that hanat promises: a holder with a lease gives up only for somebody who can do better. So
an attack whose `nodes` are empty excuses no change of holder at all.
"""

from __future__ import annotations

from chaos.faults.afflictions import DiskFull, Plagued
from chaos.faults.attack import Aim, Attack, Names, Nemesis, each
from chaos.faults.faults import Killed, NetworkSilent, Together
from chaos.faults.hardships import (
    AddressReplaced,
    Contended,
    DiskBroken,
    ForwardDropped,
    Narrowed,
    RulesFlushed,
    TableFull,
)
from chaos.lab.topology import CLIENT, DEVICES, FLOATING, SERVERS, SUBNET, SWITCH
from chaos.observe.traffic import SYN, SYN_V6

FEW: Names = ("holder", "holder", "backup", "one")
MANY: Names = (*FEW, "majority", "all")

QUEUE_MBIT, OFFERED_MBIT = 4, 8
FLOOD_PER_S = 12_000
FLOWS_S = 0.3  # how long new flows have been coming when the rules go
NEW = tuple(w.name for w in (*SYN, *SYN_V6))
OWN_VERSIONS = ((4,), (6,), (4, 6))  # of which a router's own address goes
DISCARD = 9  # nobody listens there


def _full_egress(aim: Aim) -> Attack:
    network = aim.draw.choice(tuple(DEVICES))
    # What leaves by the public devices comes from a server, what by the private from the client.
    host, target = SERVERS[1], f"{SUBNET['public']}100:{DISCARD}"
    if network == "private":
        host, target = CLIENT, f"{FLOATING['public'].partition('/')[0]}:53"
    words = ["chaos.workloads.pour", target, "--mbit", str(OFFERED_MBIT)]
    load = Plagued(aim.site.lab, {aim.site.name("pour"): (host, words)})
    queues = each(aim, lambda name: Narrowed(aim.site.lab.topology, name, network, QUEUE_MBIT))
    detail = f"{aim.words} {network} {QUEUE_MBIT} of {OFFERED_MBIT} Mbit/s"
    # Half of all packets are lost, whatever they are: no fault of the router's. Its own probes
    # are lost too, so a holder may think itself blind and hand over, once.
    severs = network == "private"
    return Attack(Contended(queues, load), detail, (), start_limit="deaf", severs=severs)


def _silence(aim: Aim) -> Attack:
    network = aim.draw.choice(tuple(DEVICES))
    fault = NetworkSilent(aim.site.net(), aim.victims, network)
    return Attack(
        fault, f"{network} {aim.words}", aim.victims, hindered=aim.victims,
        start_limit="silent-two" if aim.away else "silent",
        severs=network == "private" and not aim.others,
    )  # fmt: skip


def _silence_of_two(aim: Aim) -> Attack:
    """One node is dead; of the two that are left one hears nothing on one network."""
    network = aim.draw.choice(tuple(DEVICES))
    away = aim.draw.choice(aim.others)
    killed = Killed(aim.site.lab.nodes[away])
    fault = Together([killed, NetworkSilent(aim.site.net(), aim.victims, network)])
    return Attack(
        fault, f"{network} {aim.words} without {away}", (*aim.victims, away), out=(away,),
        hindered=aim.victims, start_limit="silent-two", heal_limit="restart", ends=(away,),
    )  # fmt: skip


def _drop_forwarded(aim: Aim) -> Attack:
    topology = aim.site.lab.topology
    fault = each(aim, lambda name: ForwardDropped(topology.namespace(name)))
    return Attack(fault, aim.words, aim.victims, hindered=aim.victims, start_limit="hindered")


def _fill_table(aim: Aim) -> Attack:
    fault = TableFull(aim.site.lab.folder)
    # Flows that the table has go on; of new ones nothing is promised.
    return Attack(fault, aim.words, (), start_limit="noise", unjudged=NEW)


def _flush_rules(aim: Aim) -> Attack:
    topology = aim.site.lab.topology
    name = aim.site.name("flows")
    target = f"{FLOATING['public'].partition('/')[0]}:53"
    words = ["chaos.workloads.flows", name, target, "--out", str(aim.site.history(name))]
    flows = Plagued(aim.site.lab, {name: (CLIENT, words)})
    # Without the gate's tables a holder hands over; with them it goes on, and translates nothing.
    table = aim.draw.choice(("", "inet hanat"))
    flush = each(aim, lambda router: RulesFlushed(topology.namespace(router), table))
    detail = f"{aim.words} {table}".rstrip()
    return Attack(Contended(flush, flows, FLOWS_S), detail, aim.victims, start_limit="release")


def _flood(aim: Aim) -> Attack:
    ports = [
        f"{port.network}/{port.mac}/{port.address.partition('/')[0]}"
        for name in aim.victims
        for port in aim.site.lab.topology.router(name).ports
    ]
    words = ["chaos.workloads.flood", *ports, "--seed", str(aim.draw.getrandbits(32)),
             "--rate", str(FLOOD_PER_S)]  # fmt: skip
    fault = Plagued(aim.site.lab, {aim.site.name("flood"): (SWITCH, words)})
    return Attack(fault, f"to {aim.words}", (), start_limit="noise")


def _api_garbage(aim: Aim) -> Attack:
    programs = {}
    for name in aim.victims:
        socket = str(aim.site.lab.nodes[name].socket)
        seed = str(aim.draw.getrandbits(32))
        words = ["chaos.workloads.api_garbage", socket, "--seed", seed]
        programs[aim.site.name("api-garbage")] = (name, words)
    return Attack(Plagued(aim.site.lab, programs), f"to {aim.words}", (), start_limit="noise")


def _replace_address(aim: Aim) -> Attack:
    network = aim.draw.choice(tuple(DEVICES))
    (name,) = aim.victims
    versions = aim.draw.choice(OWN_VERSIONS)
    fault = AddressReplaced(aim.site.lab, name, network, versions)
    words = "+".join(f"IPv{version}" for version in versions)
    return Attack(
        fault, f"{network} {words} of {name}", aim.victims, start_limit="release", stays=True
    )


def _fill_disk(aim: Aim) -> Attack:
    fault = each(aim, lambda name: DiskFull(aim.site.lab.nodes[name]))
    return Attack(fault, aim.words, (), start_limit="noise")


def _break_disk(aim: Aim) -> Attack:
    how = aim.draw.choice(("EIO", "read-only"))
    fault = each(aim, lambda name: DiskBroken(aim.site.lab.nodes[name], how))
    return Attack(
        fault, f"{aim.words} {how}", aim.victims, out=aim.victims, start_limit="deaf",
        heal_limit="restart", ends=aim.victims,
    )  # fmt: skip


def _take_away(aim: Aim) -> Attack:
    fault = each(aim, lambda name: Killed(aim.site.lab.nodes[name]))
    return Attack(
        fault, f"without {aim.words}", aim.victims, out=aim.victims, heal_limit="restart",
        ends=aim.victims,
    )  # fmt: skip


NEMESES = (
    Nemesis("egress-full", "a bounded queue with more offered than it lets through",
            ("holder", "holder", "all"), _full_egress, (1.5, 2.5)),
    Nemesis("silent-network", "one cable carries nothing, its carrier stays",
            (*FEW, "all"), _silence, (1.5, 2.5), alone_s=4.5),
    Nemesis("silent-network-two", "the same while another node is dead", FEW, _silence_of_two,
            (4.5, 5.0), three=True),
    Nemesis("forward-drop", "another program sets the FORWARD policy to drop, as Docker does",
            (*FEW, "all"), _drop_forwarded, (1.5, 2.5), pairs=True),
    Nemesis("conntrack-full", "no room in the table of connections", ("all",), _fill_table,
            (1.5, 2.5), needs="conntrack"),
    Nemesis("nft-flush", "somebody flushes all rules, under new flows", FEW, _flush_rules,
            (2.2, 2.6)),
    Nemesis("flood", "forged datagrams and connections to the routers' own ports",
            ("holder", "all"), _flood, (1.5, 2.5), pairs=True),
    Nemesis("api-garbage", "requests that no client makes", (*FEW, "all"), _api_garbage,
            pairs=True),
    Nemesis("own-address", "own addresses of a router go and come; then it hands over", FEW,
            _replace_address, (1.0, 1.5)),
    Nemesis("disk-full", "no room on the disks of one, two or all nodes", MANY, _fill_disk,
            needs="disk", pairs=True),
    Nemesis("disk-broken", "disks fail: read-only, or an error for every access",
            (*FEW, "majority", "all"), _break_disk, needs="disk"),
    Nemesis("two-of-three", "one node is away, then faults hit the others", ("backup", "one"),
            _take_away, (0.5, 1.0), inner=2),
)  # fmt: skip
