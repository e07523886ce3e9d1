"""Two successive versions in one cluster: there, back, there again, and finished."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from chaos.lab import topology
from chaos.lab.lab import Lab
from chaos.lab.node_files import cluster_toml
from hanat import __version__
from tests.cluster.conftest import PUBLIC, PUBLIC_V6, Echo, hand_over
from tests.cluster.test_rolling import await_all, status
from tests.upgrade import next_version

pytestmark = pytest.mark.cluster

ECHO_PORT = 7


@pytest.fixture
def newer(tmp_path: Path) -> Sequence[str]:
    """The command of the next version."""
    command = next_version.copy(tmp_path / "next")
    next_version.turn(tmp_path / "next")
    return command


@pytest.fixture
def after(tmp_path: Path) -> Sequence[str]:
    """The command of the version after that."""
    command = next_version.copy(tmp_path / "after")
    next_version.turn(tmp_path / "after")
    next_version.turn(tmp_path / "after", next_version.AFTER)
    return command


@pytest.fixture
def calm_lab() -> Iterator[Lab]:
    """A lab whose holder a busy machine does not change."""
    with Lab(prefix=f"hu{os.getpid()}", cluster_toml=cluster_toml(profile="calm")) as lab:
        lab.start()
        lab.wait_for_holder()
        await_all(lab)
        yield lab


def run(lab: Lab, node: str, *words: str) -> tuple[int, str]:
    """Run a command of a node's version there; return its exit code and what it said."""
    command = [*lab.nodes[node].command, *words, "--api", f"unix:{lab.nodes[node].socket}"]
    done = lab.exec_in(node, command, 30)
    return done.returncode, done.stdout + done.stderr


def install(lab: Lab, node: str, command: Sequence[str]) -> None:
    """Stop a node that is not the holder, and start another version of it."""
    if lab.holder() == node:
        hand_over(lab, next(name for name in lab.nodes if name != node))
        await_all(lab)
    assert lab.stop_node(node) == 0
    lab.nodes[node].command = command
    lab.start_node(node)
    await_all(lab)


def versions(lab: Lab) -> list[str]:
    return [status(lab, name)["version"] for name in lab.nodes]


def apply(lab: Lab, text: str) -> tuple[int, str]:
    holder = lab.wait_for_holder()
    file = lab.folder / "wanted.toml"
    file.write_text(text)
    return run(lab, holder, "config", "apply", str(file))


class Upgrade:
    """A cluster whose nodes change their versions while two connections live.

    Args:
        lab: The cluster, of this version.
        newer: The command of the next one.
        connections: Through the cluster.
    """

    def __init__(self, lab: Lab, newer: Sequence[str], connections: Sequence[Echo]) -> None:
        self.lab, self.newer, self.connections = lab, newer, connections
        self.older = lab.nodes["r1"].command
        text = cluster_toml(profile="calm")
        self.with_key = text.replace("[cluster]", f'[cluster]\n{next_version.KEY} = "new"', 1)

    def install(self, node: str, command: Sequence[str]) -> None:
        """Let a node run a version."""
        install(self.lab, node, command)
        self.live()

    def live(self) -> None:
        """Use the connections."""
        for connection in self.connections:
            connection.exchange()

    def levels(self) -> dict[str, int]:
        """Return what the nodes have reached, as the log has it."""
        found: dict[str, int] = status(self.lab, self.lab.wait_for_holder())["levels"]
        return found

    def finish(self, *options: str) -> tuple[int, str]:
        """Try to finish the upgrade, on the holder."""
        return run(self.lab, self.lab.wait_for_holder(), "cluster", "finish-upgrade", *options)

    def use_nothing_new_in_two_versions(self) -> None:
        """Have two new nodes: what is new is refused, and a node of either version holds."""
        lab = self.lab
        for node in ("r1", "r2"):
            self.install(node, self.newer)
        assert versions(lab) == [next_version.VERSION, next_version.VERSION, __version__]
        lab.wait_for(lambda: self.levels() == {"r1": 6, "r2": 6, "r3": 5}, 10, "the levels")
        _, said = run(lab, lab.wait_for_holder(), "status")
        assert "not finished: feature level 5 in force; reached: r1 6, r2 6, r3 5" in said
        code, said = self.finish()
        assert code == 4
        assert "r3 can do feature level 5, others 6; upgrade r3 first" in said
        if lab.holder() == "r3":
            hand_over(lab, "r1")
            await_all(lab)
        code, said = apply(lab, self.with_key)
        assert code == 4, said
        assert "cluster.motto needs feature level 6, and 5 is in force" in said
        hand_over(lab, "r3")
        await_all(lab)
        self.live()

    def go_back_and_there_again(self) -> None:
        """Have three new nodes, of which one was an old one again."""
        self.install("r2", self.older)
        for node in ("r2", "r3"):
            self.install(node, self.newer)
        assert versions(self.lab) == [next_version.VERSION] * 3
        self.lab.wait_for(lambda: set(self.levels().values()) == {6}, 10, "all to be known")

    def use_what_is_new(self) -> None:
        """Finish, and use the new key."""
        lab = self.lab
        code, said = self.finish("--json")
        assert (code, json.loads(said)) == (0, {"level": 6})
        lab.wait_for(
            lambda: all(status(lab, name).get("level") == 6 for name in lab.nodes), 10, "level 6"
        )
        code, said = self.finish()
        assert code == 4
        assert "no upgrade to finish: feature level 6 is in force" in said
        code, said = apply(lab, self.with_key)
        assert code == 0, said
        self.live()

    def go_on_to_the_version_after(self, command: Sequence[str]) -> None:
        """Roll once more, to a version that does not read what the first one wrote.

        Each node starts from what it wrote since the upgrade was finished.
        """
        lab = self.lab

        def rewritten() -> bool:
            """Whether nothing is left on a disk that the first version wrote."""
            return all(f"snapshot level={6}" in lab.log(name) for name in lab.nodes)

        lab.wait_for(rewritten, 30, "a snapshot of each node in the new level")
        for node in lab.nodes:
            self.install(node, command)
        assert versions(lab) == [next_version.AFTER_VERSION] * 3
        lab.wait_for(lambda: set(self.levels().values()) == {7}, 10, "all to be known")
        code, said = self.finish("--json")
        assert (code, json.loads(said)) == (0, {"level": 7})
        self.newer = command

    def have_no_way_back(self) -> None:
        """Start the first version once more."""
        lab = self.lab
        backup = next(name for name in lab.nodes if name != lab.wait_for_holder())
        assert lab.stop_node(backup) == 0
        node = lab.nodes[backup]
        node.command = self.older
        node.start()
        lab.wait_for(lambda: not node.running, 20, "the older version to end")
        node.wanted = False
        assert "it has feature level 7, this hanat reads 5" in lab.log(backup)
        self.live()


def test_nodes_go_to_the_next_version_and_back_under_traffic(
    calm_lab: Lab, newer: Sequence[str], after: Sequence[str]
) -> None:
    lab = calm_lab
    lab.wait_for(lambda: status(lab, "r1").get("level") == 5, 20, "the first level")
    client = topology.CLIENT
    with (
        Echo(lab, client, PUBLIC, ECHO_PORT) as four,
        Echo(lab, client, PUBLIC_V6, ECHO_PORT) as six,
    ):
        upgrade = Upgrade(lab, newer, (four, six))
        upgrade.live()
        upgrade.use_nothing_new_in_two_versions()
        upgrade.go_back_and_there_again()
        upgrade.use_what_is_new()
        upgrade.go_on_to_the_version_after(after)
        upgrade.have_no_way_back()


def test_processes_of_a_node_are_of_one_version(tmp_path: Path) -> None:
    """Somebody installs a package, and processes die before the node is restarted."""
    command = next_version.copy(tmp_path)
    with Lab(prefix=f"hu{os.getpid()}", cluster_toml=cluster_toml(profile="calm")) as lab:
        node = lab.nodes["r3"]
        node.command = command
        lab.start()
        await_all(lab)
        if lab.wait_for_holder() == "r3":
            hand_over(lab, "r1")
        next_version.turn(tmp_path, next_version.EDITS[:1])

        node.signal_flow_worker(signal.SIGKILL)
        sentence = (
            f"cannot start hanat.worker: version {next_version.VERSION} is installed, and this "
            f"node runs {__version__}; restart the node"
        )
        lab.wait_for(lambda: sentence in lab.log("r3"), 10, "the sentence")
        assert node.running

        lab.kill_daemon("r3")
        lab.wait_for(lambda: not node.running, 20, "the supervisor to end as well")
        assert node.exit_code == 7
        node.wanted = False
        lab.start_node("r3")  # as a service manager does
        await_all(lab)
        assert status(lab, "r3")["version"] == next_version.VERSION
