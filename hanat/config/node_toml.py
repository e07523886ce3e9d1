"""``node.toml``: what one node is told about itself and its peers."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from hanat.config.document import (
    Findings,
    Location,
    kept,
    nearest,
    parse_toml,
    read_text,
    validate,
    whole,
)
from hanat.config.limits import NODE_LIMITS, check_limits
from hanat.config.models import CheckerTable, GateTable, NodeFile, PortsTable
from hanat.config.settings import NodeSettings, Peer, TcpListen, UnixListen
from hanat.core.configuration import Address

API_LISTEN_DEFAULT = UnixListen(Path("/run/hanat/api.sock"))
CLUSTER_SIZES = (1, 3, 5)  # one for a lab; an even number adds a node and no safety

T = TypeVar("T")


def load_node(path: Path) -> NodeSettings:
    """Return the settings in a file; relative paths are relative to it.

    Raises:
        ConfigError: With every problem of the file.
    """
    return parse_node(read_text(path), file=str(path), directory=path.absolute().parent)


def parse_node(text: str, *, file: str, directory: Path) -> NodeSettings:
    """Return the settings in a text; relative paths are relative to `directory`.

    Raises:
        ConfigError: With every problem of the text.
    """
    document = parse_toml(text, file=file)
    findings = Findings(file, document)
    check_limits(document, findings, lists=NODE_LIMITS, totals={})
    model = validate(NodeFile, document, findings)
    if model is None:
        findings.raise_if_any()
    assert model is not None, "a document without a model and without a problem"
    peers = _peers(model, findings)
    listens = _api_listens(model, findings)
    if document.get("interfaces") == {}:
        findings.add(("interfaces",), 'is empty: map each logical name, like public = "eth0"')
    ports, checker = model.ports or PortsTable(), model.checker or CheckerTable()
    gate = model.gate or GateTable()
    if ports.raft is not None and ports.raft == ports.mesh:
        # One is TCP and one UDP, so both would work; a firewall's rule for one would be taken
        # for both.
        findings.add(("ports", "mesh"), f"is {ports.mesh}, the raft port already")
    findings.raise_if_any()
    return NodeSettings(
        node=_sound(model.node),
        node_id=next(peer.node_id for peer in peers if peer.name == model.node),
        cluster_file=directory / _sound(model.cluster_file),
        data_dir=directory / _sound(model.data_dir),
        key_file=directory / _sound(model.key_file),
        interfaces={name: _sound(device) for name, device in _sound(model.interfaces).items()},
        api_listen=listens,
        api_hosts=tuple(_sound(host) for host in (model.api and model.api.hosts) or ()),
        peers=peers,
        raft_port=_sound(ports.raft),
        mesh_port=_sound(ports.mesh),
        announcements_per_ms=_sound(model.announcements_per_ms),
        gate=_sound(gate.kind),
        gate_mark=_sound(gate.mark),
        scripts=directory / _sound(checker.scripts),
        script_user=_sound(checker.user),
    )


def _peers(model: NodeFile, findings: Findings) -> tuple[Peer, ...]:
    if whole(model.peer) and model.peer is not None and len(model.peer) not in CLUSTER_SIZES:
        text = f"a cluster has 3 or 5 nodes (1 for a lab), this file lists {len(model.peer)}"
        findings.add(("peer",), text)
    names: dict[str, str] = {}
    ids: dict[int, str] = {}
    owners: dict[Address, str] = {}
    peers = []
    for i, table in kept(model.peer):
        where: Location = ("peer", i)
        if table.name in names:
            findings.add((*where, "name"), f'another peer is named "{table.name}"')
        names[table.name] = table.name
        if table.node_id is not None and ids.setdefault(table.node_id, table.name) != table.name:
            text = f'{table.node_id} is the id of peer "{ids[table.node_id]}" already'
            findings.add((*where, "id"), text)
        if table.addresses == []:
            findings.add((*where, "addresses"), "needs at least one address")
        addresses: list[tuple[int, Address]] = kept(table.addresses)
        for j, address in addresses:
            if address in owners:
                text = f'peer "{owners[address]}" has {address} already'
                findings.add((*where, "addresses", j), text)
            owners.setdefault(address, table.name)
        ordered = tuple(address for _, address in addresses)
        peers.append(Peer(table.name, table.node_id or 0, ordered))
    if whole(model.peer) and model.peer and model.node is not None and model.node not in names:
        text = f'there is no peer "{model.node}", and a node is its own peer too'
        findings.add(("node",), f"{text}; {nearest(model.node, names)}")
    return tuple(sorted(peers, key=lambda peer: peer.node_id))


def _api_listens(model: NodeFile, findings: Findings) -> tuple[UnixListen | TcpListen, ...]:
    if model.api is None or model.api.listen is None:
        return (API_LISTEN_DEFAULT,)
    if model.api.listen == []:
        findings.add(("api", "listen"), "needs at least one place to listen")
    listens: list[tuple[int, UnixListen | TcpListen]] = kept(model.api.listen)
    first = {listen: i for i, listen in reversed(listens)}
    for i, listen in listens:
        if first[listen] != i:
            findings.add(("api", "listen", i), "is listed twice")
    return tuple(listen for _, listen in listens)


def _sound(value: T | None) -> T:
    assert value is not None, "a required value is missing and nobody complained"
    return value
