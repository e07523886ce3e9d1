"""What two files must agree on, and ``config check`` over any number of them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hanat.config.cluster_toml import parse_cluster
from hanat.config.document import nearest, parse_toml, path_of, read_text
from hanat.config.fields import ip_version
from hanat.config.node_toml import parse_node
from hanat.config.settings import NodeSettings, TcpListen
from hanat.core.configuration import Configuration
from hanat.errors import ConfigError, Problem

NODE_KEYS = frozenset(
    {"node", "cluster_file", "data_dir", "key_file", "interfaces", "api", "checker", "peer"}
)
CLUSTER_KEYS = frozenset({"cluster", "vip", "masquerade", "service", "transit"})


def cross_check(
    settings: NodeSettings, configuration: Configuration, *, file: str
) -> tuple[Problem, ...]:
    """Return where a node's settings do not fit a cluster's configuration.

    Problems are charged to the node's `file`.
    """
    problems = [
        Problem(
            file,
            "interfaces",
            f'the cluster has a vip on interface "{name}", and this node maps it to no device; '
            f"{nearest(name, settings.interfaces)}",
        )
        for name in configuration.interfaces
        if name not in settings.interfaces
    ]
    floating = {address.ip: vip.name for vip in configuration.vips for address in vip.addresses}
    problems.extend(
        Problem(
            file,
            "peer",
            f'{address} of peer "{peer.name}" is the floating address of vip '
            f'"{floating[address]}"; a node needs its own address',
        )
        for peer in settings.peers
        for address in peer.addresses
        if address in floating
    )
    hosts = {str(address): name for address, name in floating.items()}
    problems.extend(
        Problem(
            file,
            path_of(("api", "listen", index)),
            f'{listen.host} is the floating address of vip "{hosts[listen.host]}" and is not '
            "always here; listen on an address of the node",
        )
        for index, listen in enumerate(settings.api_listen)
        if isinstance(listen, TcpListen) and ip_version(listen.host) and listen.host in hosts
    )
    return tuple(problems)


def advice(settings: NodeSettings, *, file: str) -> tuple[Problem, ...]:
    """Return what is allowed in a node file, and rarely meant."""
    return tuple(
        Problem(
            file,
            path_of(("api", "listen", index)),
            f"{listen.host} is every address of the machine, floating ones too: health and metrics "
            "are told to whoever reaches one; listen on an address of the node",
        )
        for index, listen in enumerate(settings.api_listen)
        if isinstance(listen, TcpListen) and listen.is_everywhere
    )


def check_advice(paths: Iterable[Path]) -> tuple[Problem, ...]:
    """Return the advice for those of the files that are sound node files."""
    found: list[Problem] = []
    for path in paths:
        with suppress(ConfigError):
            text = read_text(path)
            settings = parse_node(text, file=str(path), directory=path.absolute().parent)
            found += advice(settings, file=str(path))
    return tuple(found)


def check(paths: Iterable[Path]) -> tuple[Problem, ...]:
    """Return every problem of the files and between them; empty when all is well.

    A file is a node's or a cluster's by its keys. A node file is held against every
    cluster file given and against the one it names; that one may be absent if another was given.
    """
    checking = _Checking()
    for path in paths:
        checking.read(path)
    checking.read_named_clusters()
    return (*checking.problems, *checking.between())


@dataclass
class _Checking:
    """Files read so far; each is read and complained about once."""

    problems: list[Problem] = field(default_factory=list)
    nodes: list[tuple[Path, NodeSettings]] = field(default_factory=list)
    clusters: dict[Path, Configuration | None] = field(default_factory=dict)

    def read(self, path: Path) -> None:
        """Read a file of either kind."""
        try:
            text = read_text(path)
            keys = set(parse_toml(text, file=str(path)))
            nodeness, clusterness = len(keys & NODE_KEYS), len(keys & CLUSTER_KEYS)
            if nodeness == clusterness:
                sentence = (
                    "is neither a node file (node, interfaces, peer) "
                    "nor a cluster file (cluster, vip, service)"
                )
                raise ConfigError((Problem(str(path), "", sentence),))  # noqa: TRY301
            if nodeness > clusterness:
                directory = path.absolute().parent
                self.nodes.append((path, parse_node(text, file=str(path), directory=directory)))
            else:
                self._read_cluster(path, text)
        except ConfigError as error:
            self.problems.extend(error.problems)

    def _read_cluster(self, path: Path, text: str) -> None:
        self.clusters[path.resolve()] = None
        self.clusters[path.resolve()] = parse_cluster(text, file=str(path))

    def read_named_clusters(self) -> None:
        """Read the cluster files that the node files name."""
        given = bool(self.clusters)
        for path, settings in self.nodes:
            named = settings.cluster_file
            if named.resolve() in self.clusters or (given and not named.exists()):
                continue
            self.clusters[named.resolve()] = None
            try:
                self._read_cluster(named, read_text(named))
            except ConfigError as error:
                if not named.exists():
                    problem = Problem(str(path), "cluster_file", f"{named} does not exist")
                    self.problems.append(problem)
                else:
                    self.problems.extend(error.problems)

    def between(self) -> tuple[Problem, ...]:
        """Return what does not fit between the files, each problem once."""
        found = [
            problem
            for path, settings in self.nodes
            for configuration in self.clusters.values()
            if configuration is not None
            for problem in cross_check(settings, configuration, file=str(path))
        ]
        for (first, one), (path, other) in zip(self.nodes, self.nodes[1:], strict=False):
            if one.peers != other.peers:
                found.append(Problem(str(path), "peer", f"differs from the peers in {first}"))
            if (one.raft_port, one.mesh_port) != (other.raft_port, other.mesh_port):
                found.append(Problem(str(path), "ports", f"differ from the ports in {first}"))
        return tuple(dict.fromkeys(found))
