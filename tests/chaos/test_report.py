"""A run's page stands by itself and tells what was found; runs are compared by their results."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from chaos.campaign import PROBED, Campaign, Settings
from chaos.judge import availability, verdicts
from chaos.judge.verdicts import Judgement
from chaos.lab.lab_error import LabError
from chaos.observe.run_history import MS, Fact, Injection
from chaos.report import comparing, page
from chaos.running import document
from tests.chaos.histories import connection, stream
from tests.chaos.runs import NODES, fault, holds, role
from tests.chaos.test_told import asked, told_by

HOSTILE = "<script>alert(1)</script>"
VOID = {"meta", "line", "rect"}


def judged(*extra: Fact) -> tuple[Campaign, Judgement]:
    campaign = Campaign(Settings(7, (), 60, "default"), say=lambda _: None)
    campaign.injections = [fault(1000, 3000)]
    campaign.facts = [
        *campaign.injections,
        *holds("r1", 0, 1110),
        *holds("r2", 1130, 5000),
        *(stream(name, 5000, (1000, 1130)) for name in PROBED),
        connection("tcp-in", 5000),
        *extra,
    ]
    campaign.start_ns, campaign.end_ns = 0, 5000 * MS
    return campaign, verdicts.judge(campaign, NODES, [])


class Reader(HTMLParser):
    """Collects what a browser would fetch or run, and whether tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.titles = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.outside += [f"{tag} {key}" for key, _ in attrs if key in ("src", "href")]
        self.outside += [tag] if tag in ("script", "link", "iframe", "img") else []
        self.titles += tag == "title"
        if tag not in VOID or tag == "rect":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_needs_nothing_from_outside_and_escapes_what_was_recorded() -> None:
    event = told_by("r1", "took over", 1, 1500, HOSTILE)
    stepped = replace(event, number=1, clock_wrong=True)
    _, judgement = judged(
        role(10, "r1", f"BACKUP→{HOSTILE}", reason=HOSTILE), event, stepped, *asked()
    )
    outages = availability.worst_by_nemesis(judgement.history, judgement.cut, PROBED)
    html = page.page(f"seed 7 {HOSTILE}", f"run {HOSTILE}", judgement, outages)
    reader = Reader()
    reader.feed(html)
    assert reader.outside == []
    assert reader.open == []
    assert reader.titles > 10  # bars say when they were
    assert HOSTILE not in html
    told = "<tr><td>1.50 s</td><td>r1</td><td>1</td><td>took over: &lt;script"
    for word in ("cut r1", "one-holder", "udp-in", "r2 holds", told, "clock was stepped"):
        assert word in html


def test_page_of_a_run_that_never_began_can_be_made() -> None:
    campaign = Campaign(Settings(7, (), 60, "default"), say=lambda _: None, problem="no root")
    judgement = verdicts.judge(campaign, NODES, [])
    assert judgement.exit_code == verdicts.EXIT_UNKNOWN
    campaign.begun = True  # and the nodes did not come up
    assert verdicts.judge(campaign, NODES, []).exit_code == verdicts.EXIT_NOT_VALID
    assert "There was no traffic" in page.page("seed 7", "run", judgement, {})


def test_checker_that_crashes_is_unknown_and_so_is_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    for checker in ("connections_survive", "requests_succeed"):
        monkeypatch.setattr(availability, checker, broken)
    _, judgement = judged()
    found = {v.name: v.valid for v in judgement.verdicts}
    assert found["http"] == found["connections"] == "unknown"
    assert found["one-holder"] is True
    assert judgement.exit_code == verdicts.EXIT_UNKNOWN


def test_switchover_that_another_fault_met_is_not_judged_and_that_is_told() -> None:
    asked_for = replace(fault(1500, 2000, nodes=("r1",), out=()), nemesis="switchover")
    campaign, _ = judged()
    for met, told in ((True, "; no switchover judged, other faults met each"), (False, "")):
        at_ns = 1500 * MS if met else 4000 * MS
        after = replace(asked_for, t_ns=at_ns, heal_ns=at_ns, settled_ns=at_ns + 600 * MS)
        campaign.injections = [fault(1000, 3000), after]
        campaign.facts = [f for f in campaign.facts if not isinstance(f, Injection)]
        campaign.facts += campaign.injections
        by_name = {v.name: v for v in verdicts.judge(campaign, NODES, []).verdicts}
        assert ("switchover" in by_name) is not met
        assert by_name["procedure"].summary == f"2 faults, each done and undone{told}"


def test_runs_are_compared_by_verdict_and_outage(tmp_path: Path) -> None:
    campaign, judgement = judged()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        text = json.dumps(document(campaign, judgement))
        (tmp_path / name / "result.json").write_text(text)
    lines = comparing.tables([comparing.load(tmp_path / name) for name in ("a", "b")])
    rows: dict[str, list[str]] = {}
    for line in filter(None, lines):
        first, *rest = line.split()
        rows[f"{first} again" if first in rows else first] = rest
    assert rows["seed"] == ["7", "7"]
    assert rows["one-holder"] == ["2/2", "ok", "ok"]
    assert rows["cut"] == ["121", "121", "121"]
    assert rows["cut again"] == ["2", "(2)", "1", "1"]  # times judged


def test_folder_without_a_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="No such file"):
        comparing.load(tmp_path)
    (tmp_path / "result.json").write_text("[]")
    with pytest.raises(LabError, match="is no result"):
        comparing.load(tmp_path)
