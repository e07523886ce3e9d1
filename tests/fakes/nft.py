"""A very small nft: which tables there are, and what was put into them.

Knows commands on whole tables, and of all others whether their table is there.
What the rules say is kept as text and not understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from hanat.errors import AbsentObjectError, KernelError

Tables = dict[tuple[str, str], str]
"""From family and name to what the table holds."""

_BLOCK = re.compile(r"table (?P<family>\w+) (?P<name>\w+) \{")
_COMMAND = re.compile(
    r"(?P<verb>add|create|delete|flush|insert) "
    r"(?P<kind>table|chain|set|map|rule|element|counter|quota|limit) "
    r"(?P<family>\w+) (?P<name>\w+)(?P<rest>.*)"
)


def after(tables: Tables, script: str, *, operation: str) -> Tables:
    """Return the tables as they are after a script.

    Raises:
        AbsentObjectError: If a command is about a table that is not there.
        KernelError: If a command is none of nft's.
    """
    changed = dict(tables)
    lines = iter(script.splitlines())
    for line in lines:
        text = line.partition("#")[0].strip()
        if not text:
            continue
        if (block := _BLOCK.fullmatch(text)) is not None:
            table = (block["family"], block["name"])
            changed[table] = changed.get(table, "") + "\n".join(_until_closed(lines)) + "\n"
        elif (command := _COMMAND.fullmatch(text)) is not None:
            _run(changed, command, operation=operation)
        else:
            raise KernelError(
                operation=operation, target="nftables", found=f"syntax error in {text}"
            )
    return changed


def _until_closed(lines: Iterator[str]) -> Iterator[str]:
    depth = 1
    for line in lines:
        code = line.partition("#")[0]
        depth += code.count("{") - code.count("}")
        if depth == 0:
            return
        yield line


def _run(tables: Tables, command: re.Match[str], *, operation: str) -> None:
    table, verb, is_table = (
        (command["family"], command["name"]),
        command["verb"],
        command["kind"] == "table",
    )
    if is_table and verb == "add":
        tables.setdefault(table, "")
    elif table not in tables:
        raise AbsentObjectError(
            operation=operation, target="nftables", found="No such file or directory"
        )
    elif is_table and verb == "delete":
        del tables[table]
    elif verb in {"add", "create", "insert"}:
        entry = f"    {command['kind']}{command['rest']}\n"
        if entry not in tables[table]:
            tables[table] += entry
