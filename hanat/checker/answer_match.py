"""Look for a text or a regular expression in what a server answered.

Python's `re` backtracks: on some answers it would run for longer than the machine. RE2 takes
time in proportion to the answer (Cox, "Regular Expression Matching in the Wild", 2010). Without
its package a regular expression is refused, never given to `re`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from hanat.checker.attempt import ProbeError
from hanat.core.checks import Pattern

PROGRAM_BYTES_MAX = 1 << 20  # of a compiled expression; RE2 takes 8 MiB if it is not told


def occurs(pattern: Pattern, data: bytes) -> bool:
    """Say whether a pattern is somewhere in an answer.

    Raises:
        ProbeError: It is no regular expression, or RE2 is not installed.
    """
    if not pattern.is_regex:
        return pattern.text.encode() in data
    return _compiled(pattern.text).search(data) is not None


@lru_cache(maxsize=1024)
def _compiled(text: str) -> Any:  # noqa: ANN401 - the library has no types
    try:
        import re2
    except ImportError:
        raise ProbeError(
            f"cannot look for {text!r}: regular expressions need the Python package google-re2; "
            "install it, or look for a text"
        ) from None
    options = re2.Options()
    options.max_mem = PROGRAM_BYTES_MAX
    options.log_errors = False
    try:
        return re2.compile(text, options=options)
    except re2.error as error:
        raise ProbeError(
            f"cannot look for {text!r}: RE2 does not take it: {_text(error)}"
        ) from None


def _text(error: Exception) -> str:
    """Return what RE2 says; it says it in bytes."""
    (found,) = error.args
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
