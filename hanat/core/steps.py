"""From the ruleset that is in force to the next one: what to tell the kernel, and in what order.

The kernel takes one transaction at a time in a network namespace, and arming the gate is one. A
thousand services of ten servers in one transaction keep it from being armed for 125 ms, longer than
the lease. So a change is a few short transactions:

1. Chains of services that are new or have changed are built in slices. Nothing leads to them yet.
2. The switch, one transaction: what has changed of everything else, and the elements that lead to
   the new chains. It has all or nothing.
3. Chains that nothing leads to any more are deleted in slices.

Where servers of single datagrams answer from is added with 1 and deleted with 3: what answers may
be recognised before anything is asked, and after.

A small change is one transaction. If nothing is known of what is in force, everything but the
services is put in place first, so that no address answers with a reset and no flow leaves
untranslated; then it is as above.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from hanat.core.notation import TABLE

# Ten servers take half a KB in the text of nft, and the kernel 120 us.
SLICE_CHAINS = 25
SLICE_BYTES = 1 << 15  # a ruleset that is installed in one transaction
AT_ONCE_CHAINS = 25
SLICE_ELEMENTS = 1_024  # of a map; a few ms
CLIENTS = "persist/"
LIMITS = "limits/"  # of the clients of services: chains, sets, counters and buckets
OWN_ELEMENTS = ("slots/", CLIENTS, LIMITS)  # maps and sets whose elements nobody else looks at
COUNTING = frozenset({"counter", "quota", "limit"})
DATAGRAMS = ("one_packet/", "one_packet_to/", "one_packet_from/")
# Sets and maps that may have more elements before the switch, and until after it, than either
# ruleset: where servers answer from. So thousands of them come and go in slices.
GROWING = ("one_packet_servers", "one_packet_answers")
# What only elements and each other lead to.
LOOSE = ("service/", "server/", *DATAGRAMS, *OWN_ELEMENTS)

Lines = tuple[str, ...]
Blocks = Mapping[tuple[str, str], Lines]
"""From kind and name of what a ruleset defines to the lines between its braces."""
Block = tuple[tuple[str, str], Lines]


@dataclass(frozen=True, slots=True)
class Steps:
    """Scripts, one transaction each, in order.

    Attributes:
        builds: Change nothing that a packet meets.
        switch: Brings the new ruleset into force.
        clears: Delete what is left over.
        undo: Delete what `builds` have built; each of them may find nothing.
    """

    builds: tuple[str, ...]
    switch: str
    clears: tuple[str, ...]
    undo: tuple[str, ...]


def without_services(text: str) -> str:
    """Return the script of a ruleset without its services: nothing is dispatched."""
    kept = {
        (kind, name): lines if kind == "chain" else _without_elements(lines)
        for (kind, name), lines in parse(text).items()
        if not _is_loose(name)
    }
    return f"add table inet {TABLE}\ndelete table inet {TABLE}\n{_table(list(kept.items()))}"


def has_clients(text: str) -> bool:
    """Say whether a ruleset has sets of clients, whose elements are worth keeping."""
    return f"\n    set {CLIENTS}" in text


def keeping_clients(script: str, wanted: str, there: Iterable[tuple[str, str]]) -> str:
    """Return a script that replaces the table but for sets of clients.

    Args:
        script: Replaces the table as a whole; a ruleset, or it without its services.
        wanted: The ruleset that it leads to; sets that are not in this one go.
        there: Kind and name of each chain, set, map, counter, quota and limit of the table.
    """
    there, defined = tuple(there), set(wanted.splitlines())
    wanted_too = {(k, n) for k, n in there if f"    {k} {n} {{" in defined}
    clients = {(k, n) for k, n in wanted_too if k == "set" and n.startswith(CLIENTS)}
    if not clients:
        return script
    counts = {(k, n) for k, n in wanted_too if k in COUNTING}  # what they have counted stays
    others = [found for found in there if found not in clients | counts]
    # Rules refer to all, elements to chains.
    lines = [
        f"flush table inet {TABLE}",
        *(f"flush {kind} inet {TABLE} {name}" for kind, name in others if kind in {"set", "map"}),
        *(f"delete {kind} inet {TABLE} {name}" for kind, name in others),
    ]
    deleted = f"delete table inet {TABLE}\n"
    assert deleted in script, script[:200]
    return script.replace(deleted, "".join(f"{line}\n" for line in lines), 1)


def parse(text: str) -> Blocks:
    """Return what a script of `core.ruleset` defines, in its order."""
    return _parsed(_blocks(text))


def _blocks(text: str) -> list[str]:
    _, _, body = text.partition(f"\ntable inet {TABLE} {{\n")
    blocks = body.rstrip().removesuffix("}").rstrip().split("\n\n")
    return blocks if blocks != [""] else []


def _parsed(blocks: Iterable[str]) -> Blocks:
    found: dict[tuple[str, str], Lines] = {}
    for block in blocks:
        first, *lines, _last = block.splitlines()
        kind, name, _brace = first.split()
        found[kind, name] = tuple(line.strip() for line in lines)
    return found


def steps(old: str, new: str) -> Steps | None:
    """Return how to get from one ruleset to another; None if only by replacing all of it.

    Args:
        old: What is in force, as `render_ruleset` or `without_services` return it.
        new: What shall be.
    """
    # Of a thousand services few change: what both have is taken out before any of it is parsed.
    olds, news = _blocks(old), _blocks(new)
    same = set(olds).intersection(news)
    was, will = (_parsed(b for b in blocks if b not in same) for blocks in (olds, news))
    for (kind, name), lines in will.items():
        found = was.get((kind, name))
        if kind != "chain" and found and _without_elements(found) != _without_elements(lines):
            return None
    built = [key for key in will if _is_built(key[1]) and key not in was]
    gone = [key for key in reversed(list(was)) if _is_loose(key[1]) and key not in will]
    grown, shrunk = _growth(was, will), _growth(will, was)
    builds = [_table(part) for part in _slices(_pieces((key, will[key]) for key in built))]
    builds += _told("add", grown)
    clears = [*_told("delete", dict(reversed(shrunk.items())))]
    clears += [_deleted(key for key, _ in part) for part in _slices((key, ()) for key in gone)]
    switch = _switch(was, will)
    if len(built) + len(gone) <= AT_ONCE_CHAINS and sum(map(len, builds + clears)) <= SLICE_BYTES:
        return Steps((), "".join([*builds, switch, *clears]), (), ())
    undo = [*_told("delete", grown), *(_deleted([key]) for key in reversed(built))]
    return Steps(tuple(builds), switch, tuple(clears), tuple(undo))


def _growth(was: Blocks, will: Blocks) -> dict[str, list[str]]:
    """Return what is new in sets and maps that may have it early: elements, by name."""
    found = {}
    for key, wanted in will.items():
        if key in was and key[1].startswith(GROWING):
            were = _elements(was[key])
            if new := [e + to for e, to in _elements(wanted).items() if e not in were]:
                found[key[1]] = new
    return found


def _told(verb: str, elements: Mapping[str, list[str]]) -> Iterator[str]:
    """Yield what adds or deletes elements, in slices."""
    for name, every in elements.items():
        some = [e.partition(" : ")[0] for e in every] if verb == "delete" else every
        for first in range(0, len(some), SLICE_ELEMENTS):
            part = ", ".join(some[first : first + SLICE_ELEMENTS])
            yield f"{verb} element inet {TABLE} {name} {{ {part} }}\n"


def _pieces(blocks: Iterable[Block]) -> Iterator[Block]:
    """Yield blocks, that of a large map several times with some of its elements each."""
    for key, lines in blocks:
        head = _without_elements(lines)
        elements = lines[len(head) + 1 : -1]
        if len(elements) <= SLICE_ELEMENTS:
            yield key, lines
            continue
        for first in range(0, len(elements), SLICE_ELEMENTS):
            some = elements[first : first + SLICE_ELEMENTS]
            yield key, (*head, "elements = {", *some, "}")


def _slices(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    """Yield as many blocks together as one transaction is to have."""
    found: list[Block] = []
    size = 0
    for block in blocks:
        length = sum(map(len, block[1]))
        if found and (len(found) == SLICE_CHAINS or size + length > SLICE_BYTES):
            yield found
            found, size = [], 0
        found.append(block)
        size += length
    if found:
        yield found


def _is_loose(name: str) -> bool:
    return name.startswith(LOOSE)


def _is_built(name: str) -> bool:
    """Say whether something new is there before the switch."""
    return name.startswith((*LOOSE, *GROWING))


def _table(blocks: list[Block]) -> str:
    """Return the text that adds these to the table; what is there already gets more lines."""
    if not blocks:
        return ""
    body = "\n\n".join(
        "\n".join([f"    {kind} {name} {{", *(f"        {line}" for line in lines), "    }"])
        for (kind, name), lines in blocks
    )
    return f"table inet {TABLE} {{\n{body}\n}}\n"


def _deleted(keys: Iterable[tuple[str, str]]) -> str:
    return "".join(f"delete {kind} inet {TABLE} {name}\n" for kind, name in keys)


def _switch(was: Blocks, will: Blocks) -> str:
    """Return what changes at once. Rules go first: what they refer to may change, too."""
    lines: list[str] = []
    added: dict[tuple[str, str], Lines] = {}
    moved: list[str] = []
    for key, wanted in will.items():
        kind, name = key
        found = was.get(key)
        if found is None:
            if not _is_built(key[1]):
                added[key] = wanted
        elif found != wanted and kind == "chain":
            lines.append(f"flush chain inet {TABLE} {name}")
            if _hook(found) != _hook(wanted):
                lines.append(f"delete chain inet {TABLE} {name}")
            added[key] = wanted
        elif found != wanted:
            moved += _moved(name, found, wanted, stays=name.startswith(GROWING))
    gone = [key for key in reversed(list(was)) if key not in will and not _is_loose(key[1])]
    lines += [f"flush {kind} inet {TABLE} {name}" for kind, name in gone]
    deletions = sorted(gone, key=lambda key: key[0] != "chain")  # before what they refer to
    script = "".join(f"{line}\n" for line in lines)
    return script + _table(list(added.items())) + "".join(moved) + _deleted(deletions)


def _hook(lines: Lines) -> str:
    return lines[0] if lines and lines[0].startswith("type ") else ""


def _moved(name: str, found: Lines, wanted: Lines, *, stays: bool) -> Iterator[str]:
    """Return how the elements of a map or set become others; its type stays.

    With `stays` those that come or go are not looked at, only those that lead elsewhere.
    """
    were, will = _elements(found), _elements(wanted)
    if stays:
        both = were.keys() & will.keys()
        were, will = ({e: some[e] for e in some if e in both} for some in (were, will))
    gone = [key for key, target in were.items() if will.get(key) != target]
    new = [key + will[key] for key in will if were.get(key) != will[key]]
    if gone:
        yield f"delete element inet {TABLE} {name} {{ {', '.join(gone)} }}\n"
    if new:
        yield f"add element inet {TABLE} {name} {{ {', '.join(new)} }}\n"


def _elements(lines: Lines) -> dict[str, str]:
    """Return keys of elements, and what is behind each."""
    found = {}
    for line in lines[lines.index("elements = {") + 1 : -1] if "elements = {" in lines else ():
        key, colon, target = line.rstrip(",").partition(" : ")
        found[key] = colon + target
    return found


def _without_elements(lines: Lines) -> Lines:
    return lines[: lines.index("elements = {")] if "elements = {" in lines else lines
