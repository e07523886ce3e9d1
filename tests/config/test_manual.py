"""``docs/services.md`` has every key; its examples, and those of the README, are sound."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hanat.config import cross_check, parse_cluster
from hanat.config.check_fields import KINDS, METHODS, RCODES, RECORD_TYPES
from hanat.config.models import (
    CheckTable,
    LimitsTable,
    PersistenceTable,
    ServerTable,
    ServiceTable,
)
from hanat.config.node_toml import parse_node
from hanat.core.configuration import OnServerDown, Scheduler, Unavailable
from tests.config.helpers import NODE, SMALL, changed, checked

ROOT = Path(__file__).parents[2]
MANUAL = (ROOT / "docs" / "services.md").read_text()
FENCED = re.compile(r"```toml\n(.*?)```", re.DOTALL)
EXAMPLES = FENCED.findall(MANUAL)


def test_every_key_and_every_word_is_in_the_manual() -> None:
    said = set(re.findall(r"[\w.%-]+", " ".join(re.findall(r"`([^`\n]+)`", MANUAL))))
    keys = {
        field.alias or name
        for table in (ServiceTable, ServerTable, CheckTable, PersistenceTable, LimitsTable)
        for name, field in table.model_fields.items()
    } - {"check", "server"}
    words = {one.value for kind in (Scheduler, OnServerDown, Unavailable) for one in kind}

    assert (keys | words | {*KINDS, *METHODS, *RCODES, *RECORD_TYPES}) - said == set()


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_sound(example: str) -> None:
    if example.startswith("[checker]"):
        text = changed(NODE, "[api]", f"{example}[api]")
        parse_node(text, file="node.toml", directory=Path("/etc/hanat"))
    elif example.startswith("[[service]]"):
        parse_cluster(SMALL + example, file="cluster.toml")
    else:
        parse_cluster(checked(example.removeprefix("[[service.check]]\n")), file="cluster.toml")


def test_there_is_an_example_of_the_node_file_and_of_a_service() -> None:
    assert len(EXAMPLES) > 6
    assert {example.partition("\n")[0] for example in EXAMPLES} == {
        "[[service]]",
        "[[service.check]]",
        "[checker]",
    }


def test_files_of_the_readme_can_be_copied() -> None:
    node, cluster = FENCED.findall((ROOT / "README.md").read_text())
    settings = parse_node(node, file="node.toml", directory=Path("/etc/hanat"))

    assert (
        cross_check(settings, parse_cluster(cluster, file="cluster.toml"), file="node.toml") == ()
    )
