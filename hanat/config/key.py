"""The cluster key: 32 random bytes every node shares, as one line of hexadecimal text.

Frames and beacons are authenticated with it, so who can read it can take the
addresses. A file others can read is refused rather than warned about.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

from hanat.errors import KeyFileError, RefusedError, StartupError

KEY_BYTES = 32
FILE_BYTES_MAX = 4096


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


def read_key(path: Path) -> bytes:
    """Return the 32 bytes of a key file.

    Raises:
        KeyFileError: It cannot be read, others can read it, or it is not a key.
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
        content = os.read(descriptor, FILE_BYTES_MAX).strip()
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(descriptor)
    if not re.fullmatch(rb"[0-9a-fA-F]{%d}" % (2 * KEY_BYTES), content):
        raise _unusable(
            path,
            f"it has {len(content)} characters where a key has {2 * KEY_BYTES} hexadecimal digits",
            'copy the key file of another node, or make the first with "hanat keygen"',
        )
    return bytes.fromhex(content.decode())


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
