"""Clients of servers that stay keep their server; what moves is counted."""

from __future__ import annotations

import hashlib
from collections import Counter
from ipaddress import IPv4Address
from itertools import combinations
from math import sqrt, ulp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanat.core.hash_tables import TABLE_SLOTS, _exact_logs, maglev, rendezvous
from hanat.core.schedulers import WEIGHT_MAX
from hanat.core.services import HASH_SEED
from hanat.core.shares import Slots, moved

NAMES = st.text("abcxyz019-", min_size=1, max_size=6)
WEIGHTS = st.dictionaries(NAMES, st.integers(1, 65_535), min_size=2, max_size=8)
SIZE = 509  # of random examples; figures are counted on the whole table
MASK = 0xFFFFFFFF


def rol(word: int, bits: int) -> int:
    return (word << bits | word >> 32 - bits) & MASK


def jhash(address: IPv4Address, seed: int) -> int:
    """Return the kernel's hash of an address: ``jhash()`` of 4 bytes, ``linux/jhash.h``."""
    a = b = c = (0xDEADBEEF + 4 + seed) & MASK
    a = (a + int.from_bytes(address.packed, "little")) & MASK
    c = ((c ^ b) - rol(b, 14)) & MASK
    a = ((a ^ c) - rol(c, 11)) & MASK
    b = ((b ^ a) - rol(a, 25)) & MASK
    c = ((c ^ b) - rol(b, 16)) & MASK
    a = ((a ^ c) - rol(c, 4)) & MASK
    b = ((b ^ a) - rol(a, 14)) & MASK
    return ((c ^ b) - rol(b, 24)) & MASK


def server_of(client: IPv4Address, slots: Slots) -> str:
    """Return the server of a client, as ``nft_jhash_eval`` chooses a slot: ``reciprocal_scale``."""
    return slots[jhash(client, HASH_SEED) * len(slots) >> 32]


CLIENTS = [IPv4Address("198.18.0.0") + i for i in range(10_000)]


def servers_of_all(slots: Slots) -> list[str]:
    return [server_of(client, slots) for client in CLIENTS]


def without(weights: dict[str, int], *names: str) -> dict[str, int]:
    return {name: weight for name, weight in weights.items() if name not in names}


# ------------------------------------------------------------------------ rendezvous


@pytest.mark.parametrize("names", ["web1 web2 web3 web4", "a b c d", "n-0 n-1 n-2 n-3"])
def test_each_of_4_equal_servers_gets_25_percent_of_10000_clients_within_2_points(
    names: str,
) -> None:
    slots = rendezvous(dict.fromkeys(names.split(), 100))
    assert len(slots) == TABLE_SLOTS == 4_093
    got = Counter(servers_of_all(slots))
    assert all(2_300 <= got[name] <= 2_700 for name in names.split()), got


def test_shares_of_4_equal_servers_deviate_by_half_a_point() -> None:
    squares = []
    for i in range(40):
        names = [f"server-{i}-{j}" for j in range(4)]
        got = Counter(rendezvous(dict.fromkeys(names, 100)))
        squares += [(got[name] / TABLE_SLOTS - 0.25) ** 2 for name in names]
    # With a draw for each slot instead of ranks it would be 0.0068.
    assert sqrt(sum(squares) / len(squares)) < 0.0055


def test_weights_are_kept_within_2_points() -> None:
    weights = {"a": 100, "b": 200, "c": 300, "d": 400}
    got = Counter(rendezvous(weights))
    for name, weight in weights.items():
        assert abs(got[name] / TABLE_SLOTS - weight / 1_000) < 0.02


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (10, 20, 30, 40)])
def test_draining_one_of_four_moves_exactly_its_clients_and_its_return_brings_them_back(
    weights: tuple[int, ...],
) -> None:
    all_four = {f"web{i}": weight for i, weight in enumerate(weights)}
    before = servers_of_all(rendezvous(all_four))
    for gone in all_four:
        during = servers_of_all(rendezvous(without(all_four, gone)))
        changed = {b for b, d in zip(before, during, strict=True) if b != d}
        assert changed == {gone}
        assert gone not in during
    back = dict(reversed(all_four.items()))
    assert servers_of_all(rendezvous(back)) == before


@settings(max_examples=50)
@given(WEIGHTS, st.data())
def test_servers_that_leave_move_their_own_slots_only(
    weights: dict[str, int], data: st.DataObject
) -> None:
    names = sorted(weights)
    gone = data.draw(st.lists(st.sampled_from(names), unique=True, max_size=len(names) - 1))
    before = rendezvous(weights, SIZE)
    after = rendezvous(without(weights, *gone), SIZE)
    assert moved(before, after).keys() == {s for s, name in enumerate(before) if name in gone}


@settings(max_examples=50)
@given(WEIGHTS, st.data())
def test_a_server_whose_weight_grows_only_gains(
    weights: dict[str, int], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(weights)))
    more = {**weights, name: weights[name] + data.draw(st.integers(1, 10_000))}
    assert set(moved(rendezvous(weights, SIZE), rendezvous(more, SIZE)).values()) <= {name}


@settings(max_examples=50)
@given(WEIGHTS, st.integers(2, 100))
def test_what_all_weights_have_in_common_moves_nothing(
    weights: dict[str, int], factor: int
) -> None:
    more = {name: weight * factor for name, weight in weights.items()}
    assert rendezvous(more, SIZE) == rendezvous(weights, SIZE)


def test_neither_name_is_preferred_where_two_servers_bid_the_same() -> None:
    # Of 3 slots two servers bid the same for one. By the first name a would get 400 of 600.
    tables = [rendezvous({f"a{i}": 1, f"b{i}": 1}, 3) for i in range(200)]
    assert 255 < sum(name[0] == "a" for table in tables for name in table) < 345


def test_no_logarithm_is_near_enough_to_half_a_number_to_be_rounded_otherwise_elsewhere() -> None:
    assert all(abs(exact % 1 - 0.5) > 100 * ulp(exact) for exact in _exact_logs(TABLE_SLOTS))


def test_bids_are_compared_without_an_error() -> None:
    # Two fractions differ by 1 / (w1 * w2) at least; a float tells that apart below 2**53.
    assert max(_exact_logs(TABLE_SLOTS)) * WEIGHT_MAX * 100 < 2**53


# ------------------------------------------------------------------------ maglev


def test_maglev_one_of_ten_leaves_and_few_others_move() -> None:
    for i in range(4):
        ten = {f"web{i}-{j}": 100 for j in range(10)}
        before = maglev(ten)
        assert len(before) == TABLE_SLOTS == 4_093
        for gone in ten:
            after = maglev(without(ten, gone))
            changed = moved(before, after)
            others = [slot for slot in changed if before[slot] != gone]
            assert len(changed) <= 0.12 * TABLE_SLOTS
            assert len(others) <= 0.02 * (TABLE_SLOTS - before.count(gone))


def test_maglev_shares_are_even_to_one_slot() -> None:
    got = Counter(maglev({f"web{j}": 100 for j in range(10)}))
    assert set(got.values()) == {409, 410}


@settings(max_examples=50)
@given(WEIGHTS)
def test_maglev_keeps_weights_to_two_slots_and_gives_every_server_one(
    weights: dict[str, int],
) -> None:
    got = Counter(maglev(weights, SIZE))
    assert got.keys() == weights.keys()
    assert sum(got.values()) == SIZE
    heaviest = max(weights, key=weights.__getitem__)
    for name, weight in weights.items():
        assert abs(got[name] - got[heaviest] * weight / weights[heaviest]) < 2


def test_maglev_of_other_weights_moves_little() -> None:
    weights = {f"web{j}": 100 * (1 + j % 3) for j in range(10)}
    before = maglev(weights)
    for gone in weights:
        changed = moved(before, maglev(without(weights, gone)))
        others = [slot for slot in changed if before[slot] != gone]
        assert len(others) <= 0.03 * TABLE_SLOTS


# ------------------------------------------------------------------------ both


@settings(max_examples=50)
@given(WEIGHTS)
def test_tables_do_not_depend_on_the_order_of_servers(weights: dict[str, int]) -> None:
    for table in (rendezvous, maglev):
        assert table(dict(reversed(weights.items())), SIZE) == table(weights, SIZE)


def test_tables_are_the_same_in_every_run_on_every_node() -> None:
    weights = {"web1": 100, "web2": 200, "web3": 300}
    digests = [
        hashlib.sha256(" ".join(table(weights)).encode()).hexdigest()[:16]
        for table in (rendezvous, maglev)
    ]
    assert digests == ["6dec0dc8222194f2", "27ff0d6a4dc8b1fc"]


def test_no_server_and_one_server() -> None:
    for table in (rendezvous, maglev):
        assert table({}) == ()
        assert table({"a": 7}) == ("a",) * TABLE_SLOTS


def test_a_table_larger_than_a_map_may_be_is_refused() -> None:
    for table in (rendezvous, maglev):
        with pytest.raises(AssertionError):
            table({"a": 1}, TABLE_SLOTS + 1)


def test_preferences_of_similar_names_have_nothing_in_common() -> None:
    tables = [maglev({name: 1, "other": 1}, SIZE) for name in ("web1", "web2", "web11")]
    for one, two in combinations(tables, 2):
        equal = sum((a == "other") == (b == "other") for a, b in zip(one, two, strict=True))
        assert SIZE * 0.6 < equal < SIZE * 0.95
