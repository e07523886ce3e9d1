"""The configuration's checker: a second, dumb implementation agrees, and faults are found."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import permutations

import pytest

from chaos.judge.checkers import Valid, Verdict
from chaos.judge.linearizable import configuration
from chaos.observe.run_history import ConfigOperation, History
from chaos.workloads.configuring import changed


def write(
    t: int, end: int, based_on: int, revision: int | None, text: str = "", client: str = "a"
) -> ConfigOperation:
    outcome = "info" if revision is None else "ok"
    text = text or f"text {revision}"
    return ConfigOperation(t, end, client, "r1", "write", based_on, revision, text, outcome)  # type: ignore[arg-type]


def stale(t: int, end: int, based_on: int) -> ConfigOperation:
    return ConfigOperation(t, end, "b", "r2", "stale", based_on, None, "", "fail")


def read(t: int, end: int, revision: int, text: str = "") -> ConfigOperation:
    text = text or f"text {revision}"
    return ConfigOperation(t, end, "c", "r3", "read", None, revision, text, "ok")


def judged(*operations: ConfigOperation) -> Verdict:
    return configuration(History.of(operations))


GOOD = (
    read(0, 1, 1),
    write(2, 5, 1, 2),
    stale(3, 6, 1),
    read(4, 5, 2),
    write(7, 9, 2, 3),
    read(8, 9, 2),  # old, from a node that lags
    read(10, 11, 3),
)


def test_history_of_a_register_passes() -> None:
    assert judged(*GOOD).valid is True
    assert judged(read(0, 1, 1)).valid == "unknown"
    assert judged().valid == "unknown"


def test_write_of_unknown_outcome_may_have_been_done_or_not() -> None:
    unknown = write(2, 5, 1, None, "x")
    assert judged(read(0, 1, 1), unknown, write(6, 7, 1, 2)).valid is True
    assert judged(read(0, 1, 1), unknown, read(6, 7, 2, "x"), write(8, 9, 2, 3)).valid is True
    # Long after its client gave up, but not before it was asked for.
    assert judged(read(0, 1, 1), unknown, write(90, 99, 2, 3)).valid is True
    late = replace(unknown, t_ns=20, end_ns=30)
    assert judged(read(0, 1, 1), write(2, 3, 2, 3), late).valid is False


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([write(2, 5, 1, 2, client="z")], "was given to a and z"),
        ([write(12, 13, 1, 4)], "based its write on revision 1 and got 4"),
        ([read(12, 13, 3, "other")], "shows another text for revision 3"),
        ([read(12, 13, 5)], "nobody wrote revision"),
        ([stale(12, 13, 3)], "was refused, and revision 3 was newest"),
        ([write(20, 21, 3, 4), write(14, 15, 4, 5)], "was written before 4 was asked for"),
        ([write(20, 21, 3, 4), read(14, 15, 4)], "before it was written"),
    ],
)
def test_what_no_register_does_is_caught(bad: Sequence[ConfigOperation], message: str) -> None:
    verdict = judged(*GOOD, *bad)
    assert verdict.valid is False
    assert message in str(verdict.evidence["problems"])


def simulate(draw: random.Random, count: int, *, clients: int = 4) -> Iterator[ConfigOperation]:
    """Operations of clients on a real register, each taking effect at an instant of its own."""
    revision, texts, now = 1, {1: "text 1"}, 0
    known = dict.fromkeys(range(clients), 1)
    yield read(0, 1, 1)
    for number in range(count):
        client = draw.randrange(clients)
        # Effects follow each other; how long before and after a client waited does not matter.
        now += 10
        t, end = now - draw.randint(0, 15), now + draw.randint(0, 15)
        based_on = known[client]
        kind = draw.random()
        if kind < 0.4:
            known[client] = revision
            yield read(t, end, revision, texts[revision])
        elif based_on == revision:
            revision += 1
            texts[revision] = f"text {number}"
            shown = None if kind > 0.95 else revision
            yield write(t, end, based_on, shown, texts[revision], f"c{client}")
        else:
            yield stale(t, end, based_on)


def test_two_thousand_operations_of_a_register_pass_and_one_lie_among_them_is_caught() -> None:
    for seed in range(5):
        draw = random.Random(seed)
        operations = list(simulate(draw, 2000))
        assert judged(*operations).valid is True, f"seed={seed}"
        lies = [i for i, o in enumerate(operations) if o.f == "read" and i > 1000]
        index = draw.choice(lies)
        operations[index] = replace(operations[index], text="never written")
        assert judged(*operations).valid is False, f"seed={seed}"


def searched(operations: Sequence[ConfigOperation]) -> Valid:
    """Try every order of the writes and refusals, as Wing & Gong define it."""
    writes = [o for o in operations if o.f != "read"]
    if not any(o.outcome == "ok" for o in writes):
        return "unknown"
    for order in permutations(writes):
        for skipped in _subsets([o for o in order if o.outcome == "info"]):
            chosen = [o for o in order if o not in skipped]
            if _respects_time(chosen) and _is_a_register(chosen):
                return True
    return False


def _subsets(items: Sequence[ConfigOperation]) -> Iterator[list[ConfigOperation]]:
    for bits in range(1 << len(items)):
        yield [item for i, item in enumerate(items) if bits >> i & 1]


def _respects_time(order: Sequence[ConfigOperation]) -> bool:
    ends = [1 << 62 if o.outcome == "info" else o.end_ns for o in order]
    return all(
        ends[j] >= order[i].t_ns for i in range(len(order)) for j in range(i + 1, len(order))
    )


def _is_a_register(order: Sequence[ConfigOperation]) -> bool:
    revision = 1
    for each in order:
        if each.f == "stale":
            if each.based_on is None or each.based_on >= revision:
                return False
        else:
            if each.based_on != revision or each.revision not in (None, revision + 1):
                return False
            revision += 1
    return True


def test_a_search_of_all_orders_says_the_same() -> None:
    verdicts: dict[Valid, int] = {}
    for seed in range(400):
        draw = random.Random(seed)
        operations = [o for o in simulate(draw, 12, clients=3) if o.f != "read"][:6]
        if draw.random() < 0.6 and operations:
            index = draw.randrange(len(operations))
            shift = draw.choice((-40, -20, 20, 40))
            moved = operations[index]
            operations[index] = replace(moved, t_ns=moved.t_ns + shift, end_ns=moved.end_ns + shift)
        mine = judged(read(-99, -98, 1), *operations).valid
        assert mine == searched(operations), f"seed={seed} {operations}"
        verdicts[mine] = verdicts.get(mine, 0) + 1
    assert min(verdicts.get(True, 0), verdicts.get(False, 0)) > 20, verdicts


def test_a_change_is_told_from_every_other_and_replaces_the_last() -> None:
    text = "schema = 1\n[[service]]\n  weight = 2\n  weight = 1\n"
    once = changed(text, tag="a-1", weight=5)
    assert once == "# chaos a-1\nschema = 1\n[[service]]\n  weight = 5\n  weight = 1\n"
    assert changed(once, tag="b-7", weight=3).splitlines()[:2] == ["# chaos b-7", "schema = 1"]
