"""Reads a transcript, runs it and writes it again with what happened.

A title that begins with ``#``, then blocks: commands, a line ``----``, their output, an empty
line. Between blocks there may be prose, lines that begin with ``#``.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from tests.scenarios import questions
from tests.scenarios.commands import COMMANDS
from tests.scenarios.stage import Call, Stage, TranscriptError

RULE = "----"
UP_S = 20.0
assert questions.invariants in COMMANDS.values(), "the questions are commands, too"


@dataclass(frozen=True)
class Block:
    """Prose, or commands that are run one after the other."""

    lines: tuple[str, ...]
    is_prose: bool


def blocks_of(text: str) -> list[Block]:
    """Return the blocks of a transcript, without recorded output."""
    found = []
    for part in text.strip("\n").split("\n\n"):
        lines = part.strip("\n").split("\n")
        given = lines[: lines.index(RULE)] if RULE in lines else lines
        found.append(Block(tuple(given), all(line.startswith("#") for line in given)))
    return found


def call_of(line: str) -> Call:
    """Return the command in a line."""
    name, *rest = shlex.split(line)
    options = dict(word.split("=", 1) for word in rest if "=" in word)
    return Call(name, tuple(word for word in rest if "=" not in word), options)


class Performance:
    """One run of a transcript.

    Attributes:
        violations: Invariants that did not hold.
    """

    def __init__(self) -> None:
        self._stage: Stage | None = None

    @property
    def violations(self) -> list[str]:
        """Invariants that did not hold."""
        return [] if self._stage is None else self._stage.world.violations

    def of(self, text: str) -> str:
        """Run a transcript and return it with what happened this time."""
        try:
            return "\n\n".join(map(self._perform, blocks_of(text))) + "\n"
        finally:
            if self._stage is not None:
                self._stage.close()

    def _perform(self, block: Block) -> str:
        if block.is_prose:
            return "\n".join(block.lines)
        output = [line for command in block.lines for line in self._do(call_of(command))]
        return "\n".join((*block.lines, RULE, *output))

    def _do(self, call: Call) -> list[str]:
        if call.name == "cluster":
            return self._begin(call)
        if self._stage is None:
            raise TranscriptError("the first command must be cluster")
        if call.name not in COMMANDS:
            raise TranscriptError(f"no command {call.name}; commands are {', '.join(COMMANDS)}")
        answer = COMMANDS[call.name](self._stage, call)
        return [*self._stage.world.take(), *answer]

    def _begin(self, call: Call) -> list[str]:
        """``cluster [nodes=3] [profile=default] [seed=1] [servers=0] [start=r1,r2 | none]``.

        New nodes are made and started; what they say until they and the servers are up is not
        shown, but for who is what then.
        """
        stage = self._stage = Stage(call)
        if (names := call.options.get("start", ",".join(stage.routers))) == "none":
            return []
        members = {"members": names}
        COMMANDS["start"](stage, Call("start", tuple(names.split(",")), members))
        missing = stage.wait(stage.is_up, UP_S)
        stage.world.take()
        return [*COMMANDS["roles"](stage, Call("roles")), *missing]
