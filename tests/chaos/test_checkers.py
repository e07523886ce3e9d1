"""The oracle is honest: each checker passes a good history and fails each bad one."""

from __future__ import annotations

from chaos.judge import checkers
from chaos.judge.checkers import Verdict, Window, checked, worst
from chaos.observe.run_history import MS, History, Probes
from tests.chaos.histories import (
    ADDRESSES,
    connection,
    judged,
    kill,
    request,
    restart,
    speaks,
    stream,
    switchover,
)

# r1 is killed at 1 s and answers until its gate shuts; r2 takes over; r1 comes back, gets it back.
GOOD = (
    speaks("r1", 0, 1060),
    kill(1000),
    speaks("r2", 1150, 4010),
    restart(3000),
    switchover(4000, "r1"),
    speaks("r1", 4050, 6000),
)


def test_windows_are_cut_at_every_fault() -> None:
    _, cut = judged(*GOOD, end_ms=6000)
    assert [(w.label, w.start_ns // MS, w.end_ns // MS, w.moves_holder) for w in cut] == [
        ("before", 0, 1000, False),
        ("kill r1", 1000, 3000, True),
        ("restart r1", 3000, 4000, False),
        ("switchover to r1", 4000, 6000, True),
    ]


def test_good_history_passes_every_holder_check() -> None:
    history, cut = judged(*GOOD, end_ms=6000)
    verdicts = [
        checkers.one_speaker(history, cut),
        checkers.holder_moved(history, cut, "public"),
        checkers.addresses_together(history, cut, ADDRESSES),
        checkers.announced(history, cut, ADDRESSES),
    ]
    assert worst(verdicts) is True, verdicts
    assert checkers.holders(history, cut, "private") == ["r1", "r2", "r1"]


# One holder ----------------------------------------------------------------------------


def test_old_holder_that_answers_after_the_new_one_began_is_caught() -> None:
    history, cut = judged(speaks("r1", 0, 1210), kill(1000), speaks("r2", 1150, 3000), end_ms=3000)
    verdict = checkers.one_speaker(history, cut)
    assert verdict.valid is False
    assert verdict.evidence["overlap_ms"] == 50.0


def test_overlap_on_different_addresses_is_caught() -> None:
    history, cut = judged(
        speaks("r1", 0, 1210, networks=("private",)),
        kill(1000),
        speaks("r2", 1150, 3000, networks=("public",)),
        end_ms=3000,
    )
    assert checkers.one_speaker(history, cut).valid is False


def test_single_late_frame_of_the_old_holder_is_caught() -> None:
    history, cut = judged(
        speaks("r1", 0, 1000),
        kill(1000),
        speaks("r2", 1150, 3000),
        speaks("r1", 2500, 2501),
        end_ms=3000,
    )
    assert checkers.one_speaker(history, cut).valid is False


def test_two_holders_without_any_fault_are_caught() -> None:
    history, cut = judged(speaks("r1", 0, 900), speaks("r3", 500, 900), end_ms=1000)
    assert checkers.one_speaker(history, cut).evidence["overlap_ms"] == 390.0


def test_no_frame_at_all_is_unknown() -> None:
    history, cut = judged(kill(500), end_ms=1000)
    assert checkers.one_speaker(history, cut).valid == "unknown"


# Where the addresses are ---------------------------------------------------------------


def test_address_left_behind_is_caught() -> None:
    history, cut = judged(
        speaks("r1", 0, 1000),
        kill(1000),
        speaks("r2", 1100, 3000, networks=("public",)),
        speaks("r3", 1100, 3000, networks=("private",)),
        end_ms=3000,
    )
    assert checkers.addresses_together(history, cut, ADDRESSES).valid is False


def test_address_nobody_speaks_for_is_caught() -> None:
    history, cut = judged(
        speaks("r1", 0, 1000),
        kill(1000),
        speaks("r2", 1100, 3000, networks=("public",)),
        end_ms=3000,
    )
    verdict = checkers.addresses_together(history, cut, ADDRESSES)
    assert verdict.valid is False
    assert "nobody spoke" in verdict.summary


def test_takeover_without_announcement_is_caught() -> None:
    history, cut = judged(
        speaks("r1", 0, 1000), kill(1000), speaks("r2", 1100, 3000, announces=False), end_ms=3000
    )
    assert checkers.announced(history, cut, ADDRESSES).valid is False


def test_addresses_that_stay_after_a_kill_are_caught() -> None:
    history, cut = judged(speaks("r1", 0, 3000), kill(1000), end_ms=3000)
    verdict = checkers.holder_moved(history, cut, "public")
    assert verdict.valid is False
    assert "should have moved" in verdict.summary


def test_addresses_that_move_on_a_restart_of_a_backup_are_caught() -> None:
    history, cut = judged(
        speaks("r2", 0, 1000), restart(1000), speaks("r1", 1100, 3000), end_ms=3000
    )
    verdict = checkers.holder_moved(history, cut, "public")
    assert verdict.valid is False
    assert "should have stayed" in verdict.summary


def test_switchover_to_another_node_than_asked_is_caught() -> None:
    history, cut = judged(
        speaks("r1", 0, 1000), switchover(1000, "r2"), speaks("r3", 1100, 3000), end_ms=3000
    )
    assert checkers.holder_moved(history, cut, "public").valid is False


def test_end_needs_all_addresses_on_one_node() -> None:
    both = ["203.0.113.10", "10.11.12.1"]
    assert checkers.addresses_at_end({"r1": both, "r2": []}, both).valid is True
    assert checkers.addresses_at_end({"r1": both, "r2": both[:1]}, both).valid is False
    assert checkers.addresses_at_end({"r1": both[:1], "r2": []}, both).valid is False
    assert checkers.addresses_at_end({"r1": [], "r2": []}, both).valid is False


def test_silence_lasts_from_the_last_old_frame_to_the_first_new_one() -> None:
    history, cut = judged(*GOOD, end_ms=6000)
    assert [checkers.silence(history.arp, w) for w in cut] == [None, 100.0, None, 50.0]


# Outages -------------------------------------------------------------------------------


def test_outage_is_the_longest_gap_beyond_the_period() -> None:
    probes = stream("udp-in", 3000, (1000, 1200), (2000, 2050))
    found = checkers.outage(probes, Window("w", 500 * MS, 3000 * MS, moves_holder=True))
    # The last answer before arrives at 991, the first after at 1201.
    assert (found.outage_ms, found.lost) == (200.0, 20)
    assert (found.start_ns, found.end_ns) == (991 * MS, 1201 * MS)


def test_outage_that_never_ends_lasts_to_the_end_of_the_window() -> None:
    probes = stream("udp-in", 3000, (1000, 3000))
    found = checkers.outage(probes, Window("w", 500 * MS, 3000 * MS, moves_holder=True))
    assert found.outage_ms == 1999.0


def test_delayed_answers_count_as_an_outage() -> None:
    # Sent every 10 ms, those of 100 to 190 all arrive at 300.
    sent = [t * MS for t in range(0, 500, 10)]
    answered: list[int | None] = [t + MS if t < 100 * MS else max(t + MS, 300 * MS) for t in sent]
    found = checkers.outage(
        Probes("udp-in", 10 * MS, sent, answered), Window("w", 0, 500 * MS, moves_holder=False)
    )
    assert (found.outage_ms, found.lost) == (199.0, 0)


def test_outage_above_the_limit_is_caught() -> None:
    history, cut = judged(kill(1000), stream("udp-in", 4000, (1000, 1500)), end_ms=4000)
    assert checkers.outage_bounded(history, cut, ["udp-in"], 600).valid is True
    assert checkers.outage_bounded(history, cut, ["udp-in"], 400).valid is False


def test_stream_without_any_answer_is_caught() -> None:
    history, cut = judged(kill(1000), stream("udp-in", 4000, (0, 4000)), end_ms=4000)
    assert checkers.outage_bounded(history, cut, ["udp-in"], 9999).valid is False
    assert checkers.outage_bounded(history, cut, ["udp-out"], 9999).valid is False


def test_corrupt_answer_is_caught() -> None:
    history, cut = judged(kill(1000), stream("udp-in", 4000, corrupt=1), end_ms=4000)
    assert checkers.outage_bounded(history, cut, ["udp-in"], 9999).valid is False


# Connections ---------------------------------------------------------------------------


def test_connection_with_a_gap_survives() -> None:
    history, cut = judged(
        kill(1000), stream("tcp", 4000, (1000, 1700)), connection("tcp", 4000), end_ms=4000
    )
    verdict = checkers.connections_survived(history, cut, 1)
    assert verdict.valid is True
    assert verdict.evidence["survived"] == 1


def test_connection_that_hangs_without_an_error_is_caught() -> None:
    history, cut = judged(
        kill(1000), stream("tcp", 4000, (1000, 4000)), connection("tcp", 4000), end_ms=4000
    )
    assert checkers.connections_survived(history, cut, 1).valid is False


def test_connection_that_was_reset_or_got_foreign_bytes_is_caught() -> None:
    for broken in (
        connection("tcp", 4000, error="ConnectionResetError()"),
        connection("tcp", 4000, payload_errors=1),
    ):
        history, cut = judged(kill(1000), stream("tcp", 4000), broken, end_ms=4000)
        assert checkers.connections_survived(history, cut, 1).valid is False


def test_missing_connection_is_caught() -> None:
    history, cut = judged(kill(1000), stream("tcp", 4000), connection("tcp", 4000), end_ms=4000)
    assert checkers.connections_survived(history, cut, 2).valid is False


# Requests ------------------------------------------------------------------------------


def test_requests_may_fail_in_an_outage_only() -> None:
    during = [request(t, "fail" if 1000 <= t < 1500 else "ok") for t in range(0, 4000, 50)]
    history, cut = judged(kill(1000), during, end_ms=4000)
    verdict = checkers.requests_recovered(history, cut)
    assert verdict.valid is True
    assert verdict.evidence["counts"] == {"ok": 70, "fail": 10, "info": 0}


def test_requests_that_still_fail_at_the_end_of_a_window_are_caught() -> None:
    during = [request(t, "fail" if 1000 <= t < 3200 else "ok") for t in range(0, 4000, 50)]
    history, cut = judged(kill(1000), during, end_ms=4000)
    assert checkers.requests_recovered(history, cut).valid is False


def test_requests_that_stop_are_caught() -> None:
    history, cut = judged(kill(1000), [request(t) for t in range(0, 1500, 50)], end_ms=4000)
    assert checkers.requests_recovered(history, cut).valid is False
    assert checkers.requests_recovered(History(), cut).valid == "unknown"


# Verdicts ------------------------------------------------------------------------------


def test_worst_verdict_counts_and_none_is_unknown() -> None:
    good, unknown, bad = (Verdict("x", v, "") for v in (True, "unknown", False))
    assert worst([good, good]) is True
    assert worst([good, unknown]) == "unknown"
    assert worst([good, unknown, bad]) is False
    assert worst([]) == "unknown"


def test_checker_that_crashes_has_found_out_nothing() -> None:
    def broken(history: History) -> Verdict:
        raise KeyError(str(history))

    verdict = checked("broken", broken, History())
    assert verdict.valid == "unknown"
    assert "crashed" in verdict.summary
