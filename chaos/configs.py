"""Write the two files every node is started with."""

from __future__ import annotations

from pathlib import Path

from chaos.topology import DEVICES, FLOATING, FLOATING_V6, Host, Topology

CLUSTER_TOML = f"""\
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

[[service]]
name = "web"
listen = ["vip:public tcp/80"]
scheduler = "wrr"
  [[service.server]]
  name = "web1"
  address = "10.11.12.101:8080"
  weight = 2
  [[service.server]]
  name = "web2"
  address = "10.11.12.102:8080"
  weight = 1
  [[service.server]]
  name = "web1-v6"
  address = "[fd00:12::101]:8080"
  weight = 2
  [[service.server]]
  name = "web2-v6"
  address = "[fd00:12::102]:8080"
  weight = 1

[[service]]
name = "udp-echo"
listen = ["vip:public udp/53"]
scheduler = "rr"
  [[service.server]]
  name = "udp1"
  address = "10.11.12.101:5353"
  [[service.server]]
  name = "udp2"
  address = "10.11.12.102:5353"
  [[service.server]]
  name = "udp1-v6"
  address = "[fd00:12::101]:5353"
  [[service.server]]
  name = "udp2-v6"
  address = "[fd00:12::102]:5353"

[[service]]
name = "tcp-echo"
listen = ["vip:public tcp/7"]
scheduler = "rr"
  [[service.server]]
  name = "tcp1"
  address = "10.11.12.101:9000"
  [[service.server]]
  name = "tcp2"
  address = "10.11.12.102:9000"
  [[service.server]]
  name = "tcp1-v6"
  address = "[fd00:12::101]:9000"
  [[service.server]]
  name = "tcp2-v6"
  address = "[fd00:12::102]:9000"
"""


PROFILES = ("fast", "default", "calm")


def cluster_toml(*, profile: str) -> str:
    """Return the cluster's file with another profile than ``default``."""
    return CLUSTER_TOML.replace('profile = "default"', f'profile = "{profile}"')


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
