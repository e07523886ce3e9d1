"""A lab: the network, the daemons and the servers, built and removed as one thing.

::

    with Lab(prefix="hanat-t1") as lab:
        lab.start()
        first = lab.wait_for_holder()
        lab.kill_node(first)
        lab.wait_for(lambda: lab.holder() not in (None, first), 5, "another holder")

Labs with different prefixes do not see each other. Removing needs nothing but
the prefix (`remove_lab`), so it works from another program, after a crash, twice.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from chaos.lab import node_api, record, topology
from chaos.lab.lab_error import LabError, LabTimeoutError, NodeDiedError, UsageError
from chaos.lab.node import Node
from chaos.lab.node_files import CLUSTER_TOML, node_toml
from chaos.lab.processes import (
    Child,
    Identity,
    environment,
    identify,
    marked,
    python_module,
    send_signal,
    spawn,
)
from chaos.lab.removal import DEFAULT_PREFIX, default_folder, make_folder, prefix_option, remove_lab
from chaos.lab.waiting import wait_until

T = TypeVar("T")

HANAT = python_module("hanat")  # the one next to this package
SOCKET_PATH_BYTES_MAX = 107  # unix(7): 108 with the closing zero


def require_machine() -> None:
    """Check that this machine can run a lab.

    Raises:
        UsageError: Not root, or a program is missing; nothing was touched.
    """
    if os.geteuid() != 0:
        raise UsageError("the lab needs root: it creates network namespaces; try sudo")
    missing = [tool for tool in ("ip", "nft") if shutil.which(tool) is None]
    if missing:
        raise UsageError(
            f"the lab needs {' and '.join(missing)}, not found in PATH; "
            "on Debian: apt install iproute2 nftables"
        )


class Lab:
    """The three-router lab of `topology`, with everything that runs in it.

    Attributes:
        folder: Configurations, sockets, logs, histories; removed with the lab.
        nodes: The daemons by name, ``r1`` to ``r3``.
    """

    def __init__(
        self,
        prefix: str = DEFAULT_PREFIX,
        *,
        folder: Path | None = None,
        hanat: Sequence[str] | None = None,
        cluster_toml: str = CLUSTER_TOML,
    ) -> None:
        """Prepare a lab; nothing is touched before `build`.

        Args:
            prefix: Namespaces are called ``<prefix>-r1`` and so on; one lab per prefix.
            folder: Must not exist; short, because it holds Unix sockets (108 bytes).
                Default: a fresh one in the directory for temporary files.
            hanat: The command under test; default is the hanat next to this package.
            cluster_toml: What all nodes are first started with.
        """
        self.prefix = prefix
        self.topology = topology.three_routers(prefix)
        self.folder = folder or default_folder(prefix)
        self.hanat = tuple(hanat or HANAT)
        self._cluster_toml = cluster_toml
        self._record: record.Record | None = None
        self._helpers: dict[str, Child] = {}
        self.server_options: Sequence[str] = ()  # of the programs that serve, beside the usual
        self.nodes = {
            router.name: Node(
                name=router.name,
                prefix=prefix,
                folder=self.folder / router.name,
                command=self.hanat,
                on_start=self.remember,
            )
            for router in self.topology.routers
        }

    def __enter__(self) -> Self:
        self.build()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.remove()

    @property
    def built(self) -> bool:
        """Whether it is there, and this program built it."""
        return self._record is not None

    def build(self) -> None:
        """Create folder, files, network and servers; start no daemon.

        Raises:
            UsageError: The machine is not fit for it.
            LabError: Something is in the way or failed; what was made is removed again.
        """
        require_machine()
        self._refuse_leftovers()
        mine = identify(os.getpid())
        assert mine is not None
        entry = record.Record(self.prefix, self.folder, mine)
        entry.create()  # also the lock: the folder may be one that a crashed lab left
        try:
            self._make_folder()
        except BaseException:
            record.forget(self.prefix)  # nothing was made, so there is nothing to remove
            raise
        self._record = entry
        try:
            self._write_files()
            topology.build(self.topology)
            self.start_servers(*topology.SERVERS, topology.CLIENT)
        except BaseException:
            self.remove()
            raise

    def start(self) -> None:
        """Start all daemons."""
        for node in self.nodes.values():
            node.start()

    def keep(self) -> None:
        """Leave the lab running when this program ends."""
        assert self._record is not None
        self._record.kept = True
        self._record.save()

    def save(self, folder: Path) -> None:
        """Copy histories, configurations and logs to a folder, which is created."""
        shutil.copytree(
            self.folder,
            folder,
            ignore=shutil.ignore_patterns("data", "*.image", "*.sock", "*.key", "*.ready"),
        )

    def remove(self) -> None:
        """End all processes, delete namespaces and files. Does nothing the second time."""
        if self._record is not None:
            remove_lab(self.prefix)
            self._record = None
        for helper in self._helpers.values():
            helper.popen.wait(5)
        for node in self.nodes.values():
            node.reap()

    # Daemons ---------------------------------------------------------------------------

    def start_node(self, name: str) -> None:
        """Start a daemon that does not run."""
        self.nodes[name].start()

    def kill_node(self, name: str) -> int:
        """SIGKILL all processes of a node; return the instant, monotonic ns."""
        return self.nodes[name].kill()

    def kill_daemon(self, name: str) -> int:
        """SIGKILL a node's daemon, not its supervisor; return the instant, monotonic ns."""
        return self.nodes[name].kill_daemon()

    def kill_supervisor(self, name: str) -> int:
        """SIGKILL a node's supervisor, not its daemon; return the instant, monotonic ns."""
        return self.nodes[name].kill_supervisor()

    def stop_node(self, name: str, timeout_s: float = 10.0) -> int:
        """SIGTERM a daemon and wait for its end; return its exit code."""
        return self.nodes[name].stop(timeout_s)

    def restart_node(self, name: str, timeout_s: float = 10.0) -> None:
        """Stop a daemon in good order and start it again."""
        self.stop_node(name, timeout_s)
        self.start_node(name)

    def status(self, name: str) -> node_api.Status | None:
        """Return a node's status document, None while it does not answer."""
        return self.nodes[name].status()

    def statuses(self) -> dict[str, node_api.Status | None]:
        """Return all nodes' status documents."""
        return {name: node.status() for name, node in self.nodes.items()}

    def holder(self) -> str | None:
        """Return the node that says it is ACTIVE; None if none does, or more than one."""
        active = [n for n, s in self.statuses().items() if s and s.get("role") == "ACTIVE"]
        return active[0] if len(active) == 1 else None

    def unready(self, to: str) -> str | None:
        """Return why a node may not be counted on, by the holder's word; None if it may be."""
        status = self.status(holder) if (holder := self.holder()) is not None else None
        if status is None:
            return "no single node is ACTIVE"
        peer = next((peer for peer in status["peers"] if peer["name"] == to), None)
        if peer is None:
            return f"{holder} holds and knows no other node {to}"
        for word, what in (
            ("connected", "is not connected to"),
            ("fit", "is not fit to hold, says"),
            ("complete", "has not all flows, says"),
        ):
            if not peer[word]:
                return f"{to} {what} {holder}"
        return None

    def switchover(self, to: str, timeout_s: float = 10.0) -> tuple[int, Any]:
        """Ask the holder to hand over; return the HTTP status and the answer.

        Raises:
            LabError: There is no holder to ask, or it did not answer.
        """
        holder = self.holder()
        if holder is None:
            raise LabError(f"cannot switch over to {to}: no single node is ACTIVE")
        socket = self.nodes[holder].socket
        try:
            return node_api.request(
                socket, "POST", "/v1/switchover", body={"to": to}, timeout_s=timeout_s
            )
        except OSError as error:
            raise LabError(f"cannot switch over from {holder} to {to}: {error}") from error

    def log(self, name: str) -> str:
        """Return everything a daemon has logged."""
        return self.nodes[name].log_file.read_text(errors="replace")

    # Network ---------------------------------------------------------------------------

    def set_carrier(self, name: str, interface: str, *, up: bool) -> None:
        """Pull (or plug) a node's cable; `interface` is ``public`` or ``private``."""
        topology.set_carrier(self.topology, name, interface, up=up)

    def addresses(self, name: str) -> set[str]:
        """Return the floating addresses that are on a node's devices, without prefix length."""
        present = {address.partition("/")[0] for address in self.present(name)}
        return present & set(topology.floating())

    def present(self, name: str) -> set[str]:
        """Return all addresses that are on a node's devices, with prefix length."""
        text = topology.run_ip(["-n", self.topology.namespace(name), "-o", "addr", "show"])
        return {line.split()[3] for line in text.splitlines()}

    def exec_in(
        self, host: str, command: Sequence[str], timeout_s: float = 10.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host and return its outcome.

        Raises:
            LabTimeoutError: It did not end in time and was killed.
        """
        try:
            return subprocess.run(
                ["ip", "netns", "exec", self.topology.namespace(host), *command],
                env=environment(self.prefix, f"exec-{host}"),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LabTimeoutError(f"on {host}: {' '.join(command)}: {error}") from error

    def spawn_in(self, host: str, name: str, command: Sequence[str]) -> Child:
        """Start a helper on a host, its output in ``<folder>/<name>.log``."""
        child = spawn(
            command,
            namespace=self.topology.namespace(host),
            mark=(self.prefix, name),
            log=self.folder / f"{name}.log",
            folder=self.folder,
        )
        self._helpers[name] = child
        self.remember(child.identity)
        return child

    # Servers ---------------------------------------------------------------------------

    def server(self, host: str) -> Child:
        """Return the program that serves on a host."""
        return self._helpers[f"{host}-server"]

    def signal_server(self, host: str, number: signal.Signals) -> None:
        """Send a signal to the program that serves on a host."""
        send_signal(self.server(host).identity, number)

    def agent_file(self, host: str) -> Path:
        """Return where a server's agent reads what to say."""
        return self.folder / f"{host}-agent"

    def kill_server(self, host: str) -> None:
        """SIGKILL the program that serves on a host, and wait for its end."""
        self.signal_server(host, signal.SIGKILL)
        self.server(host).popen.wait(5)

    def start_servers(self, *hosts: str) -> None:
        """Start programs that serve, and wait until they listen.

        Raises:
            LabTimeoutError: One of them did not come up.
        """
        ready = [self.folder / f"{host}-server.ready" for host in hosts]
        for host, file in zip(hosts, ready, strict=True):
            file.unlink(missing_ok=True)
            told = ("--ready", str(file), "--agent", str(self.agent_file(host)))
            command = python_module("chaos.lab.servers", host, *told, *self.server_options)
            self.spawn_in(host, f"{host}-server", command)
        self.wait_for(lambda: all(f.exists() for f in ready), 10, "the servers to listen")

    def services(self, name: str) -> list[node_api.Status]:
        """Return what a node says of its services; nothing while it does not answer."""
        return node_api.read_services(self.nodes[name].socket)

    # Waiting ---------------------------------------------------------------------------

    def wait_for(self, condition: Callable[[], T | None], timeout_s: float, what: str) -> T:
        """Ask until the answer is true, and return it.

        Args:
            condition: Asked every 20 ms.
            timeout_s: How long it may take.
            what: Completes "waited ... s for", used when it fails.

        Raises:
            LabTimeoutError: Not true within `timeout_s`.
            NodeDiedError: A daemon ended meanwhile that was meant to run.
        """
        return wait_until(
            condition, timeout_s, what, meanwhile=self._check_daemons, details=self.describe
        )

    def wait_for_holder(self, timeout_s: float = 15.0) -> str:
        """Wait until one node is ACTIVE and all running others follow it; return its name.

        It has looked at all servers then: a cluster that starts leads clients to no server whose
        check has no verdict.
        """
        return self.wait_for(self._agreed_holder, timeout_s, "one ACTIVE node that knows servers")

    def describe(self) -> str:
        """Return the roles as the nodes tell them, in one line."""
        words = []
        for name, status in self.statuses().items():
            if status is None:
                words.append(f"{name} does not answer")
            else:
                words.append(f"{name} {status.get('role')} reason={status.get('reason')}")
        return ", ".join(words)

    def _check_daemons(self) -> None:
        for node in self.nodes.values():
            if node.died:
                raise NodeDiedError(
                    f"{node.name} ended with exit code {node.exit_code}, which nobody asked for; "
                    f"the end of its log:\n{node.log_tail()}"
                )

    def _agreed_holder(self) -> str | None:
        running = {n: s for n, s in self.statuses().items() if self.nodes[n].wanted}
        active = [n for n, s in running.items() if s and s.get("role") == "ACTIVE"]
        if len(active) != 1:
            return None
        others = (s for n, s in running.items() if n != active[0])
        followed = all(
            s is not None and s.get("role") == "BACKUP" and s.get("leader") == active[0]
            for s in others
        )
        return active[0] if followed and not self._unknown_servers(active[0]) else None

    def _unknown_servers(self, name: str) -> bool:
        """Whether a node has services with servers that nobody has judged yet."""
        return any(
            server["operational"]["state"] == "unknown"
            for service in self.services(name)
            for server in service["servers"]
        )

    # Building --------------------------------------------------------------------------

    def remember(self, identity: Identity) -> None:
        """Record a process that was started in the lab, so that it is ended with it."""
        if self._record is not None:
            self._record.processes.append(identity)
            self._record.save()

    def _refuse_leftovers(self) -> None:
        found = record.load(self.prefix)
        if found is None:
            return
        if not found.in_use and not (found.kept and marked(self.prefix)):
            remove_lab(self.prefix)  # its owner is dead and did not mean to leave it
            return
        user = f" by process {found.owner.pid}" if found.in_use else ""
        raise LabError(
            f'lab "{self.prefix}" is in use{user} ({found.folder}); '
            f'remove it with "python -m chaos down{prefix_option(self.prefix)}" and try again'
        )

    def _make_folder(self) -> None:
        longest = max(len(os.fsencode(node.socket)) for node in self.nodes.values())
        if longest > SOCKET_PATH_BYTES_MAX:
            raise UsageError(
                f"cannot use folder {self.folder}: Unix sockets in it would have names of "
                f"{longest} bytes, {SOCKET_PATH_BYTES_MAX} are possible; choose a shorter one"
            )
        make_folder(self.folder, self.prefix)

    def _write_files(self) -> None:
        (self.folder / "cluster.toml").write_text(self._cluster_toml)
        for router in self.topology.routers:
            home = self.folder / router.name
            (home / "data").mkdir(parents=True)
            text = node_toml(self.topology, router, folder=self.folder)
            (home / "node.toml").write_text(text)
        self._make_key()

    def _make_key(self) -> None:
        command = [*self.hanat, "keygen", str(self.folder / "cluster.key")]
        try:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=environment(self.prefix, "keygen"),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LabError(f"cannot make a cluster key: {error}") from error
        if done.returncode != 0:
            raise LabError(
                f"cannot make a cluster key: {' '.join(command)} ended with "
                f"{done.returncode}: {(done.stderr or done.stdout).strip()}"
            )
