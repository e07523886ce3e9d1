"""The shape of the two files as pydantic models; meaning is checked elsewhere.

TOML has no null, so None in a model never comes from the user. It stands for a
part that was wrong and has been taken out (`hanat.config.document`), which is
how the checks of meaning can go on behind the first wrong value and one run
reports everything. Once a file is free of problems, no None is left but where
a key is optional.

Unknown keys are errors, and types are taken strictly: "1" is no number.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from hanat.config import fields
from hanat.config.settings import ANNOUNCEMENTS_PER_MS, TcpListen, UnixListen
from hanat.core.configuration import (
    Address,
    Forward,
    Interface,
    Network,
    Profile,
    Replicate,
    Scheduler,
)

Schema = Annotated[int, PlainValidator(fields.parse_schema)]
Name = Annotated[str, PlainValidator(fields.parse_name)]
ServerName = Annotated[str, PlainValidator(fields.parse_server_name)]
Device = Annotated[str, PlainValidator(fields.parse_device)]
FilePath = Annotated[Path, PlainValidator(fields.parse_path)]
NodeId = Annotated[int, PlainValidator(fields.whole_number(1, 255))]
Port = Annotated[int, PlainValidator(fields.whole_number(1, 65535))]
Pace = Annotated[int, PlainValidator(fields.whole_number(1, 1000))]
Weight = Annotated[int, PlainValidator(fields.whole_number(0, 65535))]
Duration = Annotated[float, PlainValidator(fields.parse_duration)]  # seconds
ProfileName = Annotated[Profile, PlainValidator(fields.parse_profile)]
ReplicatePolicy = Annotated[Replicate, PlainValidator(fields.parse_replicate)]
ForwardPolicy = Annotated[Forward, PlainValidator(fields.parse_forward)]
SourceName = Annotated[str, PlainValidator(fields.parse_source)]
SchedulerName = Annotated[Scheduler, PlainValidator(fields.parse_scheduler)]
NodeAddress = Annotated[Address, PlainValidator(fields.parse_address)]
VipAddress = Annotated[Interface, PlainValidator(fields.parse_interface)]
SourceNetwork = Annotated[Network, PlainValidator(fields.parse_network)]
VipReference = Annotated[str, PlainValidator(fields.parse_vip_reference)]
ServiceListen = Annotated[fields.ListenText, PlainValidator(fields.parse_service_listen)]
ServerAddress = Annotated[fields.ServerAddress, PlainValidator(fields.parse_server_address)]
ApiListen = Annotated[UnixListen | TcpListen, PlainValidator(fields.parse_api_listen)]
HostName = Annotated[str, PlainValidator(fields.parse_host)]


class Table(BaseModel):
    """Base of every TOML table."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ClusterTable(Table):
    """``[cluster]``."""

    name: Name
    profile: ProfileName | None = None
    forward: ForwardPolicy | None = Forward.SERVICES


class VipTable(Table):
    """``[[vip]]``."""

    name: Name
    address: list[VipAddress | None] | None
    interface: Name | None


class MasqueradeTable(Table):
    """``[[masquerade]]``."""

    networks: list[SourceNetwork | None] | None = Field(alias="from")
    to: VipReference | None


class TransitTable(Table):
    """``[[transit]]``."""

    name: Name
    network: list[SourceNetwork | None] | None


class ServerTable(Table):
    """``[[service.server]]``."""

    name: ServerName
    address: ServerAddress
    weight: Weight | None = 1


class ServiceTable(Table):
    """``[[service]]``."""

    name: ServerName | None
    listen: list[ServiceListen | None] | None
    scheduler: SchedulerName | None = Scheduler.WRR
    replicate: ReplicatePolicy | None = Replicate()
    sources: list[SourceName | None] | None = Field(alias="from", default=None)
    server: list[ServerTable | None] | None


class ClusterFile(Table):
    """All of ``cluster.toml``."""

    schema_version: Schema | None = Field(alias="schema")
    cluster: ClusterTable | None
    vip: list[VipTable | None] | None
    masquerade: list[MasqueradeTable | None] | None = None
    transit: list[TransitTable | None] | None = None
    service: list[ServiceTable | None] | None = None


class ApiTable(Table):
    """``[api]``."""

    listen: list[ApiListen | None] | None = None
    hosts: list[HostName | None] | None = None


class PortsTable(Table):
    """``[ports]``."""

    raft: Port | None = 7411
    mesh: Port | None = 7412


class PeerTable(Table):
    """``[[peer]]``."""

    name: Name
    node_id: NodeId | None = Field(alias="id")
    addresses: list[NodeAddress | None] | None


class NodeFile(Table):
    """All of ``node.toml``."""

    schema_version: Schema | None = Field(alias="schema")
    node: Name | None
    cluster_file: FilePath | None
    data_dir: FilePath | None
    key_file: FilePath | None
    interfaces: dict[Name, Device | None] | None
    announcements_per_ms: Pace | None = ANNOUNCEMENTS_PER_MS
    api: ApiTable | None = None
    ports: PortsTable | None = None
    peer: list[PeerTable | None] | None
