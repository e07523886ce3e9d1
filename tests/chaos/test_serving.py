"""The checkers of servers find what a run must not show, and excuse what it may."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import pytest

from chaos.faults.bounds import BACK_MS, BLIND_MS, DETECT_MS
from chaos.judge.availability import connections_survive
from chaos.judge.server_outages import (
    blind_faults,
    blind_holder,
    checkers,
    dead_server,
    excused,
    host_of,
    judged,
    opened,
    rotation,
    undisturbed,
)
from chaos.lab.topology import SERVERS, server_addresses
from chaos.observe.observed import Lag, ServerOutage
from chaos.observe.run_history import (
    MS,
    AdmissionSeen,
    Connection,
    Fact,
    History,
    Injection,
    Outcome,
    Request,
)
from tests.chaos.histories import stream
from tests.chaos.runs import fault, holds, of

DETECT, BACK, BLIND = round(DETECT_MS), round(BACK_MS), round(BLIND_MS)
END = 12_000
_ports = count(40_000)


def down(
    at_ms: int, end_ms: int, server: str = "s3", how: str = "stopped", *, back_ms: int | None = None
) -> ServerOutage:
    back_ms = end_ms if back_ms is None else back_ms
    return ServerOutage(at_ms * MS, end_ms * MS, back_ms * MS, server, how)


def opens(at_ms: int, server: str, *, version: int = 4, port: int | None = None) -> AdmissionSeen:
    own, six = server_addresses(server)
    target = f"{own}:8080" if version == 4 else f"[{six}]:8080"
    source = f"203.0.113.100:{next(_ports) if port is None else port}"
    return AdmissionSeen(at_ms * MS, "r1", "private", version, source, target)


def served(
    start_ms: int, end_ms: int, servers: Sequence[str] = SERVERS, *, version: int = 4
) -> list[AdmissionSeen]:
    """New connections, one each 10 ms, to all of these in turn."""
    return [
        opens(t, servers[i % len(servers)], version=version)
        for i, t in enumerate(range(start_ms, end_ms, 10))
    ]


def usual(outage: ServerOutage, end_ms: int = END) -> list[Fact]:
    """What a build that works shows: the server has clients until it is known, and again after."""
    others = [s for s in SERVERS if s != outage.server]
    known, back = outage.t_ns // MS + 1500, outage.back_ns // MS + 900
    return [
        outage,
        *served(0, known),
        *served(known, back, others),
        *served(back, end_ms),
        *holds("r1", 0, end_ms),
    ]


def asks(
    at_ms: int, server: str, *, took_ms: int = 2, error: str | None = None
) -> tuple[AdmissionSeen, Request]:
    new = opens(at_ms, server)
    outcome: Outcome = "ok" if error is None else "fail"
    told = server if error is None else None
    end_ns = (at_ms + took_ms) * MS
    return new, Request("http", at_ms * MS, end_ns, outcome, told, error, new.source)


def blinded(at_ms: int, heal_ms: int, node: str = "r1") -> Injection:
    found = fault(at_ms, heal_ms, nodes=(node,), out=())
    return replace(found, nemesis="blind-holder")


def test_an_address_says_which_server_it_is_of() -> None:
    assert [host_of(opens(0, s, version=v).target) for s in SERVERS for v in (4, 6)] == [
        "s1", "s1", "s2", "s2", "s3", "s3",
    ]  # fmt: skip
    assert host_of("203.0.113.100:9000") is None
    assert host_of("") is None


def test_packet_that_is_sent_again_opens_no_connection() -> None:
    again = [opens(t, "s1", port=7) for t in (0, 1000, 3000)]
    assert [o.t_ns for o in opened(again)] == [0]
    assert len(opened([*again, opens(40_000, "s1", port=7)])) == 2


# dead-server ---------------------------------------------------------------------------


def test_server_that_gets_no_new_clients_once_it_is_known_to_be_dead_is_valid() -> None:
    history = of(*usual(down(1000, 5000)))
    assert dead_server(history).valid is True
    assert [name for name, _ in checkers(history)] == ["dead-server", "undisturbed", "rotation"]


def test_build_that_ignores_verdicts_is_found() -> None:
    # Recorded: every server of a service in rotation, whatever the log has of it.
    ignoring = of(down(1000, 5000), *served(0, END), *holds("r1", 0, END))
    found = dead_server(ignoring)
    assert found.valid is False
    assert "new connections on a dead server up to 39" in found.summary
    assert "s3, stopped" in found.summary


@pytest.mark.parametrize("after_ms", [DETECT - 10, DETECT + 10])
def test_bound_is_what_the_checks_take(after_ms: int) -> None:
    history = of(*usual(down(1000, 5000)), opens(1000 + after_ms, "s3"))
    assert dead_server(history).valid is (after_ms < DETECT)


def test_outage_that_is_over_before_it_is_noticed_is_not_judged() -> None:
    history = of(down(1000, 1000 + DETECT - 50), *served(0, END), *holds("r1", 0, END))
    assert judged(history) == []
    assert "dead-server" not in [name for name, _ in checkers(history)]


def by_next(at_ms: int, facts: Sequence[Fact]) -> list[Fact]:
    """The same, but what passed later passed r2."""
    return [
        replace(f, router="r2") if isinstance(f, AdmissionSeen) and f.t_ns >= at_ms * MS else f
        for f in facts
    ]


def moved(at_ms: int, *facts: Fact) -> History:
    """r2 takes over at an instant, 300 ms after r1 died."""
    kill = fault(at_ms - 300, None, nodes=("r1",))
    return of(*by_next(at_ms, facts), kill, *holds("r1", 0, at_ms - 300), *holds("r2", at_ms, END))


def test_takeover_before_a_server_is_known_to_be_dead_begins_the_time_anew() -> None:
    outage, late = down(1000, 7000), opens(2500 + DETECT - 50, "s3")
    others = served(0, 2200)
    assert dead_server(moved(2500, outage, *others, late)).valid is True
    too_late = opens(2500 + DETECT + 50, "s3")
    assert dead_server(moved(2500, outage, *others, too_late)).valid is False


def test_takeover_amid_an_outage_that_is_known_excuses_nothing() -> None:
    outage, others = down(1000, 8000), served(0, 2400)
    assert dead_server(moved(4500, outage, *others)).valid is True
    assert dead_server(moved(4500, outage, *others, opens(4600, "s3"))).valid is False


def test_without_a_connection_nothing_is_known() -> None:
    history = of(down(1000, 5000), *holds("r1", 0, END))
    assert dead_server(history).valid == "unknown"


def test_time_for_which_checkers_had_no_core_is_excused() -> None:
    history = of(*usual(down(1000, 6000)), opens(1000 + DETECT + 200, "s3"))
    assert dead_server(history).valid is False
    busy = of(*usual(down(1000, 6000)), opens(1000 + DETECT + 200, "s3"), Lag(1200 * MS, 400 * MS))
    assert dead_server(busy).valid is True


# undisturbed ---------------------------------------------------------------------------


def test_requests_to_living_servers_have_to_succeed() -> None:
    fine = [f for t in range(0, END, 50) for f in asks(t, "s1")]
    outage = down(1000, 5000)
    assert undisturbed(of(outage, *fine, *holds("r1", 0, END))).valid is True
    met = asks(1500, "s3", error="refused")  # before that is known
    assert undisturbed(of(outage, *fine, *met, *holds("r1", 0, END))).valid is True
    for wrong in (
        asks(1500, "s1", error="reset"),
        asks(1500, "s1", took_ms=1500),
        asks(4000, "s3", error="refused"),
    ):
        found = undisturbed(of(outage, *fine, *wrong, *holds("r1", 0, END)))
        assert found.valid is False, wrong
        assert f"at {host_of(wrong[0].target)}, s3 stopped" in found.summary


def test_request_that_fails_while_checkers_have_no_core_is_excused() -> None:
    wrong = asks(1500, "s1", error="reset")
    facts = [down(1000, 5000), *wrong, *holds("r1", 0, END)]
    assert undisturbed(of(*facts, Lag(1300 * MS, 100 * MS))).valid is False
    found = undisturbed(of(*facts, Lag(1300 * MS, 200 * MS)))
    assert (found.valid, "1 excused" in found.summary) == (True, True)


def test_requests_amid_another_fault_are_not_judged() -> None:
    outage, killed = down(1000, 5000), fault(900, 5000)
    wrong = asks(1500, "s1", error="reset")
    found = undisturbed(of(outage, killed, *wrong, *holds("r1", 0, END)))
    assert (found.valid, found.evidence["judged"]) == ("unknown", 0)


# rotation ------------------------------------------------------------------------------


def test_server_that_serves_again_has_clients_in_time() -> None:
    outage = down(1000, 5000, back_ms=5300)
    assert rotation(of(*usual(outage))).valid is True
    never = [*served(0, 1500), *served(1500, END, ("s1", "s2")), *holds("r1", 0, END)]
    found = rotation(of(outage, *never))
    assert found.valid is False
    assert "s3 after stopped" in found.summary
    late = rotation(of(outage, *never, opens(5300 + BACK + 50, "s3")))
    assert late.valid is False


def test_server_that_fell_too_often_may_stay_out() -> None:
    times = [down(t, t + 2000, back_ms=t + 2000) for t in range(1000, 17_000, 5000)]
    others = served(0, 30_000, ("s1", "s2"))
    history = of(*times, *others, *(opens(t.back_ns // MS + 900, "s3") for t in times[:3]))
    found = rotation(of(*history.outages, *history.admissions, *holds("r1", 0, 30_000)))
    assert found.valid is True
    assert (found.evidence["judged"], "1 times it may have flapped" in found.summary) == (3, True)


def test_short_outages_are_no_falls() -> None:
    times = [down(t, t + 300) for t in range(1000, 17_000, 4000)]
    found = rotation(of(*times, *served(0, 30_000, ("s1", "s2")), *holds("r1", 0, 30_000)))
    assert (found.valid, found.evidence["judged"]) == (False, 4)


# blind-holder --------------------------------------------------------------------------


def blind_run(gives_up_ms: int, *, pool: Sequence[str] = SERVERS) -> History:
    after = gives_up_ms + 100
    new = [*served(0, 2000), *served(2000, 5000, pool), *served(5000, END)]
    new += served(0, END, version=6)
    return of(
        blinded(1000, 6000),
        *holds("r1", 0, gives_up_ms),
        *holds("r2", after, END),
        *by_next(after, [f for f in new if not gives_up_ms <= f.t_ns // MS < after]),
    )


def test_blind_holder_that_hands_over_and_keeps_its_servers_is_valid() -> None:
    assert blind_holder(blind_run(2800)).valid is True


def test_blind_holder_that_goes_on_is_found() -> None:
    found = blind_holder(blind_run(1000 + BLIND + 300))
    assert found.valid is False
    assert "r1 held for" in found.summary


def test_blind_holder_that_empties_its_pool_is_found() -> None:
    found = blind_holder(blind_run(2800, pool=("s1",)))
    assert found.valid is False
    assert "all new connections of IPv4 went to s1" in found.summary
    assert blind_holder(blind_run(2800, pool=("s1", "s2"))).valid is True


def test_blindness_is_judged_alone_and_once_a_minute() -> None:
    one = blind_run(2800)
    assert len(blind_faults(one)) == 1
    both = of(*one.injections, fault(1200, 3000, nodes=("r3",)), *one.arp)
    assert blind_faults(both) == []
    again = of(blinded(1000, 6000), blinded(9000, 14_000), *holds("r1", 0, 20_000))
    assert [i.t_ns for i in blind_faults(again)] == [1000 * MS]
    backup = of(blinded(1000, 6000, node="r2"), *holds("r1", 0, END))
    assert blind_faults(backup) == []


# connections ---------------------------------------------------------------------------


def reset(at_ms: int, new: AdmissionSeen) -> Connection:
    return Connection("tcp-in", 0, at_ms * MS, 10, 0, "ConnectionResetError(104)", new.source)


def survives(*facts: Fact) -> bool | str:
    history = of(*facts, stream("tcp-in", END))
    return connections_survive(history, ["tcp-in"], END * MS).valid


def test_connection_that_ends_with_its_server_is_excused_and_no_other() -> None:
    outage = down(1000, 5000)
    own, other = opens(0, "s3"), opens(0, "s1")
    assert survives(outage, own, reset(2500, own)) is True
    assert survives(outage, other, reset(2500, other)) is False
    assert survives(outage, own, reset(800, own)) is False
    assert survives(own, reset(2500, own)) is False


def test_connection_that_waits_for_the_answer_of_a_server_that_fell_silent_is_excused() -> None:
    own, other = opens(0, "s3"), opens(0, "s1")
    for new, good in ((own, True), (other, False)):
        silent = replace(reset(21_050, new), error="TimeoutError('no answer for 20 s')")
        history = of(down(1000, 5000), new, silent, stream("tcp-in", 22_000))
        assert connections_survive(history, ["tcp-in"], 22_000 * MS).valid is good


def test_connection_to_a_server_that_was_down_too_shortly_to_be_noticed_has_to_live() -> None:
    own = opens(0, "s3")
    assert survives(down(1000, 1300), own, reset(1500, own)) is False
    assert survives(down(1000, 1300, how="killed"), own, reset(1001, own)) is True


def test_connection_that_a_killed_server_s_kernel_closes_is_excused_and_no_other() -> None:
    own, other = opens(0, "s3"), opens(0, "s1")
    for outage, new, at_ms, good in (
        (down(1000, 5000, how="killed"), own, 1001, True),
        (down(1000, 5000, how="killed"), other, 1001, False),
        (down(1000, 5000, how="killed"), own, 800, False),
        (down(1000, 5000), own, 1001, False),
    ):
        closed = replace(reset(at_ms, new), error="ConnectionError('closed by the other end')")
        assert survives(outage, new, closed) is good, (outage, at_ms)


def test_connections_may_end_while_no_router_reaches_any_server() -> None:
    own = opens(0, "s1")
    cut = replace(fault(1000, 3000, nodes=("r1", "r2", "r3")), severs=True)
    assert survives(cut, own, reset(2500, own)) is True
    assert survives(replace(cut, severs=False), own, reset(2500, own)) is False
    closed = replace(reset(2500, own), error="ConnectionError('closed by the other end')")
    assert excused(of(cut, own, closed)) == {}
