"""The cluster key: 32 random bytes every node shares, as one line of hexadecimal text.

What the nodes say to each other is encrypted with it, so who can read it can take the
addresses. A file others can read is refused rather than warned about.

While the key is changed a file has two: the first one is used, the second one is accepted from
peers as well. So the nodes can be told one after the other, and understand each other all the time.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path
from typing import NamedTuple

from hanat.errors import KeyFileError, RefusedError, StartupError

KEY_BYTES = 32
FILE_BYTES_MAX = 4096
_LINE = re.compile(rb"[0-9a-fA-F]{%d}" % (2 * KEY_BYTES))


class Keys(NamedTuple):
    """The keys of a file.

    Attributes:
        used: What this node says is sealed with it.
        accepted: What peers may use, too; empty for none.
    """

    used: bytes
    accepted: bytes = b""


def generate_key(path: Path) -> None:
    """Write a new key to a new file, mode 0600.

    Raises:
        RefusedError: The file exists; a key in use must not be lost.
        StartupError: It cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        raise RefusedError(
            f"key not written: {path} exists; every node needs the same key, "
            "so remove the file only if no node uses it"
        ) from None
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from None
    try:
        with open(descriptor, "w") as stream:  # noqa: PTH123  it is open already
            stream.write(secrets.token_hex(KEY_BYTES) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)  # half a key would be refused at the next start
        raise _unwritable(path, error) from None


def read_keys(path: Path) -> Keys:
    """Return the keys of a file.

    Raises:
        KeyFileError: It cannot be read, others can read it, or it has no key or more than two.
    """
    try:
        # O_NONBLOCK: a FIFO in its place must not block the start
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _unusable(path, "it is not a regular file", 'make one with "hanat keygen"')
        if mode & 0o077:
            found = f"others can use it (mode {stat.S_IMODE(mode):04o})"
            raise _unusable(path, found, f'run "chmod 600 {path}"')
        lines = os.read(descriptor, FILE_BYTES_MAX).split()
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(descriptor)
    if len(lines) > 2:
        found = f"it has {len(lines)} lines; one key is used, and one may be accepted beside it"
        raise _unusable(path, found, "remove the others")
    for line in lines or [b""]:
        if not _LINE.fullmatch(line):
            raise _unusable(
                path,
                f"it has {len(line)} characters where a key has {2 * KEY_BYTES} hexadecimal digits",
                'copy the key file of another node, or make the first with "hanat keygen"',
            )
    keys = Keys(*(bytes.fromhex(line.decode()) for line in lines))
    if keys.used == keys.accepted:
        raise _unusable(path, "it has the same key twice", "remove one of its lines")
    return keys


def add_key(path: Path, key: bytes | None = None) -> Keys:
    """Add a key that is accepted; None: a new one. Return what the file has now.

    Raises:
        RefusedError: It has two already, or that one.
        KeyFileError: It cannot be read.
        StartupError: It cannot be written.
    """
    keys = read_keys(path)
    if keys.accepted:
        raise RefusedError(
            f"key not added: {path} has two; end that change first, by hanat key use and drop"
        )
    added = secrets.token_bytes(KEY_BYTES) if key is None else key
    if added == keys.used:
        raise RefusedError(f"key not added: {path} has it already")
    return _replace(path, Keys(keys.used, added))


def use_accepted(path: Path) -> Keys:
    """Use the accepted key, and accept the one that was used; raises as `add_key` does."""
    keys = read_keys(path)
    if not keys.accepted:
        raise RefusedError(f"key not changed: {path} has one only; add another by hanat key add")
    return _replace(path, Keys(keys.accepted, keys.used))


def drop_accepted(path: Path) -> Keys:
    """Forget the key that is accepted and not used; raises as `add_key` does."""
    keys = read_keys(path)
    if not keys.accepted:
        raise RefusedError(f"no key dropped: {path} has one only")
    return _replace(path, Keys(keys.used))


def _replace(path: Path, keys: Keys) -> Keys:
    """Write a file anew: a crash leaves the old one or the new one, never half a key."""
    beside = path.with_name(f".{path.name}.new")
    try:
        was = path.stat()
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w") as stream:  # noqa: PTH123  it is open already
            stream.writelines(f"{key.hex()}\n" for key in keys if key)
            os.fchown(stream.fileno(), was.st_uid, was.st_gid)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise _unwritable(path, error) from None
    return keys


def _unusable(path: Path, found: str, to_do: str) -> KeyFileError:
    return KeyFileError(tried=f"cannot read the cluster key {path}", found=found, to_do=to_do)


def _unreadable(path: Path, error: OSError | ValueError) -> KeyFileError:
    found = getattr(error, "strerror", None) or str(error)
    to_do = f'copy it from another node, or make the first with "hanat keygen {path}"'
    if isinstance(error, PermissionError):
        to_do = f'give it to the user that runs the node: "chown hanat: {path}"'
    return _unusable(path, found, to_do)


def _unwritable(path: Path, error: OSError | ValueError) -> StartupError:
    return StartupError(
        tried=f"cannot write the cluster key {path}",
        found=getattr(error, "strerror", None) or str(error),
        to_do="choose a directory that exists and that you can write to",
    )
