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
