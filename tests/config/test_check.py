"""``check``: any number of files, alone and against each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from hanat.config import check
from tests.config.helpers import CLUSTER, EXAMPLES, NODE, changed, problems_of


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A node file and the cluster file it names, both sound."""
    node, cluster = tmp_path / "node.toml", tmp_path / "cluster.toml"
    node.write_text(NODE)
    cluster.write_text(CLUSTER)
    return node, cluster


def change(path: Path, old: str, new: str) -> None:
    path.write_text(changed(path.read_text(), old, new))


def shown(*paths: Path) -> list[str]:
    return [
        f"{Path(problem.file).name}: {problem.path}: {problem.text}" for problem in check(paths)
    ]


def test_the_examples_have_no_problem() -> None:
    nodes = [EXAMPLES / f"r{i}" / "node.toml" for i in (1, 2, 3)]

    assert check([EXAMPLES / "cluster.toml", *nodes]) == ()
    assert check(nodes) == ()


def test_a_node_file_is_held_against_the_cluster_file_it_names(files: tuple[Path, Path]) -> None:
    node, _ = files
    change(node, 'private = "eth1"', 'privat = "eth1"')

    assert shown(node) == [
        'node.toml: interfaces: the cluster has a vip on interface "private", and this node maps '
        'it to no device; did you mean "privat"?'
    ]


def test_a_problem_between_files_is_reported_once(files: tuple[Path, Path]) -> None:
    node, cluster = files
    change(node, '"10.11.12.12"', '"10.11.12.1"')

    expected = [
        'node.toml: peer: 10.11.12.1 of peer "r2" is the floating address of vip "private"; '
        "a node needs its own address"
    ]
    assert shown(node, cluster) == expected
    assert shown(cluster, node) == expected


def test_the_api_does_not_listen_on_a_floating_address(files: tuple[Path, Path]) -> None:
    node, _ = files
    change(node, "127.0.0.1:7480", "203.0.113.10:7480")

    (problem,) = shown(node)

    assert problem.startswith("node.toml: api.listen[1]: 203.0.113.10 is the floating address")


def test_problems_of_all_files_are_reported(files: tuple[Path, Path]) -> None:
    node, cluster = files
    change(node, "schema = 1", "schema = 2")
    change(cluster, "schema = 1", "schema = 2")

    assert {line.partition(": ")[0] for line in shown(node, cluster)} == {
        "node.toml",
        "cluster.toml",
    }


def test_problems_of_a_named_cluster_file_are_reported_once(files: tuple[Path, Path]) -> None:
    node, cluster = files
    change(cluster, "schema = 1", "schema = 2")

    assert len(shown(node)) == len(shown(node, cluster)) == 1


def test_a_named_cluster_file_may_be_absent_only_if_another_is_given(
    files: tuple[Path, Path],
) -> None:
    node, cluster = files
    moved = cluster.rename(cluster.with_name("other.toml"))

    (problem,) = shown(node)

    assert problem.startswith("node.toml: cluster_file: ")
    assert problem.endswith("does not exist")
    assert shown(node, moved) == []


def test_node_files_of_one_cluster_agree_on_the_peers(files: tuple[Path, Path]) -> None:
    node, cluster = files
    other = node.with_name("other.toml")
    other.write_text(changed(node.read_text(), '"10.11.12.13"', '"10.11.12.14"'))

    assert shown(node, other, cluster) == [f"other.toml: peer: differs from the peers in {node}"]


def test_a_file_of_neither_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("schema = 1\n")

    assert shown(path)[0].startswith("x.toml: : is neither a node file")


def test_keys_of_many_parts_are_refused_not_recursed_into() -> None:
    (problem,) = problems_of(".".join("a" * 500) + " = 1\n" + CLUSTER)
    assert "nested too deeply" in problem
