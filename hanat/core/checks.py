"""What is probed, and how: the checks of a service as values.

A service has checks; each of its servers is probed by all of them, and all must hold. What comes
of a check at one server is a *target*. Equal targets are probed once, however many services share
them: a script alone is told which service and server it is asked about, so it is a target of its
own for each. When a target is probed and what follows is `core.probing`; who probes it is
`hanat.checker`.

The kinds are those of keepalived's ``*_CHECK`` (keepalived.conf(5)) and HAProxy's ``*-check``
(configuration manual, section 5.2), with `script` as keepalived's MISC_CHECK and `agent` as
HAProxy's agent-check.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from hanat.core.probing import Check

Address = IPv4Address | IPv6Address

DIGEST_DIGITS = 8  # of a target's name; targets that differ in their options alone differ here
PING_BYTES = 56  # as ping(8)


@dataclass(frozen=True, slots=True)
class Pattern:
    """What is looked for in an answer.

    Attributes:
        text: A text that must occur, or a regular expression (RE2) that must match somewhere.
        is_regex: Which of both.
    """

    text: str
    is_regex: bool = False


@dataclass(frozen=True, slots=True)
class TcpCheck:
    """Connect; then send, and expect, if there is something to.

    Attributes:
        send: Bytes to send after the connection was made.
        expect: Bytes that must occur in what is received; `pattern` likewise, as text.
    """

    send: bytes = b""
    expect: bytes = b""
    pattern: Pattern | None = None


@dataclass(frozen=True, slots=True)
class UdpCheck:
    """Send a datagram; an ICMP error is a failure, and no answer is one if one is expected."""

    send: bytes = b""
    expect: bytes = b""
    pattern: Pattern | None = None


@dataclass(frozen=True, slots=True)
class TlsCheck:
    """Complete a TLS handshake.

    Attributes:
        sni: Name to ask for; empty: none.
        verify: The certificate must be valid, and for that name.
        warn_days: Say so when the certificate ends within so many days; 0: never.
    """

    sni: str = ""
    verify: bool = False
    warn_days: int = 0


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """Ask for a page.

    Attributes:
        tls: Over TLS, with `sni`, `verify` and `warn_days` as of `TlsCheck`.
        host: Of the Host header; empty: the address.
        headers: Names and values.
        statuses: Ranges of status codes, both ends included.
        body: What must be in it.
        digest: SHA-256 of the body, lower-case hexadecimal; empty: any.
    """

    method: str = "GET"
    path: str = "/"
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    statuses: tuple[tuple[int, int], ...] = ((200, 399),)
    body: Pattern | None = None
    digest: str = ""
    tls: TlsCheck | None = None


@dataclass(frozen=True, slots=True)
class DnsCheck:
    """Ask a name server, over UDP and, if `tcp`, over TCP.

    Attributes:
        name: To ask for, absolute.
        kind: Type of the record, ``A``.
        rcode: That must be answered.
        answer: A record that must be among the answers, in the presentation format; empty: any.
    """

    name: str = "."
    kind: str = "SOA"
    rcode: str = "NOERROR"
    answer: str = ""
    tcp: bool = False


@dataclass(frozen=True, slots=True)
class PingCheck:
    """Send ICMP echo requests; one answer is enough.

    Attributes:
        size: Of the payload, bytes.
        count: How many, spread over the timeout.
    """

    size: int = PING_BYTES
    count: int = 1


@dataclass(frozen=True, slots=True)
class ScriptCheck:
    """Run a program; exit 0: up, 1: down, 2 to 254: up with weight exit - 2 percent.

    Attributes:
        name: A file's name in the folder that ``node.toml`` names, never a path.
        arguments: To it.
    """

    name: str
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentCheck:
    """Ask an agent of HAProxy's agent-check protocol.

    Attributes:
        send: Bytes to send after the connection was made.
    """

    send: bytes = b""


Kind = TcpCheck | UdpCheck | TlsCheck | HttpCheck | DnsCheck | PingCheck | ScriptCheck | AgentCheck


def kind_word(kind: Kind) -> str:
    """Return the word for a kind, as in ``cluster.toml``: ``http``."""
    if isinstance(kind, HttpCheck) and kind.tls is not None:
        return "https"
    return type(kind).__name__.removesuffix("Check").lower()


@dataclass(frozen=True, slots=True)
class ServiceCheck:
    """A check of a service, to be made at each of its servers.

    Attributes:
        kind: What to do.
        timing: When, and how many results in a row are a verdict.
        address: Of whom, instead of the server's own.
        port: Likewise; None: the server's, or the first port the service listens on.
        source: Address to probe from; None: the kernel chooses.
        mark: Of the packets (SO_MARK), for policy routing; 0: none.
    """

    kind: Kind
    timing: Check
    address: Address | None = None
    port: int | None = None
    source: Address | None = None
    mark: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that is probed.

    Attributes:
        kind: What to do.
        timing: When, and how many results in a row are a verdict.
        address: Of whom.
        port: 0 for kinds that have none.
        source: Address to probe from; None: the kernel chooses.
        mark: Of the packets (SO_MARK).
        service: With `server`, for whom; of a script alone, empty otherwise.
    """

    kind: Kind
    timing: Check
    address: Address
    port: int
    source: Address | None = None
    mark: int = 0
    service: str = ""
    server: str = ""

    @property
    def name(self) -> str:
        """The same on every node, and only for an equal target: ``http 10.0.0.1:80 3f2a9c01``."""
        place = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        digest = hashlib.sha256(repr(self).encode()).hexdigest()[:DIGEST_DIGITS]
        return f"{kind_word(self.kind)} {place}:{self.port} {digest}"


def target_of(
    check: ServiceCheck, *, service: str, server: str, address: Address, port: int
) -> Target:
    """Return what a check is at one server.

    Args:
        check: Of a service.
        service: Its name.
        server: The server's name.
        address: Of the server.
        port: Of the server, or the first one the service listens on.
    """
    told = isinstance(check.kind, ScriptCheck)
    return Target(
        kind=check.kind,
        timing=check.timing,
        address=check.address or address,
        port=0 if isinstance(check.kind, PingCheck) else check.port or port,
        source=check.source,
        mark=check.mark,
        service=service if told else "",
        server=server if told else "",
    )
