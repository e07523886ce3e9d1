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

from hanat.config import check_fields, fields, service_fields
from hanat.config.settings import (
    ANNOUNCEMENTS_PER_MS,
    SCRIPT_USER_DEFAULT,
    SCRIPTS_DEFAULT,
    GateChoice,
    TcpListen,
    UnixListen,
)
from hanat.core.checks import Pattern
from hanat.core.configuration import (
    Address,
    Forward,
    Interface,
    Network,
    OnServerDown,
    Profile,
    Replicate,
    Scheduler,
    Unavailable,
)
from hanat.core.rights import MARK_MASK

Schema = Annotated[int, PlainValidator(fields.parse_schema)]
Name = Annotated[str, PlainValidator(fields.parse_name)]
ServerName = Annotated[str, PlainValidator(fields.parse_server_name)]
Device = Annotated[str, PlainValidator(fields.parse_device)]
FilePath = Annotated[Path, PlainValidator(fields.parse_path)]
NodeId = Annotated[int, PlainValidator(fields.whole_number(1, 255))]
Port = Annotated[int, PlainValidator(fields.whole_number(1, 65535))]
Pace = Annotated[int, PlainValidator(fields.whole_number(1, 1000))]
GateKindName = Annotated[GateChoice, PlainValidator(fields.parse_gate_kind)]
MarkBits = Annotated[int, PlainValidator(fields.parse_mark)]
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
Flag = Annotated[bool, PlainValidator(fields.parse_flag)]
OutsideAddress = Annotated[Address, PlainValidator(fields.parse_outside_address)]

ClientHash = Annotated[bool, PlainValidator(service_fields.parse_hash)]
SlowStart = Annotated[float, PlainValidator(fields.duration(*service_fields.SLOW_START_S))]
Percent = Annotated[int, PlainValidator(service_fields.parse_percent)]
ServerDownPolicy = Annotated[OnServerDown, PlainValidator(service_fields.parse_on_server_down)]
UnavailableAnswer = Annotated[Unavailable, PlainValidator(service_fields.parse_unavailable)]
SorryServers = Annotated[
    tuple[fields.ServerAddress, ...], PlainValidator(service_fields.parse_sorry)
]
PersistenceTime = Annotated[float, PlainValidator(fields.duration(*service_fields.PERSISTENCE_S))]
NetmaskV4 = Annotated[int, PlainValidator(fields.whole_number(1, 32))]
NetmaskV6 = Annotated[int, PlainValidator(fields.whole_number(1, 128))]
Rate = Annotated[int, PlainValidator(fields.whole_number(1, service_fields.RATE_MAX))]
Burst = Annotated[int, PlainValidator(fields.whole_number(1, service_fields.BURST_MAX))]
OfClient = Annotated[int, PlainValidator(fields.whole_number(1, service_fields.OF_CLIENT_MAX))]
MaxConn = Annotated[int, PlainValidator(fields.whole_number(1, service_fields.MAX_CONN_MAX))]
Priority = Annotated[int, PlainValidator(fields.whole_number(1, service_fields.PRIORITY_MAX))]

CheckKind = Annotated[
    str, PlainValidator(fields.one_of(*check_fields.KINDS, what="a kind of check"))
]
Interval = Annotated[float, PlainValidator(check_fields.parse_interval)]
Timeout = Annotated[float, PlainValidator(check_fields.parse_timeout)]
Count = Annotated[int, PlainValidator(check_fields.parse_count)]
Mark = Annotated[int, PlainValidator(check_fields.parse_mark)]
Bytes = Annotated[bytes, PlainValidator(check_fields.parse_bytes)]
Regex = Annotated[Pattern, PlainValidator(check_fields.parse_regex)]
Method = Annotated[str, PlainValidator(fields.one_of(*check_fields.METHODS, what="a method"))]
HttpPath = Annotated[str, PlainValidator(check_fields.parse_http_path)]
HttpHost = Annotated[str, PlainValidator(check_fields.parse_http_host)]
Headers = Annotated[tuple[tuple[str, str], ...], PlainValidator(check_fields.parse_headers)]
Statuses = Annotated[tuple[tuple[int, int], ...], PlainValidator(check_fields.parse_statuses)]
Body = Annotated[Pattern, PlainValidator(check_fields.parse_body)]
Digest = Annotated[str, PlainValidator(check_fields.parse_digest)]
Sni = Annotated[str, PlainValidator(check_fields.parse_sni)]
Days = Annotated[int, PlainValidator(check_fields.parse_warn)]
CheckName = Annotated[str, PlainValidator(fields.parse_text)]  # of a script, or for a name server
RecordType = Annotated[
    str, PlainValidator(fields.one_of(*check_fields.RECORD_TYPES, what="a type of record"))
]
Rcode = Annotated[str, PlainValidator(fields.one_of(*check_fields.RCODES, what="a response code"))]
DnsAnswer = Annotated[str, PlainValidator(check_fields.parse_line(255))]
PingSize = Annotated[int, PlainValidator(fields.whole_number(0, check_fields.PING_BYTES_MAX))]
PingCount = Annotated[int, PlainValidator(fields.whole_number(1, check_fields.PING_COUNT_MAX))]
Argument = Annotated[str, PlainValidator(check_fields.parse_argument)]
UserName = Annotated[str, PlainValidator(check_fields.parse_user)]


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
    priority: Priority | None = None
    max_conn: MaxConn | None = None


class CheckTable(Table):
    """``[[service.check]]``: the options of all kinds; `config.check_options` tells them apart.

    None is what was not written, or was wrong; `model_fields_set` has both that are written.
    """

    kind: CheckKind
    interval: Interval | None = None
    timeout: Timeout | None = None
    fall: Count | None = None
    rise: Count | None = None
    fast_interval: Interval | None = None
    port: Port | None = None
    address: OutsideAddress | None = None
    source: OutsideAddress | None = None
    mark: Mark | None = None
    send: Bytes | None = None
    expect: Bytes | None = None
    regex: Regex | None = Field(alias="match", default=None)
    method: Method | None = None
    path: HttpPath | None = None
    host: HttpHost | None = None
    headers: Headers | None = None
    statuses: Statuses | None = Field(alias="status", default=None)
    body: Body | None = None
    digest: Digest | None = None
    sni: Sni | None = None
    verify: Flag | None = None
    warn_days: Days | None = Field(alias="warn", default=None)
    name: CheckName | None = None
    record_type: RecordType | None = Field(alias="type", default=None)
    rcode: Rcode | None = None
    answer: DnsAnswer | None = None
    tcp: Flag | None = None
    size: PingSize | None = None
    count: PingCount | None = None
    arguments: list[Argument | None] | None = None


class PersistenceTable(Table):
    """``persistence = { ... }`` of a service."""

    timeout: PersistenceTime
    netmask: NetmaskV4 | None = None
    netmask6: NetmaskV6 | None = None


class LimitsTable(Table):
    """``limits = { ... }`` of a service."""

    new_per_second: Rate | None = None
    burst: Burst | None = None
    new_per_second_per_client: Rate | None = None
    burst_per_client: Burst | None = None
    connections_per_client: OfClient | None = None
    netmask: NetmaskV4 | None = None
    netmask6: NetmaskV6 | None = None


class ServiceTable(Table):
    """``[[service]]``."""

    name: ServerName | None
    listen: list[ServiceListen | None] | None
    scheduler: SchedulerName | None = Scheduler.WRR
    hash_port: ClientHash | None = Field(alias="hash", default=None)
    slow_start: SlowStart | None = None
    min_healthy: Percent | None = None
    on_server_down: ServerDownPolicy | None = None
    sorry: SorryServers | None = None
    unavailable: UnavailableAnswer | None = None
    persistence: PersistenceTable | None = None
    ops: Flag | None = None
    allow: list[SourceNetwork | None] | None = None
    deny: list[SourceNetwork | None] | None = None
    limits: LimitsTable | None = None
    replicate: ReplicatePolicy | None = Replicate()
    sources: list[SourceName | None] | None = Field(alias="from", default=None)
    check: list[CheckTable | None] | None = None
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


class GateTable(Table):
    """``[gate]``."""

    kind: GateKindName | None = GateChoice.AUTO
    mark: MarkBits | None = MARK_MASK


class CheckerTable(Table):
    """``[checker]``."""

    scripts: FilePath | None = SCRIPTS_DEFAULT
    user: UserName | None = SCRIPT_USER_DEFAULT


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
    gate: GateTable | None = None
    checker: CheckerTable | None = None
    peer: list[PeerTable | None] | None
