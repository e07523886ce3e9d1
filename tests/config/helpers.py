"""The example files as text, and small changes to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hanat.config import parse_cluster
from hanat.errors import ConfigError

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples" / "three-node"
CLUSTER = (EXAMPLES / "cluster.toml").read_text()
NODE = (EXAMPLES / "r1" / "node.toml").read_text()

# The least a cluster file can be; tests add tables below.
SMALL = """\
schema = 1
cluster = { name = "edge1" }
[[vip]]
name = "public"
address = ["203.0.113.10/24", "2001:db8::10/64"]
interface = "public"
[[vip]]
name = "private"
address = ["10.11.12.1/24"]
interface = "private"
"""


def changed(text: str, old: str, new: str) -> str:
    """Return the text with one passage replaced, which must be there."""
    assert old in text, old
    return text.replace(old, new, 1)


def problems_of(text: str) -> list[str]:
    """Return ``path: text`` of every problem of a cluster file."""
    with pytest.raises(ConfigError) as caught:
        parse_cluster(text, file="cluster.toml")
    assert all(problem.file == "cluster.toml" for problem in caught.value.problems)
    return [f"{problem.path}: {problem.text}" for problem in caught.value.problems]


def service(listen: str, *servers: str, name: str = "web") -> str:
    """Return a service table; listens separated by commas, servers as addresses."""
    listens = ", ".join(f'"{one.strip()}"' for one in listen.split(","))
    tables = "".join(
        f'[[service.server]]\nname = "{name}-{i}"\naddress = "{address}"\n'
        for i, address in enumerate(servers)
    )
    return f'[[service]]\nname = "{name}"\nlisten = [{listens}]\n{tables}'


def checked(
    check: str, *, listen: str = "vip:public tcp/80", server: str = "10.11.12.101:80"
) -> str:
    """Return a cluster file whose only service has one check, given as lines of its table."""
    return SMALL + service(listen, server) + f"[[service.check]]\n{check}\n"


# Every key of a service and of its checks, once at least.
EVERYTHING = (
    SMALL
    + """
[[service]]
name = "web"
listen = ["vip:public tcp/80", "vip:public tcp/8000-8010"]
scheduler = "mh"
hash = "source-port"
slow_start = "30s"
min_healthy = "30%"
on_server_down = "expire"
sorry = ["10.11.12.200:8080", "2001:db8:1::200"]
unavailable = "drop"
persistence = { timeout = "10m", netmask = 24, netmask6 = 64 }
allow = ["198.51.100.0/24", "2001:db8:2::/48"]
deny = ["198.51.100.128/25"]
  [[service.check]]
  kind = "http"
  method = "OPTIONS"
  path = "/health?full=1"
  host = "www.example.org:8080"
  headers = { X-Probe = "hanat", Accept = "text/plain" }
  status = "401, 200-299"
  body = "ok"
  digest = "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"
  interval = "5s"
  timeout = "3s"
  fall = 2
  rise = 4
  fast_interval = "500ms"
  port = 8080
  mark = 7
  [[service.check]]
  kind = "https"
  host = "www.example.org"
  match = "^(ok|fine)$"
  verify = true
  warn = "14d"
  port = 8443
  [[service.check]]
  kind = "tcp"
  send = "PING\\r\\n"
  expect = "hex:2b 50"
  address = "10.11.12.250"
  source = "10.11.12.240"
  port = 6379
  [[service.check]]
  kind = "tls"
  sni = "Mail.example.org"
  port = 993
  [[service.check]]
  kind = "ping"
  size = 1000
  count = 3
  [[service.check]]
  kind = "script"
  name = "check-web.sh"
  arguments = ["--deep", ""]
  port = 1
  [[service.check]]
  kind = "agent"
  send = "web\\n"
  port = 9999
  [[service.server]]
  name = "web1"
  address = "10.11.12.101:8080"
  [[service.server]]
  name = "web2"
  address = "[2001:db8:1::102]"
  weight = 2
  max_conn = 500
  [service.limits]
  new_per_second = 1000
  burst = 2000
  new_per_second_per_client = 20
  burst_per_client = 40
  connections_per_client = 100
  netmask = 24
  netmask6 = 56

[[service]]
name = "dns"
listen = ["vip:public udp/53"]
scheduler = "fo"
sorry = "10.11.12.200"
ops = true
on_server_down = "keep"
replicate = "none"
  [[service.check]]
  kind = "dns"
  name = "Example.org"
  type = "A"
  rcode = "NOERROR"
  answer = "192.0.2.1"
  tcp = true
  [[service.check]]
  kind = "udp"
  send = "hex:00"
  match = "."
  port = 5353
  [[service.server]]
  name = "dns1"
  address = "10.11.12.101"
  priority = 1
  [[service.server]]
  name = "dns2"
  address = "10.11.12.102"
  priority = 2
"""
)
