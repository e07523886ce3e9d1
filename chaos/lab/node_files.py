"""Write the two files every node is started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chaos.lab.topology import (
    DEVICES,
    FLOATING,
    FLOATING_V6,
    SERVERS,
    Host,
    Topology,
    server_addresses,
)

# Short enough for a run of a minute. Checkers have no priority, and everything else of a lab has:
# a shorter timeout takes servers for dead when the machine is busy.
CHECK_INTERVAL_MS, CHECK_TIMEOUT_MS, FALL, RISE = 400, 400, 3, 2
AGENT_INTERVAL_MS = 600  # its words count at once, failures alone need three in a row

_HEAD = f"""\
schema = 1

[cluster]
name = "lab"
profile = "default"

[[vip]]
name = "public"
address = ["{FLOATING["public"]}", "{FLOATING_V6["public"]}"]
interface = "public"

[[vip]]
name = "private"           # default gateway of the real servers
address = ["{FLOATING["private"]}", "{FLOATING_V6["private"]}"]
interface = "private"

[[masquerade]]
from = ["10.11.12.0/24", "fd00:12::/64"]
to = "vip:public"
"""


@dataclass(frozen=True, slots=True)
class _Service:
    """A service of the lab.

    Attributes:
        kind: Of the check, with its own options.
        servers: What their names begin with.
        weights: Of the servers in order; empty: not written.
        agent_port: Where agents of the servers are asked; 0: there are none.
    """

    name: str
    listen: str
    scheduler: str
    kind: str
    servers: str
    port: int
    weights: tuple[int, ...] = ()
    agent_port: int = 0

    def text(self, *, checked: bool) -> str:
        """Return its part of the cluster's file."""
        lines = [
            "",
            "[[service]]",
            f'name = "{self.name}"',
            f'listen = ["vip:public {self.listen}"]',
            f'scheduler = "{self.scheduler}"',
        ]
        if checked:
            lines += [
                # If no server answers anybody, it is the network: connections stay.
                'min_healthy = "30%"',
                "  [[service.check]]",
                f"  {self.kind}",
                f'  interval = "{CHECK_INTERVAL_MS}ms"',
                f'  timeout = "{CHECK_TIMEOUT_MS}ms"',
                f"  fall = {FALL}",
                f"  rise = {RISE}",
            ]
        if checked and self.agent_port:
            lines += [
                "  [[service.check]]",
                '  kind = "agent"',
                f"  port = {self.agent_port}",
                f'  interval = "{AGENT_INTERVAL_MS}ms"',
                f'  timeout = "{CHECK_TIMEOUT_MS}ms"',
                f"  fall = {FALL}",
                f"  rise = {RISE}",
            ]
        for suffix, address in (("", "{}"), ("-v6", "[{}]")):
            for i, host in enumerate(SERVERS):
                own = server_addresses(host)[1 if suffix else 0]
                lines += [
                    "  [[service.server]]",
                    f'  name = "{self.servers}{i + 1}{suffix}"',
                    f'  address = "{address.format(own)}:{self.port}"',
                ]
                if self.weights:
                    lines.append(f"  weight = {self.weights[i]}")
        return "\n".join(lines) + "\n"


WEIGHTS = (2, 1, 1)  # of the web service's servers
_ANSWERS = 'send = "x"\n  expect = "x"'
_SERVICES = (
    _Service("web", "tcp/80", "wrr", 'kind = "http"', "web", 8080, WEIGHTS, agent_port=7077),
    _Service("udp-echo", "udp/53", "rr", f'kind = "udp"\n  {_ANSWERS}', "udp", 5353),
    _Service("tcp-echo", "tcp/7", "rr", f'kind = "tcp"\n  {_ANSWERS}', "tcp", 9000),
)

PROFILES = ("fast", "default", "calm")


def cluster_toml(*, profile: str, checked: bool = True) -> str:
    """Return the cluster's file.

    Args:
        profile: One of `PROFILES`.
        checked: Whether the servers of its services are checked.
    """
    head = _HEAD.replace('profile = "default"', f'profile = "{profile}"')
    return head + "".join(service.text(checked=checked) for service in _SERVICES)


CLUSTER_TOML = cluster_toml(profile="default")


def node_toml(topology: Topology, router: Host, *, folder: Path) -> str:
    """Return the text of a node's own file.

    Args:
        topology: Names every peer.
        router: Whose file it is.
        folder: Of this lab; the node's data and socket live in ``folder/<node>``.
    """
    home = folder / router.name
    interfaces = "\n".join(f'{name} = "{device}"' for name, device in DEVICES.items())
    return f"""\
schema = 1
node = "{router.name}"
cluster_file = "{folder / "cluster.toml"}"
data_dir = "{home / "data"}"
key_file = "{folder / "cluster.key"}"

[interfaces]
{interfaces}

[api]
listen = ["unix:{home / "api.sock"}", "127.0.0.1:7480"]

{"".join(_peer(peer, number) for number, peer in enumerate(topology.routers, start=1))}"""


def _peer(router: Host, number: int) -> str:
    addresses = ", ".join(f'"{port.address.partition("/")[0]}"' for port in router.ports)
    return f"""\
[[peer]]
name = "{router.name}"
id = {number}
addresses = [{addresses}]

"""
