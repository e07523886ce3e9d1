"""From a history to figures, by hand-made histories; times in milliseconds."""

from __future__ import annotations

import pytest

from benchmarks.figures import (
    ENDLESS,
    Spell,
    Streams,
    again_ms,
    changes,
    gap_ms,
    lost,
    measure,
    spells,
    two_ms,
)
from chaos.judge.checkers import Window
from chaos.lab.lab_error import LabError
from chaos.observe.run_history import MS, AdmissionSeen, Fact, History
from tests.chaos.histories import connection, speaks, stream

WINDOW = Window("cut", 4000 * MS, 7000 * MS, moves_holder=True)
STREAMS = Streams(udp=["udp-in", "udp-out"], new=["new-in"], tcp=["tcp-in"])


def test_probes_lost_in_the_window_are_counted_and_no_others() -> None:
    probes = stream("udp-in", 8000, (3000, 3100), (4500, 4560), (7500, 7600))
    assert lost(probes, WINDOW) == 6


def test_the_gap_is_the_longest_and_without_the_period() -> None:
    probes = stream("udp-in", 8000, (4500, 4560), (5000, 5040))
    assert gap_ms(probes, WINDOW) == 60


def test_a_stream_that_is_silent_at_the_end_has_no_end() -> None:
    assert gap_ms(stream("udp-in", 8000, (4500, 7500)), WINDOW) == ENDLESS
    assert gap_ms(stream("udp-in", 8000, (4500, 6700)), WINDOW) == 2200


def test_when_a_gap_was_over_counts_from_the_fault() -> None:
    probes = stream("new-in", 8000, (4030, 4050))
    assert (gap_ms(probes, WINDOW), again_ms(probes, WINDOW)) == (20, 51)
    assert again_ms(stream("new-in", 8000, (4500, 7500)), WINDOW) == ENDLESS


def spell(router: str, start_ms: float, end_ms: float) -> Spell:
    return Spell(router, round(start_ms * MS), round(end_ms * MS))


def test_frames_close_to_each_other_are_one_spell() -> None:
    acted = [(t * MS, "r1") for t in (0, 50, 100, 151)] + [(120 * MS, "r2")]
    assert spells(acted) == [spell("r1", 0, 100), spell("r2", 120, 120), spell("r1", 151, 151)]


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ([("r1", 0, 5000), ("r2", 5001, 7000)], 0),
        ([("r1", 0, 5030), ("r2", 5000, 7000)], 30),
        ([("r1", 0, 5000), ("r2", 4500, 4500)], 1),  # one frame is wrong, however short
        ([("r1", 0, 5000), ("r1", 4000, 4500)], 0),
        ([("r1", 0, 4030), ("r2", 3000, 7000)], 30),  # what was before the window is no matter
        ([("r1", 0, 3999), ("r2", 3000, 7000)], 0),
        ([("r1", 0, 6900), ("r2", 5000, 7000)], 1900),
        ([("r1", 0, 6960), ("r2", 5000, 8000)], ENDLESS),
        ([("r1", 0, 4500), ("r2", 4490, 5500), ("r3", 5480, 7000)], 30),
    ],
)
def test_two_holders_are_what_spells_have_in_common(
    held: list[tuple[str, float, float]], expected: float
) -> None:
    assert two_ms([spell(*words) for words in held], WINDOW) == expected


def test_a_change_is_another_router_and_in_the_window() -> None:
    held = [spell("r1", 0, 1000), spell("r2", 2000, 3000), spell("r2", 4500, 5000)]
    assert changes(held, WINDOW) == 0
    held += [spell("r1", 5100, 5200), spell("r2", 5300, 7000), spell("r3", 7000, 7100)]
    assert changes(held, WINDOW) == 2


def good_trial() -> list[Fact]:
    return [
        stream("udp-in", 8000, (4010, 4040)),
        stream("udp-out", 8000, (4010, 4060)),
        stream("new-in", 8000, (4010, 4090)),
        stream("tcp-in", 8000, (4010, 4300)),
        connection("tcp-in", 8000),
        *speaks("r1", 0, 4000),
        *speaks("r2", 4080, 8000),
    ]


def test_a_whole_trial() -> None:
    found = measure(History.of(good_trial()), WINDOW, STREAMS, unheard={})
    assert found.lost == {"udp-in": 3, "udp-out": 5}
    assert found.gap_ms == {"udp-in": 30, "udp-out": 50}
    assert found.new_ms == {"new-in": 80}
    assert found.again_ms == {"new-in": 91}
    assert (found.arp_ms, found.two_ms, found.changes, found.announcements) == (0, 0, 1, 4)
    assert found.tcp_dead == {}


def test_a_router_that_nobody_hears_is_no_second_holder() -> None:
    facts = [*good_trial(), *speaks("r1", 4000, 6000)]
    history = History.of(facts)
    assert measure(history, WINDOW, STREAMS, unheard={"r1": 4020 * MS}).two_ms == 0
    assert measure(history, WINDOW, STREAMS, unheard={}).two_ms == 1910


def test_admitting_connections_is_acting_as_the_holder() -> None:
    late = [AdmissionSeen(t * MS, "r1", "private") for t in range(4000, 4200, 2)]
    found = measure(History.of([*good_trial(), *late]), WINDOW, STREAMS, unheard={})
    assert (found.two_ms, found.arp_ms, found.changes) == (118, 0, 1)


def test_connections_that_ended_or_fell_silent_are_dead() -> None:
    facts = [fact for fact in good_trial() if getattr(fact, "workload", "") != "tcp-in"]
    answered = stream("tcp-in", 8000)
    reset = measure(
        History.of([*facts, answered, connection("tcp-in", 8000, error="reset")]),
        WINDOW, STREAMS, unheard={},
    )  # fmt: skip
    assert reset.tcp_dead == {"tcp-in": "reset"}
    silent: list[Fact] = [stream("tcp-in", 8000, (4000, 9000)), connection("tcp-in", 8000)]
    assert measure(History.of([*facts, *silent]), WINDOW, STREAMS, unheard={}).tcp_dead
    unfinished = measure(History.of([*facts, answered]), WINDOW, STREAMS, unheard={})
    assert unfinished.tcp_dead == {"tcp-in": "no end was recorded"}


def test_what_did_not_come_back_has_lost_without_end() -> None:
    facts = [fact for fact in good_trial() if getattr(fact, "workload", "") != "udp-in"]
    facts.append(stream("udp-in", 8000, (4000, 9000)))
    found = measure(History.of(facts), WINDOW, STREAMS, unheard={})
    assert found.lost["udp-in"] == found.gap_ms["udp-in"] == ENDLESS
    assert found.lost["udp-out"] == 5


def test_a_trial_without_a_stream_says_nothing() -> None:
    for missing in ("udp-out", "new-in", "tcp-in"):
        facts = [fact for fact in good_trial() if getattr(fact, "workload", "") != missing]
        with pytest.raises(LabError, match=f"{missing} was never answered"):
            measure(History.of(facts), WINDOW, STREAMS, unheard={})


def test_a_flow_that_was_too_young_to_be_replicated_says_nothing() -> None:
    facts = [fact for fact in good_trial() if getattr(fact, "workload", "") != "udp-in"]
    facts.append(stream("udp-in", 8000, (0, 2000)))
    with pytest.raises(LabError, match="udp-in was only 1999 ms old"):
        measure(History.of(facts), WINDOW, STREAMS, unheard={})
