"""What services and servers carried since they are counted: sums that survive the holder.

The holder counts, and tells the other nodes what changed. A node that takes over goes on from
what it was told, so that sums never go back: what the last holder counted after it told last is
lost, no more. They are kept in memory: when all nodes are down at once, counting begins anew.

Each node knows of a sum what it was *before* this term, by whomever; what this node *counted* in
this term, as the holder; and what it *heard* from the holder of this term. Each of the five
numbers is the larger of ``before + counted`` and ``heard``. A backup that knows more of the time
before this term than the holder says so to it (`Books.learn`), so that the holder's sums go up.
What it heard in this term it keeps to itself: to the holder that would be an echo.

A service has sums of its own, more than its servers have together: with the sorry server's
clients, and those of servers that were removed since.

A node that starts knows nothing, and would say 0 for a sum that others know. So it says nothing
of any until it was told everything once: a backup by a holder that was, a holder by all peers it
is connected with. A node of an older version does not say when that is, and some seconds do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from hanat.core.configuration import VirtualService
from hanat.core.server_facts import ServerId

# Twice what a configuration can have: those that are gone are looked for in passing.
ACCOUNTS_MAX = 44_000
RATE_S = 10.0
SET_S = 1_577_836_800  # 2020: a wall clock that says less was not set
TOLD_S = 10.0  # to tell 22,000 sums takes six
OF_SERVICE = ""  # in place of a server's name: the whole service


class Totals(NamedTuple):
    """Sums; *in* is from clients to servers. Bytes are those of IP packets."""

    connections: int = 0
    packets_in: int = 0
    bytes_in: int = 0
    packets_out: int = 0
    bytes_out: int = 0

    def plus(self, other: Totals) -> Totals:
        """Return both together."""
        a, b = self, other
        return Totals(a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4])

    def at_least(self, other: Totals) -> Totals:
        """Return the larger of each number."""
        return Totals(*map(max, self, other))


NOTHING = Totals()


class Told(NamedTuple):
    """A sum as nodes tell each other; `since_s` is of the wall clock."""

    name: ServerId
    since_s: int
    totals: Totals


@dataclass(slots=True)
class Account:
    """A sum, see the module. Of an older term are `counted` and `heard` if `term` says so."""

    since_s: int
    term: int
    before: Totals = NOTHING
    counted: Totals = NOTHING
    heard: Totals = NOTHING
    # New connections, as HAProxy counts them: in this period, and in the one before.
    period: float = 0.0
    now: int = 0
    last: int = 0

    @property
    def value(self) -> Totals:
        """Return what is known in all."""
        known = self.before.plus(self.counted)
        return known if self.heard is NOTHING else known.at_least(self.heard)

    def enter(self, term: int) -> None:
        """Let all that is known be from before a term."""
        if term > self.term:
            self.before, self.counted, self.heard = self.value, NOTHING, NOTHING
            self.term = term

    def note(self, connections: int, now: float) -> None:
        """Note new connections."""
        if now >= self.period + 2 * RATE_S:
            self.period, self.last, self.now = now, 0, 0
        elif now >= self.period + RATE_S:
            self.period, self.last, self.now = self.period + RATE_S, self.now, 0
        self.now += connections

    def per_s(self, now: float) -> float:
        """Return how many new connections there were a second, over some ten seconds."""
        past_s = max(0.0, now - self.period)
        if past_s >= 2 * RATE_S:
            return 0.0
        if past_s >= RATE_S:
            return self.now * (2 - past_s / RATE_S) / RATE_S
        return (self.now + self.last * (1 - past_s / RATE_S)) / RATE_S


@dataclass(frozen=True, slots=True)
class Figures:
    """What people see of a sum.

    Attributes:
        since_s: When counting began, of the wall clock; None: nothing was counted yet, or no
            clock was set.
        connections_per_s: New ones, over some ten seconds.
        has_bytes: Packets and bytes are counted; else nothing is known of them.
        age_s: Since the holder counted this, or since this node heard of it.
    """

    since_s: int | None
    totals: Totals
    connections_per_s: float
    has_bytes: bool
    age_s: float

    def to_document(self) -> dict[str, Any]:
        """Return it as JSON-ready values; what is not known is null."""
        counts: dict[str, int | None] = self.totals._asdict()
        if not self.has_bytes:
            counts = {**dict.fromkeys(counts), "connections": self.totals.connections}
        since = None
        if self.since_s is not None:
            since = datetime.fromtimestamp(self.since_s, UTC).isoformat(timespec="seconds")
        return {
            **counts,
            "connections_per_s": round(self.connections_per_s, 2),
            "since": since,
            "age_s": round(self.age_s, 1),
        }


def nobody_counts(_name: ServerId) -> Figures | None:
    """Return no figures: nobody counts."""
    return None


class Books:
    """The sums of all services and servers, as one node knows them.

    Attributes:
        term: Newest that was heard of.
        is_holder: This node counts, in this term.
        has_bytes: Whoever counts has the kernel's counters of packets and bytes.
        is_whole: This node was told everything once, see the module.
        is_full: There was no room for a sum.
    """

    def __init__(self) -> None:
        self._accounts: dict[ServerId, Account] = {}
        self.term, self.is_holder, self.has_bytes = 0, False, False
        self.is_whole = self.is_full = False
        self._fresh_at: float | None = None
        self._heard_at: float | None = None

    def __len__(self) -> int:
        return len(self._accounts)

    def begin(self, term: int, *, is_holder: bool) -> None:
        """Note who counts from now on; an older term is none."""
        if term >= self.term:
            self.term, self.is_holder = term, is_holder

    def count(self, name: ServerId, added: Totals, now: float, wall_s: float) -> None:
        """Add what this node counted."""
        account = self._account(name, int(wall_s))
        if account is None:
            return
        if self.is_holder:
            account.counted = account.counted.plus(added)
        else:  # it was before the next holder's term
            account.before = account.before.plus(added)
        account.note(added.connections, now)

    def counted(self, now: float, *, has_bytes: bool) -> None:
        """Note that this node has counted all until now."""
        self._fresh_at, self.has_bytes = now, has_bytes

    def hear(
        self,
        term: int,
        told: Iterable[Told],
        now: float,
        *,
        has_bytes: bool,
        is_all: bool | None = None,
    ) -> None:
        """Take what the holder of a term says; of an older term: nothing.

        Args:
            term: Of the holder.
            told: Some sums.
            now: Seconds of this node's clock.
            has_bytes: The holder counts packets and bytes.
            is_all: This node was told everything with this; None: the holder does not say.
        """
        if term < self.term:
            return
        if term > self.term:
            self.begin(term, is_holder=False)
        self._fresh_at, self.has_bytes = now, has_bytes
        for name, since_s, totals in told:
            account = self._account(name, since_s)
            if account is None:
                continue
            if account.heard is not NOTHING:
                account.note(max(0, totals.connections - account.heard.connections), now)
            account.heard = account.heard.at_least(totals)
        if self._heard_at is None:
            self._heard_at = now
        self.is_whole |= now >= self._heard_at + TOLD_S if is_all is None else is_all

    def learn(self, term: int, told: Iterable[Told]) -> list[ServerId]:
        """Take what another node knows from before a term.

        Returns:
            What this node did not know.
        """
        found: list[ServerId] = []
        if term > self.term:
            self.begin(term, is_holder=False)
        for name, since_s, totals in told:
            account = self._account(name, since_s)
            if account is not None:
                before = account.before.at_least(totals)
                if before != account.before:
                    account.before = before
                    found.append(name)
        return found

    def names(self) -> list[ServerId]:
        """Return all that something is known of."""
        return list(self._accounts)

    def tell(self, names: Iterable[ServerId], *, before: bool) -> list[Told]:
        """Return what is known of some.

        Args:
            names: Which; those that are gone are left out.
            before: Only what was before this term; nothing is left out, too.
        """
        found: list[Told] = []
        for name in names:
            account = self._accounts.get(name)
            if account is None:
                continue
            account.enter(self.term)
            totals = account.before if before else account.value
            if not before or totals != NOTHING:
                found.append(Told(name, account.since_s, totals))
        return found

    def figures(self, name: ServerId, now: float) -> Figures | None:
        """Return what people see; None: this node does not know yet, or nobody counts."""
        if self._fresh_at is None or not self.is_whole:
            return None
        account, age_s = self._accounts.get(name), max(0.0, now - self._fresh_at)
        if account is None:
            return Figures(None, NOTHING, 0.0, self.has_bytes, age_s)
        rate = account.per_s(now)
        since_s = account.since_s if account.since_s >= SET_S else None
        return Figures(since_s, account.value, rate, self.has_bytes, age_s)

    def prune(self, services: Mapping[str, VirtualService], slice_size: int) -> Iterator[None]:
        """Forget what is not configured, some at a time.

        Args:
            services: By name.
            slice_size: How many are looked at between two turns of the caller.
        """
        for place, name in enumerate(list(self._accounts), start=1):
            service = services.get(name.service)
            servers = () if service is None else (s.name for s in service.servers)
            if service is None or (name.server != OF_SERVICE and name.server not in servers):
                self._accounts.pop(name, None)
            if place % slice_size == 0:
                yield

    def _account(self, name: ServerId, since_s: int) -> Account | None:
        account = self._accounts.get(name)
        if account is None:
            if len(self._accounts) >= ACCOUNTS_MAX:
                self.is_full = True
                return None
            account = self._accounts[name] = Account(since_s, self.term)
        account.enter(self.term)
        if since_s >= SET_S:
            since_s = min(since_s, account.since_s) if account.since_s >= SET_S else since_s
            account.since_s = since_s
        return account
