"""Single values of the two files: text in, typed value out, or a sentence why not.

Each parser takes whatever TOML delivered and raises ValueError with a sentence
that names what was found and what is allowed. `hanat.config.models` hangs them
on its fields, so that one place decides what an address or a port may look like.
ValueError also for a wrong type: it is the exception pydantic turns into a report.
Names are never resolved: a router that needs a resolver to start does not start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

from hanat.config.settings import GateChoice, TcpListen, UnixListen
from hanat.core.configuration import (
    PROFILES,
    Address,
    Forward,
    Interface,
    Network,
    Profile,
    Protocol,
    Replicate,
    Scheduler,
)
from hanat.core.rights import is_mask

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")  # host names are welcome
# IFNAMSIZ is 16 with the final zero. The kernel takes nearly anything; what rules and settings
# take for a pattern, a quotation or a path ("eth*") names no device.
DEVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,14}")
NO_DEVICES = frozenset({"all", "default", "lo"})
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s|m|h)")
REPLICATE = {
    "established": Replicate(),
    "none": Replicate(established=False),
    "all": Replicate(unassured=True),
}
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
SOCKET_PATH_BYTES_MAX = 107  # sun_path is 108 with the final zero
SHOWN_CHARACTERS_MAX = 60


@dataclass(frozen=True, slots=True)
class ListenText:
    """A service's listen as written: a vip's name or an address, protocol and ports."""

    vip: str | None
    address: Address | None
    protocol: Protocol
    first_port: int
    last_port: int


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A real server's address; without a port the client's port is kept."""

    address: Address
    port: int | None


def show(value: object) -> str:
    """Return a value as it may appear in a message: quoted, escaped, not too long."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
    text = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    if len(text) <= SHOWN_CHARACTERS_MAX:
        return text
    return text[:SHOWN_CHARACTERS_MAX] + "..."


def parse_text(value: object) -> str:
    """Return text that is not empty."""
    if not isinstance(value, str):
        raise ValueError(f"must be text in quotes, found {show(value)}")  # noqa: TRY004
    if not value:
        raise ValueError("must not be empty")
    return value


def parse_name(value: object) -> str:
    """Return a name as nodes, clusters, vips and logical interfaces have."""
    text = parse_text(value)
    if not NAME.fullmatch(text):
        raise ValueError(
            f"{show(text)} is not a name: "
            "a lower-case letter, then up to 30 lower-case letters, digits or hyphens"
        )
    return text


def parse_server_name(value: object) -> str:
    """Return a name as services and real servers have; host names fit."""
    text = parse_text(value)
    if not SERVER_NAME.fullmatch(text):
        raise ValueError(
            f"{show(text)} is not a name: up to 63 letters, digits, dots, underscores or "
            "hyphens, a letter or digit first"
        )
    return text


def parse_device(value: object) -> str:
    """Return the kernel's name of an interface."""
    text = parse_text(value)
    if not DEVICE.fullmatch(text):
        raise ValueError(
            f"{show(text)} is not an interface name: up to 15 letters, digits or any of _ . - + @, "
            "a letter, digit or underscore first"
        )
    if text in NO_DEVICES:
        raise ValueError(f"{show(text)} is no device that can carry a floating address")
    return text


def parse_path(value: object) -> Path:
    """Return a path as written; the caller makes it absolute."""
    text = parse_text(value)
    if not text.isprintable():
        raise ValueError(f"{show(text)} is not a path: it has control characters")
    return Path(text)


def whole_number(low: int, high: int) -> Callable[[object], int]:
    """Return a parser of whole numbers from `low` to `high`, both included."""

    def parse(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            text = f"must be a whole number from {low} to {high}, found {show(value)}"
            raise ValueError(text)  # noqa: TRY004
        if not low <= value <= high:
            raise ValueError(f"must be from {low} to {high}, found {shown_number(value)}")
        return value

    return parse


def shown_number(value: int) -> str:
    """Return a number for a message; Python refuses to print very long ones."""
    return str(value) if abs(value) < 10**SHOWN_CHARACTERS_MAX else "a number far outside"


def parse_schema(value: object) -> int:
    """Return the version of the file's schema."""
    if value != 1 or isinstance(value, bool | float):
        raise ValueError("must be 1, the only schema this version reads")
    return 1


def parse_duration(value: object) -> float:
    """Return seconds from text with a unit: ``"100ms"``, ``"2s"``, ``"1.5m"``, ``"1h"``."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = 'a duration carries its unit: write "100ms", "2s" or "1m", not a bare number'
        raise ValueError(text)  # noqa: TRY004
    text = parse_text(value)
    match = DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f'{show(text)} is not a duration: write "100ms", "2s", "1m" or "1h"')
    return float(match[1]) * SECONDS[match[2]]


def duration(low: float, high: float) -> Callable[[object], float]:
    """Return a parser of durations from `low` to `high` seconds, both included."""

    def parse(value: object) -> float:
        seconds = parse_duration(value)
        if not low <= seconds <= high:
            bounds = f"from {shown_duration(low)} to {shown_duration(high)}"
            raise ValueError(f"must be {bounds}, found {show(value)}")
        return seconds

    return parse


def shown_duration(seconds: float) -> str:
    """Return a duration as it is written: ``100ms``, ``1.5s``, ``10m``."""
    for unit in ("h", "m", "s"):
        if seconds >= SECONDS[unit] and (unit == "s" or seconds % SECONDS[unit] == 0):
            return f"{seconds / SECONDS[unit]:g}{unit}"
    return f"{seconds / SECONDS['ms']:g}ms"


def parse_flag(value: object) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, found {show(value)}")  # noqa: TRY004
    return value


def one_of(*known: str, what: str = "one of them") -> Callable[[object], str]:
    """Return a parser of a few words; a message says what they are and lists them."""

    def parse(value: object) -> str:
        text = parse_text(value)
        if text not in known:
            raise ValueError(f"{show(text)} is not {what}; they are {', '.join(known)}")
        return text

    return parse


def parse_profile(value: object) -> Profile:
    """Return the timing profile of that name."""
    text = parse_text(value)
    if text not in PROFILES:
        raise ValueError(f"{show(text)} is not a profile; they are {', '.join(PROFILES)}")
    return PROFILES[text]


def parse_scheduler(value: object) -> Scheduler:
    """Return the scheduler of that name."""
    text = parse_text(value)
    known = [scheduler.value for scheduler in Scheduler]
    if text not in known:
        raise ValueError(f"{show(text)} is not a scheduler; they are {', '.join(known)}")
    return Scheduler(text)


def parse_forward(value: object) -> Forward:
    """Return what the routers forward."""
    text = parse_text(value)
    known = [forward.value for forward in Forward]
    if text not in known:
        raise ValueError(
            f'{show(text)} is not known: write "services" for what is published and masqueraded, '
            'or "open" for everything that the routers have a route for'
        )
    return Forward(text)


def parse_gate_kind(value: object) -> GateChoice:
    """Return what is to end the rights of a node."""
    text = parse_text(value)
    if text not in set(GateChoice):
        raise ValueError(
            f'{show(text)} is not known: write "auto", "deadline" for an eBPF program in the '
            'packet path, or "timeouts" for those of nftables'
        )
    return GateChoice(text)


def parse_mark(value: object) -> int:
    """Return two neighbouring bits of a packet's mark."""
    mask = whole_number(1, 0xFFFF_FFFF)(value)
    if not is_mask(mask):
        raise ValueError(f"must be two neighbouring bits, like 0x60000000, found {mask:#010x}")
    return mask


def parse_source(value: object) -> str:
    """Return the logical interface that clients come by."""
    text = parse_text(value)
    if not NAME.fullmatch(text):
        raise ValueError(
            f"{show(text)} is not the name of an interface as vips have; "
            'clients come by interfaces: write from = ["public", "private"]'
        )
    return text


def parse_replicate(value: object) -> Replicate:
    """Return which flows are replicated: a word, or ``{ min_age = "2s" }``."""
    if isinstance(value, dict):
        if value.keys() != {"min_age"}:
            raise ValueError('a table here has one key: write { min_age = "2s" }')
        return Replicate(min_age_s=parse_duration(value["min_age"]))
    text = parse_text(value)
    if text not in REPLICATE:
        known = ", ".join(REPLICATE)
        raise ValueError(f'{show(text)} is not known: write {known} or {{ min_age = "2s" }}')
    return REPLICATE[text]


def parse_address(value: object) -> Address:
    """Return a unicast address without prefix length or zone."""
    text = parse_text(value)
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError(f"{show(text)} is not an IPv4 or IPv6 address") from None
    return _unicast(address)


def parse_outside_address(value: object) -> Address:
    """Return an address that other machines can have: unicast, not loopback."""
    address = parse_address(value)
    if address.is_loopback:
        raise ValueError(f'"{address}" is a loopback address, other machines cannot reach it')
    return address


def parse_interface(value: object) -> Interface:
    """Return a floating address with its prefix length."""
    text = parse_text(value)
    if "/" not in text:
        parse_outside_address(text)
        raise ValueError(f"{show(text)} has no prefix length: write it like 203.0.113.10/24")
    try:
        interface = ip_interface(text)
    except ValueError:
        raise ValueError(
            f"{show(text)} is not an IPv4 or IPv6 address with a prefix length"
        ) from None
    if "%" in text:  # the interface keeps the zone to itself, its address has none
        raise ValueError(f"{show(text)} has a zone; write the address without it")
    parse_outside_address(str(interface.ip))
    network = interface.network
    if network.prefixlen == 0:
        raise ValueError(f"{show(text)} has prefix length 0, that is every address there is")
    if network.prefixlen < network.max_prefixlen - 1:
        if interface.ip == network.network_address:
            raise ValueError(f"{show(text)} is the network itself, not an address in it")
        if interface.version == 4 and interface.ip == network.broadcast_address:
            raise ValueError(f"{show(text)} is the broadcast address of its network")
    return interface


def parse_network(value: object) -> Network:
    """Return a network; bits behind the prefix must be zero."""
    text = parse_text(value)
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{show(text)} is not an IPv4 or IPv6 network") from None
    if "/" not in text:
        raise ValueError(f'{show(text)} has no prefix length: write "{network}" for one address')
    if "%" in text:
        raise ValueError(f"{show(text)} has a zone; write it without")
    if network.network_address != ip_interface(text).ip:
        raise ValueError(f'{show(text)} has bits behind its prefix: is "{network}" meant?')
    return network


def parse_vip_reference(value: object) -> str:
    """Return the name in ``vip:NAME``."""
    text = parse_text(value)
    if not text.startswith("vip:"):
        raise ValueError(f'{show(text)} names no floating address: write "vip:NAME"')
    return parse_name(text.removeprefix("vip:"))


def parse_port(text: str) -> int:
    """Return a port from 1 to 65535."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ValueError(f"{show(text)} is not a port: they go from 1 to 65535")
    return int(text)


def parse_service_listen(value: object) -> ListenText:
    """Return ``vip:NAME tcp/80`` or ``203.0.113.10 udp/8000-8010`` in its parts."""
    text = parse_text(value)
    words = text.split()
    if len(words) != 2 or words[1].count("/") != 1:
        raise ValueError(
            f'{show(text)} is not a listen: write "vip:NAME tcp/80" or "vip:NAME udp/8000-8010"'
        )
    where, what = words
    vip = parse_vip_reference(where) if where.startswith("vip:") else None
    address = parse_outside_address(where) if vip is None else None
    protocol, _, ports = what.partition("/")
    known = [one.value for one in Protocol]
    if protocol not in known:
        raise ValueError(f"{show(protocol)} is not a protocol; they are {', '.join(known)}")
    first, dash, last = ports.partition("-")
    first_port = parse_port(first)
    last_port = parse_port(last) if dash else first_port
    if last_port < first_port:
        raise ValueError(f"{show(ports)} is not a port range: the lower port comes first")
    return ListenText(vip, address, Protocol(protocol), first_port, last_port)


def parse_server_address(value: object) -> ServerAddress:
    """Return ``10.11.12.101:8080``, ``[2001:db8::1]:8080`` or an address alone."""
    text = parse_text(value)
    host, port = text, None
    if match := re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", text):
        host, port = match[1], match[2]
        if ":" not in host:
            raise ValueError(f"{show(text)}: brackets are for IPv6 addresses")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        address = ip_address(host)
    except ValueError:
        raise ValueError(
            f"{show(text)} is not a server's address: "
            'write "10.11.12.101:8080" or "[2001:db8::1]:8080", or leave the port out to keep '
            "the client's; names are not resolved"
        ) from None
    parse_outside_address(str(address))
    return ServerAddress(address, None if port is None else parse_port(port))


def parse_api_listen(value: object) -> UnixListen | TcpListen:
    """Return ``unix:/path``, ``host:port`` or ``[v6]:port``."""
    text = parse_text(value)
    if text.startswith("unix:"):
        return _unix_listen(text)
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(
            f'{show(text)} is no place to listen: write "unix:/run/hanat/api.sock", '
            '"127.0.0.1:7480" or "[::1]:7480"'
        )
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ip_version(host) != 6:
            raise ValueError(f"{show(host)} is not an IPv6 address")
    elif ":" in host:
        raise ValueError(f'{show(text)}: write an IPv6 address in brackets, "[::1]:7480"')
    elif not HOST.fullmatch(host) or (_looks_like_ipv4(host) and ip_version(host) != 4):
        raise ValueError(f"{show(host)} is not an address or a host name")
    return TcpListen(host, parse_port(port))


def parse_host(value: object) -> str:
    """Return a name by which a machine is asked, without a port."""
    text = parse_text(value)
    if not HOST.fullmatch(text):
        raise ValueError(f"{show(text)} is not a host name; write it without a port")
    return text.lower()


def ip_version(text: str) -> int | None:
    """Return 4 or 6, None when the text is no address."""
    try:
        return ip_address(text).version
    except ValueError:
        return None


def _looks_like_ipv4(host: str) -> bool:
    return re.fullmatch(r"[0-9.]+", host) is not None


def _unix_listen(text: str) -> UnixListen:
    path = Path(text.removeprefix("unix:"))
    if not path.is_absolute() or not text.isprintable():
        raise ValueError(
            f'{show(text)}: a socket needs an absolute path, like "unix:/run/hanat/api.sock"'
        )
    if len(str(path).encode()) > SOCKET_PATH_BYTES_MAX:
        raise ValueError(
            f"{show(text)}: the kernel takes at most {SOCKET_PATH_BYTES_MAX} bytes of socket path"
        )
    return UnixListen(path)


def _unicast(address: Address) -> Address:
    if "%" in str(address):
        raise ValueError(f'"{address}" has a zone; write the address without it')
    if address.is_unspecified or address.is_multicast or str(address) == "255.255.255.255":
        raise ValueError(f'"{address}" is not the address of one machine')
    if address.version == 6 and address.ipv4_mapped is not None:
        # Not `address` itself: Python 3.13 writes it with dots, 3.11 without.
        plain = address.ipv4_mapped
        raise ValueError(f'"::ffff:{plain}" is an IPv4 address: write "{plain}"')
    return address
