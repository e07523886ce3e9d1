"""Probe servers again and again, and count what follows in a row.

A *target* is one thing that is probed: an equal check of an equal address and port, however
many services share it. A *probe* is one attempt. `Probes` says when the next one is due, and
makes of its result a *sighting*: how this node sees the target, by `fall` failures or `rise`
successes in a row. It runs in the process that probes; `core.verdicts` decides with the
sightings.

Each probe has a number, and a target waits for one probe at a time. So a result counts at most
once, and only if it is of the newest probe and in time. A probe without a result says nothing
about the server: the process that should have told it may be dead, or stood still. It counts as
lost, and the next one is made.

The holder decides only by what it saw as the holder. A second count begins anew with each
tenure: a run that began before the takeover, or a probe that was started before it, may have
gone by another path and another source address.

`interval` and `fast_interval` are as HAProxy's `inter` and `fastinter` (configuration manual,
section 5.2): the fast one applies after the first result that contradicts what holds, until
it is confirmed or refuted. It applies to a server that comes back, too. The first probes are
spread over an interval, the following ones vary by `JITTER` (HAProxy: `spread-checks`, for
which its manual recommends 2 to 5 percent), so that neither targets nor nodes fall into step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from heapq import heappop, heappush

JITTER = 0.05  # of the interval, to either side
# A result that takes longer from the process that probes is late. It is much longer than a busy
# machine needs: a process that stood still has many results, all of them without value.
RESULT_S_MAX = 1.0
LINE_CHARS_MAX = 200


class Operational(Enum):
    """What checks say of a server, or of one target."""

    UNKNOWN = "unknown"
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Check:
    """When to probe, and how many results in a row are a verdict.

    Attributes:
        interval_s: From the start of a probe to that of the next.
        timeout_s: How long a probe may take.
        fall: So many failures in a row: down.
        rise: So many successes in a row: up.
        fast_interval_s: Instead of `interval_s` while a result contradicts what holds;
            None: the same.
    """

    interval_s: float
    timeout_s: float
    fall: int = 3
    rise: int = 2
    fast_interval_s: float | None = None

    def __post_init__(self) -> None:
        assert min(self.interval_s, self.timeout_s) > 0, self
        assert self.fast_interval_s is None or self.fast_interval_s > 0, self
        assert min(self.fall, self.rise) >= 1, self


@dataclass(frozen=True, slots=True)
class Probe:
    """One attempt, to be made at once; `number` is never given twice."""

    target: str
    number: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Reply:
    """How a probe ended.

    Attributes:
        ok: The server answered as it should.
        answer: What it said, or what failed; the first line of it counts.
        latency_s: From the start of the probe to its end, measured by the prober.
        percent: Of the configured weight, as a script or an agent says; None: it said nothing.
        mode: ``ready``, ``drain`` or ``maint``, as an agent says; empty: it said nothing.
        counts: False: it says nothing of the server, neither `ok` nor the contrary.
    """

    ok: bool
    answer: str = ""
    latency_s: float = 0.0
    percent: int | None = None
    mode: str = ""
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Sighting:
    """How this node sees a target after a probe.

    Attributes:
        state: By `fall` and `rise` in a row, whoever held meanwhile.
        since: Since when it is so, seconds of this node's clock; likewise `at`.
        ok: How the last probe ended, with `answer` (one line) and `latency_s`, at `at`.
        in_a_row: How many probes ended like the last one, without another between.
        tenure: In which this node holds the addresses; None: it does not.
        decided: As `state`, but only by probes that were started in this tenure.
        news: `state`, `ok`, `decided`, `percent` or `mode` is another than after the probe before.
        percent: The last that was said (`Reply.percent`), by whatever probe; likewise `mode`. A
            probe that says nothing of it leaves it as it is, as with HAProxy and keepalived.
    """

    target: str
    state: Operational
    since: float
    ok: bool
    in_a_row: int
    answer: str
    latency_s: float
    at: float
    tenure: int | None
    decided: Operational
    news: bool
    percent: int | None = None
    mode: str = ""


@dataclass(slots=True)
class _Run:
    """Counts results in a row."""

    state: Operational = Operational.UNKNOWN
    ok: bool | None = None
    in_a_row: int = 0

    def count(self, check: Check, *, ok: bool) -> bool:
        """Count a result; say whether the state is another one."""
        self.in_a_row = self.in_a_row + 1 if ok is self.ok else 1
        self.ok = ok
        needed = check.rise if ok else check.fall
        if self.in_a_row < needed or self.state is _reached(ok=ok):
            return False
        self.state = _reached(ok=ok)
        return True


@dataclass(slots=True)
class _Target:
    """One target; times in seconds.

    Attributes:
        due_at: When the next probe is started, also if the one under way has no result.
        number: Of the probe that is under way; 0: none is.
        started_in: The tenure in which that one was started.
        counted_in: The tenure of which `decision` is.
        committed: The verdict in the log.
    """

    check: Check
    due_at: float
    since: float
    number: int = 0
    started_at: float = 0.0
    started_in: int | None = None
    view: _Run = field(default_factory=_Run)
    counted_in: int | None = None
    decision: _Run = field(default_factory=_Run)
    committed: Operational = Operational.UNKNOWN
    last: Sighting | None = None


class Probes:
    """All targets of a node, in its own time.

    Args:
        draw: Random numbers in [0, 1), for the first probe of a target and for jitter.
    """

    def __init__(self, *, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._targets: dict[str, _Target] = {}
        self._agenda: list[tuple[float, str]] = []  # a target's `due_at`, or what was it once
        self._number = 0
        self._tenure: int | None = None
        self.lost = 0  # probes without a result in time

    def configure(self, checks: Mapping[str, Check], now: float) -> None:
        """Probe these targets and no others; one with another check begins anew."""
        before, self._targets = self._targets, {}
        for name, check in checks.items():
            known = before.get(name)
            if known is None or known.check != check:
                known = _Target(check, now + self._draw() * check.interval_s, since=now)
                heappush(self._agenda, (known.due_at, name))
            self._targets[name] = known

    def hold(self, tenure: int | None) -> None:
        """Note that this node holds the addresses in this tenure; None: it does not."""
        self._tenure = tenure

    def commit(self, target: str, state: Operational) -> None:
        """Note the verdict in the log; a holder looks faster at what contradicts it."""
        if target in self._targets:
            self._targets[target].committed = state

    def sighting(self, target: str) -> Sighting | None:
        """Return what the last result was of; None if there is none yet."""
        known = self._targets.get(target)
        return None if known is None else known.last

    def due(self) -> float | None:
        """Return when the next probe is due, seconds."""
        while self._agenda:
            at, name = self._agenda[0]
            if self._is_on(at, name):
                return at
            heappop(self._agenda)
        return None

    def start(self, now: float, limit: int | None = None) -> tuple[Probe, ...]:
        """Return the probes that are due; each is to be made at once.

        Args:
            now: Seconds.
            limit: At most so many, those that are due for longest; the others stay due.
        """
        probes: list[Probe] = []
        while self._agenda and self._agenda[0][0] <= now:
            if limit is not None and len(probes) >= limit:
                break
            at, name = heappop(self._agenda)
            if self._is_on(at, name):
                probes.append(self._start(name, now))
        return tuple(probes)

    def _is_on(self, at: float, name: str) -> bool:
        target = self._targets.get(name)
        return target is not None and target.due_at == at

    def _start(self, name: str, now: float) -> Probe:
        target = self._targets[name]
        self.lost += target.number != 0
        self._number += 1
        target.number, target.started_at, target.started_in = self._number, now, self._tenure
        self._next(name, now + target.check.timeout_s + RESULT_S_MAX)
        return Probe(name, self._number, target.check.timeout_s)

    def _next(self, name: str, at: float) -> None:
        self._targets[name].due_at = at
        heappush(self._agenda, (at, name))

    def finish(self, probe: Probe, reply: Reply, now: float) -> Sighting | None:
        """Count the result of a probe.

        A success that took longer than the timeout is a failure. A reply that does not count
        is shown, and changes nothing.

        Returns:
            How the target is seen now. None if the result does not count: the probe is not
            the newest one of the target, has a result already, or the result is late.
        """
        target = self._targets.get(probe.target)
        if target is None or target.number != probe.number:
            return None
        if now > target.started_at + target.check.timeout_s + RESULT_S_MAX:
            return None
        target.number = 0
        if not reply.counts:
            reply = replace(reply, ok=target.view.ok or False)
        elif reply.ok and reply.latency_s > target.check.timeout_s:
            answer = f"answered after {reply.latency_s:.3g} s, the timeout is {probe.timeout_s:g} s"
            reply = Reply(ok=False, answer=answer, latency_s=reply.latency_s)
        sighting = target.last = self._count(probe.target, target, reply, now)
        pace_s = self._interval_s(target, ok=reply.ok)
        jitter = 1 + JITTER * (2 * self._draw() - 1)
        self._next(probe.target, max(now, target.started_at + pace_s * jitter))
        return sighting

    def _count(self, name: str, target: _Target, reply: Reply, now: float) -> Sighting:
        last = target.last
        percent, mode = reply.percent, reply.mode
        if last is not None:
            percent = last.percent if percent is None else percent
            mode = mode or last.mode
        news = last is None or (last.ok, last.percent, last.mode) != (reply.ok, percent, mode)
        if reply.counts and target.view.count(target.check, ok=reply.ok):
            target.since, news = now, True
        if target.counted_in != self._tenure:
            target.counted_in, target.decision = self._tenure, _Run()
        if reply.counts and self._tenure is not None and target.started_in == self._tenure:
            news |= target.decision.count(target.check, ok=reply.ok)
        return Sighting(
            target=name,
            state=target.view.state,
            since=target.since,
            ok=reply.ok,
            in_a_row=target.view.in_a_row,
            answer=first_line(reply.answer),
            latency_s=reply.latency_s,
            at=now,
            tenure=self._tenure,
            decided=target.decision.state,
            news=news,
            percent=percent,
            mode=mode,
        )

    def _interval_s(self, target: _Target, *, ok: bool) -> float:
        check = target.check
        if self._tenure is None:
            confirmed = target.view.state is _reached(ok=ok)
        else:
            confirmed = _reached(ok=ok) in {target.committed, target.decision.state}
        if confirmed or check.fast_interval_s is None:
            return check.interval_s
        return check.fast_interval_s


def first_line(text: str) -> str:
    """Return the first line of what a server said, printable and at most 200 characters."""
    line = next(iter(text.strip().splitlines()), "")[:LINE_CHARS_MAX].rstrip()
    return "".join(c if c.isprintable() else "?" for c in line)


def _reached(*, ok: bool) -> Operational:
    return Operational.UP if ok else Operational.DOWN
