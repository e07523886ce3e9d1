"""hanat with one promise broken, to see the oracle find it: test only, never installed.

``python -m chaos run --hanat 'python -m tests.chaos.broken VARIANT'``. Everything but the named
part is hanat as it is: this module changes it in the daemon's process and then runs it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from hanat.core.actions import Action, Announce, ArmGate
from hanat.core.lease import Lease
from hanat.core.tenure import Tenure
from hanat.raft.elections import Elections

MODULE = "tests.chaos.broken"
LONG_S = 10.0
BEACONS_EARLY = 4


def gate_not_enforced() -> None:
    """Let the kernel grant rights for so long that only the daemon can end them."""
    from hanat.kernel.deadline_gate import KernelDeadlineGate
    from hanat.kernel.timeout_gate import KernelGate

    arm, grant = KernelGate.arm, KernelDeadlineGate.grant

    def armed(
        self: KernelGate, devices: Iterable[str], *, answers_s: float, carries_s: float
    ) -> bool:
        return arm(self, devices, answers_s=answers_s + LONG_S, carries_s=carries_s + LONG_S)

    def granted(self: KernelDeadlineGate, *, answers_until: float, carries_until: float) -> None:
        grant(self, answers_until=answers_until + LONG_S, carries_until=carries_until + LONG_S)

    KernelGate.arm = armed  # type: ignore[method-assign]
    KernelDeadlineGate.grant = granted  # type: ignore[method-assign]


def lease_longer_than_promise() -> None:
    """Let a leader count three times what the others have promised."""
    init = Lease.__init__

    def greedy(self: Lease, *, duration_s: float, margin_s: float, quorum: int) -> None:
        init(self, duration_s=3 * duration_s, margin_s=margin_s, quorum=quorum)

    Lease.__init__ = greedy  # type: ignore[method-assign]


def announce_before_install() -> None:
    """Let a new holder tell everybody some beacons before it has rights and flows."""
    opened = Tenure._open_gate
    told: list[float] = []

    def hasty(self: Tenure, now: float) -> tuple[Action, ...]:
        actions = opened(self, now)
        if not any(isinstance(action, ArmGate) for action in actions):
            return actions
        if len(told) == BEACONS_EARLY:
            told.clear()
            return actions
        told.append(now)
        self._ready, self._captures = True, False
        return (Announce(self._held, self._lease_until),)

    Tenure._open_gate = hasty  # type: ignore[method-assign]


def without_pre_vote() -> None:
    """Let a node that hears no leader raise the term, whether or not it would be elected."""
    asked = Elections._decide_round

    def rash(self: Elections) -> None:
        if self.recovery.needed:
            asked(self)
            return
        self._round_until = 0.0
        self._unanimous_term = None
        self._campaign()

    Elections._decide_round = rash  # type: ignore[method-assign]


def flows_not_installed() -> None:
    """Let backups say that they have all flows, and install none."""
    from hanat.daemon.flow_replication import FlowReplication
    from hanat.raft.state import Flows
    from hanat.worker.flow_batch import is_mark

    apply = FlowReplication.apply

    def idle(self: FlowReplication, flows: Flows) -> None:
        if is_mark(flows.batch):
            apply(self, flows)

    FlowReplication.apply = idle  # type: ignore[method-assign]


def verdicts_ignored() -> None:
    """Lead clients to every server of a service, whatever its checks say."""
    from hanat.core.schedulers import InRotation
    from hanat.core.service_health import ServiceHealth
    from hanat.core.services import Rotation

    def every(self: ServiceHealth, name: str, now: float | None) -> Rotation:
        del now
        servers = self._known[name].service.servers
        return tuple(InRotation(server.name, server.weight, 100, server.tier) for server in servers)

    ServiceHealth._rotation = every  # type: ignore[method-assign]


def own_eyes_believed() -> None:
    """Let a holder believe what it sees, whatever backups see."""
    from hanat.core.views import Views

    def never(self: Views) -> bool:
        del self
        return False

    def nobody(self: Views) -> tuple[int, int] | None:
        del self
        return None

    Views.is_in_doubt = never  # type: ignore[method-assign]
    Views.witness = nobody  # type: ignore[method-assign]


def agents_ignored() -> None:
    """Let a holder hear what agents say, and do nothing of it."""
    from hanat.core.agent_words import AgentWords

    def deaf(*_: object) -> tuple[()]:
        return ()

    AgentWords.heed = deaf  # type: ignore[method-assign,assignment]


VARIANTS: dict[str, Callable[[], None]] = {
    "gate-not-enforced": gate_not_enforced,
    "lease-longer-than-promise": lease_longer_than_promise,
    "announce-before-install": announce_before_install,
    "without-pre-vote": without_pre_vote,
    "flows-not-installed": flows_not_installed,
    "verdicts-ignored": verdicts_ignored,
    "own-eyes-believed": own_eyes_believed,
    "agents-ignored": agents_ignored,
}


def main() -> int:
    """Run a command of hanat, its daemon broken."""
    variant, command, *rest = sys.argv[1:]
    sys.argv = [command, *rest]
    if command == "run":
        from hanat.supervisor import supervisor

        def command_of(module: str) -> list[str]:
            assert module == supervisor.DAEMON, module
            return [sys.executable, "-m", MODULE, variant, "daemon"]

        supervisor.python_command = command_of
        return supervisor.main()
    if command == "daemon":
        from hanat.daemon.__main__ import main as daemon

        VARIANTS[variant]()
        return daemon()
    from hanat.cli import main as cli

    sys.argv = ["hanat", command, *rest]
    cli()
    return 0


if __name__ == "__main__":
    sys.exit(main())
