"""Count lines of code by folder: ``python -m tests.house.code_lines [FOLDER]``.

A line counts if something of the program is on it: no blank line, no comment, no docstring. All is
formatted by one formatter, so two commits can be compared.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

_NOTHING = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENCODING, tokenize.ENDMARKER,
}  # fmt: skip


def code_lines(text: str) -> int:
    """Return how many lines of a module are code.

    Raises:
        SyntaxError: It is no Python.
    """
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NOTHING:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
            case _:
                pass
    return len(lines)


def main() -> None:
    """Print a table of folders and their lines of code."""
    root = Path(sys.argv[1] if sys.argv[1:] else "hanat")
    sums: Counter[str] = Counter()
    for file in sorted(root.rglob("*.py")):
        inside = file.relative_to(root)
        sums[inside.parts[0] if inside.parts[1:] else "."] += code_lines(file.read_text())
    for folder, lines in sorted(sums.items()):
        print(f"{folder:12} {lines:6}")  # noqa: T201 - it is what this is for
    print(f"{'in all':12} {sum(sums.values()):6}")  # noqa: T201


if __name__ == "__main__":
    main()
