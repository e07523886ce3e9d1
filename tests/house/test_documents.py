"""The documents name files, modules, names and places that exist."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = (README, *sorted((ROOT / "docs").glob("*.md")))
PICTURES = ROOT / "docs" / "pictures"
README_BYTES = 10_000

TOP = ("hanat", "chaos", "tests", "benchmarks", "deploy", "docs")
PARTS = tuple(sorted(one.parent.name for one in (ROOT / "hanat").glob("*/__init__.py")))
FORMER = ("consensus", "flowsync", "mesh")  # folders that are gone stay wrong
PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(TOP + PARTS + FORMER)})/[\w./-]*\w")
FILE = re.compile(r"(?<![\w./*-])(\w+\.py)\b")
MODULE = re.compile(r"(?:`|-m )((?:hanat|chaos|tests|benchmarks)(?:\.\w+)+)(?![\w/])")
NAME = re.compile(r"`([\w.]+)` in `([\w/]+\.py)`")
LINK = re.compile(r"!?\[[^]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*?) *$", re.MULTILINE)
BACKGROUND = re.compile(r'<polygon fill="white" stroke="(none|transparent)"')
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
# A file that is no part of the project: it stands in a fault that is told in docs/bugs.md.
STRANGERS = {"json.py"}


def is_there(path: str) -> bool:
    """Whether a path is there, told from the root folder or from ``hanat``."""
    return any((base / path).exists() for base in (ROOT, ROOT / "hanat"))


def missing_paths(text: str) -> Iterator[str]:
    """Paths below the project's folders that lead nowhere, and files that no folder has."""
    for path in PATH.findall(text):
        if not is_there(path):
            yield path
    everywhere = {one.name for top in TOP for one in (ROOT / top).rglob("*.py")}
    for name in FILE.findall(text):
        if name not in everywhere | STRANGERS:
            yield name


def missing_modules(text: str) -> Iterator[str]:
    """Dotted names, in backticks or behind ``-m``, of which no module is the beginning."""
    for dotted in MODULE.findall(text):
        parts = dotted.split(".")
        heads = [ROOT.joinpath(*parts[:count]) for count in range(2, len(parts) + 1)]
        if not any(one.is_dir() or one.with_suffix(".py").exists() for one in heads):
            yield dotted


def missing_names(text: str) -> Iterator[str]:
    """Functions, classes and constants that are not defined in the file they are said to be in."""
    for dotted, path in NAME.findall(text):
        found = [base / path for base in (ROOT, ROOT / "hanat") if (base / path).exists()]
        code = found[0].read_text() if found else ""
        for name in dotted.split("."):
            defined = rf"^\s*(?:(?:async )?def|class) {name}\b|^(?:\s*self\.)?{name}\b.*[:=]"
            if not re.search(defined, code, re.MULTILINE):
                yield f"{dotted} in {path}"
                break


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    headings = (
        re.sub(r"[`*]|\]\([^)]*\)|\[", "", one) for one in HEADING.findall(FENCE.sub("", text))
    )
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


def broken_links(document: Path, text: str) -> Iterator[str]:
    """Relative links whose file, or whose anchor in it, is not there."""
    for link in LINK.findall(FENCE.sub("", text)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        there = target.exists()
        if not there or (anchor and anchor not in anchors(target.read_text() if name else text)):
            yield link


def pictures_without_a_pair(names: Iterable[str]) -> list[str]:
    """Pictures without their source, and sources without their picture."""
    stems: dict[str, set[str]] = {}
    for name in names:
        stem, _, suffix = name.rpartition(".")
        stems.setdefault(stem, set()).add(suffix)
    return sorted(stem for stem, suffixes in stems.items() if suffixes != {"dot", "svg"})


def unseen_labels(source: str, picture: str) -> list[str]:
    """Lines of labels in a source of Graphviz that its picture does not show."""
    shown = {" ".join(html.unescape(one).split()) for one in re.findall(r">([^<>]+)<", picture)}
    labels = re.findall(r'label="([^"]+)"', source)
    lines = (" ".join(line.split()) for label in labels for line in label.split("\\n"))
    return [line for line in lines if line not in shown]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: one.name)
def test_what_a_document_names_is_there(document: Path) -> None:
    text = document.read_text()
    missing = [*missing_paths(text), *missing_modules(text), *missing_names(text)]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: one.name)
def test_links_of_a_document_lead_somewhere(document: Path) -> None:
    assert list(broken_links(document, document.read_text())) == []


def test_the_architecture_says_where_things_are() -> None:
    assert len(NAME.findall((ROOT / "docs" / "architecture.md").read_text())) >= 70


def test_the_first_page_is_short() -> None:
    assert len(README.read_bytes()) <= README_BYTES


def test_each_picture_has_its_source() -> None:
    assert pictures_without_a_pair(one.name for one in PICTURES.iterdir()) == []


@pytest.mark.parametrize("source", sorted(PICTURES.glob("*.dot")), ids=lambda one: one.name)
def test_a_picture_is_made_of_its_source(source: Path) -> None:
    picture = source.with_suffix(".svg").read_text()
    assert unseen_labels(source.read_text(), picture) == []
    assert BACKGROUND.search(picture), "without a background it is unreadable in dark mode"


def test_what_is_not_there_is_seen() -> None:
    assert list(missing_paths("see `hanat/consensus/guard.py`, core/lease.py and `vote.py`")) == [
        "hanat/consensus/guard.py",
        "vote.py",
    ]
    assert list(
        missing_modules("`hanat.mesh.wire`, `python -m benchmarks.slow`, `hanat.core`")
    ) == [
        "hanat.mesh.wire",
        "benchmarks.slow",
    ]
    sentence = "`Promise.binds` in `hanat/core/lease.py`, `Absent` in `hanat/core/lease.py`"
    assert list(missing_names(sentence)) == ["Absent in hanat/core/lease.py"]


def test_a_link_that_leads_nowhere_is_seen() -> None:
    text = "# What *is* `said`, and how\n[a](#what-is-said-and-how) [b](#nowhere) [c](docs/none.md)"
    assert list(broken_links(README, text)) == ["#nowhere", "docs/none.md"]
    assert list(broken_links(README, "[a](docs/lease.md#the-gate) [b](docs/lease.md#gone)")) == [
        "docs/lease.md#gone"
    ]


def test_a_picture_without_its_source_is_seen() -> None:
    assert pictures_without_a_pair(["a.dot", "a.svg", "b.svg", "c.dot"]) == ["b", "c"]


def test_a_picture_that_was_not_made_again_is_seen() -> None:
    picture = "<text>1&#160; sends</text><text>at D &#45; m</text>"
    assert unseen_labels(r'a [label="1  sends\nat D - m"]', picture) == []
    assert unseen_labels('a [label="2  sends"]', picture) == ["2 sends"]
