"""Several clients that change the configuration at once, where hanat lets them."""

from __future__ import annotations

import signal
from pathlib import Path

from chaos.lab.lab import Lab
from chaos.lab.lab_error import LabError
from chaos.lab.processes import Child, python_module, send_signal, wait_gone
from chaos.lab.topology import SWITCH
from chaos.observe.run_history import Fact, read
from chaos.workloads.configuring import TIMEOUT_S, ask

CLIENTS = 3
PERIOD_MS = 400.0
STOP_S = 5.0
NO_SUCH_RESOURCE = 404


class Operators:
    """The clients of one run; their histories go beside those of the traffic."""

    def __init__(self, lab: Lab, *, seed: int, limit_s: float) -> None:
        self._lab = lab
        self._seed = seed
        self._limit_s = limit_s
        self._children: dict[Path, Child] = {}

    def start(self, holder: str) -> bool:
        """Start them; return False, with nothing started, if the API has no configuration.

        Only 404 says so. Whatever else is wrong with the answer is for them to see.
        """
        try:
            code, _, _ = ask(self._lab.nodes[holder].socket, "GET")
        except OSError:
            code = None
        if code == NO_SUCH_RESOURCE:
            return False
        nodes = [f"{name}={node.socket}" for name, node in self._lab.nodes.items()]
        for number in range(1, CLIENTS + 1):
            name = f"config-{number}"
            out = self._lab.folder / "history" / f"{name}.jsonl"
            command = python_module(
                "chaos.workloads.configuring", name, *nodes, "--out", str(out),
                "--seconds", str(self._limit_s), "--seed", str(self._seed),
                "--period-ms", str(PERIOD_MS),
            )  # fmt: skip
            self._children[out] = self._lab.spawn_in(SWITCH, name, command)
        return True

    @property
    def pids(self) -> list[int]:
        """Return their processes."""
        return [child.identity.pid for child in self._children.values()]

    def stop(self) -> None:
        """End them; what is under way is still awaited.

        Raises:
            LabError: One did not end, or not in good order: what it saw may be lost.
        """
        for child in self._children.values():
            send_signal(child.identity, signal.SIGTERM)
        identities = [child.identity for child in self._children.values()]
        if not wait_gone(identities, 2 * TIMEOUT_S + 1):
            raise LabError("a client of the configuration did not end")
        for child in self._children.values():
            code = child.popen.wait(STOP_S)
            if code != 0:
                last = child.log.read_text(errors="replace").strip().rpartition("\n")[2]
                raise LabError(f"client {child.name} ended with exit code {code}: {last}")

    def facts(self) -> list[Fact]:
        """Return what they have seen."""
        return [fact for out in self._children if out.exists() for fact in read(out)]
