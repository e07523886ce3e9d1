"""Two routers with flow workers, and a service with persistence behind them.

The workers are processes of their own, as on a node; the log between them commits at once.
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from subprocess import Popen

from chaos.lab.netns import entered
from hanat.core.configuration import (
    Configuration,
    Persistence,
    Protocol,
    RealServer,
    VirtualService,
)
from hanat.core.flow_scope import scope_of
from hanat.core.persistence import sticky_services
from hanat.core.reconcile import rules_of
from hanat.core.ruleset import render_ruleset
from hanat.core.schedulers import InRotation
from hanat.core.steps import steps
from hanat.daemon.worker_link import WorkerLink
from hanat.errors import AbsentObjectError
from hanat.kernel.client_sets import KernelClientSets
from hanat.supervisor.supervisor import python_command
from tests.core.examples import DEVICES
from tests.kernel.namespaces import run
from tests.kernel.network import (
    CONFIGURATION,
    SERVER,
    SERVER_V6,
    SERVICE_PORT,
    VIP,
    VIP_V6,
    Network,
    Router,
    family_of,
)

PORTS = (8081, 8082, 8083, 8084)
TIMEOUT_S = 600.0
WAIT_S_MAX = 20.0
RESET_AT_CLOSE = b"\1\0\0\0\0\0\0\0"  # SO_LINGER


def sticky(persistence: Persistence | None, **others: object) -> Configuration:
    """Return the example with a sticky service of several servers of both families, over TCP."""
    servers = tuple(
        RealServer(f"s{port}{suffix}", ip_address(address), port, weight=1)
        for address, suffix in ((SERVER, ""), (SERVER_V6, "-v6"))
        for port in PORTS
    )
    echo = CONFIGURATION.services[0]
    listens = tuple(one for one in echo.listens if one.protocol is Protocol.TCP)
    first = replace(echo, servers=servers, persistence=persistence, listens=listens)
    service: VirtualService = replace(first, **others)  # type: ignore[arg-type]  # any field
    return replace(CONFIGURATION, services=(service,))


@dataclass
class Node:
    """A router with its worker; `commit` takes what it proposes."""

    router: Router
    commit: Callable[[bytes], None] = lambda _batch: None
    term: int = 0
    ruleset: str = ""
    configuration: Configuration = CONFIGURATION
    batches: list[bytes] = field(default_factory=list)
    complete: bool = False

    def __post_init__(self) -> None:
        self.worker = WorkerLink(self._spawn, propose=self._propose, completed=self._note)
        self.process: Popen[bytes] | None = None

    def _spawn(self, theirs: socket.socket) -> Popen[bytes]:
        with entered(self.router.namespace):
            self.process = Popen(
                [*python_command("hanat.worker"), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
            )
        return self.process

    def _note(self, complete: bool) -> None:  # noqa: FBT001 - called by the worker
        self.complete = complete

    def _propose(self, term: int, batch: bytes, done: Callable[[bool], None]) -> bool:
        if term != self.term:
            return False
        self.batches.append(batch)
        self.commit(batch)
        asyncio.get_running_loop().call_soon(done, True)  # noqa: FBT003 - as the log does
        return True

    def configure(self, configuration: Configuration, **rotation: tuple[str, ...]) -> None:
        """Bring rules into force as a node does; `rotation` are the servers by service."""
        rotations = {
            name: tuple(InRotation(server) for server in servers)
            for name, servers in rotation.items()
        }
        text = render_ruleset(configuration, DEVICES, self.router.conversation, rotations=rotations)
        plan = steps(self.ruleset, text) if self.ruleset else None
        scripts = [text] if plan is None else [*plan.builds, plan.switch, *plan.clears]
        with self.router.entered():
            for script in filter(None, scripts):
                self.router.firewall.apply(script)
        self.ruleset = text
        if configuration != self.configuration:
            self.configuration = configuration
            self.worker.set_scope(scope_of(configuration))
            self.installed()

    def installed(self) -> None:
        """Tell the worker that rules were installed."""
        rules = rules_of(self.configuration, DEVICES, ())
        self.worker.reconcile(json.dumps(rules.to_document()).encode(), lambda _counts: None)

    def hold(self, term: int) -> None:
        """Take over."""
        self.term = term
        self.router.take_over()
        self.worker.start_capture(term)

    def clients(self) -> dict[str, set[str]]:
        """Return what the kernel's sets have, by name of the server."""
        found: dict[str, set[str]] = {}
        with self.router.entered(), closing(KernelClientSets()) as sets:
            for service in sticky_services(self.configuration):
                for server in service.servers:
                    with suppress(AbsentObjectError):
                        every = [c for some in sets.walk(server.set_name) for c in some]
                        found[server.name] = {str(ip_address(client)) for client, _ in every}
        return {name: clients for name, clients in found.items() if clients}

    def left_ms(self) -> dict[str, int]:
        """Return how long the kernel's sets keep each client."""
        with self.router.entered(), closing(KernelClientSets()) as sets:
            return {
                str(ip_address(client)): left
                for service in sticky_services(self.configuration)
                for server in service.servers
                for some in sets.walk(server.set_name)
                for client, left in some
            }


class Pair:
    """Both routers; `a` holds first."""

    def __init__(self, network: Network, configuration: Configuration) -> None:
        self.network = network
        self.a, self.b = Node(network.r1), Node(network.r2)
        self.a.commit, self.b.commit = self.b.worker.install, self.a.worker.install
        for node in (self.a, self.b):
            node.worker.start()
            node.configure(configuration)
        self.listeners = {
            address: {port: network.listener("server", address, port) for port in PORTS}
            for address in (SERVER, SERVER_V6)
        }

    def close(self) -> None:
        """End both workers."""
        for node in (self.a, self.b):
            node.worker.close()

    def add_clients(self, count: int, *, first: int = 100) -> list[str]:
        """Return so many addresses of the client, of each family."""
        added = []
        for number in range(first, first + count):
            for address, length in ((f"203.0.113.{number}", 24), (f"2001:db8:1::{number}", 64)):
                run(f"ip addr add {address}/{length} dev eth0 nodad", self.network.made["client"])
                added.append(address)
        return added

    def connect(self, client: str) -> int:
        """Open a connection, end it, and return the port of the server that had it."""
        vip, server = (VIP_V6, SERVER_V6) if ":" in client else (VIP, SERVER)
        near = self.network.open_socket("client", family_of(vip), socket.SOCK_STREAM)
        near.bind((client, 0))
        near.connect((vip, SERVICE_PORT))
        (ready, *_), _, _ = select.select(list(self.listeners[server].values()), [], [], 5)
        far, _ = ready.accept()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        port: int = ready.getsockname()[1]
        far.close()
        near.close()
        return port

    def servers(self, clients: list[str]) -> dict[str, int]:
        """Let clients connect; return to which servers."""
        return {client: self.connect(client) for client in clients}

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait, while both workers go on."""
        async with asyncio.timeout(WAIT_S_MAX):
            while not condition():
                for node in (self.a, self.b):
                    node.worker.look()
                await asyncio.sleep(0.02)

    async def ready(self) -> None:
        """Wait until one worker hears of connections, and the other was told everything."""
        await self.until(lambda: self.a.complete and self.b.complete)

    async def told(self, servers: dict[str, int]) -> None:
        """Wait until the backup's kernel has these clients, each at its server alone."""
        wanted: dict[str, set[str]] = {}
        for client, port in servers.items():
            name = f"s{port}-v6" if ":" in client else f"s{port}"
            wanted.setdefault(name, set()).add(client)
        await self.until(lambda: self.b.clients() == wanted)

    def restart_b(self) -> None:
        """Let `b` begin with nothing, also no rules, after its worker was closed."""
        self.b = Node(self.network.r2)
        self.a.commit, self.b.commit = self.b.worker.install, self.a.worker.install
        self.b.worker.start()
        self.a.worker.resync(again=True)

    def kill_worker_of_a(self) -> None:
        """Kill it; it is started again by itself."""
        assert self.a.process is not None
        self.a.process.kill()
        self.a.process.wait()

    def take_over(self) -> None:
        """Let `b` hold, and `a` be gone."""
        self.network.pull(self.a.router)
        self.a.worker.stop_capture()
        self.b.hold(2)
