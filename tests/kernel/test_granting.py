"""Rights with a deadline, and which gate a node gets."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from hanat.config.settings import GateChoice, NodeSettings, UnixListen
from hanat.core.configuration import GateKind
from hanat.core.outcomes import DONE, Cause, Failed
from hanat.daemon.adapters import choose_gate
from hanat.daemon.granting import DeadlineGranting
from hanat.errors import StartupError
from hanat.kernel import deadline_gate
from hanat.kernel.deadline_gate import KernelDeadlineGate
from tests.kernel.namespaces import cable, run

if TYPE_CHECKING:
    from hanat.kernel.gate_ports import DeadlineGate


pytestmark = pytest.mark.kernel


class Stores:
    """A gate that keeps what it is told."""

    def __init__(self) -> None:
        self.granted: list[tuple[float, float]] = []

    def grant(self, *, answers_until: float, carries_until: float) -> None:
        self.granted.append((answers_until, carries_until))


def test_a_deadline_is_granted_as_it_is() -> None:
    stores = Stores()
    granting = DeadlineGranting(cast("DeadlineGate", stores), lambda: 100.0)
    assert granting.grant(100.001, 100.201) == DONE
    assert stores.granted == [(100.001, 100.201)]


def test_a_deadline_that_is_over_is_not_granted_and_says_for_how_long() -> None:
    stores = Stores()
    granting = DeadlineGranting(cast("DeadlineGate", stores), lambda: 100.0)
    late = "the lease was over for 1.5 ms: the loop came late"
    assert granting.grant(99.9985, 100.2) == Failed(Cause.LATE, late)
    assert stores.granted == []


def settings(choice: GateChoice, path: Path) -> NodeSettings:
    return NodeSettings(
        "r1", 1, path, path, path, {"public": "eth0"}, (UnixListen(path),), (), gate=choice
    )


@pytest.mark.parametrize(
    ("choice", "kind"),
    [
        (GateChoice.AUTO, GateKind.DEADLINE),
        (GateChoice.DEADLINE, GateKind.DEADLINE),
        (GateChoice.TIMEOUTS, GateKind.TIMEOUTS),
    ],
)
def test_a_node_has_the_gate_that_its_file_wants(
    inside: str, tmp_path: Path, choice: GateChoice, kind: GateKind
) -> None:
    cable((inside, "eth0"), (inside, "far"))
    chosen = choose_gate(settings(choice, tmp_path), lambda: 0.0)
    with closing(chosen.granting.gate):
        assert chosen.by.kind is kind
        assert (chosen.map_fd is not None) == (kind is GateKind.DEADLINE)
        assert chosen.found == ""


def test_a_node_whose_device_has_no_place_has_timeouts_and_says_why(
    inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline_gate, "is_supported", lambda: False)  # as on Linux 6.1
    cable((inside, "eth0"), (inside, "far"))
    run("tc qdisc add dev eth0 ingress", inside)
    chosen = choose_gate(settings(GateChoice.AUTO, tmp_path), lambda: 0.0)
    with closing(chosen.granting.gate):
        assert chosen.by.kind is GateKind.TIMEOUTS
        assert "another program has an ingress qdisc" in chosen.found
    with pytest.raises(StartupError, match=r'kind = "auto"'):
        choose_gate(settings(GateChoice.DEADLINE, tmp_path), lambda: 0.0)
    assert run("tc filter show dev eth0 ingress", inside) == ""


def test_what_a_second_daemon_chooses_disturbs_no_first_one(inside: str, tmp_path: Path) -> None:
    cable((inside, "eth0"), (inside, "far"))
    node = settings(GateChoice.AUTO, tmp_path)
    first = choose_gate(node, lambda: 0.0).granting.gate
    assert isinstance(first, KernelDeadlineGate)
    with closing(first):
        first.attach()
        second = choose_gate(node, lambda: 0.0)
        assert first.missing() == ()
        second.granting.gate.close()
        assert first.missing() == ()


def test_a_bridge_has_timeouts(inside: str, tmp_path: Path) -> None:
    """Where br_netfilter is loaded its packets meet the rules before its ingress."""
    run("ip link add eth0 type bridge", inside)
    chosen = choose_gate(settings(GateChoice.AUTO, tmp_path), lambda: 0.0)
    with closing(chosen.granting.gate):
        assert chosen.by.kind is GateKind.TIMEOUTS
        assert "it is a bridge" in chosen.found
