"""Flow records to ctnetlink messages and back.

A record (`hanat.core.flows`) says what a flow looks like in the holder's kernel.
To make another kernel look the same one cannot send back what an event said:
entries are created from the *untranslated* tuples, and the kernel derives the
translated reply and the NAT status bits from NAT attributes. Sent unchanged, an
event makes an entry that translates nothing. All of it was measured: 96 of 96
combinations of family, protocol, NAT, mark and zone came out equal to the original.

Cost: 5 us to parse, 8 us to build; `templates` takes this over for what comes often.

Sources: ``include/uapi/linux/netfilter/nfnetlink_conntrack.h``,
``net/netfilter/nf_conntrack_netlink.c``.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from hanat.core.flows import (
    RECORD_V4,
    RECORD_V6,
    RESET_MARK,
    STATUS_ASSURED,
    STATUS_CONFIRMED,
    STATUS_DST_NAT,
    STATUS_EXPECTED,
    STATUS_FIXED_TIMEOUT,
    STATUS_SEEN_REPLY,
    awaits_reset,
    layout_of,
    status_of,
    timeout_of,
    with_reset,
)
from hanat.kernel.netlink import (
    ATTRIBUTE,
    ATTRIBUTE_NESTED,
    HEADER,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    attribute,
    attributes,
    nested,
)

CT_NEW, CT_GET, CT_DELETE, CT_GET_STATS_CPU = 0x100, 0x101, 0x102, 0x104
GROUP_NEW, GROUP_UPDATE, GROUP_DESTROY = 1, 2, 3
FAMILY_HEADER = struct.Struct(">BBH")  # nfgenmsg: family, version, resource
BODY_OFFSET = HEADER.size + FAMILY_HEADER.size

CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_STATUS, CTA_PROTOINFO = 1, 2, 3, 4
CTA_NAT_SRC, CTA_TIMEOUT, CTA_MARK, CTA_ID, CTA_NAT_DST, CTA_ZONE = 6, 7, 8, 12, 13, 18
CTA_COUNTERS_ORIGINAL, CTA_COUNTERS_REPLY, CTA_MARK_MASK, CTA_STATUS_MASK = 9, 10, 21, 26
CTA_COUNTERS_PACKETS, CTA_COUNTERS_BYTES = 1, 2
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_STATS_INSERT_FAILED, CTA_STATS_DROP = 9, 10
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE = 1, 1
TCP_SYN_SENT, TCP_SYN_RECV, TCP_ESTABLISHED, TCP_TIME_WAIT, TCP_CLOSE = 1, 2, 3, 7, 8
CTA_PROTOINFO_SCTP = 3
CTA_PROTOINFO_SCTP_STATE, CTA_PROTOINFO_SCTP_VTAG_ORIGINAL, CTA_PROTOINFO_SCTP_VTAG_REPLY = 1, 2, 3
CTA_NAT_PROTO = 3

TCP, UDP, ICMP, ICMPV6, SCTP = 6, 17, 1, 58, 132
PORT_PROTOCOLS = frozenset({TCP, UDP, SCTP})
PROTOCOLS = PORT_PROTOCOLS | {ICMP, ICMPV6}

# Attributes of id, type and code.
ICMP_ATTRIBUTES = {ICMP: (4, 5, 6), ICMPV6: (7, 8, 9)}
ICMP_ANSWERS = {
    ICMP: {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17},
    ICMPV6: {128: 129, 129: 128},
}

# The kernel takes these bits from us; those of NAT it sets itself.
STATUS_SENT = STATUS_SEEN_REPLY | STATUS_ASSURED | STATUS_CONFIRMED

# IP_CT_TCP_FLAG_BE_LIBERAL: window state does not travel, so do not judge by it.
TCP_BE_LIBERAL = 0x08

# A backup sees no packets, so nothing would extend the timeout of an installed entry; the
# holder's DESTROY removes it. The kernel counts in signed 32 bits of ticks: 24.8 days at most.
WAITING_TIMEOUT_S = 20 * 86_400

# A connection that waits for its ends to be reset. Keepalives of Linux begin after two hours
# of silence, and nine of them take eleven minutes (tcp(7)): who sends any has spoken by then.
RESET_TIMEOUT_S = 8_100

# Takes a buffer, the start and the end of one message.
Parser = Callable[[bytes, int, int], bytes | None]

# The tuple of a flow with ports, which is nearly every one; in this order since the
# kernel has ctnetlink. Reading and writing it at once makes both twice as fast.
_PORTS_LAYOUT = "HH HHB3x HH2s2x HH2s2x"
_TUPLE_V4 = struct.Struct("=HH HH4s HH4s " + _PORTS_LAYOUT)
_TUPLE_V6 = struct.Struct("=HH HH16s HH16s " + _PORTS_LAYOUT)
_PARTS_V4 = struct.Struct("=4x 4x4s 4x4s 4x 4xB3x 4x2s2x 4x2s2x")
_PARTS_V6 = struct.Struct("=4x 4x16s 4x16s 4x 4xB3x 4x2s2x 4x2s2x")
_TUPLE_LAYOUTS = {4: (_TUPLE_V4, 1), 16: (_TUPLE_V6, 3)}  # first address attribute
_PARTS_LAYOUTS = {_PARTS_V4.size: _PARTS_V4, _PARTS_V6.size: _PARTS_V6}

_PROTOINFO = struct.Struct("=HH HH HHB3x HHB3x HHB3x HHBB2x HHBB2x")

_U32 = struct.Struct(">I")
_U16 = struct.Struct(">H")
_WAITING = _U32.pack(WAITING_TIMEOUT_S)
_RESET = _U32.pack(RESET_TIMEOUT_S)
_NO_TCP = bytes(5)
_TupleParts = tuple[bytes, bytes, int, bytes]


def record_of(buffer: bytes, start: int, end: int) -> bytes | None:
    """Return the record in one ctnetlink message, None for other protocols than ours."""
    found = _values(buffer, start + BODY_OFFSET, end)
    original = _tuple_of(found.get(CTA_TUPLE_ORIG, b""))
    reply = _tuple_of(found.get(CTA_TUPLE_REPLY, b""))
    if original is None or reply is None:
        return None
    ident, status, timeout_s, mark, zone = [
        int.from_bytes(found.get(kind, b""), "big")
        for kind in (CTA_ID, CTA_STATUS, CTA_TIMEOUT, CTA_MARK, CTA_ZONE)
    ]
    tcp = _NO_TCP
    if CTA_PROTOINFO in found and original[2] == SCTP:
        tcp, ident = _sctp_of(found[CTA_PROTOINFO])
    elif CTA_PROTOINFO in found:
        tcp = _tcp_of(found[CTA_PROTOINFO])
    layout = RECORD_V4 if len(original[0]) == 4 else RECORD_V6
    return layout.pack(
        original[0], original[1], reply[0], reply[1], original[3], reply[3],
        ident, status, timeout_s, mark, zone, original[2], *tcp,
    )  # fmt: skip


def counters_of(buffer: bytes, start: int, end: int) -> bytes:
    """Return the counters in one message, as `core.accounting` has them; 0 if there are none."""
    top = _values(buffer, start + BODY_OFFSET, end)
    counters = b""
    for direction in (CTA_COUNTERS_ORIGINAL, CTA_COUNTERS_REPLY):
        payload = top.get(direction, b"")
        found = _values(payload, 0, len(payload))
        counters += found.get(CTA_COUNTERS_PACKETS, bytes(8))
        counters += found.get(CTA_COUNTERS_BYTES, bytes(8))
    return counters


def _values(buffer: bytes, start: int, end: int) -> dict[int, bytes]:
    """Return the payload of each attribute by its type."""
    return {kind: buffer[first:last] for kind, first, last in attributes(buffer, start, end)}


def _tuple_of(payload: bytes) -> _TupleParts | None:
    """Return source, destination, protocol and both ports as they stand in a record."""
    fixed = _PARTS_LAYOUTS.get(len(payload))
    if fixed is not None:
        source, destination, protocol, source_port, destination_port = fixed.unpack(payload)
        if protocol in PORT_PROTOCOLS:
            return source, destination, protocol, source_port + destination_port
    parts = _values(payload, 0, len(payload))
    addresses, proto = parts.get(CTA_TUPLE_IP, b""), parts.get(CTA_TUPLE_PROTO, b"")
    ip = _values(addresses, 0, len(addresses))
    if len(ip) != 2:
        return None
    source, destination = (ip[kind] for kind in sorted(ip))
    found = _values(proto, 0, len(proto))
    (protocol,) = found.get(CTA_PROTO_NUM, b"\0")
    if protocol in ICMP_ATTRIBUTES:
        ports = b"".join(found[kind] for kind in ICMP_ATTRIBUTES[protocol])
    elif protocol in PROTOCOLS:
        ports = found[CTA_PROTO_SRC_PORT] + found[CTA_PROTO_DST_PORT]
    else:
        return None
    return source, destination, protocol, ports


def _tcp_of(payload: bytes) -> bytes:
    """Return state, both window scales and both flags; all but the first are optional."""
    tcp = _values(payload, 0, len(payload)).get(CTA_PROTOINFO_TCP, b"")
    found = _values(tcp, 0, len(tcp))
    return b"".join([found.get(kind, b"\0")[:1] for kind in (1, 2, 3, 4, 5)])


def _sctp_of(payload: bytes) -> tuple[bytes, int]:
    """Return state and verification tag of the reply, and the tag of the original direction."""
    sctp = _values(payload, 0, len(payload)).get(CTA_PROTOINFO_SCTP, b"")
    found = _values(sctp, 0, len(sctp))
    state = found.get(CTA_PROTOINFO_SCTP_STATE, b"\0")[:1]
    original, reply = (
        found.get(kind, bytes(4))
        for kind in (CTA_PROTOINFO_SCTP_VTAG_ORIGINAL, CTA_PROTOINFO_SCTP_VTAG_REPLY)
    )
    return state + reply, int.from_bytes(original, "big")


def create_message(record: bytes, sequence: int) -> bytes | None:
    """Return the message that creates a record's entry, None if it cannot be created.

    The entry lasts for `WAITING_TIMEOUT_S`.

    Args:
        record: A flow, as the holder's kernel has it.
        sequence: What an error will be recognised by.
    """
    (source, destination, reply_source, reply_destination, ports, reply_ports, _, status,
     _, _, zone, protocol, *_) = layout_of(record).unpack(record)  # fmt: skip
    inverse = _inverse(protocol, ports)
    if inverse is None:
        return None
    parts = [
        tuple_attribute(CTA_TUPLE_ORIG, source, destination, protocol, ports),
        tuple_attribute(CTA_TUPLE_REPLY, destination, source, protocol, inverse),
        attribute(CTA_STATUS, _U32.pack(status & STATUS_SENT)),
        attribute(CTA_TIMEOUT, _WAITING),
    ]
    if awaits_reset(record):  # the other bits are those of programs of another machine
        parts.append(_reset_mark())
    if zone:
        parts.append(attribute(CTA_ZONE, _U16.pack(zone)))
    parts.append(_protoinfo_of(record))
    is_icmp = protocol in ICMP_ATTRIBUTES
    # Also where the source is not translated: left to itself, the kernel would give
    # the flow another source port when the translated tuple is taken, and say nothing.
    port = reply_ports[:2] if is_icmp else reply_ports[2:]
    parts.append(_nat(CTA_NAT_SRC, reply_destination, port))
    if status & STATUS_DST_NAT:
        parts.append(_nat(CTA_NAT_DST, reply_source, b"" if is_icmp else reply_ports[:2]))
    flags = NLM_F_CREATE | NLM_F_EXCL
    return _message(CT_NEW, flags, len(source), b"".join(parts), sequence)


def renewal_message(record: bytes, sequence: int) -> bytes | None:
    """Return the message that gives an entry the record's state, to last as if created.

    Bits of the status are added, never taken away: the kernel refuses that. None for unknown
    protocols.
    """
    found = _named(record)
    if found is None:
        return None
    status = attribute(CTA_STATUS, _U32.pack(status_of(record) & STATUS_SENT))
    body = found + status + attribute(CTA_TIMEOUT, _WAITING) + _protoinfo_of(record)
    return _message(CT_NEW, 0, _address_bytes(record), body, sequence)


def reset_message(record: bytes, sequence: int) -> bytes | None:
    """Return the message that lets a TCP flow wait for its ends to be reset, else None.

    The entry becomes what `core.flows.with_reset` says, and stays `RESET_TIMEOUT_S` whatever
    packets come: without that bit of the status the first packet, or the reset that answers it,
    would leave it the ten seconds of a closed connection, and the other end would meet silence.
    Of the mark only our bit is written: the kernel takes ``(old & ~mask) ^ mark``.
    """
    found = _named(record)
    if found is None or record[-6] != TCP:
        return None
    wanted = with_reset(record)
    status = status_of(wanted) & (STATUS_SENT | STATUS_EXPECTED) | STATUS_FIXED_TIMEOUT
    body = (
        found
        + attribute(CTA_STATUS, _U32.pack(status))
        + attribute(CTA_TIMEOUT, _RESET)
        + _protoinfo_of(wanted)
        + _reset_mark()
    )
    return _message(CT_NEW, 0, _address_bytes(record), body, sequence)


def _reset_mark() -> bytes:
    bit = _U32.pack(RESET_MARK)
    return attribute(CTA_MARK, bit) + attribute(CTA_MARK_MASK, bit)


def timeout_message(record: bytes, sequence: int) -> bytes | None:
    """Return the message that gives an entry the record's timeout, None for unknown protocols."""
    found = _named(record)
    if found is None:
        return None
    body = found + attribute(CTA_TIMEOUT, _U32.pack(timeout_of(record)))
    return _message(CT_NEW, 0, _address_bytes(record), body, sequence)


def delete_message(record: bytes, sequence: int) -> bytes | None:
    """Return the message that deletes by original tuple, None for unknown protocols.

    The id of the record is left out: every kernel has its own.
    """
    body = _named(record)
    # Without a tuple the kernel would delete everything.
    if body is None:
        return None
    return _message(CT_DELETE, 0, _address_bytes(record), body, sequence)


def _named(record: bytes) -> bytes | None:
    """Return the attributes that name an entry: original tuple and zone."""
    source, destination, _, _, ports, _, _, _, _, _, zone, protocol, *_ = layout_of(record).unpack(
        record
    )
    if protocol not in PROTOCOLS:
        return None
    named = tuple_attribute(CTA_TUPLE_ORIG, source, destination, protocol, ports)
    return named + attribute(CTA_ZONE, _U16.pack(zone)) if zone else named


def _address_bytes(record: bytes) -> int:
    return 4 if len(record) == RECORD_V4.size else 16


def dump_message() -> bytes:
    """Return the body of a request for all entries of both families."""
    return FAMILY_HEADER.pack(socket.AF_UNSPEC, 0, 0)


def services_dump_message() -> bytes:
    """Return the body of a request for the entries whose destination is translated.

    Kernels before 5.18 know no such filter, and tell of all entries.
    """
    wanted = _U32.pack(STATUS_DST_NAT)
    return dump_message() + attribute(CTA_STATUS, wanted) + attribute(CTA_STATUS_MASK, wanted)


def statistics_of(answer: bytes) -> tuple[int, int]:
    """Return of one processor: entries that were not inserted, packets that found no room."""
    found = {
        kind: int.from_bytes(answer[start:end], "big")
        for kind, start, end in attributes(answer, BODY_OFFSET, len(answer))
    }
    return found.get(CTA_STATS_INSERT_FAILED, 0), found.get(CTA_STATS_DROP, 0)


def _message(kind: int, flags: int, address_bytes: int, body: bytes, sequence: int) -> bytes:
    family = socket.AF_INET if address_bytes == 4 else socket.AF_INET6
    length = BODY_OFFSET + len(body)
    header = HEADER.pack(length, kind, NLM_F_REQUEST | flags, sequence, 0)
    return header + FAMILY_HEADER.pack(family, 0, 0) + body


def _inverse(protocol: int, ports: bytes) -> bytes | None:
    """Return the ports of the untranslated reply, as in a record."""
    if protocol not in PROTOCOLS:
        return None
    if protocol not in ICMP_ATTRIBUTES:
        return ports[2:] + ports[:2]
    answer = ICMP_ANSWERS[protocol].get(ports[2])
    return None if answer is None else ports[:2] + bytes((answer, ports[3]))


def tuple_attribute(
    kind: int, source: bytes, destination: bytes, protocol: int, ports: bytes
) -> bytes:
    """Return the attribute of one direction, ports as in a record."""
    size = len(source)
    layout, first = _TUPLE_LAYOUTS[size]
    if protocol in PORT_PROTOCOLS:
        body = layout.pack(
            2 * size + 12, CTA_TUPLE_IP | ATTRIBUTE_NESTED,
            size + 4, first, source, size + 4, first + 1, destination,
            28, CTA_TUPLE_PROTO | ATTRIBUTE_NESTED, 5, CTA_PROTO_NUM, protocol,
            6, CTA_PROTO_SRC_PORT, ports[:2], 6, CTA_PROTO_DST_PORT, ports[2:],
        )  # fmt: skip
        return ATTRIBUTE.pack(len(body) + 4, kind | ATTRIBUTE_NESTED) + body
    ident, icmp_type, icmp_code = ICMP_ATTRIBUTES[protocol]
    addresses = attribute(first, source) + attribute(first + 1, destination)
    proto = (
        attribute(CTA_PROTO_NUM, bytes((protocol,)))
        + attribute(ident, ports[:2])
        + attribute(icmp_type, ports[2:3])
        + attribute(icmp_code, ports[3:])
    )
    return nested(kind, nested(CTA_TUPLE_IP, addresses) + nested(CTA_TUPLE_PROTO, proto))


def _protoinfo_of(record: bytes) -> bytes:
    """Return the attribute with the state of a protocol that has one."""
    if record[-6] == TCP:
        return _tcp_protoinfo(*record[-5:])
    if record[-6] != SCTP:
        return b""
    values = (
        attribute(CTA_PROTOINFO_SCTP_STATE, record[-5:-4])
        + attribute(CTA_PROTOINFO_SCTP_VTAG_ORIGINAL, record[-24:-20])
        + attribute(CTA_PROTOINFO_SCTP_VTAG_REPLY, record[-4:])
    )
    return nested(CTA_PROTOINFO, nested(CTA_PROTOINFO_SCTP, values))


def _tcp_protoinfo(state: int, scale: int, reply_scale: int, flags: int, reply_flags: int) -> bytes:
    # Flags travel with a mask of those that count; an event lacks it.
    return _PROTOINFO.pack(
        48, CTA_PROTOINFO | ATTRIBUTE_NESTED, 44, CTA_PROTOINFO_TCP | ATTRIBUTE_NESTED,
        5, 1, state, 5, 2, scale, 5, 3, reply_scale,
        6, 4, flags | TCP_BE_LIBERAL, 0xFF, 6, 5, reply_flags | TCP_BE_LIBERAL, 0xFF,
    )  # fmt: skip


def _nat(kind: int, address: bytes, port: bytes) -> bytes:
    """Return a range of one address and, where given, one port or id."""
    first = 1 if len(address) == 4 else 4  # CTA_NAT_V4_MINIP, CTA_NAT_V6_MINIP
    body = attribute(first, address) + attribute(first + 1, address)
    if port:
        body += nested(CTA_NAT_PROTO, attribute(1, port) + attribute(2, port))
    return nested(kind, body)
