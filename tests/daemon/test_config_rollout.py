"""Committed configurations come into force, not each of those that came together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from hanat.config.settings import NodeSettings
from hanat.core.configuration import Configuration
from hanat.core.inputs import (
    ConfigurationApplied,
    ConfigurationCommitted,
    ConfigurationRefused,
    Input,
)
from hanat.daemon.config_rollout import ConfigRollout
from hanat.daemon.gate_change import GateChange
from hanat.daemon.ruleset_installer import RulesetInstaller
from hanat.raft.state import State
from tests.core.examples import CONVERSATION, DEVICES, EDGE
from tests.daemon.test_executor import Held
from tests.fakes.gate import FakeGate
from tests.fakes.kernel import FakeAddresses, FakeFirewall, FakeKernel

TEXT = (Path(__file__).parents[2] / "deploy/examples/three-node/cluster.toml").read_text()


class Committed:
    """What a node does with committed texts, its thread in hand."""

    def __init__(self) -> None:
        kernel = FakeKernel(DEVICES.values(), now=lambda: 100.0)
        self.thread = Held()
        self.fed: list[Input] = []
        self.heeded: list[Configuration] = []
        rulesets = RulesetInstaller(
            DEVICES,
            conversation=CONVERSATION,
            gate=GateChange(FakeGate(kernel), FakeAddresses(kernel), DEVICES.values()),
            firewall=FakeFirewall(kernel),
            background=self.thread,
            known=("", EDGE),
        )
        settings = cast(NodeSettings, type("Settings", (), {"cluster_file": Path("cluster.toml")}))
        self.configurations = ConfigRollout(
            settings, EDGE, rulesets=rulesets, feed=self.fed.append, heed=self._heed
        )

    def _heed(self, configuration: Configuration, then: Callable[[], None]) -> None:
        self.heeded.append(configuration)
        then()

    def commit(self, revision: int, text: str = TEXT) -> None:
        state = State()
        state.revision, state.text = revision, text
        self.configurations.committed(state)

    def came(self) -> list[tuple[str, int]]:
        """Return the inputs by kind and revision."""
        kinds = ConfigurationCommitted | ConfigurationApplied | ConfigurationRefused
        return [(type(i).__name__[13:], i.revision) for i in self.fed if isinstance(i, kinds)]


def test_of_revisions_that_come_together_the_first_and_the_newest_are_read() -> None:
    c = Committed()
    for revision in range(2, 52):
        c.commit(revision)
    c.thread.go_on()
    assert c.came()[:50] == [("Committed", revision) for revision in range(2, 52)]
    assert c.came()[50:] == [("Applied", 2), ("Applied", 51)]
    assert len(c.heeded) == 2


def test_revisions_that_come_one_by_one_are_all_read() -> None:
    c = Committed()
    for revision in (2, 3):
        c.commit(revision)
        c.thread.go_on()
    assert c.came() == [("Committed", 2), ("Applied", 2), ("Committed", 3), ("Applied", 3)]


@pytest.mark.parametrize("bad", [2, 3])
def test_one_that_cannot_be_used_keeps_no_other_from_being_read(bad: int) -> None:
    c = Committed()
    for revision in (2, 3):
        c.commit(revision, "nonsense" if revision == bad else TEXT)
    c.thread.go_on()
    read = {kind: revision for kind, revision in c.came() if kind != "Committed"}
    assert read == {"Refused": bad, "Applied": 5 - bad}
