"""Read and write settings of the kernel below ``/proc/sys``."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path

from hanat.kernel.kernel_errors import refused


class KernelSettings:
    """Implements `ports.KernelSettings`."""

    def __init__(self, root: Path = Path("/proc/sys")) -> None:
        self._root = root

    def read(self, paths: Iterable[str]) -> dict[str, str]:
        """See `ports.KernelSettings.read`."""
        found: dict[str, str] = {}
        for path in paths:
            try:
                found[path] = (self._root / path).read_text().strip()
            except OSError:
                continue
        return found

    def write(self, path: str, value: str) -> None:
        """See `ports.KernelSettings.write`."""
        try:
            (self._root / path).write_text(value)
        except OSError as error:
            name = path.replace("/", ".")
            raise refused(
                error.errno or errno.EIO, operation=f"set {name} to {value}", target="this machine"
            ) from error
