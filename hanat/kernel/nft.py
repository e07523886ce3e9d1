"""Run nft commands in this process, through libnftables.

A `nft` process costs 3 ms and can be missed by a scheduler; the library needs
0.1 ms and no process. Its context holds a netlink socket, which belongs to the
network namespace it was opened in, so it is opened at the first command.

A context also holds what it knows of the kernel's tables: hash tables of 128 KiB, 2 MiB in all,
in locked memory. So a node has one, and keeps it only if its rights are timeouts: to close one
keeps others from changing rules for 20 to 40 ms, see `conntrack.KernelCapture`.

Locked memory that is free does not go back to the kernel (madvise(2), MADV_DONTNEED), only what
was mapped for itself does. So while there is a context that will be closed, memory of that size is
mapped for itself. Otherwise it is not: it costs 15 us each time, and asyncio takes 256 KiB for each
message.
"""

from __future__ import annotations

import ctypes
import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from threading import Lock

import nftables

from hanat.errors import AbsentObjectError, KernelError, NotPermittedError
from hanat.kernel.kernel_errors import refused

HASH_TABLE_BYTES = 8192 * 16  # cache.h: NFT_CACHE_HSIZE heads of lists
MAPPED_BYTES = 1 << 20  # else
_M_MMAP_THRESHOLD = -3  # <malloc.h>

_COMPLAINT = re.compile(r"(?:^|\b)Error: (?P<text>.*)")

# What the library prints is the C library's text of the errno.
_KINDS = (
    ("Operation not permitted", NotPermittedError),
    ("Permission denied", NotPermittedError),
    ("No such file or directory", AbsentObjectError),
)


class NftLibrary:
    """One context of libnftables, for any thread.

    Args:
        dry_run: The kernel looks at the commands and does nothing.
        kept: Between two commands.
    """

    def __init__(self, *, dry_run: bool = False, kept: bool = True) -> None:
        self._dry_run, self.kept = dry_run, kept
        self._using = Lock()

    @cached_property
    def _context(self) -> nftables.Nftables:
        try:
            context = nftables.Nftables()
        except OSError as error:
            raise KernelError(
                operation="load libnftables.so.1",
                target="this machine",
                found=str(error),
                to_do="install the package nftables",
            ) from error
        if self._dry_run:
            own = context._Nftables__ctx  # noqa: SLF001 - the binding lacks this call
            set_dry_run = ctypes.CDLL("libnftables.so.1").nft_ctx_set_dry_run
            set_dry_run(ctypes.c_void_p(own), ctypes.c_bool(1))
        return context

    def run(self, script: str, *, operation: str, target: str) -> str:
        """Run commands as one transaction and return what they print.

        Raises:
            KernelError: With the first complaint, nothing was changed. The line is unknown:
                given a text instead of a file, nft 1.0.6 quotes the first line whatever is wrong.
        """
        with self._using, nullcontext() if self.kept else _mapped_for_itself():
            code, output, complaints = self._context.cmd(script)
            if not self.kept:
                self._forget()
        if code:
            raise _refusal(str(complaints), operation=operation, target=target)
        return str(output)

    def close(self) -> None:
        """Release the context; the next command opens another."""
        with self._using:
            self._forget()

    def _forget(self) -> None:
        self.__dict__.pop("_context", None)


@contextmanager
def _mapped_for_itself() -> Iterator[None]:
    """Have the C library map what is large for itself, so that it can give it back."""
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_THRESHOLD, HASH_TABLE_BYTES)
    try:
        yield
    finally:
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)  # of the whole process; a second one costs memory


def _refusal(complaints: str, *, operation: str, target: str) -> KernelError:
    for line in complaints.splitlines():
        complaint = _COMPLAINT.search(line)
        if complaint is None:
            continue
        found = complaint["text"].removeprefix("Could not process rule: ")
        kind = next((kind for text, kind in _KINDS if text in found), KernelError)
        if kind is NotPermittedError:
            return refused(errno.EPERM, operation=operation, target=target)
        return kind(operation=operation, target=target, found=found)
    return KernelError(operation=operation, target=target, found=complaints.strip() or "no reason")
