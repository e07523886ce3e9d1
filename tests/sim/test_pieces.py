"""Pieces of snapshots as one node takes them from a scripted leader."""

from __future__ import annotations

from hanat.raft import snapshot
from hanat.raft.guard import Guard
from hanat.raft.snapshot import digest_of
from hanat.raft.state import State
from tests.sim import repairs
from tests.sim.bench import Bench, entries_of, with_and_without


def made(last: int, term: int, *, uids: int = 0, damage: bool = False) -> bytes:
    """Return a snapshot up to an index."""
    previous, newest = entries_of(term, last - 1, last)
    state = State()
    state.term = term
    content = b"".join(uid.to_bytes(8, "big") for uid in range(uids))
    parts = [*state.freeze(), (b"uids", content)]
    data = b"".join(snapshot.encode("sim", previous, newest, parts))
    return data[:-40] + bytes(40) if damage else data


def offer(bench: Bench, data: bytes, *, term: int, last: int) -> Bench:
    """Let peer 2, as leader, send a snapshot in two pieces."""
    fields = {"term": term, "last": (last, term), "size": len(data)}
    fields |= {"digest": digest_of(data)}
    half = len(data) // 2
    for offset, piece in ((0, data[:half]), (half, data[half:])):
        bench.say(2, "snapshot", offset=offset, data=piece, **fields)
        bench.run(0.02)
    return bench


def answers(bench: Bench) -> list[tuple[str, int]]:
    return [(m["kind"], m["index"]) for m in bench.take("snapshot_ack", to=2)]


def test_snapshot_replaces_a_tail_that_nobody_committed() -> None:
    bench = Bench(Guard, entries=entries_of(1, 2, 5), term=1).run(0.6)
    bench.append(2, term=2, after=(90, 2)).tick()
    offer(bench, made(80, 2, uids=3), term=2, last=80)
    assert answers(bench)[-1] == ("installed", 80)
    assert [e[1] for e in bench.node.journal[:]] == [79, 80]
    assert bench.node.replica.applied_index == 80
    assert bench.node.applied == [0, 1, 2]
    bench.append(2, term=2, after=(80, 2), entries=entries_of(2, 81, 81), commit=81).tick()
    assert bench.node.replica.applied_index == 81


@with_and_without(repairs.WithoutPieces)
def test_piece_of_a_snapshot_commits_nothing(guard: type[Guard]) -> None:
    bench = Bench(guard, entries=entries_of(1, 2, 5), term=1).run(0.6)
    bench.append(2, term=2, after=(90, 2), commit=90).tick()
    data = made(80, 2)
    fields = {"term": 2, "last": (80, 2), "size": len(data), "digest": digest_of(data)}
    bench.say(2, "snapshot", offset=0, data=data[:50], **fields)
    bench.tick()
    assert (bench.node.replica.applied_index == 1) is (guard is Guard)


@with_and_without(repairs.WithoutSnapshotCheck)
def test_damaged_snapshot_is_not_installed_nor_acknowledged(guard: type[Guard]) -> None:
    bench = Bench(guard, entries=entries_of(1, 2, 5), term=1).run(0.6)
    bench.append(2, term=2, after=(90, 2)).tick()
    bench.take("next_node_idx")
    offer(bench, made(80, 2, damage=True), term=2, last=80)
    said = answers(bench)
    assert (("installed", 80) not in said) is (guard is Guard)
    if guard is Guard:
        assert said[-1][0] == "damaged"
        assert bench.last == 5
        offer(bench, made(80, 2), term=2, last=80)
        assert answers(bench)[-1] == ("installed", 80)


@with_and_without(repairs.WithoutNeed)
def test_snapshot_that_is_not_needed_any_more_takes_nothing_away(guard: type[Guard]) -> None:
    bench = Bench(guard).run(0.6)
    bench.append(2, term=1, after=(1, 0), entries=entries_of(1, 2, 11), commit=11).tick()
    offer(bench, made(6, 1), term=1, last=6)
    assert (bench.last == 11) is (guard is Guard)
    if guard is Guard:
        assert answers(bench)[-1] == ("installed", 11)


def test_snapshot_of_a_deposed_leader_is_answered_with_the_term() -> None:
    bench = Bench(Guard).run(0.6)
    bench.append(3, term=5, after=(1, 0)).run(0.05)
    bench.sent.clear()
    offer(bench, made(80, 2), term=2, last=80)
    assert bench.take("stale_term", to=2) != []
    assert bench.last == 1
