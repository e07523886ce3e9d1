"""The picture shows what the history says."""

from __future__ import annotations

from itertools import pairwise

from chaos.observe.run_history import MS, AddressSeen
from chaos.report.timeline import Scale, draw, mark_row, probe_row, router_row, ruler
from tests.chaos.histories import judged, kill, restart, speaks, stream, switchover


def test_router_row_shows_answering_presence_and_nothing() -> None:
    history, _ = judged(
        speaks("r1", 0, 300),
        speaks("r1", 300, 400, networks=("public",)),
        speaks("r1", 400, 500, networks=("private",)),
        AddressSeen(0, "r1", "203.0.113.10", present=True),
        AddressSeen(800 * MS, "r1", "203.0.113.10", present=False),
        AddressSeen(0, "r2", "203.0.113.10", present=True),
        end_ms=1000,
    )
    scale = Scale(0, 1000 * MS, 10)
    assert router_row(history, "r1", scale) == "███▀▄░░░··"
    assert router_row(history, "r2", scale) == "░" * 10
    assert router_row(history, "r3", scale) == "·" * 10


def test_probe_row_shows_all_some_and_none() -> None:
    probes = stream("udp-in", 800, (250, 500))
    assert probe_row(probes, Scale(0, 1000 * MS, 10)) == "──╌xx───  "


def test_faults_are_named_at_their_column() -> None:
    scale = Scale(0, 1000 * MS, 40)
    row = mark_row([kill(250), switchover(900, "r1"), restart(5000)], scale)
    assert row[10:].startswith("▼kill r1 ")
    # No room to the right of the second: its name stands to the left, the mark stays.
    assert row.endswith(" switchover r1▼")
    assert row.rindex("▼") == 36


def test_columns_cover_the_time_without_gap() -> None:
    scale = Scale(7, 1007, 13)
    bounds = [scale.bounds(c) for c in range(13)]
    assert bounds[0][0] == 7
    assert bounds[-1][1] == 1007
    assert all(a[1] == b[0] for a, b in pairwise(bounds))
    assert [scale.column(t) for t, _ in bounds] == list(range(13))
    assert scale.column(6) is None
    assert scale.column(1007) is None


def test_ruler_counts_from_the_fault() -> None:
    scale = Scale(900 * MS, 1100 * MS, 20)
    assert ruler(scale, 1000 * MS) == "|-100     |+0        ms"


def test_picture_has_a_row_for_everything() -> None:
    history, _ = judged(
        speaks("r1", 0, 500),
        kill(500),
        stream("udp-in", 1000),
        speaks("r2", 600, 1000),
        end_ms=1000,
    )
    picture = draw(history, ["r1", "r2"], ["udp-in"], Scale(0, 1000 * MS, 10), zero_ns=0)
    assert picture[1] == "        r1 █████·····"
    assert picture[2] == "        r2 ······████"
    assert picture[3] == "    udp-in ──────────"
    assert len(picture) == 5
