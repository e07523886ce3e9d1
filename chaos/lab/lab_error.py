"""What the lab cannot do, in a sentence for the person who asked for it."""

from __future__ import annotations


class LabError(Exception):
    """Something did not work: what was tried, what was found, what to do."""

    exit_code = 1


class UsageError(LabError):
    """The machine or the command line is not fit for this; nothing was changed."""

    exit_code = 2


class LabTimeoutError(LabError):
    """A condition did not come true before its deadline."""


class NodeDiedError(LabError):
    """A daemon ended that nobody asked to end."""
