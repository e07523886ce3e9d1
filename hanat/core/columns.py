"""Records of one size, many at once: by column instead of one after the other.

An operation of the interpreter takes as long for one byte as for a thousand. So what is to be
done to each of a thousand records is done to each of their bytes instead, to all records at
once: a strided slice takes a byte of every record. That takes a tenth of the time.
"""

from __future__ import annotations

from collections.abc import Sequence

NOTHING = -1  # in place of a column: zero
WORTHWHILE = 16  # with fewer records it does not pay


def cut(joined: bytes, size: int, columns: Sequence[int]) -> list[bytes]:
    """Return some bytes of each record.

    Args:
        joined: Records one behind the other.
        size: Of each, in bytes.
        columns: Which bytes, in the order of the result; `NOTHING` is a zero.
    """
    width = len(columns)
    made = bytearray(len(joined) // size * width)
    for target, source in enumerate(columns):
        if source != NOTHING:
            made[target::width] = joined[source::size]
    whole = bytes(made)
    return [whole[start : start + width] for start in range(0, len(whole), width)]


def agree(joined: bytes, size: int, fixed: Sequence[tuple[int, bytes]]) -> bool:
    """Say whether all records have certain bytes at certain places.

    Args:
        joined: Records one behind the other.
        size: Of each, in bytes.
        fixed: Column and the one byte there.
    """
    count = len(joined) // size
    return all(joined[column::size] == byte * count for column, byte in fixed)
