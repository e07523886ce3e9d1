"""Clients and their servers as bytes: an entry of the log for services with persistence.

Layout: `FIRST_BYTE`, feature level (`core.feature_level`), then compressed: per group the lengths
of both names, IP version, prefix length and count; both names; the addresses by column, as in
`worker.flow_batch`; the ages in ticks, four bytes each, by column. No flow batch begins with that
byte.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from struct import Struct
from struct import error as StructFault  # noqa: N812 - `error` says too little

from hanat.core.feature_level import OLDEST, is_readable, readable
from hanat.core.sticky import Told
from hanat.errors import WireError

FIRST_BYTE = b"\xc1"
CLIENTS_MAX = 1000

_GROUP = Struct("!BBBBH")
_AGE_BYTES = 4
_AGE_MAX = (1 << 32) - 1
_SIZES = {4: 4, 6: 16}
_NAME_BYTES_MAX = 255
_BYTES_MAX = CLIENTS_MAX * (_GROUP.size + 2 * _NAME_BYTES_MAX + 16 + _AGE_BYTES)


def is_of_clients(batch: bytes) -> bool:
    """Say whether a batch is of clients, not of flows."""
    return batch.startswith(FIRST_BYTE)


def encode(groups: Iterable[Told], level: int = OLDEST) -> bytes:
    """Return a batch of at most `CLIENTS_MAX` clients."""
    parts: list[bytes] = []
    total = 0
    for told in groups:
        service, server = told.service.encode(), told.server.encode()
        count = len(told.clients)
        total += count
        parts.append(_GROUP.pack(len(service), len(server), told.version, told.prefix, count))
        parts += [service, server]
        parts += _columns(b"".join(told.clients), _SIZES[told.version])
        ages = b"".join(min(age, _AGE_MAX).to_bytes(_AGE_BYTES, "big") for age in told.ages)
        parts += _columns(ages, _AGE_BYTES)
    assert total <= CLIENTS_MAX, f"{total} clients, more than fit into a batch"
    return FIRST_BYTE + bytes((level,)) + zlib.compress(b"".join(parts), 1)


def decode(batch: bytes) -> list[Told]:
    """Return what `encode` made bytes of.

    Raises:
        WireError: A damaged batch.
    """
    try:
        return _decode(batch)
    except (StructFault, ValueError, zlib.error) as error:
        raise WireError(f"a damaged batch of clients of {len(batch)} bytes: {error}") from error


def _decode(batch: bytes) -> list[Told]:
    if not is_of_clients(batch):
        raise ValueError(f"it begins with {batch[:1]!r}")
    if len(batch) <= 1 or not is_readable(batch[1]):
        raise ValueError(f"feature level {batch[1:2]!r}, this hanat reads {readable()}")
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(batch[2:], _BYTES_MAX)
    if not unpacker.eof:
        raise ValueError(f"cut off, or more than {_BYTES_MAX} bytes unpacked")
    found: list[Told] = []
    at = total = 0
    while at < len(data):
        service_size, server_size, version, prefix, count = _GROUP.unpack_from(data, at)
        at += _GROUP.size
        size = _SIZES.get(version, 0)
        total += count
        end = at + service_size + server_size + count * (size + _AGE_BYTES)
        if not size or not 1 <= prefix <= 8 * size or total > CLIENTS_MAX or end > len(data):
            raise ValueError(f"a group of {count} clients of IPv{version} with prefix {prefix}")
        service = data[at : at + service_size].decode()
        at += service_size
        server = data[at : at + server_size].decode()
        at += server_size
        clients = _rows(data[at : at + count * size], size)
        at += count * size
        ages = [int.from_bytes(age, "big") for age in _rows(data[at:end], _AGE_BYTES)]
        at = end
        found.append(Told(service, version, prefix, server, clients, ages))
    return found


def _columns(joined: bytes, size: int) -> list[bytes]:
    return [joined[column::size] for column in range(size)]


def _rows(columns: bytes, size: int) -> list[bytes]:
    count = len(columns) // size
    joined = bytearray(len(columns))
    for column in range(size):
        joined[column::size] = columns[column * count : (column + 1) * count]
    whole = bytes(joined)
    return [whole[start : start + size] for start in range(0, len(whole), size)]
