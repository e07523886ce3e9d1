"""The next version of hanat, made of this one: every format has something more, from level 6 on.

A copy of the package in a folder of its own, changed in places that have to be there. It keeps to
the rule of `core.feature_level`: it reads and writes 5 and 6.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import hanat

VERSION = "99.0.0"
KEY = "motto"


class Edit(NamedTuple):
    """A text of a file that is there once, and what stands in its place."""

    file: str
    before: str
    after: str


EDITS = (
    Edit("__init__.py", f'"{hanat.__version__}"', f'"{VERSION}"'),
    Edit("core/feature_level.py", "LEVEL = 5  #", "LEVEL = 6  #"),
    # A beacon has one more byte behind its body.
    Edit(
        "net/beacon_wire.py",
        "cipher.encrypt(nonce, body + d.payload, header)",
        "cipher.encrypt(nonce, body + bytes(level > 5) + d.payload, header)",
    ),
    Edit(
        "net/beacon_wire.py",
        "body[_BODY.size :], level)",
        "body[_BODY.size + (level > 5) :], level)",
    ),
    # An acknowledgement has one more.
    Edit(
        "raft/messages.py",
        "_LAYOUTS = {5: _KINDS}",
        """_LAYOUTS = {
    5: _KINDS,
    6: _KINDS | {
        "next_node_idx": (2, lambda m: _pack_next(m) + b"6", lambda d: _unpack_next(d[:-1]))
    },
}""",
    ),
    # A leader's first entry has one more, and there is a new kind of entry.
    Edit(
        "raft/state.py",
        "    return bytes((level, kind)) + content",
        '    return bytes((level, kind)) + content + (b"6" if level > 5 and kind == 1 else b"")',
    ),
    Edit(
        "raft/state.py",
        "return _decoded(data[1], data[2:])",
        "return _decoded(data[1], data[2:-1] if data[0] > 5 and data[1] == 1 else data[2:])",
    ),
    Edit("raft/state.py", "_LEVEL, _CLIENTS}", "_LEVEL, _CLIENTS, 9}"),
    Edit(
        "raft/state.py",
        "    if kind == _LEVEL:\n",
        '    if kind == 9:\n        return Records(0, (Record(b"motto", rest),))\n'
        "    if kind == _LEVEL:\n",
    ),
    Edit(
        "daemon/feature_levels.py",
        "        for command in wanted:\n",
        """        if state.level > 5 and b"motto" not in state.records:
            from hanat.raft.messages import wrap
            self._replica.machine._applyCommand(wrap(bytes((6, 9)) + b"new"), None)
        for command in wanted:
""",
    ),
    # A snapshot has one more section.
    Edit(
        "raft/state.py",
        "        if self.events:\n",
        '        if self.level > 5:\n            parts.append((b"motto", b"new"))\n'
        "        if self.events:\n",
    ),
    # Term and vote have one more byte.
    Edit(
        "raft/hard_state.py",
        '    return (body + _CHECK.pack(zlib.crc32(body))).ljust(COPY_BYTES, b"\\0")',
        "    body += bytes(value.level > 5)\n"
        '    return (body + _CHECK.pack(zlib.crc32(body))).ljust(COPY_BYTES, b"\\0")',
    ),
    Edit(
        "raft/hard_state.py",
        "    body, rest = copy[: _COPY.size], copy[_COPY.size :]",
        "    size = _COPY.size + (_HEAD.unpack_from(copy)[1] > 5)\n"
        "    body, rest = copy[:size], copy[size:]",
    ),
    Edit("raft/hard_state.py", "_COPY.unpack(body)", "_COPY.unpack_from(body)"),
    # So has the last word of a dead daemon, and a batch of flows.
    Edit(
        "net/death_notice.py",
        "    return fact + _code(identity.key, fact)",
        "    return fact + _code(identity.key, fact) + bytes(level > 5)",
    ),
    Edit(
        "net/death_notice.py",
        "    if len(datagram) != DATAGRAM_BYTES:",
        "    if level > 5:\n        datagram = datagram[:-1]\n"
        "    if len(datagram) != DATAGRAM_BYTES:",
    ),
    Edit(
        "worker/flow_batch.py",
        '    return _HEAD.pack(level, len(heads)) + b"".join(heads) + packed',
        '    return _HEAD.pack(level, len(heads)) + b"".join(heads) + packed + bytes(level > 5)',
    ),
    # There is a new key.
    Edit(
        "config/key_levels.py",
        "KEY_LEVELS: Mapping[str, int] = {}",
        f'KEY_LEVELS: Mapping[str, int] = {{"cluster.{KEY}": 6}}',
    ),
    Edit(
        "config/models.py",
        "    profile: ProfileName | None = None\n",
        f'    profile: ProfileName | None = None\n    {KEY}: str = ""\n',
    ),
)


AFTER_VERSION = "100.0.0"
AFTER = (
    Edit("__init__.py", f'"{VERSION}"', f'"{AFTER_VERSION}"'),
    Edit("core/feature_level.py", "LEVEL = 6  #", "LEVEL = 7  #"),
    Edit("core/feature_level.py", "OLDEST = 5  #", "OLDEST = 6  #"),
    Edit("raft/messages.py", "    6: _KINDS |", "    **dict.fromkeys((6, 7), _KINDS |"),
    Edit(
        "raft/messages.py", "_unpack_next(d[:-1]))\n    },\n}", "_unpack_next(d[:-1]))\n    }),\n}"
    ),
)
"""What makes the version after the next one of that: it does not read what this one writes."""


def copy(folder: Path) -> Sequence[str]:
    """Copy this version into a folder; return the command that runs it."""
    package = folder / "hanat"
    shutil.copytree(
        Path(hanat.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    return sys.executable, "-I", str(package / "start.py"), "-m", "hanat"


def turn(folder: Path, edits: Sequence[Edit] = EDITS) -> None:
    """Make the version in a folder the next one.

    Raises:
        AssertionError: A place that is to be changed is not there.
    """
    for edit in edits:
        path = folder / "hanat" / edit.file
        text = path.read_text()
        assert text.count(edit.before) == 1, f"{edit.file} has not once: {edit.before}"
        path.write_text(text.replace(edit.before, edit.after))
