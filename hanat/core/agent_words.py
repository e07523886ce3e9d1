"""What agents and scripts say of their servers: a weight, and whether they take clients."""

from __future__ import annotations

from collections.abc import Iterable

from hanat.core.probing import Sighting
from hanat.core.rotation import Rotations
from hanat.core.server_facts import Administrative, Mode
from hanat.core.server_records import Record, mode_record, weight_record

BY = "check"  # who made something of a server, if no operator did; its target follows


class AgentWords:
    """What was said last of each target, as far as the holder took it into the log.

    What an operator makes of a server stands until its agent says something else than before. A
    drain or maintenance of an operator stands whatever the agent says, as with HAProxy
    (configuration manual, section 5.2, ``agent-check``).
    """

    def __init__(self) -> None:
        self._said: dict[str, tuple[int | None, str]] = {}

    def clear(self) -> None:
        """Forget what was said: another tenure begins."""
        self._said.clear()

    def heed(self, sighting: Sighting, rotations: Rotations, wall_s: float) -> Iterable[Record]:
        """Return the records that the holder is to propose after a sighting of its own.

        Args:
            sighting: Of this tenure.
            rotations: What is in the log.
            wall_s: Seconds since 1970.
        """
        said = sighting.percent, sighting.mode
        before = self._said.get(sighting.target, (None, ""))
        if said == before:
            return
        self._said[sighting.target] = said
        by = f"{BY} {sighting.target}"
        for server in rotations.users(sighting.target):
            if sighting.percent is not None and sighting.percent != before[0]:
                factor = sighting.percent / 100
                if factor != rotations.factor(server):
                    yield weight_record(server, factor, by=by, at_s=wall_s)
            if sighting.mode and sighting.mode != before[1]:
                was, mode = rotations.administrative(server), Mode(sighting.mode)
                is_operators = was.mode is not Mode.READY and was.by != by
                if not is_operators and mode is not was.mode:
                    record = Administrative(mode, by, sighting.answer, since_s=wall_s)
                    yield mode_record(server, record)
