"""The gate before the translation, in nftables text: the kernel's part of the lease.

Tables ``inet hanat_gate`` and ``arp hanat_gate`` are brought up to date in place, because
their sets hold the rights granted at this moment. What they mean is told in docs/lease.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from hanat.core.configuration import Configuration, Forward, GateKind, Interface
from hanat.core.flows import RESET_MARK
from hanat.core.forward_policy import UNTRANSLATED, forged_rules, transit_rules
from hanat.core.notation import (
    ATTACHED_SET,
    CARRIES_SET,
    FAMILIES,
    GATE_TABLE,
    addresses_of,
    devices_of,
    quoted,
)
from hanat.core.one_packet import passing_rules
from hanat.core.rights import BOTH_RIGHTS, TIMEOUTS, Enforcement, bits

# Behind conntrack (-200), whose state the gate asks for, and before all others: people set
# the whole mark of packets in mangle (-150), and NAT (-100) would hide that a packet was meant for
# a floating address.
GATE_PRIORITY = -199

# What the kernel takes for itself, or gives to nobody else.
KEPT = "{ local, broadcast, multicast, anycast }"
NEIGHBOURS = "{ nd-neighbor-solicit, nd-neighbor-advert }"
IS_MARKED = f"ct mark & {RESET_MARK:#010x} != 0"
# FIN or RST, looked for first, since that costs less than to ask whether it is TCP.
SAYS_GOODBYE = "@th,104,8 & 0x05 != 0 meta l4proto tcp"


def render_gate(
    configuration: Configuration, devices: Mapping[str, str], by: Enforcement = TIMEOUTS
) -> str:
    """Return the script that puts the gate in place or brings it up to date.

    With timeouts the set `answers` holds kernel names of devices, `carries_by_index` their indexes,
    `permit` whether they may be filled; with a deadline `attached` holds the indexes of devices
    with the programs (docs/lease.md). None of them is ever emptied here. The node's own addresses
    are reachable whatever they hold.

    Most packets are of established flows, and meet the first rule alone. It asks for the index
    of a device, since the kernel copies and compares 16 bytes for a name. A device that is made
    anew has no right until the next grant.
    """
    ports = devices_of(configuration, devices)
    vips = {version: addresses_of(configuration, version) for version in FAMILIES}
    lines = [f"# hanat: gate of cluster {configuration.name}"]
    forged = transit_rules(configuration, "return", ends=("saddr",))
    forged += forged_rules(configuration, devices)
    lines += _gate_inet(by, ports, vips, forged, _passing(configuration))
    lines += _gate_arp(by, vips[4], _elsewhere(configuration, devices))
    return "\n".join(lines) + "\n"


def _passing(configuration: Configuration) -> list[str]:
    """Return the rules about what is for no floating address."""
    rules = transit_rules(configuration, f"{UNTRANSLATED} accept")
    rules += transit_rules(configuration, "ct state untracked accept")
    # What the chains of NAT, which have the policy, do not see: these, and more packets of a flow
    # that nobody answered and that is older than the policy.
    older = f"ct state new ct status confirmed {UNTRANSLATED}"
    elsewhere = f"fib daddr . iif type != {KEPT} counter drop"
    rules.append(f"ct state invalid {elsewhere}")
    if configuration.forward is Forward.OPEN:
        rules.append(f"{older} fib daddr type local {elsewhere}")
    else:
        rules += [
            f"{older} {elsewhere}",
            # Neighbour discovery is not tracked; it may be for an address that we answer for.
            f"ct state untracked icmpv6 type {NEIGHBOURS} accept",
            *(
                f"{match} fib daddr type != {KEPT} goto guarded"
                for match in passing_rules(configuration)
            ),
            f"ct state untracked fib daddr type != {KEPT} counter drop",
        ]
    return [*rules, f"fib daddr type != {KEPT} goto guarded"]


def _gate_inet(
    by: Enforcement,
    ports: Sequence[str],
    vips: Mapping[int, Sequence[Interface]],
    forged: Sequence[str],
    passing: Iterable[str],
) -> list[str]:
    table = f"inet {GATE_TABLE}"
    hook = f"hook prerouting priority {GATE_PRIORITY}; policy accept;"
    chains = {"forged": forged, **_ways_in(by, passing, vips[6])}
    chains |= {"leaving": _leaving(by), "output": _output(vips[6])}
    bases = ("prerouting", "input", "output")
    return [
        f"add table {table}",
        f"add set {table} ports {{ type ifname; }}",
        *_rights(by, table, _SETS),
        f"add set {table} vips_v4 {{ type ipv4_addr; }}",
        f"add set {table} vips_v6 {{ type ipv6_addr; }}",
        *(f"add chain {table} {name}" for name in chains if name not in bases),
        f"add chain {table} prerouting {{ type filter {hook} }}",
        f"add chain {table} input {{ type filter hook input priority filter; policy accept; }}",
        f"add chain {table} output {{ type filter hook output priority filter; policy accept; }}",
        *_refilled_set(table, "ports", quoted(ports)),
        *_refilled_set(table, "vips_v4", ", ".join(str(a.ip) for a in vips[4])),
        *_refilled_set(table, "vips_v6", ", ".join(str(a.ip) for a in vips[6])),
        *(line for name, rules in chains.items() for line in _refilled_chain(table, name, rules)),
        *_no_rights(by, table, _SETS),
        # Of an earlier release, where it had names.
        f"add set {table} carries {{ type ifname; flags timeout; }}",
        f"delete set {table} carries",
    ]


# Sets of rights with their types, by the kind of gate that has them.
_ATTACHED = f"{ATTACHED_SET} {{ type iface_index; }}"
_ANSWERS = "answers { type ifname; flags timeout; }"
_CARRIES = f"{CARRIES_SET} {{ type iface_index; flags timeout; }}"
_PERMIT = "permit { type ifname; flags timeout; }"
_SETS = {
    GateKind.TIMEOUTS: (_ANSWERS, _CARRIES, _PERMIT),
    GateKind.DEADLINE: (_ATTACHED,),
}
_SETS_OF_ARP = {GateKind.TIMEOUTS: (_ANSWERS,), GateKind.DEADLINE: (_ATTACHED,)}


def _rights(by: Enforcement, table: str, sets: Mapping[GateKind, Sequence[str]]) -> list[str]:
    return [f"add set {table} {each}" for each in sets[by.kind]]


def _no_rights(
    by: Enforcement, table: str, sets: Mapping[GateKind, Sequence[str]]
) -> Iterator[str]:
    """Yield what removes the sets of the other kind, which nothing refers to any more."""
    for kind, others in sets.items():
        if kind is not by.kind:
            for each in others:
                yield f"add set {table} {each}"
                yield f"delete set {table} {each.split()[0]}"


def _ways_in(
    by: Enforcement, passing: Iterable[str], vips: Sequence[Interface]
) -> dict[str, list[str]]:
    """Return the rules of each chain that a packet from outside may meet."""
    established, asked, delivered = (
        _by_timeouts() if not by.has_deadline else _by_deadline(by, vips)
    )
    return {
        # What comes from the server passes: its client may wait for just that. What the client
        # sends next is reset; so is the server, by the client, to which the connection is over.
        "resets": [
            "ct direction original ct status dnat tcp flags & rst == 0 iifname @ports counter "
            "reject with tcp reset",
        ],
        "passed": [
            f"{IS_MARKED} jump resets",
            # The entry itself ends minutes later, and who follows the flow wants to know.
            f"{SAYS_GOODBYE} iifname @ports ct event set assured,destroy,protoinfo",
        ],
        # Of flows that are delivered here a holder whose *answers* is over carries none on.
        "carried": [
            f"ip daddr @vips_v4 {UNTRANSLATED} counter drop",
            f"ip6 daddr @vips_v6 {UNTRANSLATED} counter drop",
            "goto passed",
        ],
        "guarded": [
            # NAT leaves these as they are: they would show the inside to the outside.
            "ct state invalid counter drop",
            f"{by.answers} {by.judged_again}goto passed",
            "counter drop",
        ],
        "prerouting": [
            *established,
            "iifname != @ports accept",
            "jump forged",
            *asked,
            "ip daddr @vips_v4 goto guarded",
            "ip6 daddr @vips_v6 goto guarded",
            *passing,
        ],
        "input": delivered,
    }


_Ways = tuple[list[str], list[str], list[str]]
"""Rules for established flows, for questions of neighbours, and for what is delivered here."""


def _by_timeouts() -> _Ways:
    # After NAT: what is still meant for a floating address is meant for this node.
    delivered = [
        "iifname != @ports accept",
        f"{TIMEOUTS.answers} accept",
        "ip daddr @vips_v4 counter drop",
        "ip6 daddr @vips_v6 counter drop",
    ]
    return [f"ct state established,related {TIMEOUTS.carries} goto passed"], [], delivered


def _by_deadline(by: Enforcement, vips: Sequence[Interface]) -> _Ways:
    """Return what asks for bits of the mark: all of it before other programs may change them."""
    established = [
        f"ct state established,related {by.answers} goto passed",
        f"ct state established,related {by.carries} goto carried",
    ]
    asked = []
    if vips:
        # The answer leaves at once, and its device may have lost the program that would stop it.
        asked.append(
            f"icmpv6 type nd-neighbor-solicit @th,64,128 {{ {_targets(vips)} }} "
            f"meta mark & {bits(by.mask, BOTH_RIGHTS):#010x} == 0 counter drop"
        )
    return established, asked, []


def _leaving(by: Enforcement) -> list[str]:
    """Return the rules about packets that nobody may send who must not answer."""
    return [by.leaves, "counter drop"]


def _output(vips: Sequence[Interface]) -> list[str]:
    rules = [
        "oifname != @ports accept",
        # Also what neighbour discovery answers and asks; it would carry our MAC address.
        "ip saddr @vips_v4 goto leaving",
        "ip6 saddr @vips_v6 goto leaving",
        # A reset in the name of an address that was floating when its connection began.
        f"{IS_MARKED} ct status dnat meta l4proto tcp goto leaving",
    ]
    if vips:
        targets = _targets(vips)
        rules.append(f"icmpv6 type nd-neighbor-advert @th,64,128 {{ {targets} }} goto leaving")
    return rules


def _targets(vips: Sequence[Interface]) -> str:
    """Return addresses as neighbour discovery has them: 64 bits into the message.

    nft 1.0.6 has no word for the target address.
    """
    return ", ".join(f"0x{int(a.ip):032x}" for a in vips)


def _elsewhere(configuration: Configuration, devices: Mapping[str, str]) -> dict[str, list[str]]:
    """Return for each device the IPv4 floating addresses that are of other devices only."""
    found: dict[str, set[str]] = {devices[name]: set() for name in configuration.interfaces}
    every = {str(a.ip) for a in addresses_of(configuration, 4)}
    for vip in configuration.vips:
        own = {str(a.ip) for a in vip.addresses if a.version == 4}
        found[devices[vip.interface]] |= own
    return {device: sorted(every - own) for device, own in sorted(found.items())}


def _gate_arp(
    by: Enforcement, vips: Sequence[Interface], elsewhere: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return the rules for ARP, where Linux answers on any device for any address.

    What others say of floating addresses comes in: whoever gave one up learns from it where it
    went. Of a holder's floating addresses a device tells its own ones only; for the node's own
    there is `arp_ignore`. (In IPv6 Linux answers for addresses of the device alone.)
    """
    table = f"arp {GATE_TABLE}"
    output = [
        *(
            f'oifname "{device}" arp operation reply arp saddr ip {{ {", ".join(others)} }} '
            "counter drop"
            for device, others in elsewhere.items()
            if others
        ),
        "arp saddr ip @vips goto leaving",
    ]
    asked = (
        f"iif @{ATTACHED_SET} arp operation request arp daddr ip @vips arp saddr ip != @vips "
        f"meta mark & {bits(by.mask, BOTH_RIGHTS):#010x} == 0 counter drop"
    )
    chains = {"leaving": _leaving(by), "output": output, "input": [asked] * by.has_deadline}
    return [
        f"add table {table}",
        *_rights(by, table, _SETS_OF_ARP),
        f"add set {table} vips {{ type ipv4_addr; }}",
        f"add chain {table} leaving",
        f"add chain {table} output {{ type filter hook output priority filter; policy accept; }}",
        f"add chain {table} input {{ type filter hook input priority filter; policy accept; }}",
        *_refilled_set(table, "vips", ", ".join(str(a.ip) for a in vips)),
        *(line for name, rules in chains.items() for line in _refilled_chain(table, name, rules)),
        *_no_rights(by, table, _SETS_OF_ARP),
    ]


def _refilled_set(table: str, name: str, elements: str) -> list[str]:
    flush = [f"flush set {table} {name}"]
    return [*flush, f"add element {table} {name} {{ {elements} }}"] if elements else flush


def _refilled_chain(table: str, name: str, rules: Iterable[str]) -> list[str]:
    return [
        f"flush chain {table} {name}",
        *(f"add rule {table} {name} {rule}" for rule in rules),
    ]
