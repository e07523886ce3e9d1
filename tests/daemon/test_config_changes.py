"""What is told of a change whose end is not the usual one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from chaos.lab.node_files import CLUSTER_TOML
from hanat.config import parse_cluster
from hanat.config.settings import NodeSettings, Peer
from hanat.core.beacon import Beacon, digest_of
from hanat.core.configuration import Configuration
from hanat.core.node import Node
from hanat.core.node_snapshot import NodeSnapshot
from hanat.core.status import Role
from hanat.daemon import config_changes
from hanat.daemon.config_changes import ChangeParts, ConfigChanges
from hanat.errors import (
    ConfigError,
    HanatError,
    NoQuorumError,
    OutcomeUnknownError,
    RefusedError,
    StaleRevisionError,
)
from hanat.raft.state import NewConfiguration, State, encode

CURRENT = parse_cluster(CLUSTER_TOML, file="test")
WANTED = CLUSTER_TOML.replace("weight = 2", "weight = 3", 1)
PEERS = tuple(
    Peer(f"r{number}", number, (ip_address(f"203.0.113.1{number}"),)) for number in (1, 2, 3)
)
SETTINGS = NodeSettings(
    node="r1", node_id=1, cluster_file=Path("cluster.toml"), data_dir=Path("data"),
    key_file=Path("key"), interfaces={"public": "eth0", "private": "eth1"}, api_listen=(),
    peers=PEERS,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(*_: object) -> None:
        pass

    monkeypatch.setattr(config_changes, "COMMIT_S_MAX", 0.05)
    monkeypatch.setattr(config_changes, "REPORT_S_MAX", 0.05)
    monkeypatch.setattr(config_changes, "ROLL_BACK_S", 0.05)
    monkeypatch.setattr(config_changes, "check_neighbours", nobody)


async def test_accepted_change_ends_with_what_every_node_says() -> None:
    cluster = Cluster()
    cluster.heard = {2: (2, False), 3: (2, True)}
    answer = await cluster.change()
    assert answer["changes"] == [
        "~ service web server web1: 10.11.12.101:8080 weight 2 -> 10.11.12.101:8080 weight 3"
    ]
    assert (answer["revision"], answer["applied"]) == (2, True)
    assert [node["state"] for node in answer["nodes"]] == ["in force", "in force", "refused"]


async def test_node_that_is_connected_and_says_nothing_is_waited_for_and_named() -> None:
    cluster = Cluster()
    cluster.heard = {2: (1, False)}
    answer = await cluster.change(force=True)
    assert [node["state"] for node in answer["nodes"]] == ["in force", "not yet", "not yet"]
    cluster.connected = {2}
    answer = await cluster.change(CLUSTER_TOML, based_on=2, force=True)
    assert [node["state"] for node in answer["nodes"]] == ["in force", "not yet", "not reachable"]


@pytest.mark.parametrize(
    "heard", [{2: (2, True), 3: (2, True)}, {2: (1, False)}, {}], ids=["refused", "late", "gone"]
)
async def test_change_that_no_majority_has_in_force_is_rolled_back(
    heard: dict[int, tuple[int, bool]],
) -> None:
    cluster = Cluster()
    cluster.heard = heard
    with pytest.raises(RefusedError, match="was rolled back as revision 3"):
        await cluster.change()
    assert (cluster.state.revision, cluster.state.text) == (3, CLUSTER_TOML)


async def test_forced_change_is_never_rolled_back() -> None:
    cluster = Cluster()
    cluster.heard = {2: (2, True), 3: (2, True)}
    assert (await cluster.change(force=True))["revision"] == 2
    assert cluster.state.text == WANTED


@pytest.mark.parametrize(
    ("others", "taken"), [(("public",), False), (("public", "private", "dmz"), True)]
)
async def test_interface_that_no_other_node_has_is_refused(
    others: tuple[str, ...],
    taken: bool,  # noqa: FBT001 - a parameter
) -> None:
    extra = '[[vip]]\nname = "dmz"\naddress = ["192.0.2.1/24"]\ninterface = "dmz"\n'
    cluster = Cluster(settings=replace(SETTINGS, interfaces={**SETTINGS.interfaces, "dmz": "eth2"}))
    cluster.heard = {2: (2, False), 3: (2, False)}
    cluster.interfaces = {2: ("public", "private"), 3: others}
    if taken:
        assert (await cluster.change(CLUSTER_TOML + extra))["applied"]
        return
    with pytest.raises(RefusedError, match="no other node has a device for dmz"):
        await cluster.change(CLUSTER_TOML + extra)
    assert cluster.proposed == []
    assert (await cluster.change(CLUSTER_TOML + extra, force=True))["applied"]


async def test_change_that_nobody_confirms_is_unknown() -> None:
    cluster = Cluster(commits=False)
    with pytest.raises(OutcomeUnknownError, match="whether it comes into force is unknown"):
        await cluster.change()


async def test_change_that_was_replaced_by_a_new_leader_is_not_applied() -> None:
    cluster = Cluster()
    cluster.result = False
    with pytest.raises(NoQuorumError, match="the leader changed"):
        await cluster.change()


async def test_change_that_was_overtaken_on_its_way_is_stale() -> None:
    cluster = Cluster()
    cluster.first = NewConfiguration(1, CLUSTER_TOML + "# by somebody else\n")
    with pytest.raises(StaleRevisionError) as caught:
        await cluster.change()
    assert (caught.value.based_on, caught.value.current) == (1, 2)


async def test_newer_revision_than_known_is_called_stale_by_a_holder_only() -> None:
    """A leader that was cut off still leads, by its own word."""
    cluster = Cluster()
    with pytest.raises(NoQuorumError, match="based on revision 3, and r1 knows 1"):
        await cluster.change(based_on=3)
    cluster.node = replace(cluster.node, role=Role.ACTIVE)
    with pytest.raises(StaleRevisionError):
        await cluster.change(based_on=3)


async def test_dry_run_proposes_nothing_and_any_node_answers_it() -> None:
    cluster = Cluster(leading=False)
    answer = await cluster.change(dry_run=True)
    assert (answer["revision"], answer["applied"], len(answer["changes"])) == (1, False, 1)
    assert cluster.proposed == []


async def test_text_that_is_in_force_is_not_proposed_again() -> None:
    cluster = Cluster()
    answer = await cluster.change(CLUSTER_TOML)
    assert (answer["same_text"], answer["applied"], cluster.proposed) == (True, False, [])


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ({"connected": set()}, NoQuorumError, "sees no majority"),
        ({"leading": False, "leader": None}, NoQuorumError, "knows no leader"),
        ({"leading": False}, RefusedError, "ask the leader, which is r2"),
        ({"writes": False}, NoQuorumError, "cannot write its log"),
        ({"refusal": "No buffer space"}, ConfigError, "refused by the kernel: No buffer space"),
    ],
)
async def test_what_is_known_before_is_told_before(
    state: dict[str, Any], error: type[HanatError], words: str
) -> None:
    cluster = Cluster(**state)
    with pytest.raises(error, match=words):
        await cluster.change()
    assert cluster.state.revision == 1


async def test_every_problem_of_a_node_and_of_the_cluster_is_told_at_once() -> None:
    text = CLUSTER_TOML.replace('"lab"', '"other"').replace(
        '"203.0.113.10/24"', '"203.0.113.12/24"'
    )
    with pytest.raises(ConfigError) as caught:
        await Cluster().change(text)
    assert [problem.path for problem in caught.value.problems] == ["cluster.name", "peer"]


@dataclass
class Cluster:
    """A node, its log and what it hears, as far as a change looks at them.

    Attributes:
        commits: Whether a majority confirms what is proposed.
        result: What is told of it then.
        first: What another leader had committed before.
        writes: Whether the log can be written.
        refusal: What the kernel says of a ruleset.
        interfaces: What peers that are heard have devices for.
    """

    leading: bool = True
    leader: int | None = 2
    connected: set[int] = field(default_factory=lambda: {2, 3})
    heard: dict[int, tuple[int, bool]] = field(default_factory=dict)
    commits: bool = True
    result: bool = True
    first: NewConfiguration | None = None
    writes: bool = True
    refusal: str | None = None
    settings: NodeSettings = SETTINGS
    interfaces: dict[int, tuple[str, ...]] = field(default_factory=dict)
    state: State = field(default_factory=State)
    proposed: list[NewConfiguration] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state.apply(encode(NewConfiguration(0, CLUSTER_TOML)))
        node = Node(node_id=1, configuration=CURRENT, now=0.0)
        self.node: NodeSnapshot = replace(node.snapshot(), settled=1)
        replica = SimpleNamespace(
            handing_on=False,
            state=self.state,
            leading=self.leading,
            leader=self.leader,
            propose=self._propose,
        )
        guard = _Guard(self)
        rulesets = SimpleNamespace(read=self._read, try_out=self._try_out)
        parts = (self.settings, replica, guard, rulesets, lambda: self.node, lambda: None)
        self.changes = ConfigChanges(ChangeParts(*cast("tuple[Any, ...]", parts)))

    async def change(
        self,
        text: str = WANTED,
        *,
        based_on: int = 1,
        dry_run: bool = False,
        force: bool = False,
    ) -> dict[str, Any]:
        return await self.changes.change(text, based_on, dry_run=dry_run, force=force)

    def _propose(self, command: NewConfiguration, done: Callable[[bool], None]) -> bool:
        if not self.writes:
            return False
        self.proposed.append(command)
        if self.commits:
            for entry in (self.first, command if self.result else None):
                self._commit(entry)
            done(self.result)
        return True

    def _commit(self, entry: NewConfiguration | None) -> None:
        if entry is not None and self.state.apply(encode(entry)):
            self.changes.accepted(entry)
            self.node = replace(self.node, settled=self.state.revision)

    def _read(
        self, text: str, *, file: str, done: Callable[[Configuration | ConfigError], None]
    ) -> None:
        try:
            done(parse_cluster(text, file=file))
        except ConfigError as error:
            done(error)

    def _try_out(
        self,
        _: Configuration,
        done: Callable[[str | None], None],
        *,
        bytes_max: int | None,  # noqa: ARG002
    ) -> None:
        done(self.refusal)


class _Guard:
    quorum = 2

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @property
    def connected(self) -> set[int]:
        return self._cluster.connected

    def alive(self) -> dict[int, Beacon]:
        interfaces = self._cluster.interfaces
        return {peer: Beacon(1, interfaces=digest_of(names)) for peer, names in interfaces.items()}

    @property
    def revisions(self) -> dict[int, tuple[int, bool]]:
        return self._cluster.heard
