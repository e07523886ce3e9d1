"""The panic button needs little of a node's files, and loads little."""

from __future__ import annotations

import json
import subprocess
import sys
from ipaddress import ip_interface
from pathlib import Path

import pytest

from hanat.doctor.fence_files import FenceTarget, read_addresses, read_target
from hanat.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "deploy/examples/three-node"
FILES_MAX = 25
FOREIGN = {"asyncio", "aiohttp", "pydantic", "pysyncobj", "pyroute2", "scapy", "cryptography"}
LOADED = """
import json, sys
from hanat.cli.entry import main
sys.argv = ["hanat", "fence", "--config", sys.argv[1]]
try:
    main()
except SystemExit:
    print(json.dumps(sorted(sys.modules)))
"""


def test_it_loads_few_files_and_no_library_of_a_node(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, str(tmp_path / "none.toml")],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert len([name for name in loaded if name.partition(".")[0] == "hanat"]) <= FILES_MAX
    assert FOREIGN.isdisjoint(loaded)


def test_of_the_example_it_reads_devices_and_floating_addresses() -> None:
    target = read_target(EXAMPLE / "r1/node.toml")
    assert (target.node, target.devices) == ("r1", {"public": "eth0", "private": "eth1"})
    assert target.data_dir == Path("/var/lib/hanat")
    assert read_addresses(target) == [
        ("eth0", ip_interface("203.0.113.10/24")),
        ("eth1", ip_interface("10.11.12.1/24")),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"", "data_dir: is missing; it must be a text"),
        (b"node = 3", "node: is 3; it must be a text"),
        (b'interfaces = "eth0"', "interfaces: is 'eth0'; it must map names to kernel devices"),
        (b"node = ", "is not TOML"),
        (b"\xff", "is not TOML"),
        (b"#" * (3 << 20), "is too long for a configuration"),
    ],
)
def test_a_wrong_node_file_is_told(tmp_path: Path, text: bytes, found: str) -> None:
    file = tmp_path / "node.toml"
    file.write_bytes(text)
    with pytest.raises(ConfigError, match=r"node\.toml") as caught:
        read_target(file)
    assert found in str(caught.value)


@pytest.mark.parametrize(
    "text", ["vip = 3", "vip = [1]", '[[vip]]\ninterface = "p"\naddress = ["x"]', "["]
)
def test_a_wrong_cluster_file_is_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"cluster\.toml"):
        read_addresses(FenceTarget("r1", tmp_path, {"p": "eth0"}, file))


def test_what_does_not_matter_for_silence_may_be_wrong(tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(
        'schema = 99\n[[vip]]\ninterface = "p"\naddress = ["2001:db8::1/64"]\n'
        '[[vip]]\ninterface = "elsewhere"\naddress = ["192.0.2.1/24"]\n[nonsense]\n'
    )
    target = FenceTarget("r1", tmp_path, {"p": "eth0"}, file)
    assert read_addresses(target) == [("eth0", ip_interface("2001:db8::1/64"))]
