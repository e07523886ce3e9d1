"""Parts that the invariant "at most one node answers" rests on, each made wrong.

What is wrong with the library, and repaired, is in `repairs`.
"""

from __future__ import annotations

from hanat.core.beacon import Died, Heard
from hanat.core.lease import Lease
from hanat.net.death_notice import is_release
from hanat.net.freshness import Exchange, Stranger


class GreedyLease(Lease):
    """A lease that outlives the promises it rests on."""

    def __init__(self, *, duration_s: float, margin_s: float, quorum: int) -> None:
        super().__init__(duration_s=3 * duration_s, margin_s=margin_s, quorum=quorum)


class ReceiptLease(Lease):
    """A lease that counts from when the answer arrived."""

    def acknowledged(self, *, peer: int, term: int, sent_at: float, now: float) -> bool:
        del sent_at
        return super().acknowledged(peer=peer, term=term, sent_at=now, now=now)


class Gullible(Exchange):
    """Believes whatever is sealed with the cluster's key, however old."""

    def open(
        self, data: bytes, *, path: int, source: int | None = None
    ) -> Heard | Stranger | Died | None:
        if is_release(data):
            return super().open(data, path=path, source=source)
        datagram = self._wire.open(data)
        self._peers[datagram.sender].believed = datagram.mark
        promised = datagram.beacon.promised
        return Heard(
            peer=datagram.sender,
            sequence=datagram.mark.sequence,
            beacon=datagram.beacon,
            payload=datagram.payload,
            echoed_at=self._when_sent(datagram.echo.sequence),
            promised_at=None if promised is None else self._when_sent(promised.sequence),
            introduced=False,
        )


class Forgotten:
    """An attribute that is always 0."""

    def __get__(self, _node: object, _kind: object = None) -> float:
        return 0.0

    def __set__(self, _node: object, _value: float) -> None: ...
