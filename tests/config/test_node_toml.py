"""``node.toml``: what it becomes, and every way it can be wrong."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from hanat.config import check_advice, load_node
from hanat.config.fields import parse_device
from hanat.config.settings import GateChoice, NodeSettings, Peer, TcpListen, UnixListen
from hanat.errors import ConfigError
from tests.config.helpers import EXAMPLES, NODE, changed


def load(directory: Path, text: str) -> NodeSettings:
    path = directory / "node.toml"
    path.write_text(text)
    return load_node(path)


def problems_of(directory: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(directory, text)
    return [f"{problem.path}: {problem.text}" for problem in caught.value.problems]


def peers(*entries: tuple[str, int, str]) -> str:
    return "".join(
        f'[[peer]]\nname = "{name}"\nid = {node_id}\naddresses = ["{address}"]\n'
        for name, node_id, address in entries
    )


def with_peers(*entries: tuple[str, int, str]) -> str:
    return NODE[: NODE.index("[[peer]]")] + peers(*entries)


@pytest.mark.parametrize("node_id", [1, 2, 3])
def test_the_examples_become_values(node_id: int) -> None:
    directory = EXAMPLES / f"r{node_id}"
    settings = load_node(directory / "node.toml")

    assert settings.node == f"r{node_id}"
    assert settings.node_id == node_id
    assert settings.myself == Peer(
        f"r{node_id}",
        node_id,
        (ip_address(f"203.0.113.1{node_id}"), ip_address(f"10.11.12.1{node_id}")),
    )
    assert settings.cluster_file.resolve() == EXAMPLES / "cluster.toml"
    assert settings.interfaces == {"public": "eth0", "private": "eth1"}
    assert settings.api_listen == (
        UnixListen(Path("/run/hanat/api.sock")),
        TcpListen("127.0.0.1", 7480),
    )
    assert (settings.raft_port, settings.mesh_port) == (7411, 7412)


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = changed(NODE, '"/var/lib/hanat"', '"state"')

    settings = load(tmp_path, text)

    assert settings.data_dir == tmp_path / "state"
    assert settings.key_file == Path("/etc/hanat/cluster.key")


def test_peers_are_ordered_by_id(tmp_path: Path) -> None:
    text = with_peers(("r3", 3, "10.0.0.3"), ("r1", 1, "10.0.0.1"), ("r2", 2, "10.0.0.2"))

    assert [peer.name for peer in load(tmp_path, text).peers] == ["r1", "r2", "r3"]


def test_ports_and_listens_have_defaults_and_can_be_set(tmp_path: Path) -> None:
    start, end = NODE.index("[api]"), NODE.index("# [ports]")
    plain = load(tmp_path, NODE[:start] + NODE[end:])
    text = NODE[:start] + '[api]\nlisten = ["[::1]:80"]\n[ports]\nraft = 1\nmesh = 2\n' + NODE[end:]

    assert plain.api_listen == (UnixListen(Path("/run/hanat/api.sock")),)
    settings = load(tmp_path, text)
    assert settings.api_listen == (TcpListen("::1", 80),)
    assert (settings.raft_port, settings.mesh_port) == (1, 2)


def test_scripts_have_a_folder_and_a_user(tmp_path: Path) -> None:
    plain = load(tmp_path, NODE)
    text = changed(NODE, "[api]", '[checker]\nscripts = "probes"\nuser = "hanat-checks"\n[api]')
    found = load(tmp_path, text)

    assert (plain.scripts, plain.script_user) == (Path("/etc/hanat/scripts"), "nobody")
    assert (found.scripts, found.script_user) == (tmp_path / "probes", "hanat-checks")
    assert load(tmp_path, changed(NODE, "[api]", "[checker]\n[api]")) == plain


@pytest.mark.parametrize("count", [1, 3, 5])
def test_one_three_or_five_peers_are_accepted(tmp_path: Path, count: int) -> None:
    entries = [(f"r{i}", i, f"10.0.0.{i}") for i in range(1, count + 1)]

    assert len(load(tmp_path, with_peers(*entries)).peers) == count


@pytest.mark.parametrize("count", [2, 4, 6])
def test_other_numbers_of_peers_are_refused(tmp_path: Path, count: int) -> None:
    entries = [(f"r{i}", i, f"10.0.0.{i}") for i in range(1, count + 1)]

    assert problems_of(tmp_path, with_peers(*entries)) == [
        f"peer: a cluster has 3 or 5 nodes (1 for a lab), this file lists {count}"
    ]


def test_peers_differ_in_name_id_and_address(tmp_path: Path) -> None:
    text = with_peers(("r1", 1, "10.0.0.1"), ("r1", 2, "10.0.0.2"), ("r3", 2, "10.0.0.1"))

    assert problems_of(tmp_path, text) == [
        'peer[1].name: another peer is named "r1"',
        'peer[2].id: 2 is the id of peer "r1" already',
        'peer[2].addresses[0]: peer "r1" has 10.0.0.1 already',
    ]


def test_a_node_must_be_its_own_peer(tmp_path: Path) -> None:
    assert problems_of(tmp_path, changed(NODE, 'node = "r1"', 'node = "r11"')) == [
        'node: there is no peer "r11", and a node is its own peer too; did you mean "r1"?'
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('node = "r1"', 'node = "R1"', 'node: "R1" is not a name'),
        ('node = "r1"', f'node = "{"r" * 32}"', f'node: "{"r" * 32}" is not a name'),
        (
            'data_dir = "/var/lib/hanat"',
            "data_dir = 5",
            "data_dir: must be text in quotes, found 5",
        ),
        ('data_dir = "/var/lib/hanat"', 'data_dir = ""', "data_dir: must not be empty"),
        ("data_dir =", "data_dri =", 'data_dri: unknown key; did you mean "data_dir"?'),
        ('"eth0"', '"eth0/1"', 'interfaces.public: "eth0/1" is not an interface name'),
        ("id = 2", "id = 0", "peer[1].id: must be from 1 to 255, found 0"),
        ("id = 2", "id = 256", "peer[1].id: must be from 1 to 255, found 256"),
        ("id = 2", 'id = "2"', 'peer[1].id: must be a whole number from 1 to 255, found "2"'),
        ('"10.11.12.12"', '"10.11.12.12/24"', "peer[1].addresses[1]: "),
        ('"unix:/run/hanat/api.sock"', '"unix:api.sock"', "api.listen[0]: "),
        ('"unix:/run/hanat/api.sock"', f'"unix:/{"x" * 107}"', "api.listen[0]: "),
        ('"127.0.0.1:7480"', '"127.0.0.1"', "api.listen[1]: "),
        ('"127.0.0.1:7480"', '"::1:7480"', "api.listen[1]: "),
        ('"127.0.0.1:7480"', '"[::g]:7480"', "api.listen[1]: "),
        ('"127.0.0.1:7480"', '"127.0.0.256:7480"', "api.listen[1]: "),
        ('"127.0.0.1:7480"', '"127.0.0.1:0"', 'api.listen[1]: "0" is not a port'),
        ('"127.0.0.1:7480"', '"unix:/run/hanat/api.sock"', "api.listen[1]: is listed twice"),
        ("[api]", "[ports]\nraft = 70000\n[api]", "ports.raft: must be from 1 to 65535"),
        ("[api]", "[checker]\nscripts = 5\n[api]", "checker.scripts: must be text in quotes"),
        (
            "[api]",
            '[checker]\nuser = "root"\n[api]',
            'checker.user: is "root", and scripts never run as root: write another user',
        ),
        ("[api]", '[checker]\nuser = "0"\n[api]', 'checker.user: "0" is not a user\'s name'),
        (
            "[api]",
            '[checker]\nscript = "x"\n[api]',
            'checker.script: unknown key; did you mean "scripts"?',
        ),
        ("[api]", "[ports]\nraft = 7412\n[api]", "ports.mesh: is 7412, the raft port already"),
    ],
)
def test_wrong_values_are_refused(tmp_path: Path, old: str, new: str, expected: str) -> None:
    problems = problems_of(tmp_path, changed(NODE, old, new))

    assert problems[0].startswith(expected)


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    text = changed(NODE, "schema = 1", "schema = true")
    text = changed(text, 'private = "eth1"', 'Private = "eth1"')
    text = changed(text, "id = 3", "id = 1")

    assert [line.partition(": ")[0] for line in problems_of(tmp_path, text)] == [
        "schema",
        "interfaces.Private",
        "peer[2].id",
    ]


def test_further_names_of_the_api_are_taken_in_lower_case(tmp_path: Path) -> None:
    text = changed(NODE, "[api]\n", '[api]\nhosts = ["R1.example.com"]\n')

    settings = load(tmp_path, text)

    assert settings.api_names == ("r1", "127.0.0.1", "r1.example.com")


@pytest.mark.parametrize("device", ["eth*", 'a"b', "eth 0", "-x", "lo", "all", "a" * 16, "$x", "é"])
def test_device_that_rules_or_settings_would_misread_is_refused(device: str) -> None:
    with pytest.raises(ValueError, match=r"interface name|no device"):
        parse_device(device)


@pytest.mark.parametrize("device", ["eth0", "eth0.100", "br-lan", "enp0s31f6", "wan_1", "v+x@y"])
def test_device_of_an_ordinary_name_is_taken(device: str) -> None:
    assert parse_device(device) == device


@pytest.mark.parametrize(
    ("listen", "count"), [("0.0.0.0:7480", 1), ("[::]:7480", 1), ("127.0.0.1:7480", 0)]
)
def test_listening_everywhere_is_advised_against(listen: str, count: int, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(changed(NODE, "127.0.0.1:7480", listen))

    found = check_advice([file])

    assert len(found) == count
    assert all("every address of the machine" in str(problem) for problem in found)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('kind = "never"', 'gate.kind: "never" is not known: write "auto", "deadline"'),
        ("mark = 0x50000000", "gate.mark: must be two neighbouring bits, like 0x60000000, found"),
        ("mark = 0", "gate.mark: must be from 1 to 4294967295, found 0"),
    ],
)
def test_a_gate_that_is_none_is_refused(tmp_path: Path, line: str, found: str) -> None:
    (problem,) = problems_of(tmp_path, changed(NODE, "[api]", f"[gate]\n{line}\n[api]"))
    assert problem.startswith(found)


def test_a_gate_is_the_best_that_the_kernel_can_do_unless_the_file_says_otherwise(
    tmp_path: Path,
) -> None:
    plain = load(tmp_path, NODE)
    assert (plain.gate, plain.gate_mark) == (GateChoice.AUTO, 0x60000000)
    text = changed(NODE, "[api]", '[gate]\nkind = "timeouts"\nmark = 0x3\n[api]')
    found = load(tmp_path, text)
    assert (found.gate, found.gate_mark) == (GateChoice.TIMEOUTS, 3)
