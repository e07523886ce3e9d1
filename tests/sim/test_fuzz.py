"""A real node that is told nonsense by peers who know the key: a bug of theirs is not ours.

Refused with a `WireError`, which cuts the connection and is counted, or survived; never
another exception, which would end the daemon. What was committed stays, and the node
works afterwards.
"""

from __future__ import annotations

import random

import pytest

from hanat.core.beacon import Beacon
from hanat.errors import WireError
from hanat.raft.guard import Guard
from hanat.raft.messages import decode
from tests.raft import fuzz
from tests.sim.bench import Bench, entries_of

PEERS = (2, 3)
ROUND = 25  # messages between two looks at the node
LOG_ENTRIES_MAX = 3000  # what a peer may append in a round, and much more


@pytest.mark.parametrize("seed", range(4))
def test_nonsense_of_a_peer_is_refused_or_survived(seed: int) -> None:
    _tell_nonsense(seed, messages=1000)


@pytest.mark.swarm
@pytest.mark.parametrize("seed", range(100, 120))
def test_a_hundred_thousand_messages_of_nonsense(seed: int) -> None:
    _tell_nonsense(seed, messages=5000)


def _tell_nonsense(seed: int, *, messages: int) -> None:
    rng = random.Random(seed)
    refused = 0
    for _ in range(messages // (ROUND * 4)):
        bench = Bench(Guard, entries=entries_of(1, 2, 6), term=1)
        bench.run(0.6)
        if rng.random() < 0.5:
            bench.acks = set(PEERS)
            bench.elect()
        for _ in range(4):
            for _ in range(ROUND):
                refused += _say_something(rng, bench)
            bench.tick().run(rng.choice((0.0, 0.01, 0.1)))
            assert len(bench.node.journal) < LOG_ENTRIES_MAX
        assert not [text for text in bench.world.violations if "committed" in text]
        _check_that_it_works(bench)
    assert refused


def _say_something(rng: random.Random, bench: Bench) -> bool:
    """Let a peer say anything; return whether it was refused."""
    peer, node = rng.choice(PEERS), bench.node
    last = (bench.last, node.journal[-1][2])
    try:
        if rng.random() < 0.3:
            bench.hear(peer, fuzz.beacon(rng, term=bench.term, nodes=3), node.clock())
        else:
            data = fuzz.encoded(rng, term=bench.term, last=last)
            bench.world.on(node, node.receive, peer, decode(data))
    except WireError:
        return True
    return False


def _check_that_it_works(bench: Bench) -> None:
    """Let a peer lead the next term and append."""
    bench.acks = set()
    bench.run(1.0)  # whatever it promised, or believed in, is over
    term = bench.term + 1
    _, index, index_term = bench.node.journal[-1]
    bench.hear(2, Beacon(term=term, leads=True, asks=True))
    entry = entries_of(term, index + 1, index + 1)
    bench.append(2, term=term, after=(index, index_term), entries=entry, commit=index + 1)
    bench.tick()
    assert (bench.term, bench.last) == (term, index + 1)
    strange = bench.node.replica.machine.strange  # an entry of a later version was among it
    assert bench.node.replica.applied_index == (strange[0] - 1 if strange else index + 1)
