"""Which beacons to believe, without any I/O: each shows that it is newer than the last.

Every datagram names the newest one of the receiver that its sender believed, its
*echo*. A node believes a datagram only if the echo names its own incarnation: then it
was made after this node's start. Among datagrams of one incarnation of the sender the
sequence must grow; a new incarnation must echo a later datagram than the old one ever
did, and one sent after the old one was first believed: else two recorded datagrams could
bring back an incarnation that is gone, and the living one would count as replaced. So
whatever is recorded and sent again, by whomever, is older than something believed
before, and refused.

Two nodes that do not know each other's incarnation need one round trip: what cannot be
believed yet is answered with a beacon that echoes it, which its sender can believe. A
recorded datagram of a start that is over cannot be told from that. So each start gets one
answer in an eighth of a lease, which is less than a beacon's period, and a peer's starts
no more than `ANSWERED_MAX` together: then the living one is answered beside recorded ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from hanat.core.beacon import Beacon, Died, Heard
from hanat.core.feature_level import OLDEST
from hanat.core.identity import Identity
from hanat.errors import WireError
from hanat.net.beacon_wire import DATAGRAM_BYTES_MAX, NOTHING, BeaconWire, Datagram, Mark
from hanat.net.death_notice import is_release, open_release

RETIRED_MAX = 16
ANSWERED_MAX = 4
ANSWERS_PER_LEASE = 8
SENT_MAX = 4096  # send times kept: seconds, of which a lease needs a fraction


@dataclass(frozen=True, slots=True)
class Stranger:
    """A datagram of a peer that cannot be believed yet; answer it with this echo."""

    peer: int
    mark: Mark


@dataclass(slots=True)
class _Peer:
    """What is known of one peer.

    Attributes:
        believed: Its newest datagram that was believed.
        echoed: The highest sequence of ours that it ever echoed, or that there was when its
            incarnation was first believed.
        retired: Its earlier incarnations, and those declared dead.
        newest: The bytes of `believed`: the copies that come on other paths are known by them.
        heard_at: When it was heard on each path, seconds.
        answered_at: When its incarnations that cannot be believed yet were answered last,
            seconds, the newest at the end.
    """

    believed: Mark = NOTHING
    echoed: int = 0
    retired: deque[int] = field(default_factory=lambda: deque(maxlen=RETIRED_MAX))
    newest: bytes = b""
    heard_at: dict[int, float] = field(default_factory=dict)
    answered_at: dict[int, float] = field(default_factory=dict)

    def may_answer(self, incarnation: int, *, now: float, gap_s: float) -> bool:
        """Say whether an incarnation may be answered now, and count it."""
        recent = {i: at for i, at in self.answered_at.items() if now - at < gap_s}
        if incarnation in recent or len(recent) >= ANSWERED_MAX:
            return False
        self.answered_at = recent | {incarnation: now}
        return True


class Exchange:
    """This node's end of all conversations.

    Args:
        identity: This node.
        incarnation: Random, another at each start, not 0.
        peer_ids: The other nodes.
        clock: Seconds of CLOCK_BOOTTIME.

    Attributes:
        level: Returns the feature level to write (`core.feature_level`).
    """

    def __init__(
        self,
        identity: Identity,
        *,
        incarnation: int,
        peer_ids: Collection[int],
        clock: Callable[[], float],
    ) -> None:
        assert incarnation > 0, incarnation
        self.node_id, self.incarnation = identity.node_id, incarnation
        self._identity, self._wire = identity, BeaconWire(identity)
        self.clock = clock
        self.level: Callable[[], int] = lambda: OLDEST
        self._peers = {peer: _Peer() for peer in peer_ids}
        self._sequence = 0
        self._sent_at: deque[float] = deque(maxlen=SENT_MAX)  # of the newest sequences

    # ------------------------------------------------------------------- sending

    def seal(
        self, peer: int, beacon: Beacon, *, payload: bytes = b"", echo: Mark | None = None
    ) -> bytes:
        """Return a datagram to send now, the same bytes on every path.

        Args:
            peer: For whom.
            beacon: What to say.
            payload: A Raft message to carry along, empty for none.
            echo: Instead of the newest datagram believed: that of a `Stranger`.
        """
        self._sequence += 1
        self._sent_at.append(self.clock())
        data = self._wire.seal(
            Datagram(
                sender=self.node_id,
                receiver=peer,
                mark=Mark(self.incarnation, self._sequence),
                echo=echo or self._peers[peer].believed,
                beacon=beacon,
                payload=payload,
            ),
            self.level(),
        )
        assert len(data) <= DATAGRAM_BYTES_MAX, f"a beacon of {len(data)} bytes"
        return data

    def _when_sent(self, sequence: int) -> float | None:
        """Return when a datagram was sent, None if too long ago or never."""
        back = self._sequence - sequence
        if not 0 <= back < len(self._sent_at):
            return None
        return self._sent_at[-1 - back]

    # ------------------------------------------------------------------ receiving

    def open(
        self, data: bytes, *, path: int, source: int | None = None
    ) -> Heard | Stranger | Died | None:
        """Take a datagram that came on a path; None if it says nothing new.

        Args:
            data: The datagram.
            path: Index of the path.
            source: Whose address it came from, None if nobody knows. Two machines with one
                id would be one voter: what they promise would count for nothing.

        Raises:
            WireError: Nothing of a peer for this node, or of one that is gone.
        """
        if is_release(data):
            sender, incarnation = open_release(self._identity, data)
            _check_source(sender, source)
            return self._bury(sender, incarnation)
        for known in self._peers.values():
            if data == known.newest:
                known.heard_at[path] = self.clock()
                return None
        datagram = self._wire.open(data)
        _check_source(datagram.sender, source)
        peer = self._peers.get(datagram.sender)
        if peer is None:
            raise WireError(f"node {datagram.sender} is not among the peers of this node's file")
        mark, echo = datagram.mark, datagram.echo
        if mark.incarnation in peer.retired:
            raise WireError(
                f"a beacon of a node {datagram.sender} that was replaced: late, recorded, "
                "or two nodes run with the same id"
            )
        introduced = mark.incarnation != peer.believed.incarnation
        if echo.incarnation != self.incarnation or (introduced and echo.sequence <= peer.echoed):
            gap_s = self._identity.lease_s / ANSWERS_PER_LEASE
            if not peer.may_answer(mark.incarnation, now=self.clock(), gap_s=gap_s):
                return None
            return Stranger(datagram.sender, mark)
        if not introduced and mark.sequence <= peer.believed.sequence:
            return None  # late, or sent again by somebody: it does not show that the path works
        peer.heard_at[path] = self.clock()
        if introduced and peer.believed != NOTHING:
            peer.retired.append(peer.believed.incarnation)
        peer.believed, peer.newest = mark, data
        peer.echoed = max(peer.echoed, self._sequence if introduced else echo.sequence)
        promised = datagram.beacon.promised
        return Heard(
            peer=datagram.sender,
            sequence=mark.sequence,
            beacon=datagram.beacon,
            payload=datagram.payload,
            echoed_at=self._when_sent(echo.sequence),
            promised_at=None if promised is None else self._when_sent(promised.sequence),
            introduced=introduced,
            level=datagram.level,
        )

    def _bury(self, sender: int, incarnation: int) -> Died | None:
        """Forget an incarnation that is dead, if it is the one that was believed."""
        peer = self._peers.get(sender)
        if peer is None or peer.believed.incarnation != incarnation:
            return None
        peer.retired.append(incarnation)
        peer.believed, peer.newest = NOTHING, b""
        peer.heard_at.clear()
        return Died(sender)

    # -------------------------------------------------------------------- reading

    def heard_at(self, peer: int, path: int | None = None) -> float | None:
        """Return when a peer was heard last [s], on one path or on any; None if never."""
        times = self._peers[peer].heard_at
        return times.get(path) if path is not None else max(times.values(), default=None)


def _check_source(sender: int, source: int | None) -> None:
    if source not in {None, sender}:
        raise WireError(
            f"node {sender} sends from the address of node {source}; "
            "is its id in use on two machines?"
        )
