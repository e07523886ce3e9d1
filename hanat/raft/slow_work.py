"""Work that is too slow for the loop: who asks for it does not care who does it."""

from __future__ import annotations

from collections.abc import Callable

from hanat.errors import HanatError

Done = Callable[[BaseException | None], None]
# Do work off the loop, then call back on it with what the work raised.
Background = Callable[[Callable[[], None], Done], None]


def at_once(work: Callable[[], None], done: Done) -> None:
    """Do the work now: for tests, and where nobody waits."""
    error: BaseException | None = None
    try:
        work()
    except (HanatError, OSError) as raised:
        error = raised
    done(error)
