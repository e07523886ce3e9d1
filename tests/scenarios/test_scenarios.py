"""Transcripts: what operators do, what happens to a cluster, and what hanat says of it."""

from __future__ import annotations

from difflib import unified_diff
from pathlib import Path

import pytest

from tests.scenarios.transcript import Performance, blocks_of

FOLDER = Path(__file__).parent
TRANSCRIPTS = sorted(FOLDER.glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_what_happens_is_what_was_recorded(path: Path, request: pytest.FixtureRequest) -> None:
    recorded = path.read_text(encoding="utf-8")
    performance = Performance()
    happened = performance.of(recorded)
    if request.config.getoption("--rewrite"):
        path.write_text(happened, encoding="utf-8")
    elif happened != recorded:
        lines = unified_diff(
            recorded.splitlines(), happened.splitlines(), "recorded", "happened", lineterm=""
        )
        again = f"python -m pytest '{request.node.nodeid}' --rewrite"
        said = "\n".join(lines)
        pytest.fail(f"{said}\n\nif that is what you want: {again}", pytrace=False)
    assert performance.violations == []


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript_says_what_it_shows_and_ends_with_the_invariants(path: Path) -> None:
    first, *_, last = blocks_of(path.read_text(encoding="utf-8"))
    assert first.is_prose
    assert last.lines[-1] == "invariants"
