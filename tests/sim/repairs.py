"""Guards with one repair broken: the library's plain behaviour in that one place.

Each proves that a schedule is sharp: with the guard the schedule shows nothing, with
the broken one it shows the fault. `python -m tests.sim --ablate NAME` runs random
seeds with one of them.
"""

from __future__ import annotations

from typing import Any

from hanat.core.beacon import Heard
from hanat.core.election import Candidacy
from hanat.core.eligibility import Rival
from hanat.core.lease import Lease, Promise
from hanat.raft.guard import Guard
from hanat.raft.library import LibraryNode
from hanat.raft.messages import Entry, Message
from hanat.raft.promises import HEARTBEAT_BEACONS
from tests.sim.broken import BROKEN as BROKEN
from tests.sim.broken import broken
from tests.sim.repairs_disk import WithoutConfigurationsOnDisk as WithoutConfigurationsOnDisk
from tests.sim.repairs_disk import WithoutDurability as WithoutDurability
from tests.sim.repairs_disk import WithoutLateTerms as WithoutLateTerms
from tests.sim.repairs_disk import WithoutNote as WithoutNote
from tests.sim.repairs_disk import WithoutRecovery as WithoutRecovery
from tests.sim.repairs_disk import WithoutTermsFirst as WithoutTermsFirst
from tests.sim.repairs_disk import WithoutWaitingForTheNote as WithoutWaitingForTheNote
from tests.sim.repairs_disk import WithoutWriteAhead as WithoutWriteAhead

# ------------------------------------------------------------------------- the log


@broken
class WithoutClamp(Guard):
    """The commit index follows the leader's, whatever the message verified."""

    def _on_append(self, node: LibraryNode, message: Message) -> None:
        self._told = message["commit_index"]
        super()._on_append(node, message)

    def _onMessageReceived(self, node: LibraryNode, message: Message) -> None:  # noqa: N802 - the library's name
        if message["type"] == "append_entries":
            message["commit_index"] = self._told
        super()._onMessageReceived(node, message)


@broken
class WithoutPrefix(Guard):
    """Everything behind the point where a message starts is deleted first."""

    def _append(self, node: LibraryNode, message: Message) -> None:
        verified = message["prevLogIdx"] + len(message["entries"])
        message["commit_index"] = min(message["commit_index"], verified)
        self._onMessageReceived(node, message)


@broken
class WithoutPacing(Guard):
    """The library decides what is sent, and sends what is in flight again."""

    def send(self, node: LibraryNode, message: Message) -> bool:
        if message["type"] != "append_entries":
            return super().send(node, message)
        if message["prevLogIdx"] is None:
            return False
        sent = message["prevLogIdx"] + len(message["entries"])
        outgoing = self._outgoing_to(node.id, sent)
        added = {"gen": outgoing.generation, "last": self.last_index}
        return self.wire.send(node.id, message | added)

    def _continue(self, peer: int, outgoing: Any) -> None: ...  # noqa: ANN401


@broken
class WithoutPacingAndPrefix(WithoutPacing, WithoutPrefix):
    """The log as the library keeps it by itself."""


@broken
class WithoutTermStamp(Guard):
    """An acknowledgement counts whatever term it was given in."""

    def _on_next(self, node: LibraryNode, message: Message) -> None:
        if self.leading and message["term"] < self.term:
            message["term"] = self.term
        super()._on_next(node, message)


@broken
class WithoutGenerations(Guard):
    """Each reset rewinds, also one that answers what was sent before the last rewind."""

    def _on_next(self, node: LibraryNode, message: Message) -> None:
        outgoing = self._outgoing.get(node.id)
        if message["reset"] and outgoing is not None:
            message["gen"] = outgoing.generation
        super()._on_next(node, message)


@broken
class WithoutSlices(Guard):
    """The whole rest of the log goes into one message."""

    def _slice(self, first: int) -> list[Entry]:
        return list(self.journal[first - self.journal[0][1] :])


@broken
class WithoutWindow(Guard):
    """Slices are sent however many are in flight."""

    def _send_append(self, peer: int, library_previous: int | None) -> bool:
        if peer in self._outgoing:
            self._outgoing[peer].ends.clear()
        return super()._send_append(peer, library_previous)


# ------------------------------------------------------------------ leaders and votes


@broken
class WithoutPreVote(Guard):
    """The library sees its peers at all times, so that it stands by its own timer."""

    def peer_connected(self, peer: int) -> None:
        self._peers_visible = True
        super().peer_connected(peer)

    def _show_peers(self, *, visible: bool) -> None: ...


@broken
class WithoutHiding(Guard):
    """A node that stopped leading goes on seeing its peers."""

    def _settle(self) -> None:
        campaign_until, self._campaign_until = self._campaign_until, float("inf")
        super()._settle()
        self._campaign_until = campaign_until


@broken
class WithoutStaleTerm(Guard):
    """Who leads or stands in an older term is ignored."""

    def receive(self, peer: int, message: Message) -> None:
        if message["type"] != "stale_term":
            super().receive(peer, message)


@broken
class WithoutVoterDedup(Guard):
    """Votes count, not voters."""

    def _on_response_vote(self, node: LibraryNode, message: Message) -> None:
        self._voters.discard(node.id)
        super()._on_response_vote(node, message)


@broken
class WithoutVoteTerms(Guard):
    """A vote of another term starts the count anew."""

    def _on_response_vote(self, node: LibraryNode, message: Message) -> None:
        if message["term"] != self.term:
            self._voters = {self.node_id}
        super()._on_response_vote(node, message)


@broken
class WithoutYielding(Guard):
    """Who votes for another goes on with its own round."""

    def send_about_votes(self, peer: int, message: Message) -> None:
        round_until = self._round_until
        super().send_about_votes(peer, message)
        self._round_until = round_until


@broken
class WithoutTakenVotes(Guard):
    """A pre-vote is given for a term in which the vote is another's."""

    def _on_pre_vote(self, node: LibraryNode, message: Message) -> None:
        if message["term"] == self.term and not self.leading:
            message["term"] += 1
        super()._on_pre_vote(node, message)


@broken
class WithoutLostLeaders(Guard):
    """A leader that was lost takes its turn as any other node."""

    def rivals(self) -> list[Rival]:
        return [Rival(peer, b.fit, b.handicap) for peer, b in self.alive().items()]


@broken
class WithoutDeafness(Guard):
    """Whoever leads is followed, also one that asks for no promise because it hears nobody."""

    def hear(self, heard: Heard) -> None:
        super().hear(heard)
        if heard.beacon.leads and not self.leading:
            self._followed()

    def _on_append(self, node: LibraryNode, message: Message) -> None:
        super()._on_append(node, message)
        self._followed()


@broken
class WithoutAhead(Guard):
    """A node waits for its turn behind one whom it would not vote for."""

    def _on_pre_vote(self, node: LibraryNode, message: Message) -> None:
        super()._on_pre_vote(node, message)
        self._ahead_until = 0.0


@broken
class WithoutDead(Guard):
    """The late words of a daemon that is dead count."""

    def died(self, peer: int) -> None:
        super().died(peer)
        self.dead.clear()


class _Impatient(Candidacy):
    shorter_s = 0.0

    def wait(self, until: float) -> None:
        super().wait(until - self.shorter_s)


@broken
class WithoutPatience(Guard):
    """A leader known by its connection only is waited for as if it sent beacons."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.candidacy = _Impatient(self.profile, draw=kwargs["rng"].random)

    def _on_append(self, node: LibraryNode, message: Message) -> None:
        assert isinstance(self.candidacy, _Impatient)
        self.candidacy.shorter_s = HEARTBEAT_BEACONS * self.profile.beacon_s
        super()._on_append(node, message)
        self.candidacy.shorter_s = 0.0


@broken
class WithoutPromises(Guard):
    """Votes and pre-votes are given although a leader was heard just now."""

    def _refuses(self, candidate: int) -> bool:  # noqa: ARG002
        return False


@broken
class WithoutStickyVotes(Guard):
    """A vote request is granted although a leader was heard just now."""

    def _on_request_vote(self, node: LibraryNode, message: Message) -> None:
        message["transfer"] = True
        super()._on_request_vote(node, message)

    def _released_for(self, term: int) -> bool:  # noqa: ARG002
        return True


@broken
class WithoutQuiet(Guard):
    """A node promises and votes as soon as it has started."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.promise.until = self.clock()


@broken
class WithoutHolding(Guard):
    """A deposed leader helps others at once, while its own lease may still be in force."""

    @property
    def held_until(self) -> float:
        return 0.0

    @held_until.setter
    def held_until(self, until: float) -> None: ...


class _KeptLease(Lease):
    def give_up(self, term: int) -> None: ...


@broken
class WithoutLastEntry(Guard):
    """A leader that ordered a peer to lead still takes entries."""

    @property
    def handed_on(self) -> bool:
        return False


@broken
class WithoutGivingUp(Guard):
    """A leader that has sent its successor goes on renewing its lease."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        old = self.lease
        self.lease = _KeptLease(duration_s=old.duration_s, margin_s=old.margin_s, quorum=old.quorum)


class _LoosePromise(Promise):
    def released_for(self, term: int) -> bool:
        return term > self.term


@broken
class WithoutNextTermOnly(Guard):
    """A candidate once sent by a leader may stand in any later term."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        old, now = self.promise, self.clock()
        self.promise = _LoosePromise(quiet_s=old.until - now, now=now)

    def _released_for(self, term: int) -> bool:
        return term > self.term if self.leading else super()._released_for(term)


@broken
class WithoutOrderCheck(Guard):
    """An order to campaign is obeyed whoever gave it in whatever term."""

    def _on_timeout_now(self, node: LibraryNode, message: Message) -> None:  # noqa: ARG002
        self._transfer_term = self.term
        self._campaign()


# ---------------------------------------------------------------------- the snapshots


@broken
class WithoutPieces(Guard):
    """Pieces of a snapshot pass through the library, with the leader's commit index."""

    def _on_append(self, node: LibraryNode, message: Message) -> None:
        self._told = message["commit_index"]
        super()._on_append(node, message)

    def _receive(self, node: LibraryNode, message: Message) -> None:
        if message["type"] == "snapshot":
            chunk = {"type": "append_entries", "term": message["term"], "serialized": None}
            self._onMessageReceived(node, chunk | {"commit_index": self._told})
        super()._receive(node, message)


@broken
class WithoutSnapshotCheck(Guard):
    """A snapshot counts as installed when its last piece was stored."""

    def _receive(self, node: LibraryNode, message: Message) -> None:
        super()._receive(node, message)
        if message["type"] == "snapshot":
            end = message["offset"] + len(message["data"])
            if end == message["size"]:
                answer = {"type": "snapshot_ack", "kind": "installed", "term": self.term}
                self.wire.send(node.id, answer | {"index": message["last"][0], "offset": end})


@broken
class WithoutNeed(Guard):
    """A snapshot is installed whatever the log already has."""

    def _receive(self, node: LibraryNode, message: Message) -> None:
        if message["type"] != "snapshot":
            super()._receive(node, message)
            return
        transfers = self.transfers
        incoming = transfers._expected(node.id, message)
        assert incoming is not None
        transfers._needed = _always  # type: ignore[method-assign]
        transfers._store(incoming, message)


def _always(incoming: object) -> bool:  # noqa: ARG001
    return True


@broken
class WithoutAnswerToTheLibrary(Guard):
    """The library is not told that a snapshot is sent by others."""

    def _rewind_library(self, peer: int) -> None: ...


@broken
class WithoutKinds(Guard):
    """The library obeys any kind of message."""

    def receive(self, peer: int, message: Message) -> None:
        if message["type"] in ("apply_command", "apply_command_response"):
            self._onMessageReceived(self.nodes[peer], message)
        else:
            super().receive(peer, message)


@broken
class WithoutLeaps(Guard):
    """A follower goes back through entries that are not its leader's one by one."""

    def _first_in_doubt(self, index: int) -> int:
        return index
