"""A thousand addresses do not hold the loop: slices, their order, what is given up meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from ipaddress import ip_interface

from hypothesis import given
from hypothesis import strategies as st

from hanat.core.configuration import FloatingAddress, Interface
from hanat.core.placements import Labels, Placement, placements
from hanat.daemon.placing import AT_ONCE_MAX, LOCAL_S_MAX, SLICE_MAX, SLICE_S, Placing
from hanat.errors import KernelError

MANY = tuple(
    Placement("eth0", ip_interface(f"10.9.{n // 250}.{n % 250 + 1}/16")) for n in range(1000)
)
MANY_V6 = tuple(Placement("eth0", ip_interface(f"2001:db8::{n + 1:x}/128")) for n in range(100))
REFUSAL = KernelError(operation="do it", target="eth0", found="EIO: it failed")


class Device:
    """A device of a kernel that takes its time by the number of addresses."""

    def __init__(self, cost_s: float = 0.0) -> None:
        self.there: set[Placement] = set()
        self.calls: list[int] = []
        self.refuses: Placement | None = None
        self.now, self._cost_s = 100.0, cost_s
        self.turns: deque[Callable[[], None]] = deque()
        self.ended: list[tuple[str, KernelError | None]] = []
        self.strange: set[Placement] = set()  # is there, and not local yet
        self.placing = Placing(
            self, soon=self.turns.append, later=self._later, clock=lambda: self.now
        )

    def present(self, device: str) -> frozenset[Interface]:
        raise NotImplementedError(device)

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        def then() -> None:
            self.now += delay_s
            call()

        self.turns.append(then)

    def local(self, placement: Placement) -> bool:
        """See `ports.Addresses.local`."""
        return placement in self.there - self.strange

    def add(self, placements: Iterable[Placement]) -> None:
        """See `ports.Addresses.add`."""
        self._take(placements, self.there.add)

    def remove(self, placements: Iterable[Placement]) -> None:
        """See `ports.Addresses.remove`."""
        self._take(placements, self.there.discard)

    def _take(self, placements: Iterable[Placement], do: Callable[[Placement], None]) -> None:
        wanted = list(placements)
        self.calls.append(len(wanted))
        self.now += len(wanted) * self._cost_s
        for placement in wanted:
            do(placement)
        if self.refuses in wanted:
            raise REFUSAL

    def tell(self, name: str) -> Callable[[KernelError | None], None]:
        return lambda error: self.ended.append((name, error))

    def turn(self, turns: int = 1 << 20) -> int:
        """Let the loop turn until nothing is left, or so often; return how often."""
        for number in range(turns):
            if not self.turns:
                return number
            self.turns.popleft()()
        return turns


def test_few_are_done_at_once() -> None:
    d = Device()
    assert d.placing.add(MANY[:AT_ONCE_MAX], d.tell("add"))
    assert len(d.there) == AT_ONCE_MAX
    assert not d.turns
    assert not d.ended


def test_many_come_in_slices_and_the_end_is_told_after_the_last() -> None:
    d = Device()
    assert not d.placing.add(MANY, d.tell("add"))
    assert not d.there
    turns = d.turn(10)
    assert turns == 10
    assert 0 < len(d.there) < len(MANY)
    assert not d.ended
    d.turn()
    assert d.there == set(MANY)
    assert d.ended == [("add", None)]
    assert max(d.calls) <= SLICE_MAX


def test_slow_kernel_gets_slices_that_it_does_in_bounded_time() -> None:
    d = Device(cost_s=0.0005)  # as long as the thousandth IPv6 address takes
    d.placing.add(MANY, d.tell("add"))
    d.turn()
    assert d.ended == [("add", None)]
    assert max(d.calls) * 0.0005 <= 2 * SLICE_S


def test_what_is_taken_off_is_not_put_on_any_more() -> None:
    d = Device()
    d.placing.add(MANY, d.tell("add"))
    d.turn(3)
    d.placing.remove(MANY, d.tell("remove"))
    done = len(d.calls)
    d.turn()
    assert not d.there
    assert sum(d.calls[done:]) == len(MANY)  # nothing more was added
    assert d.ended == [("remove", None), ("add", None)]


def test_removal_of_one_leaves_the_others_to_be_added() -> None:
    d = Device()
    d.placing.add(MANY, d.tell("add"))
    d.placing.remove(MANY[500:501], d.tell("remove"))
    d.turn()
    assert d.there == {*MANY} - {MANY[500]}


def test_refused_addition_and_refused_removal_go_on() -> None:
    d = Device()
    d.refuses = MANY[20]
    d.placing.add(MANY, d.tell("add"))
    d.turn()
    assert d.ended == [("add", REFUSAL)]
    assert len(d.there) >= len(MANY) - 64  # as far as the kernel took a slice

    d.there = set(MANY)
    d.placing.remove(MANY, d.tell("remove"))
    d.turn()
    assert d.ended[1:] == [("remove", REFUSAL)]
    assert not d.there


def test_what_comes_behind_waits_and_hears_of_removals_only() -> None:
    d = Device()
    d.placing.behind(d.tell("first"))
    d.refuses = MANY[20]
    d.placing.remove(MANY, d.tell("remove"))
    d.placing.behind(d.tell("behind"))
    d.placing.add(MANY, d.tell("add"))
    d.placing.behind(d.tell("last"))
    assert d.ended == [("first", None)]
    d.turn()
    assert d.ended[1:] == [
        ("remove", REFUSAL), ("behind", REFUSAL), ("last", REFUSAL), ("add", REFUSAL),
    ]  # fmt: skip
    d.placing.behind(d.tell("again"))
    assert d.ended[-1] == ("again", None)


def test_rules_do_not_wait_for_a_thousand_additions_but_for_what_they_must_not_find() -> None:
    d = Device()
    d.placing.add(MANY, d.tell("add"))
    d.turn(3)
    assert d.placing.remove(MANY[:2], d.tell("few"))  # at once
    d.placing.behind(d.tell("rules"))
    assert d.ended == [("rules", None)]
    assert not d.placing.remove(MANY[100:200], d.tell("many"))
    d.placing.behind(d.tell("newer rules"))
    d.turn(4)
    assert [name for name, _ in d.ended] == ["rules", "many", "newer rules"]
    assert not d.there & {*MANY[:2], *MANY[100:200]}
    d.turn()
    assert d.there == {*MANY} - {*MANY[:2], *MANY[100:200]}
    assert d.ended[-1] == ("add", None)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "remove", "turn"]), st.integers(0, 40), st.integers(1, 40)
        ),
        max_size=30,
    )
)
def test_what_was_asked_for_last_is_what_is_there(steps: list[tuple[str, int, int]]) -> None:
    d, wanted = Device(), set[Placement]()
    for name, first, count in steps:
        some = MANY[first : first + count]
        match name:
            case "add":
                wanted |= set(some)
                d.placing.add(some, d.tell("add"))
            case "remove":
                wanted -= set(some)
                d.placing.remove(some, d.tell("remove"))
            case _:
                d.turn(count % 4)
    d.turn()
    assert d.there == wanted


def test_no_two_addresses_of_a_device_have_one_label() -> None:
    def vips(*numbers: int) -> tuple[FloatingAddress, ...]:
        both = (("public", "203.0.113"), ("private", "10.9.0"))
        return tuple(
            FloatingAddress(f"{name}{n}", name, (ip_interface(f"{network}.{n}/24"),))
            for n in numbers
            for name, network in both
        )

    interfaces = {"public": "eth0", "private": "eth1"}
    labels = Labels()

    def given_to(*numbers: int) -> list[str]:
        return [placement.label for placement in placements(vips(*numbers), interfaces, labels)]

    assert given_to(1, 2) == ["eth0:1", "eth1:1", "eth0:2", "eth1:2"]
    assert given_to(3) == ["eth0:3", "eth1:3"]  # the rest of a thousand comes later
    labels.configure(vips(2, 3, 4, 5), interfaces)
    assert given_to(5, 4, 3) == ["eth0:1", "eth1:1", "eth0:4", "eth1:4", "eth0:3", "eth1:3"]
    assert given_to(2)[0] == "eth0:2"


def test_addition_ends_when_the_kernel_takes_each_address_for_its_own() -> None:
    for few in (MANY_V6[:2], MANY_V6):
        d = Device()
        d.strange = set(few[-1:])
        assert not d.placing.add(few, d.tell("add"))
        d.turn(50)
        assert not d.ended
        d.strange = set()
        d.turn()
        assert d.ended == [("add", None)]


def test_address_that_never_becomes_local_is_refused_after_a_while() -> None:
    d = Device()
    d.strange = set(MANY_V6[:1])
    assert not d.placing.add(MANY_V6[:2], d.tell("add"))
    began = d.now
    d.turn()
    ((name, error),) = d.ended
    assert name == "add"
    assert "does not take packets to it" in str(error)
    assert LOCAL_S_MAX <= d.now - began < LOCAL_S_MAX + 0.1


def test_removal_does_not_wait_for_an_address_to_become_local() -> None:
    d = Device()
    d.strange = set(MANY_V6[:1])
    assert not d.placing.add(MANY_V6[:2], d.tell("add"))
    d.turn(3)
    assert d.placing.remove(MANY_V6[:2], d.tell("remove"))
    assert not d.there
    d.turn(3)
    assert [name for name, _ in d.ended] == ["add"]


def test_nobody_asks_whether_an_ipv4_address_is_local() -> None:
    d = Device()
    d.strange = set(MANY)
    assert not d.placing.add(MANY, d.tell("add"))
    d.turn()
    assert d.ended == [("add", None)]
    assert len(d.calls) * SLICE_MAX < 2 * len(MANY)
