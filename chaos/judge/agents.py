"""Judge what comes of the words of agents: a pure function of the history.

An agent beside each server of the web service is asked by the routers, as HAProxy asks one. What
it says shows in where new connections go, by their first packets. Nothing here asks hanat.

Judged is the time from when the words must be known until they are taken back, and the time after
that from when it must be known that all is well; and only if no router or server was in trouble
then. While it says ``drain`` or ``maint`` no new connection opens on the server. Else each server
has its part by weight: half of it after ``50%``, all of it after words that change nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from chaos.faults.bounds import AGENT_MS
from chaos.judge.checkers import Verdict
from chaos.judge.safety import EXAMPLES_MAX
from chaos.judge.server_outages import Opened, known_after, lagged, opened, troubles_of
from chaos.judge.spells import tenures
from chaos.lab.node_files import WEIGHTS
from chaos.lab.servers import HTTP_PORT, WELL
from chaos.lab.topology import SERVERS
from chaos.observe.observed import AgentSaid
from chaos.observe.run_history import MS, History

NAME = "agent"
AGENT_NS = round(AGENT_MS * MS)
OUT = ("drain", "maint")
HALF = "50%"
MADE_MIN = 50  # new connections of one version of IP that say something of shares
OFF_MAX = 0.06  # of all; chance has no part in turns, a rotation in between has
AFTER_NS = 1_000 * MS  # so long it is looked at whether all is well again
BEFORE_NS = 500 * MS


def said(history: History) -> Verdict:
    """Check that new connections follow the words of each agent, and forget them afterwards."""
    made = opened([a for a in history.admissions if a.target.endswith(f":{HTTP_PORT}")])
    wrong: list[str] = []
    judged, last_ns = 0, 0
    for words in history.agents:
        before = [o for o in made if words.t_ns - BEFORE_NS <= o.t_ns < words.t_ns]
        for what, start_ns, until_ns in _spans(history, words):
            part = [o for o in made if start_ns <= o.t_ns < until_ns]
            if part and _quiet(history, words, what, until_ns):
                judged += 1
                wrong += _contradictions(before, part, words, what)
        if words.words in OUT:
            mine = [o.t_ns for o in made if _is_of(o, words)]
            inside = [t_ns for t_ns in mine if words.t_ns <= t_ns < words.end_ns]
            last_ns = max(last_ns, max(inside, default=words.t_ns) - words.t_ns)
    text = f"{judged} times connections went as agents said"
    text += (
        f"; the last on a drained server {last_ns / MS:.0f} ms after the word" if last_ns else ""
    )
    if wrong:
        text = f"connections went as no agent said: {'; '.join(wrong[:3])}"
    evidence = {"wrong": wrong[:EXAMPLES_MAX], "judged": judged}
    return Verdict(NAME, not wrong if judged else "unknown", text, evidence)


def _spans(history: History, words: AgentSaid) -> Iterator[tuple[str, float, float]]:
    """Yield what must hold, and from when to when; a new holder has to ask the agents itself."""
    troubles = troubles_of(history, tenures(history))
    yield words.words, known_after(history, words.t_ns, AGENT_NS, troubles), words.end_ns
    if words.words in (*OUT, HALF):
        well_ns = known_after(history, words.end_ns, AGENT_NS, troubles)
        yield WELL, well_ns, well_ns + AFTER_NS


def _is_of(new: Opened, words: AgentSaid) -> bool:
    return new.host == words.server


def _quiet(history: History, words: AgentSaid, what: str, until_ns: float) -> bool:
    """Whether nothing else happened from the words on.

    A checker that wants for a core takes other servers for dead, so shares are not judged then;
    who is drained gets no clients all the same.
    """
    others = (
        i.t_ns < until_ns and (math.inf if i.settled_ns is None else i.settled_ns) > words.t_ns
        for i in history.injections
        if i.nemesis != NAME
    )
    again = (
        other is not words
        and other.t_ns < until_ns
        and words.t_ns < other.end_ns + AGENT_NS + AFTER_NS
        for other in history.agents
    )
    late = what not in OUT and lagged(history, round(until_ns))
    return not (any(others) or any(again) or late)


def _contradictions(
    before: Sequence[Opened], made: Sequence[Opened], words: AgentSaid, what: str
) -> Iterator[str]:
    """Yield what new connections of a time contradict, for people.

    Args:
        before: New connections just before the words: who was in rotation.
        made: Those of the time.
        words: Of which agent.
        what: Which words must be known.
    """
    label = f"{words.server} {words.words!r}" + (" taken back" if what == WELL else "")
    if what in OUT:
        if count := sum(_is_of(new, words) for new in made):
            yield f"{count} new ones on {label}"
        return
    for version in (4, 6):
        # Operators change the weight of the first server of all, which is one of IPv4.
        had = {new.host for new in before if new.version == version}
        had -= {SERVERS[0]} if version == 4 else set()
        weights = {h: float(w) for h, w in zip(SERVERS, WEIGHTS, strict=True) if h in had}
        if len(weights) < 2:
            continue
        if what == HALF and words.server in weights:
            weights[words.server] /= 2
        counts = Counter(new.host for new in made if new.version == version and new.host in had)
        if counts.total() < MADE_MIN:
            continue
        for host, weight in weights.items():
            wanted, got = weight / sum(weights.values()), counts[host] / counts.total()
            if abs(got - wanted) > OFF_MAX:
                yield f"{got:.0%} of IPv{version} on {host} instead of {wanted:.0%}, {label}"
