"""The house rules that no linter knows, as functions from text to complaints.

Each takes what it judges as a value and returns sentences, so that the tests can
hand it bad samples: a rule that cannot fail is not one.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

ROOT: Final = Path(__file__).parents[2]

FILE_LINES_MAX: Final = 500
FUNCTION_LINES_MAX: Final = 60
PARAMETERS_MAX: Final = 6

# The lock is what `make lock` wrote; everything else is what a visitor should see first.
ROOT_NAMES: Final = frozenset(
    {
        ".ci",
        ".gitignore",
        "LICENSE",
        "Makefile",
        "README.md",
        "benchmarks",
        "chaos",
        "deploy",
        "docs",
        "hanat",
        "pyproject.toml",
        "requirements.lock",
        "tests",
    }
)

# A file that lists the forbidden words cannot avoid them.
ABOUT_WORDS: Final = frozenset({"tests/house/tidy.py", "tests/house/test_tidy.py"})

_UNNUMBERED: Final = re.compile(r"\b(?:TODO|FIXME)\b(?!\s*\(?#\d)")
_FORBIDDEN: Final = {
    "a path of one machine": re.compile(r"(?<![\w./$}-])/(?:root|work|Users|home/\w+)\b(?!=)"),
    "a package index": re.compile(
        r"pypi\.org|pythonhosted\.org|test\.pypi|--(?:extra-)?index-url|--find-links|file:///"
    ),
}
_FROM_OUTSIDE: Final = re.compile(r"\blink add \S+ (?:address \S+ )?netns\b")
_WAITS: Final = frozenset({"time.sleep"})
_SKIPS: Final = frozenset(
    {"pytest.skip", "pytest.importorskip", "pytest.mark.skip", "pytest.mark.skipif"}
)

Rule = Callable[[str, str], Iterable[str]]
"""From the file's name relative to the root and its text to complaints."""


def tracked_files() -> list[str]:
    """Return the names of all files git knows, relative to the root, sorted."""
    # The owner of a fresh clone may be another user than the one who tests it.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted(name for name in output.split("\0") if name and (ROOT / name).is_file())


def stray_root_names(names: Iterable[str]) -> list[str]:
    """Complain about what does not belong in the root folder."""
    roots = {name.split("/", 1)[0] for name in names}
    return [f"{name}: does not belong in the root folder" for name in sorted(roots - ROOT_NAMES)]


def shared_names(names: Iterable[str]) -> list[str]:
    """Return a complaint for each module of a tree that has the name of another one.

    A reader who meets a name in a sentence or in a trace must know the file.
    """
    known: dict[tuple[str, str], str] = {}
    found = []
    for name in sorted(names):
        tree, file = name.partition("/")[0], PurePosixPath(name)
        if tree not in {"hanat", "chaos"} or file.suffix != ".py" or file.stem.startswith("__"):
            continue
        first = known.setdefault((tree, file.stem), name)
        if first != name:
            found.append(f"{name}: {first} has the same name")
    return found


def long_file(name: str, text: str) -> Iterator[str]:
    """Complain about code nobody can hold in the head."""
    count = len(text.splitlines())
    if is_code(name) and count > FILE_LINES_MAX:
        yield f"{name}: {count} lines, at most {FILE_LINES_MAX}"


def long_functions(name: str, text: str) -> Iterator[str]:
    """Complain about functions of too many lines, docstring included."""
    for function in _functions(name, text):
        count = (function.end_lineno or function.lineno) - function.lineno + 1
        if count > FUNCTION_LINES_MAX:
            at = f"{name}:{function.lineno}: {function.name}"
            yield f"{at} has {count} lines, at most {FUNCTION_LINES_MAX}"


def many_parameters(name: str, text: str) -> Iterator[str]:
    """Complain about functions of too many parameters, ``self`` and ``cls`` not counted."""
    for function in _functions(name, text):
        given = function.args
        names = [arg.arg for arg in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        names += [arg.arg for arg in (given.vararg, given.kwarg) if arg is not None]
        if names[:1] in (["self"], ["cls"]):
            del names[0]
        if len(names) > PARAMETERS_MAX:
            at = f"{name}:{function.lineno}: {function.name}"
            yield f"{at} has {len(names)} parameters, at most {PARAMETERS_MAX}"


def unnumbered_todos(name: str, text: str) -> Iterator[str]:
    """Complain about intentions that no issue holds."""
    for number, line in enumerate(text.splitlines(), 1):
        if _UNNUMBERED.search(line):
            yield f"{name}:{number}: a TODO without the number of its issue: {line.strip()}"


def forbidden_words(name: str, text: str) -> Iterator[str]:
    """Complain about what is true on one machine only."""
    for number, line in enumerate(text.splitlines(), 1):
        for what, pattern in _FORBIDDEN.items():
            if found := pattern.search(line):
                yield f"{name}:{number}: {what}: {found.group()}"


def waits_and_skips(name: str, text: str) -> Iterator[str]:
    """Complain about tests that wait in real time, and about tests that may not run.

    A whole suite is skipped in its ``conftest.py``, where it says why; a single
    test either tests or is deleted.
    """
    if not (name.startswith("tests/") and name.endswith(".py")):
        return
    forbidden = _WAITS if name.endswith("/conftest.py") else _WAITS | _SKIPS
    tree = ast.parse(text)
    origins = _imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            dotted = _dotted(node, origins)
            if dotted in forbidden:
                yield f"{name}:{node.lineno}: {dotted} in a test"


def cables_from_outside(name: str, text: str) -> Iterator[str]:
    """Complain about devices that are made from another namespace than their own.

    Before Linux 6.15 the kernel looks for a device of that name in the caller's namespace:
    "eth0" cannot be made on a machine that has one.
    """
    for number, line in enumerate(text.splitlines(), 1):
        if is_code(name) and _FROM_OUTSIDE.search(line):
            yield f"{name}:{number}: made from outside its namespace: {line.strip()}"


RULES: Final[tuple[Rule, ...]] = (
    long_file,
    long_functions,
    many_parameters,
    unnumbered_todos,
    forbidden_words,
    waits_and_skips,
    cables_from_outside,
)


def is_code(name: str) -> bool:
    """Whether a file is written to be executed."""
    return name.endswith((".py", ".sh")) or name == "Makefile" or name.startswith(".ci/")


def complaints(rule: Rule, names: Iterable[str]) -> list[str]:
    """Apply `rule` to every file that is text."""
    found: list[str] = []
    for name in names:
        if rule in (unnumbered_todos, forbidden_words) and name in ABOUT_WORDS:
            continue
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += rule(name, text)
    return found


def _functions(name: str, text: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    if name.endswith(".py"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node


def _imported_names(tree: ast.AST) -> dict[str, str]:
    """Return what each name of the module stands for: ``{"sleep": "time.sleep"}``."""
    origins: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            origins |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            origins |= {
                alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names
            }
    return origins


def _dotted(node: ast.expr, origins: dict[str, str]) -> str:
    """Return an expression like ``time.sleep`` with its first name resolved, else nothing."""
    match node:
        case ast.Name(id=name):
            return origins.get(name, name)
        case ast.Attribute(value=value, attr=attribute):
            head = _dotted(value, origins)
            return f"{head}.{attribute}" if head else ""
        case _:
            return ""
