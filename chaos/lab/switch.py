"""Drop frames in the switch: whoever is cut off keeps its carrier and hears no error.

As in Jepsen, a *grudge* says for every node whose packets it does not get, so a cut can be
one-way. The switch's own nftables drop them, between two ports of a bridge (grudges)
or between one port and everything else (*deaf*: nothing reaches the node, *mute*: nothing
of what it sends gets anywhere). Pulling a cable (`topology.set_carrier`) is something else: the
node notices that at once.

A packet socket on a port, as the observer has, sees frames before they are dropped: what a
mute node says is in the history although nobody heard it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Iterable, Mapping

from chaos.lab.lab_error import LabError
from chaos.lab.netns import entered
from chaos.lab.topology import SWITCH, Host, Topology

Grudge = Mapping[str, Collection[str]]
"""By node, the nodes it gets no packets from."""

TABLE = "chaos"
RULES = """\
add table bridge TABLE
add set bridge TABLE mute { type ifname; }
add set bridge TABLE deaf { type ifname; }
add set bridge TABLE grudge { type ifname . ifname; }
add chain bridge TABLE sent { type filter hook prerouting priority -300; }
add chain bridge TABLE passed { type filter hook forward priority -300; }
add chain bridge TABLE received { type filter hook postrouting priority -300; }
flush table bridge TABLE
add rule bridge TABLE sent iifname @mute drop
add rule bridge TABLE passed iifname . oifname @grudge drop
add rule bridge TABLE received oifname @deaf drop
"""


def complete_grudge(components: Iterable[Collection[str]]) -> Grudge:
    """Return the grudge by which nobody hears anybody of another component."""
    parts = [tuple(part) for part in components]
    return {
        node: [other for other_part in parts if other_part != part for other in other_part]
        for part in parts
        for node in part
    }


def bridge_grudge(middle: str, one_side: Iterable[str], other_side: Iterable[str]) -> Grudge:
    """Return the grudge by which two sides hear each other only through one node between them."""
    grudge = complete_grudge([tuple(one_side), tuple(other_side)])
    assert middle not in grudge, middle
    return grudge


def one_way_grudge(deaf: Iterable[str], unheard: Iterable[str]) -> Grudge:
    """Return the grudge by which some nodes do not hear some others, who hear them."""
    shunned = tuple(unheard)
    return {node: [other for other in shunned if other != node] for node in deaf}


class Net:
    """What the switch of a lab drops. Every call takes effect as a whole, at one instant.

    Args:
        topology: Of the lab.
        table: Where the rules are; faults that are healed separately need one each.
    """

    def __init__(self, topology: Topology, table: str = TABLE) -> None:
        self._topology = topology
        self._table = table
        self._hosts = {host.name: host for host in topology.hosts}

    def drop_all(self, grudge: Grudge) -> None:
        """Drop what every node sends to those that bear it a grudge."""
        pairs = [
            f'"{sender.port}" . "{receiver.port}"'
            for node, shunned in grudge.items()
            for receiver in self._host(node).ports
            for name in shunned
            for sender in self._host(name).ports
            if sender.network == receiver.network
        ]
        self._add({"grudge": pairs})

    def isolate(self, host: str) -> None:
        """Drop everything from and to a host, on all its cables."""
        ports = self._ports(host)
        self._add({"mute": ports, "deaf": ports})

    def deafen(self, host: str) -> None:
        """Drop everything that is sent to a host."""
        self._add({"deaf": self._ports(host)})

    def mute(self, host: str) -> None:
        """Drop everything that a host sends."""
        self._add({"mute": self._ports(host)})

    def cut(self, hosts: Iterable[str], network: str) -> None:
        """Drop everything from and to some hosts on their cables to one network."""
        ports = [
            f'"{p.port}"' for name in hosts for p in self._host(name).ports if p.network == network
        ]
        self._add({"mute": ports, "deaf": ports})

    def lose(self, host: str, percent: int) -> None:
        """Drop so many of a hundred frames from a host, and of those to it, at random."""
        assert 0 < percent < 100, percent
        ports = ", ".join(self._ports(host))
        chance = f"numgen random mod 100 < {percent} drop"
        rules = [
            f"add rule bridge {self._table} {chain} {way} {{ {ports} }} {chance}\n"
            for chain, way in (("sent", "iifname"), ("received", "oifname"))
        ]
        self._run(RULES.replace("TABLE", self._table) + "".join(rules))

    def blind(self, host: str, targets: Mapping[str, Collection[str]]) -> None:
        """Drop what a router sends from its own private addresses to some addresses.

        What it forwards has other source addresses and passes.

        Args:
            host: The router.
            targets: Addresses, by ``ip`` and ``ip6``.
        """
        (port,) = (p for p in self._host(host).ports if p.network == "private")
        own = {"ip": port.address, "ip6": port.address_v6}
        rules = [
            f'add rule bridge {self._table} sent iifname "{port.port}" '
            f"{family} saddr {own[family].partition('/')[0]} "
            f"{family} daddr {{ {', '.join(addresses)} }} drop\n"
            for family, addresses in targets.items()
        ]
        self._run(RULES.replace("TABLE", self._table) + "".join(rules))

    def heal(self) -> None:
        """Drop nothing; harmless when nothing was dropped."""
        self._run(f"add table bridge {self._table}\ndelete table bridge {self._table}\n")

    def _add(self, elements: Mapping[str, Collection[str]]) -> None:
        lines = [
            f"add element bridge {self._table} {name} {{ {', '.join(members)} }}\n"
            for name, members in elements.items()
            if members
        ]
        self._run(RULES.replace("TABLE", self._table) + "".join(lines))

    def _ports(self, host: str) -> list[str]:
        return [f'"{port.port}"' for port in self._host(host).ports]

    def _host(self, name: str) -> Host:
        assert name in self._hosts, f"no host {name}; there are {', '.join(self._hosts)}"
        return self._hosts[name]

    def _run(self, script: str) -> None:
        # Entered here rather than by ip-netns(8): one program less between now and the cut.
        with entered(self._topology.namespace(SWITCH)):
            done = subprocess.run(
                ["nft", "-f", "-"], input=script, capture_output=True, text=True, check=False
            )
        if done.returncode != 0:
            raise LabError(f"cannot change what the switch drops: {done.stderr.strip()}")
