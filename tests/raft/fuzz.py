"""Messages and frames made wrong, in every way a test can think of.

Each function takes a `random.Random`, so a seed tells the whole story.
"""

from __future__ import annotations

from random import Random
from typing import Any

from hanat.core.beacon import NOBODY, Beacon, Promised
from hanat.raft.messages import NO_OP, Message, encode, wrap

U64_MAX = 2**64 - 1
# Where fields end, where signs change, where sums leave 64 bits, and around what is true.
EDGES = (0, 1, 2, 2**31 - 1, 2**32, 2**48, 2**62, 2**63 - 1, 2**63, U64_MAX - 1, U64_MAX)


def number(rng: Random, near: int) -> int:
    """Return a number that a field of 64 bits may hold; often near the true one."""
    if rng.random() < 0.6:
        return min(max(near + rng.randint(-3, 3), 0), U64_MAX)
    return rng.choice(EDGES) if rng.random() < 0.7 else rng.getrandbits(64)


def message(rng: Random, *, term: int, last: tuple[int, int]) -> Message:
    """Return a well-formed message that says anything, near to what is true.

    Args:
        rng: Where it comes from.
        term: The term of the node that will get it.
        last: Index and term of the end of its log.
    """

    def any_term() -> int:
        return number(rng, term)

    def any_index() -> int:
        return number(rng, last[0])

    kind = rng.choice(
        ("append_entries", "next_node_idx", "request_vote", "response_vote", "timeout_now",
         "pre_vote", "pre_vote_ok", "stale_term", "event", "records", "views")
    )  # fmt: skip
    fields: dict[str, Any] = {"term": any_term()}
    match kind:
        case "append_entries":
            previous = any_index()
            commands = [_command(rng) for _ in range(rng.choice((0, 0, 1, 2, 5)))]
            fields |= {
                "commit_index": any_index(), "prevLogIdx": previous,
                "prevLogTerm": rng.choice((last[1], any_term())), "gen": number(rng, 1),
                "last": any_index(),
                "entries": [(c, previous + 1 + i, any_term()) for i, c in enumerate(commands)],
            }  # fmt: skip
        case "next_node_idx":
            fields |= {
                "next_node_idx": any_index(), "reset": rng.random() < 0.5,
                "success": rng.random() < 0.5, "gen": rng.choice((None, number(rng, 1))),
                "fit": rng.random() < 0.5,
            }  # fmt: skip
        case "request_vote":
            fields |= {"last_log_index": any_index(), "last_log_term": any_term()}
            fields |= {"transfer": rng.random() < 0.3}
        case "pre_vote":
            fields |= {"last": (any_index(), any_term()), "round": number(rng, 1)}
        case "event":
            fields = {"origin": number(rng, 1), "serial": rng.getrandbits(32), "event": b"?"}
        case "records" | "views":
            fields = {kind: rng.randbytes(rng.choice((0, 1, 30)))}
        case "pre_vote_ok":
            fields = {"round": number(rng, 1)}
        case _:
            pass
    return {"type": kind, **fields}


def beacon(rng: Random, *, term: int, nodes: int) -> Beacon:
    """Return a beacon that says anything."""
    promised = Promised(number(rng, term), number(rng, 1)) if rng.random() < 0.5 else None
    return Beacon(
        term=number(rng, term),
        leads=rng.random() < 0.5,
        asks=rng.random() < 0.5,
        released_term=number(rng, term),
        successor=rng.choice((NOBODY, *range(1, nodes + 1), 255)),
        promised=promised,
        fit=rng.random() < 0.5,
        revision=number(rng, 2),
        refuses=rng.random() < 0.5,
        handicap=rng.choice((0, 0, 1, 64, 65535)),
        unsafe=rng.random() < 0.5,
        shut=rng.random() < 0.5,
        hears=tuple(rng.randbytes(4)),
        lively=rng.getrandbits(8),
        answered=rng.getrandbits(8),
        interfaces=rng.getrandbits(64),
    )


def _command(rng: Random) -> bytes:
    return NO_OP if rng.random() < 0.2 else wrap(rng.randbytes(rng.choice((0, 1, 9, 40))))


def mutated(rng: Random, data: bytes) -> bytes:
    """Return bytes that differ from those given, or are cut, repeated or put together anew."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not found:
            return rng.randbytes(rng.randint(1, 40))
        at = rng.randrange(len(found))
        match rng.randrange(6):
            case 0:
                found[at] ^= 1 << rng.randrange(8)
            case 1:
                found[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del found[at : at + rng.randint(1, 16)]
            case 3:
                found[at:at] = rng.randbytes(rng.randint(1, 16))
            case 4:
                found[at:at] = found[at : at + rng.randint(1, 64)]
            case _:
                found[at : at + 8] = number(rng, 1).to_bytes(8, "big")
    return bytes(found)


def encoded(rng: Random, *, term: int, last: tuple[int, int]) -> bytes:
    """Return the bytes of any message, half of the time damaged before they are sealed."""
    data = encode(message(rng, term=term, last=last))
    return mutated(rng, data) if rng.random() < 0.5 else data
