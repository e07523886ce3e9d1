r"""Regular expressions of a file: what is refused before any node takes it.

Checks match with RE2, which cannot backtrack for ever. `problem_with_regex` asks RE2 itself
if its Python package is installed. Without it a pattern is taken only if it is in what RE2 and
Python have in common: Python compiles it, and it has nothing that RE2 lacks. So whatever is
taken here compiles there, but for a few patterns that RE2 knows and Python does not
(``\pL``, ``[[:alpha:]]``), which are then refused.

Source: RE2's syntax, github.com/google/re2/wiki/Syntax.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
import warnings
from typing import Any

REGEX_CHARS_MAX = 512  # no check needs more, and what compiles is bounded, too
PROGRAM_BYTES_MAX = 1 << 20  # of a compiled expression, as where checks are made
HAS_RE2 = importlib.util.find_spec("re2") is not None
REPEATS_MAX = 1000  # RE2: kMaxRepeat, of nested ones together

_LACKING = {
    "(?=": "look-ahead",
    "(?!": "look-ahead",
    "(?<=": "look-behind",
    "(?<!": "look-behind",
    "(?P=": "back reference",
    "(?(": "conditional group",
    "(?>": "atomic group",
    "(?#": "comment",
}
_SPECIAL = re.compile(
    r"\\(?P<escape>.)"
    r"|(?P<group>\(\?(?:P[=<>]|<[=!]|[a-zA-Z]*[:)]|.)?)"
    r"|(?P<repeat>[*+?}]\+|\{,)",
    re.DOTALL,
)
_GROUP = re.compile(r"\(\?(?:P<|[ims]*[:)])")
_ESCAPES = frozenset("AbBdDsSwWafnrtvx.^$*+?()[]{}|\\/-\"' :;,<>=!@#%&~`")
_COUNTS = re.compile(r"\{([0-9]+)(?:,([0-9]*))?\}")
_BACKSPACE = re.compile(r"\[[^\]]*\\b")  # in a set; RE2 does not know it there


def problem_with_regex(text: str) -> str | None:
    """Return why a text is no regular expression that checks can use; None if it is one."""
    if len(text) > REGEX_CHARS_MAX:
        return f"has {len(text)} characters, at most {REGEX_CHARS_MAX} are possible"
    return _by_re2(text) if HAS_RE2 else _by_python(text)


def _by_re2(text: str) -> str | None:
    re2: Any = importlib.import_module("re2")
    options = re2.Options()
    options.log_errors = False  # else it writes to standard error
    options.max_mem = PROGRAM_BYTES_MAX
    try:
        re2.compile(text, options=options)
    except re2.error as error:
        found = error.args[0] if error.args else "RE2 refuses it"
        return found.decode(errors="replace") if isinstance(found, bytes) else str(found)
    return None


def _by_python(text: str) -> str | None:
    if found := _foreign(text):
        return found
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error"
            )  # of what will mean something else one day: "[[:alpha:]]"
            re.compile(text)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        return str(error)
    return None


def _foreign(text: str) -> str | None:
    """Return what RE2 does not have, or may understand in another way."""
    special = (_unknown(match) for match in _SPECIAL.finditer(text))
    if found := next((found for found in special if found), None):
        return found
    if _BACKSPACE.search(text):
        return "RE2 has no backspace: \\b in brackets"
    counts = [int(last or first) for first, last in _COUNTS.findall(text)]
    if math.prod(max(1, count) for count in counts) > REPEATS_MAX:
        return f"repeats more than {REPEATS_MAX} times"
    return None


def _unknown(match: re.Match[str]) -> str | None:
    escape, group = match["escape"], match["group"]
    if group in _LACKING:
        return f"RE2 has no {_LACKING[group]}: {group}"
    if escape is not None and escape not in _ESCAPES:
        return f"RE2 may not know \\{escape}"
    if group is not None and not _GROUP.fullmatch(group):
        return f"RE2 may not know the group {group}"
    return f"RE2 has another meaning for {match['repeat']}" if match["repeat"] else None
