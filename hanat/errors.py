"""Every exception hanat raises on purpose.

HanatError
├── ConfigError          a file is wrong; carries every problem found in it
├── StartupError         the node cannot start here: port taken, interface missing
│   └── KeyFileError     the cluster key cannot be read, others can read it, or it is none
├── RefusedError         a guard said no: the command is valid, the moment is not
│   └── NoSuchError      there is no service or server of that name
├── ConsensusError
│   ├── JournalError     the log or the vote cannot be written: disk full, read-only, failing
│   ├── SnapshotError    a snapshot that must not be used: torn, damaged, somebody else's
│   ├── NoQuorumError    no majority right now; try again later
│   ├── OutcomeUnknownError  proposed, and no majority confirmed or replaced it in time
│   └── StaleRevisionError  based on an older configuration; read again, then try again
├── KernelError          operation, target, errno
│   ├── AlreadyPresentError
│   ├── AbsentObjectError
│   ├── NoRoomError
│   └── NotPermittedError
└── WireError            a peer sent something we refuse

Exceptions carry data; ``__str__`` makes the sentence: what was tried, what was
found, what to do. `exit_code` is what a command ends with when it shows one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NO_QUORUM = 3
EXIT_REFUSED = 4
EXIT_CONFIG_INVALID = 5
EXIT_OTHER_VERSION = 7  # of a process of a node, see `hanat.start`


class HanatError(Exception):
    """Base of everything below; never raised itself."""

    exit_code: ClassVar[int] = EXIT_FAILED


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a file.

    Attributes:
        file: The file's name as the user gave it.
        path: Where in it, e.g. ``service[2].listen[0]``; empty for the whole file.
        text: What was found and what is allowed, one sentence.
    """

    file: str
    path: str
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.path, self.text) if part)


class ConfigError(HanatError):
    """A configuration file is wrong; all its problems at once."""

    exit_code = EXIT_CONFIG_INVALID

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        assert problems, "a ConfigError without a problem"
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class StartupError(HanatError):
    """The node cannot start on this machine."""

    def __init__(self, *, tried: str, found: str, to_do: str) -> None:
        super().__init__(tried, found, to_do)
        self.tried, self.found, self.to_do = tried, found, to_do

    def __str__(self) -> str:
        return f"{self.tried}: {self.found}; {self.to_do}"


class KeyFileError(StartupError):
    """The file of the cluster key is wrong, as a configuration file may be."""

    exit_code = EXIT_CONFIG_INVALID


class RefusedError(HanatError):
    """A guard refused a valid command."""

    exit_code = EXIT_REFUSED


class NoSuchError(RefusedError):
    """There is no service or server of that name; the text says what there is."""


class ConsensusError(HanatError):
    """Base of what the replicated log can refuse."""


class JournalError(ConsensusError):
    """The log, or term and vote, cannot be written; nothing was acknowledged."""

    def __init__(self, *, tried: str, found: str, to_do: str) -> None:
        super().__init__(tried, found, to_do)
        self.tried, self.found, self.to_do = tried, found, to_do

    def __str__(self) -> str:
        return f"{self.tried}: {self.found}; {self.to_do}"


class SnapshotError(ConsensusError):
    """A snapshot cannot be believed.

    Args:
        found: What is wrong with it, a sentence about "it".
        damaged: It was whole once, or was to become so; not somebody else's.
    """

    def __init__(self, found: str, *, damaged: bool = True) -> None:
        super().__init__(found)
        self.damaged = damaged


class NoQuorumError(ConsensusError):
    """No majority, or no leader, within the time allowed."""

    exit_code = EXIT_NO_QUORUM


class StaleRevisionError(ConsensusError):
    """A configuration change was based on an older revision."""

    exit_code = EXIT_REFUSED

    def __init__(self, *, based_on: int, current: int) -> None:
        super().__init__(based_on, current)
        self.based_on, self.current = based_on, current

    def __str__(self) -> str:
        return (
            f"configuration not applied: it is based on revision {self.based_on}, "
            f'the cluster has {self.current}; run "hanat config show" and try again'
        )


class OutcomeUnknownError(ConsensusError):
    """A change was proposed, and nobody knows whether it will be committed."""

    def __init__(self, *, revision: int, waited_s: float) -> None:
        super().__init__(revision, waited_s)
        self.revision, self.waited_s = revision, waited_s

    def __str__(self) -> str:
        return (
            f"configuration proposed as revision {self.revision}: no majority confirmed it within "
            f"{self.waited_s:g} s, so whether it comes into force is unknown; "
            'look at "hanat config show" before you try again'
        )


class KernelError(HanatError):
    """The kernel refused an operation.

    Args:
        operation: Verb and object, e.g. ``add 192.0.2.10/24``.
        target: What it was done to, e.g. ``eth1``.
        found: What the kernel said, e.g. ``ENODEV: no such interface``.
        to_do: What helps, or empty.
    """

    def __init__(self, *, operation: str, target: str, found: str, to_do: str = "") -> None:
        super().__init__(operation, target, found, to_do)
        self.operation, self.target, self.found, self.to_do = operation, target, found, to_do

    def __str__(self) -> str:
        tail = f"; {self.to_do}" if self.to_do else ""
        return f"cannot {self.operation} on {self.target}: {self.found}{tail}"


class AlreadyPresentError(KernelError):
    """What was to be created is there already."""


class AbsentObjectError(KernelError):
    """What was to be used or removed is not there."""


class NoRoomError(KernelError):
    """A set has as many elements as it may have."""


class NotPermittedError(KernelError):
    """The process lacks the capability."""


class WireError(HanatError):
    """A peer sent something we refuse; the connection or datagram is dropped."""
