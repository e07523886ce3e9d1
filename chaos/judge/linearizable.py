"""Judge the configuration: is its history that of one register with compare-and-set?

Linearizable means: all operations can be put in one order that respects real time (what ended
before another began comes before it) and in which every one got what the register had then
(Wing & Gong, "Testing and verifying concurrent objects", 1993). To search for such an
order is exponential in general. Here every successful write tells its revision, so the order
of the writes is known, and what remains is linear:

- revisions are given once, each write is based on the one before its own;
- a gap can only be a write with an unknown outcome that was based on the revision before it;
- a write that was refused as stale saw a revision that was not the one it was based on.

A node answers reads from what it has applied (docs/consensus.md), so a read may be old; it may
not be of the future, and never something else than what was written under its revision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from chaos.judge.checkers import Valid, Verdict
from chaos.observe.run_history import ConfigOperation, History

NEVER_NS = 1 << 62
PROBLEMS_MAX = 10


def configuration(history: History) -> Verdict:
    """Check all operations on the configuration."""
    operations = history.operations
    written = [o for o in operations if o.f == "write" and o.outcome == "ok"]
    if not written:
        return Verdict("configuration", "unknown", "no write succeeded")
    problems = _twice(written)
    first = min(o.revision for o in operations if o.revision is not None)
    chain, gaps = _chain(written, operations, first)
    problems += gaps
    problems += _based(chain)
    problems += _real_time(chain)
    problems += _reads(chain, operations, first)
    problems += _stale(chain, operations)
    counts = {o: sum(x.outcome == o for x in operations) for o in ("ok", "fail", "info")}
    text = (
        f"{len(operations)} operations, {len(written)} writes, {counts['fail']} refused, "
        f"{counts['info']} unknown: linearizable"
    )
    valid: Valid = not problems
    evidence = {"problems": problems[:PROBLEMS_MAX], "counts": counts}
    return Verdict("configuration", valid, "; ".join(problems[:3]) or text, evidence)


def _twice(written: Sequence[ConfigOperation]) -> list[str]:
    seen: dict[int | None, ConfigOperation] = {}
    problems = []
    for each in written:
        if each.revision in seen:
            other = seen[each.revision].client
            problems.append(f"revision {each.revision} was given to {other} and {each.client}")
        seen[each.revision] = each
    return problems


def _chain(
    written: Sequence[ConfigOperation], operations: Sequence[ConfigOperation], first: int
) -> tuple[dict[int, ConfigOperation], list[str]]:
    """Return the write of every revision after the first, and what cannot be explained."""
    chain = {o.revision: o for o in written if o.revision is not None}
    read = {o.revision: o.text for o in operations if o.f == "read" and o.revision is not None}
    # Who was refused as stale has seen that there was a newer one.
    overtaken = [o.based_on + 1 for o in operations if o.f == "stale" and o.based_on is not None]
    newest = max([*chain, *read, *overtaken])
    problems = []
    for revision in range(first + 1, newest + 1):
        if revision in chain:
            continue
        # The earliest that fits leaves most room to what comes later.
        candidates = [
            o
            for o in operations
            if o.f == "write"
            and o.outcome == "info"
            and o.based_on == revision - 1
            and read.get(revision, o.text) == o.text
        ]
        if candidates:
            earliest = min(candidates, key=lambda o: o.t_ns)
            chain[revision] = replace(earliest, revision=revision, end_ns=NEVER_NS)
        else:
            problems.append(f"nobody wrote revision {revision}")
    return chain, problems


def _based(chain: Mapping[int, ConfigOperation]) -> list[str]:
    return [
        f"{o.client} based its write on revision {o.based_on} and got {revision}"
        for revision, o in chain.items()
        if o.based_on != revision - 1
    ]


def _real_time(chain: Mapping[int, ConfigOperation]) -> list[str]:
    """Find writes of a higher revision that ended before one of a lower revision began."""
    problems = []
    latest: ConfigOperation | None = None
    for revision in sorted(chain):
        each = chain[revision]
        if latest is not None and each.end_ns < latest.t_ns:
            problems.append(
                f"revision {revision} was written before {latest.revision} was asked for"
            )
        if latest is None or each.t_ns > latest.t_ns:
            latest = each
    return problems


def _reads(
    chain: Mapping[int, ConfigOperation], operations: Sequence[ConfigOperation], first: int
) -> list[str]:
    problems = []
    texts = {revision: o.text for revision, o in chain.items()}
    for read in (o for o in operations if o.f == "read" and o.revision is not None):
        revision = read.revision
        assert revision is not None
        if revision not in texts:
            texts[revision] = read.text  # the first, which was there before
            if revision != first:
                continue  # told already: nobody wrote it
        if texts[revision] != read.text:
            problems.append(f"{read.node} shows another text for revision {revision}")
        elif revision in chain and chain[revision].t_ns > read.end_ns:
            problems.append(f"{read.node} showed revision {revision} before it was written")
    return problems


def _stale(
    chain: Mapping[int, ConfigOperation], operations: Sequence[ConfigOperation]
) -> list[str]:
    """Find writes that were refused as stale although nothing newer can have been there."""
    problems = []
    for each in (o for o in operations if o.f == "stale" and o.based_on is not None):
        assert each.based_on is not None
        newer = chain.get(each.based_on + 1)
        if newer is None or newer.t_ns > each.end_ns:
            problems.append(f"{each.client} was refused, and revision {each.based_on} was newest")
    return problems
