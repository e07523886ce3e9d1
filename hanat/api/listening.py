"""Open the sockets the API listens on, or say in one sentence why not.

A Unix socket outlives the process that made it: after a crash its name is still
there and nobody answers. Such a name is replaced; one that answers belongs to
another hanat and is left alone. A connection attempt is the test, because a file
with a process id can name a process that has nothing to do with us.

The mode of a Unix socket is set on the descriptor before it is bound, so that
it is never wider than meant, not even for the moment between bind and chmod;
the process-wide umask is not touched.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Final

from hanat.config.settings import TcpListen, UnixListen
from hanat.errors import StartupError

SOCKET_MODE: Final = 0o660

# Connections beyond this many that wait to be accepted lose their SYN and try
# again a second later; the kernel caps it at net.core.somaxconn.
QUEUE_CONNECTIONS: Final = 128

_TO_DO_TCP: Final = {
    errno.EADDRINUSE: 'stop what listens there ("ss -ltnp" names it) or change api.listen',
    errno.EADDRNOTAVAIL: "choose an address of this machine in api.listen",
    errno.EACCES: "choose a port from 1024 up in api.listen or grant CAP_NET_BIND_SERVICE",
}
_TO_DO_UNIX: Final = {
    errno.ENOENT: "create the directory or change api.listen",
    errno.ENOTDIR: "change api.listen",
    errno.EACCES: "make the directory writable for this user or change api.listen",
    errno.EROFS: "change api.listen to a writable file system",
}


def open_listening(listen: UnixListen | TcpListen) -> socket.socket:
    """Return a listening, non-blocking socket.

    Raises:
        StartupError: The place is taken, not writable or not of this machine.
    """
    match listen:
        case UnixListen(path):
            return _open_unix(path)
        case TcpListen(host, port):
            return _open_tcp(host, port)


def remove_name(path: Path, *, inode: int) -> None:
    """Remove the name of a Unix socket unless somebody else put his there meanwhile."""
    try:
        if path.lstat().st_ino == inode:
            path.unlink()
    except OSError:
        # Gone, or the directory is: a name nobody answers is replaced at the next start.
        return


def _open_tcp(host: str, port: int) -> socket.socket:
    tried = f"cannot listen on {f'[{host}]' if ':' in host else host}:{port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartupError(
            tried=tried,
            found=f"{host} is not an address: {error.strerror}",
            to_do="write an IP address of this machine in api.listen",
        ) from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(QUEUE_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise _startup_error(tried, error, _TO_DO_TCP) from error
    listener.settimeout(0.0)
    return listener


def _open_unix(path: Path) -> socket.socket:
    tried = f"cannot listen on unix:{path}"
    _remove_stale(path, tried)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), SOCKET_MODE)
        listener.bind(os.fspath(path))
        path.chmod(SOCKET_MODE)  # the umask may have taken the group's rights
        listener.listen(QUEUE_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise _startup_error(tried, error, _TO_DO_UNIX) from error
    listener.settimeout(0.0)
    return listener


def _remove_stale(path: Path, tried: str) -> None:
    """Make room for a new socket at `path`, or raise because it is in use."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _startup_error(tried, error, _TO_DO_UNIX) from error
    if not stat.S_ISSOCK(mode):
        raise StartupError(
            tried=tried,
            found="something that is not a socket has this name",
            to_do="move it away or change api.listen",
        )
    if _answers(path, tried):
        raise StartupError(
            tried=tried,
            found="another hanat runs here and answers on it",
            to_do='stop it first, or give this one its own api.listen; "hanat status" shows it',
        )
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _startup_error(tried, error, _TO_DO_UNIX) from error


def _answers(path: Path, tried: str) -> bool:
    """Whether somebody listens; never waits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.0)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:  # his queue is full: he lives
            return True
        except OSError as error:
            raise _startup_error(tried, error, _TO_DO_UNIX) from error
    return True


def _startup_error(tried: str, error: OSError, to_do: dict[int, str]) -> StartupError:
    # "AF_UNIX path too long" comes from Python itself, without a number.
    found = (error.strerror or str(error)).lower() if error.errno else str(error)
    advice = to_do.get(error.errno or 0, "change api.listen")
    return StartupError(tried=tried, found=found, to_do=advice)
