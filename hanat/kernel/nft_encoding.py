"""Put what a rotation changes into netlink messages, without the nft library.

Before each command libnftables asks the kernel for every set and chain of every table, and begins
anew whenever anything changes meanwhile. With a thousand services that takes 6 ms for a
transaction the kernel needs 0.3 ms for, and seconds beside a gate that is armed every few
milliseconds. So the few kinds of lines that `core.services` and `core.steps` write for a rotation
are encoded here, as libnftables 1.0.6 does: a table that was made so cannot be told from one that
it made. A script with anything else in it is left to the library.

Source: ``include/uapi/linux/netfilter/nf_tables.h``; ``nft --debug=mnl``.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from ipaddress import ip_address
from itertools import count

from hanat.core.notation import TABLE
from hanat.kernel.netlink import ATTRIBUTE_NESTED, NLM_F_CREATE, attribute, nested
from hanat.kernel.nfnetlink import (
    DELETE_ELEMENTS,
    FAMILIES,
    GENERIC,
    NEW_ELEMENTS,
    SUBSYSTEM,
    Message,
)

_NEW_CHAIN, _DELETE_CHAIN, _NEW_RULE, _NEW_SET = (SUBSYSTEM << 8 | n for n in (3, 5, 6, 9))
_NEW_OBJECT, _DELETE_OBJECT = (SUBSYSTEM << 8 | n for n in (18, 20))
_NLM_F_APPEND = 0x800
_SLOT = struct.Struct("=HHHHHHI")  # element, key, value: length and type of each; the slot
_NESTED = ATTRIBUTE_NESTED | 1
ELEMENTS_MAX = 500  # of a message: the length of an attribute has 16 bits

_REGISTER, _ADDRESS_REGISTER, _HASHED_REGISTER = 1, 1, 12  # NFT_REG_1, NFT_REG32_04
_PORT_REGISTER = {4: 9, 6: 2}  # what follows the address: NFT_REG32_01, NFT_REG_2
_NFPROTO = {4: 2, 6: 10}
_PROTOCOLS = {"tcp": 6, "udp": 17}
_PROTO_TYPE, _INTEGER_TYPE, _SERVICE_TYPE = 12, 4, 13  # nft's own numbers of data types
_ADDRESS_TYPES = {4: 7, 6: 8}
_TYPE_BITS = 6
_ANONYMOUS, _CONSTANT, _MAP = 1, 2, 8
_GOTO, _JUMP, _DROP, _ACCEPT = -4, -3, 0, 1
_VERDICT_REGISTER, _VERDICT_TYPE = 0, 0xFFFFFF00
_UPDATE = 1  # NFT_DYNSET_OP_UPDATE
_META_L4PROTO, _META_NFPROTO = 16, 15
_COUNTER = 1  # NFT_OBJECT_COUNTER
# How the kernel mends checksums: that of the header itself, its offset, and that of what follows.
_MENDED = {"ip": (1, 10, 1), "ip6": (0, 0, 1), "udp": (1, 6, 0), "@th": (0, 0, 0)}
_UDP_CHECKSUM = (2, 6, 2)
_NAT_PORT_GIVEN = 2
# How nft is to show a set: the order of bytes of keys and data; of protocols, what they are.
_SHOWN = {
    "pairs": bytes.fromhex("000401000000 010400000000 060400000000"),
    "addresses": bytes.fromhex("000401000000 010402000000 060400000000"),
    "chains": bytes.fromhex("000401000000 010400000000 04080004010000000100 060400000000"),
    "protocols": bytes.fromhex("000401000000 030e 000409000000 0106000410000000"),
}

_SERVICE = r"(?P<name>[A-Za-z0-9._/-]+)"
_BEGINNINGS = (
    f"table inet {TABLE} {{\n", "add element", "delete element", "delete chain", "delete counter",
)  # fmt: skip
_CHAIN = re.compile(rf"    chain {_SERVICE} \{{")
_COUNTER_BLOCK = re.compile(rf"    counter {_SERVICE} \{{")
_DELETE = re.compile(rf"delete (?P<kind>chain|counter) inet {TABLE} {_SERVICE}")
_CHANGE = re.compile(rf"(?P<verb>add|delete) element inet {TABLE} {_SERVICE} \{{ (?P<some>.*) \}}")
_PROTOCOL = r"meta l4proto (?P<protocols>tcp|udp|\{ tcp, udp \})"
_CHOSEN = r"(?P<choice>(?:numgen|jhash) [^{}@]*)"
_ONE = re.compile(rf"{_PROTOCOL} dnat ip6? to (?P<target>[^ {{}}]+)")
_SOME = re.compile(rf"{_PROTOCOL} dnat ip6? to {_CHOSEN} map \{{ (?P<elements>[^{{}}]*) \}}")
_CHAINS = re.compile(
    rf"{_PROTOCOL} {_CHOSEN} vmap (?:@(?P<set>\S+)|\{{ (?P<elements>[^{{}}]*) \}})"
)
_CLIENT = r"(?P<family>ip6?) saddr(?: and (?P<mask>\S+))?"
_RECALL = re.compile(rf"{_CLIENT} @(?P<set>\S+) goto (?P<chain>\S+)")
_REMEMBER = re.compile(rf"update @(?P<set>\S+) \{{ {_CLIENT} \}}")
_VERDICT = re.compile(r"counter (?P<verdict>accept|drop)")
_LIMITED = re.compile(r"jump (?P<chain>limits/\S+)")
_GO = re.compile(r"goto (?P<chain>\S+)")
_COUNTED = re.compile(rf"counter name {_SERVICE}")
_WRITTEN = re.compile(
    r"(?P<unchecked>udp checksum 0 )?(?P<head>ip6?|udp|@th),?(?P<field> [sd]addr| [sd]port|\d+,16)"
    r" set (?P<value>\S+)(?P<accept> accept)?"
)
_CHOICE = re.compile(
    r"(?:numgen (?P<kind>inc|random)|jhash (?P<fields>.*)) mod (?P<mod>\d+)"
    r"(?: seed (?P<seed>0x[0-9a-f]+))?"
)
_FIELDS = {  # base (1: of the network, 2: of the transport), offset, bytes
    "ip saddr": (1, 12, 4),
    "ip daddr": (1, 16, 4),
    "ip6 saddr": (1, 8, 16),
    "ip6 daddr": (1, 24, 16),
    "th sport": (2, 0, 2),
    "th dport": (2, 2, 2),
    "udp sport": (2, 0, 2),
    "udp dport": (2, 2, 2),
    "@th0,16": (2, 0, 2),
    "@th16,16": (2, 2, 2),
}


# Without ranges; no name of an interface has an underscore.
_SINGLE = re.compile(r"(listens|one_packet_(servers|answers|turns|asked_[a-z0-9-]+))_v")


_NOTHING_COUNTED = attribute(1, bytes(8)) + attribute(2, bytes(8))  # bytes, packets


class _UnknownError(Exception):
    """A line of another kind."""


def encoded(script: str) -> list[Message] | None:
    """Return the messages of a script, None if it has something that is not known here."""
    if not script.startswith(_BEGINNINGS):
        return None
    try:
        return list(_messages(script.splitlines()))
    except (_UnknownError, ValueError):
        return None


def _messages(lines: Sequence[str]) -> Iterator[Message]:
    chain = ""
    numbers = count(1)
    for line in lines:
        text = line.strip()
        if not text or text.startswith("#") or text == "}" or line == f"table inet {TABLE} {{":
            continue
        if found := _CHAIN.fullmatch(line):
            chain = found["name"]
            yield _NEW_CHAIN, NLM_F_CREATE, _named(1, 3, chain)
        elif found := _COUNTER_BLOCK.fullmatch(line):
            named = _named(1, 2, found["name"]) + _number(3, _COUNTER)
            yield _NEW_OBJECT, NLM_F_CREATE, named + nested(4, _NOTHING_COUNTED)
        elif line.startswith("        "):
            yield from _rule(chain, text, numbers)
        elif found := _DELETE.fullmatch(line):
            if found["kind"] == "chain":
                yield _DELETE_CHAIN, 0, _named(1, 3, found["name"])
            else:
                yield _DELETE_OBJECT, 0, _named(1, 2, found["name"]) + _number(3, _COUNTER)
        elif found := _CHANGE.fullmatch(line):
            yield from _change(found["verb"], found["name"], found["some"].split(", "))
        else:
            raise _UnknownError(line)


def _named(table: int, kind: int, name: str) -> bytes:
    """Return the head of a message: attributes that name the table, and what is in it."""
    return (
        GENERIC.pack(FAMILIES["inet"], 0, 0)
        + attribute(table, TABLE.encode() + b"\0")
        + attribute(kind, name.encode() + b"\0")
    )


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


# ------------------------------------------------------------------------------ rules


def _rule(chain: str, text: str, numbers: Iterator[int]) -> Iterator[Message]:
    """Yield the sets of a rule, and the rule."""
    sets: list[Message] = []
    expressions = [*_plain(text)]
    if expressions:
        pass
    elif found := _ONE.fullmatch(text):
        expressions = [*_match(found["protocols"], sets, numbers), *_to_one(found["target"])]
    elif found := _SOME.fullmatch(text):
        expressions = [
            *_match(found["protocols"], sets, numbers),
            *_to_some(found["choice"], found["elements"], sets, numbers),
        ]
    elif found := _CHAINS.fullmatch(text):
        expressions = [*_match(found["protocols"], sets, numbers), *_chosen(found["choice"])]
        if found["set"]:
            expressions.append(_lookup(found["set"], None, _number(3, _VERDICT_REGISTER)))
        else:
            expressions.append(_to_chains(found["elements"], sets, numbers))
    elif found := _RECALL.fullmatch(text):
        expressions = [
            *_client(found["family"], found["mask"]),
            _lookup(found["set"], None),
            _immediate(_VERDICT_REGISTER, _verdict(_GOTO, found["chain"])),
        ]
    elif found := _REMEMBER.fullmatch(text):
        named = attribute(1, found["set"].encode() + b"\0")
        update = _expression("dynset", _number(4, _REGISTER), _number(3, _UPDATE), named)
        expressions = [*_client(found["family"], found["mask"]), update]
    else:
        raise _UnknownError(text)
    yield from sets
    listed = b"".join(nested(1, expression) for expression in expressions)
    yield _NEW_RULE, NLM_F_CREATE | _NLM_F_APPEND, _named(1, 2, chain) + nested(4, listed)


def _plain(text: str) -> Iterator[bytes]:
    """Yield the expressions of a rule that looks nothing up; none if it is another one."""
    if found := _VERDICT.fullmatch(text):
        yield _counter()
        verdict = _ACCEPT if found["verdict"] == "accept" else _DROP
        yield _immediate(_VERDICT_REGISTER, _verdict(verdict))
    elif found := _LIMITED.fullmatch(text):
        yield _immediate(_VERDICT_REGISTER, _verdict(_JUMP, found["chain"]))
    elif found := _COUNTED.fullmatch(text):
        yield _expression(
            "objref", _number(1, _COUNTER), attribute(2, found["name"].encode() + b"\0")
        )
    elif found := _WRITTEN.fullmatch(text):
        yield from _written(found)
    elif found := _GO.fullmatch(text):
        yield _immediate(_VERDICT_REGISTER, _verdict(_GOTO, found["chain"]))


def _expression(name: str, *parts: bytes) -> bytes:
    return attribute(1, name.encode() + b"\0") + nested(2, b"".join(parts))


def _counter() -> bytes:
    return _expression("counter", _NOTHING_COUNTED)


def _written(found: re.Match[str]) -> Iterator[bytes]:
    """Write an address or a port into the packet; what demands no checksum stays without."""
    head, field = found["head"], found["field"]
    base, offset, size = _FIELDS[head + field]
    if head in {"ip", "ip6"}:
        yield from _of_family(6 if head == "ip6" else 4)
        value = ip_address(found["value"]).packed
    else:
        yield _meta(_META_L4PROTO)
        yield _equals(_PROTOCOLS["udp"])
        value = struct.pack(">H", int(found["value"]))
    if found["unchecked"]:
        yield _loaded(*_UDP_CHECKSUM)
        yield _expression(
            "cmp", _number(1, _REGISTER), _number(2, 0), nested(3, attribute(1, bytes(2)))
        )
    yield _immediate(_REGISTER, attribute(1, value))
    kind, where, flags = _MENDED[head]
    yield _expression(
        "payload",
        *(_number(5, _REGISTER), _number(2, base), _number(3, offset), _number(4, size)),
        *(_number(6, kind), _number(7, where)),
        *([_number(8, flags)] if flags else []),
    )
    if found["accept"]:
        yield _immediate(_VERDICT_REGISTER, _verdict(_ACCEPT))


def _loaded(base: int, offset: int, size: int) -> bytes:
    return _expression(
        "payload", _number(1, _REGISTER), _number(2, base), _number(3, offset), _number(4, size)
    )


def _immediate(register: int, data: bytes) -> bytes:
    return _expression("immediate", _number(1, register), nested(2, data))


def _meta(key: int) -> bytes:
    return _expression("meta", _number(2, key), _number(1, _REGISTER))


def _equals(value: int) -> bytes:
    return _expression(
        "cmp", _number(1, _REGISTER), _number(2, 0), nested(3, attribute(1, bytes([value])))
    )


def _match(protocols: str, sets: list[Message], numbers: Iterator[int]) -> Iterator[bytes]:
    yield _meta(_META_L4PROTO)
    if protocols in _PROTOCOLS:
        yield _equals(_PROTOCOLS[protocols])
        return
    number = next(numbers)
    keys = [nested(1, nested(1, attribute(1, bytes([p])))) for p in _PROTOCOLS.values()]
    types = _number(4, _PROTO_TYPE) + _number(5, 1)
    sets += _anonymous("__set%d", number, keys, types, _SHOWN["protocols"])
    yield _lookup("__set%d", number)


def _lookup(name: str, number: int | None, *more: bytes) -> bytes:
    """Look a set up; one of the same transaction has a number."""
    named = attribute(1, name.encode() + b"\0")
    if number is not None:
        named += _number(4, number)
    return _expression("lookup", _number(2, _REGISTER), *more, named)


def _verdict(code: int, chain: str = "") -> bytes:
    return nested(2, _number(1, code) + (attribute(2, chain.encode() + b"\0") if chain else b""))


def _client(family: str, mask: str | None) -> Iterator[bytes]:
    """Put what tells clients apart into the register."""
    yield from _of_family(6 if family == "ip6" else 4)
    base, offset, size = _FIELDS[f"{family} saddr"]
    yield _expression(
        "payload", _number(1, _REGISTER), _number(2, base), _number(3, offset), _number(4, size)
    )
    if mask:
        yield _expression(
            "bitwise",
            *(_number(1, _REGISTER), _number(2, _REGISTER), _number(6, 0), _number(3, size)),
            nested(4, attribute(1, ip_address(mask).packed)),
            nested(5, attribute(1, bytes(size))),
        )


def _of_family(version: int) -> Iterator[bytes]:
    yield _meta(_META_NFPROTO)
    yield _equals(_NFPROTO[version])


def _to_one(text: str) -> Iterator[bytes]:
    """Translate to a fixed address and port."""
    version, address, port = _target(text)
    yield _immediate(_ADDRESS_REGISTER, attribute(1, address))
    if port is None:
        yield _nat(version)
    else:
        yield _immediate(2, attribute(1, struct.pack(">H", port)))
        yield _nat(version, _number(5, 2), _number(7, _NAT_PORT_GIVEN))


def _nat(version: int, *more: bytes) -> bytes:
    family, address = _number(2, _NFPROTO[version]), _number(3, _ADDRESS_REGISTER)
    return _expression("nat", _number(1, 1), family, address, *more)


def _to_some(
    choice: str, elements: str, sets: list[Message], numbers: Iterator[int]
) -> Iterator[bytes]:
    """Translate to what a map has for the slot that is chosen."""
    pairs = [element.split(" : ") for element in elements.split(", ")]
    targets = {text: _target(text) for text in {text for _, text in pairs}}
    ((version, has_port),) = {(v, port is not None) for v, _, port in targets.values()}
    datas = {
        text: nested(
            2, attribute(1, address + (b"" if port is None else struct.pack(">Hxx", port)))
        )
        for text, (_, address, port) in targets.items()
    }
    listed = [_slot(slot, datas[text]) for slot, text in pairs]
    kind = _ADDRESS_TYPES[version]
    size = 4 if version == 4 else 16
    if has_port:
        kind, size = kind << _TYPE_BITS | _SERVICE_TYPE, size + 4
    number = next(numbers)
    types = (_number(4, _INTEGER_TYPE), _number(5, 4), _number(6, kind), _number(7, size))
    shown = _SHOWN["pairs" if has_port else "addresses"]
    sets += _anonymous("__map%d", number, listed, b"".join(types), shown)
    yield from _chosen(choice)
    yield _lookup("__map%d", number, _number(3, _ADDRESS_REGISTER))
    yield _nat(version, *([_number(5, _PORT_REGISTER[version])] if has_port else []))


def _to_chains(elements: str, sets: list[Message], numbers: Iterator[int]) -> bytes:
    """Go to the chain that a map has for the slot that is chosen."""
    pairs = [element.split(" : ") for element in elements.split(", ")]
    listed = [_slot(slot, _goto(text)) for slot, text in pairs]
    number = next(numbers)
    types = (_number(4, _INTEGER_TYPE), _number(5, 4), _number(6, _VERDICT_TYPE), _number(7, 0))
    sets += _anonymous("__map%d", number, listed, b"".join(types), _SHOWN["chains"])
    return _lookup("__map%d", number, _number(3, _VERDICT_REGISTER))


def _chosen(choice: str) -> Iterator[bytes]:
    """Put the number of a slot into the register."""
    found = _CHOICE.fullmatch(choice)
    if found is None:
        raise _UnknownError(choice)
    modulus = int(found["mod"])
    if found["kind"]:
        kind = int(found["kind"] == "random")
        numbers = (_number(1, _REGISTER), _number(2, modulus), _number(3, kind), _number(4, 0))
        yield _expression("numgen", *numbers)
        return
    yield from _of_family(6 if found["fields"].startswith("ip6 ") else 4)
    length = 0
    for name in found["fields"].split(" . "):
        base, offset, size = _FIELDS[name]
        register = _HASHED_REGISTER + length // 4
        yield _expression(
            "payload", _number(1, register), _number(2, base), _number(3, offset), _number(4, size)
        )
        length += size + -size % 4
    yield _expression(
        "hash",
        *(_number(1, _HASHED_REGISTER), _number(2, _REGISTER), _number(3, length)),
        *(_number(4, modulus), _number(5, int(found["seed"], 16)), _number(7, 0)),
    )


def _target(text: str) -> tuple[int, bytes, int | None]:
    """Return version, packed address and port."""
    if text.count(":") > 1 and not text.startswith("["):
        address, _, port = text.partition(" . ")
    elif text.startswith("["):
        address, _, port = text[1:].partition("]:")
    else:
        address, _, port = text.replace(" . ", ":").partition(":")
    parsed = ip_address(address)
    return parsed.version, parsed.packed, int(port) if port else None


# --------------------------------------------------------------------------- elements


def _anonymous(
    name: str, number: int, elements: Sequence[bytes], types: bytes, shown: bytes
) -> Iterator[Message]:
    """Yield a set of a rule, and its elements."""
    flags = _ANONYMOUS | _CONSTANT | (_MAP if name == "__map%d" else 0)
    named = _named(1, 2, name)
    size = nested(9, _number(1, len(elements)))
    rest = _number(10, number) + size + attribute(13, shown)
    yield _NEW_SET, NLM_F_CREATE, named + _number(3, flags) + types + rest
    yield from _listed(NEW_ELEMENTS, NLM_F_CREATE, named + _number(4, number), elements)


def _listed(kind: int, flags: int, head: bytes, elements: Sequence[bytes]) -> Iterator[Message]:
    for first in range(0, len(elements), ELEMENTS_MAX):
        some = b"".join(elements[first : first + ELEMENTS_MAX])
        yield kind, flags, head + nested(3, some)


def _change(verb: str, name: str, elements: Sequence[str]) -> Iterator[Message]:
    """Yield what adds elements to a map or set with a name, or deletes them."""
    listed = []
    for element in elements:
        asked, _, target = element.partition(" : ")
        data = _goto(target) if target else b""
        if name.startswith("slots/"):
            listed.append(_slot(asked, data))
        else:
            listed.append(nested(1, _asked(asked, ranged=not _SINGLE.match(name)) + data))
    kind, flags = (NEW_ELEMENTS, NLM_F_CREATE) if verb == "add" else (DELETE_ELEMENTS, 0)
    yield from _listed(kind, flags, _named(1, 2, name), listed)


def _slot(text: str, data: bytes) -> bytes:
    """Return an element of a table; there are a thousand of them."""
    length = _SLOT.size + len(data)
    return _SLOT.pack(length, _NESTED, 12, _NESTED, 8, 1, int(text)) + data


def _asked(text: str, *, ranged: bool) -> bytes:
    """Return the key of ``203.0.113.10 . tcp . 80`` or a range of ports, and where that ends."""
    address, protocol, ports = text.split(" . ")
    head = ip_address(address).packed + bytes([_PROTOCOLS[protocol], 0, 0, 0])
    first, _, last = ports.partition("-")
    key = nested(1, attribute(1, head + struct.pack(">Hxx", int(first))))
    if not ranged:
        return key
    return key + nested(10, attribute(1, head + struct.pack(">Hxx", int(last or first))))


@lru_cache(maxsize=256)
def _goto(text: str) -> bytes:
    word, _, chain = text.partition(" ")
    if word != "goto":
        raise _UnknownError(text)
    return nested(2, _verdict(_GOTO, chain))
