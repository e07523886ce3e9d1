"""What one node is told about itself: the values of ``node.toml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path

from hanat.core.configuration import Address
from hanat.core.control_traffic import ControlTraffic
from hanat.core.rights import MARK_MASK

SCRIPTS_DEFAULT = Path("/etc/hanat/scripts")
SCRIPT_USER_DEFAULT = "nobody"
ANNOUNCEMENTS_PER_MS = 50  # a thousand IPv4 addresses, two frames each, take 40 ms


class GateChoice(StrEnum):
    """What is to end a node's rights."""

    AUTO = "auto"  # a deadline if the kernel can do that
    DEADLINE = "deadline"
    TIMEOUTS = "timeouts"


@dataclass(frozen=True, slots=True)
class Peer:
    """A node of the cluster, this one included.

    Attributes:
        addresses: One per path, in order of preference; never floating ones.
    """

    name: str
    node_id: int
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class UnixListen:
    """The API on a Unix socket, mode 0660."""

    path: Path


@dataclass(frozen=True, slots=True)
class TcpListen:
    """The API on a TCP port."""

    host: str
    port: int

    @property
    def is_everywhere(self) -> bool:
        """Whether that is every address of the machine."""
        try:
            return ip_address(self.host).is_unspecified
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """All of ``node.toml``, paths made absolute relative to the file.

    Attributes:
        api_hosts: Further names by which the API may be asked over TCP.
        peers: Every node, ordered by node id; three or five (one for a lab of one).
        interfaces: Logical name to kernel device, ``{"public": "eth0"}``.
        announcements_per_ms: At most so many frames in a millisecond.
        gate: What is to end this node's rights.
        gate_mark: Two neighbouring bits of packets' marks, with a deadline.
        scripts: The folder with the scripts of checks; no other program is run.
        script_user: Whom they run as, never root.
    """

    node: str
    node_id: int
    cluster_file: Path
    data_dir: Path
    key_file: Path
    interfaces: Mapping[str, str]
    api_listen: tuple[UnixListen | TcpListen, ...]
    peers: tuple[Peer, ...]
    raft_port: int = 7411
    mesh_port: int = 7412
    api_hosts: tuple[str, ...] = ()
    announcements_per_ms: int = ANNOUNCEMENTS_PER_MS
    gate: GateChoice = GateChoice.AUTO
    gate_mark: int = MARK_MASK
    scripts: Path = SCRIPTS_DEFAULT
    script_user: str = SCRIPT_USER_DEFAULT

    @property
    def myself(self) -> Peer:
        """This node among the peers."""
        return next(p for p in self.peers if p.node_id == self.node_id)

    @property
    def api_names(self) -> tuple[str, ...]:
        """Names by which the API is asked over TCP."""
        listens = (one.host for one in self.api_listen if isinstance(one, TcpListen))
        return (self.node, *listens, *self.api_hosts)

    @property
    def conversation(self) -> ControlTraffic:
        """How this node and the others reach each other."""
        return ControlTraffic(
            own=self.myself.addresses,
            peers=tuple(a for p in self.peers if p.node_id != self.node_id for a in p.addresses),
            raft_port=self.raft_port,
            mesh_port=self.mesh_port,
        )
