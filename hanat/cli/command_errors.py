"""What ends a command beside the errors hanat raises itself."""

from __future__ import annotations

from hanat.errors import EXIT_FAILED


class CommandError(Exception):
    """A command ends with this message and exit code, which a node may have chosen."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
