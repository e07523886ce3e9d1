"""The daemon's end of the flow worker: starts it, talks to it, starts it again.

All per-flow work is in a process of its own, without the daemon's priority: a burst of connections
takes nothing from the loop that renews the lease. The daemon passes batches on as opaque bytes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from subprocess import Popen
from typing import Any

from hanat.core.accounting import Place
from hanat.core.endings import Ending
from hanat.core.feature_level import OLDEST
from hanat.core.flow_scope import ReplicationScope
from hanat.core.flow_selection import FlowQuery
from hanat.core.flows import ServerKey
from hanat.core.status import FlowStatus
from hanat.core.totals import Totals
from hanat.daemon.children import ends_within
from hanat.daemon.ending_requests import Done, EndingRequests
from hanat.errors import RefusedError
from hanat.worker.connection_counts import CountsReader
from hanat.worker.window import Propose
from hanat.worker.worker_channel import DONE, FLAG, NUMBER, PROPOSAL, TERM, Answer, Channel, Kind

log = logging.getLogger(__name__)

LOOK_S = 1.0
HUNG_S = 10.0  # a worker that says nothing for so long starts anew
BACKLOG_BYTES_MAX = 64 << 20  # of committed batches: a worker that is so far behind starts anew
RESTART_S_MIN, RESTART_S_MAX = 0.1, 10.0
HEALTHY_S = 60.0
SOCKET_BYTES = 4 << 20
REFRESH_S_MAX = 0.05
QUERY_S_MAX = 10.0
END_S_MAX = 5.0


def _ignore(_counts: Mapping[str, int]) -> None:
    return


class WorkerLink:
    """Speaks to the flow worker of this node.

    Args:
        spawn: Starts a worker that serves the other end of a socket.
        propose: Appends a batch of a term to the log: ``propose(term, batch, done)``;
            returns False when this node does not lead.
        completed: Called with whether this kernel has all committed flows, when that changes.

    Attributes:
        on_added: Takes what the services of this node carried, as the holder, since it was
            called last, and whether the kernel counts packets and bytes; each second or sooner.
    """

    def __init__(
        self,
        spawn: Callable[[socket.socket], Popen[bytes]],
        *,
        propose: Propose,
        completed: Callable[[bool], None],
    ) -> None:
        self._spawn, self._propose, self._completed = spawn, propose, completed
        self._said_complete = self._complete = False
        self._behind = False
        self._looked_at = 0.0
        self._dying: Popen[bytes] | None = None
        self._process: Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._loop: asyncio.AbstractEventLoop
        self._connecting: asyncio.Task[object] | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._restart_s = RESTART_S_MIN
        self._started_at = 0.0
        self._closed = False
        self._term: int | None = None  # captured, None while not
        self._progress_at = 0.0
        self._backlog = 0
        self._scope, self._level = ReplicationScope(), OLDEST
        self._kept: list[bytes] = []
        self._flushes: dict[int, Callable[[], None]] = {}
        self._queries: dict[int, asyncio.Future[Answer]] = {}
        self._rules: bytes | None = None
        self._reconciled: dict[int, Callable[[Mapping[str, int]], None]] = {}
        self._endings = EndingRequests(self._send)
        self._number = 0
        self._status = FlowStatus()
        self._past = FlowStatus()  # the sums of the workers that ended
        self._counts, self._whole = CountsReader(), False
        self._told_at: float | None = None
        self._asked: asyncio.Future[None] | None = None
        self._asked_at = 0.0
        self._restarts = 0
        self.on_added: Callable[[Mapping[Place, Totals], bool], None] = lambda _added, _known: None

    # ---------------------------------------------------------------------- process

    def start(self) -> None:
        """Start the worker; it is started again whenever it ends."""
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()
        ours = self._begin()
        if ours is None:
            self._start_later()
            return
        channel = self._channel = Channel(self._on_frame, lambda: self._lost(channel))
        self.set_scope(self._scope)
        self.set_level(self._level)
        if self._rules is not None:
            self.reconcile(self._rules, lambda _counts: None)
        if self._term is not None:
            self._send_kept()
            channel.send(Kind.START, TERM.pack(self._term))
        self._endings.again()
        self._connecting = self._loop.create_task(
            self._loop.create_connection(lambda: channel, sock=ours)
        )

    def _begin(self) -> socket.socket | None:
        """Start the process; return our end of the pair, None if the machine cannot now."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            log.error("flowsync op=start found=%r", str(error))  # noqa: TRY400 - the text says it all
            return None
        try:
            with theirs:
                for end in (ours, theirs):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
                self._process = self._spawn(theirs)
        except OSError as error:
            ours.close()
            log.error("flowsync op=start found=%r", str(error))  # noqa: TRY400 - the text says it all
            return None
        ours.setblocking(False)  # noqa: FBT003 - the library's signature
        return ours

    def close(self) -> None:
        """End the worker, and wait for that."""
        self._closed = True
        if self._restart is not None:
            self._restart.cancel()
        if self._channel is not None:
            self._channel.abort()
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        if not ends_within(process, END_S_MAX):
            process.kill()
            process.wait()

    def _lost(self, channel: Channel) -> None:
        if channel is not self._channel:
            return
        self._channel = None
        process, self._process = self._process, None
        if self._closed or process is None:
            return
        self._said_complete = self._behind = self._whole = False
        self._counts.clear()
        self._note()
        # It may be stopped, or hang: what comes next must not meet it.
        process.kill()
        self._dying = process
        self._past, self._status = self._sum(), FlowStatus()
        self._answered()
        for done in self._flushes.values():
            self._loop.call_soon(done)
        self._flushes.clear()
        for told in self._reconciled.values():
            self._loop.call_soon(told, {})
        self._reconciled.clear()
        self._start_later()

    def _start_later(self) -> None:
        if self._loop.time() - self._started_at >= HEALTHY_S:
            self._restart_s = RESTART_S_MIN
        log.error("flowsync worker=ended restart_s=%.1f", self._restart_s)
        self._restart = self._loop.call_later(self._restart_s, self._start_again)
        self._restart_s = min(2 * self._restart_s, RESTART_S_MAX)

    def _start_again(self) -> None:
        if self._dying is not None and self._dying.poll() is None:
            self._restart = self._loop.call_later(RESTART_S_MIN, self._start_again)
            return
        self._restarts += 1
        self.start()

    # ----------------------------------------------------------------------- holder

    def set_scope(self, scope: ReplicationScope) -> None:
        """Say what is captured, and what is ours to delete."""
        self._scope = scope
        self._send(Kind.SCOPE, json.dumps(scope.to_document()).encode())

    def set_level(self, level: int) -> None:
        """Say in which feature level batches are to be written (`core.feature_level`)."""
        self._level = level
        self._send(Kind.LEVEL, bytes((level,)))

    def start_capture(self, term: int) -> None:
        """Begin to read changes; they are proposed as batches of `term`."""
        self._term = term
        self._send_kept()
        self._send(Kind.START, TERM.pack(term))

    def _send_kept(self) -> None:
        if self._channel is not None:
            for batch in self._kept:
                self._send(Kind.INSTALL, batch)
            self._kept.clear()

    def stop_capture(self) -> None:
        """Read no more changes."""
        self._term = None
        self._send(Kind.STOP)

    def flush(self, done: Callable[[], None]) -> None:
        """Call `done` once everything captured so far is committed."""
        if self._channel is None:
            self._loop.call_soon(done)
            return
        self._number += 1
        self._flushes = {self._number: done}  # who asked before does not wait any more
        self._send(Kind.FLUSH, NUMBER.pack(self._number))

    def reconcile(self, rules: bytes, done: Callable[[Mapping[str, int]], None]) -> None:
        """End, as holder, the flows that do not fit rules that were just installed.

        Args:
            rules: JSON of a document of `core.reconcile.Rules`.
            done: Takes how many flows ended, by reason; none without a worker.
        """
        self._rules = rules
        if self._channel is None:
            self._loop.call_soon(done, {})
            return
        self._number += 1
        self._reconciled[self._number] = done
        self._send(Kind.RECONCILE, NUMBER.pack(self._number) + rules)

    def end_connections(self, endings: Sequence[Ending], done: Done) -> None:
        """End, as holder, connections of servers that went down, into maintenance or away.

        Call it when rules are in force that lead no new flow there, and before `reconcile` for the
        same rules. A worker that dies over it is followed by one that does it again; when another
        node holds, its daemon has to ask.

        Args:
            endings: Whose, see `core.endings.ending_of`.
            done: Takes how many ended, of each in order; none if this node does not hold.
        """
        self._endings.ask(endings, done)

    def resync(self, *, again: bool) -> None:
        """Tell everything once more.

        Args:
            again: While everything is being told, tell it once more after that: a peer that
                lacks flows did not see the beginning.
        """
        self._send(Kind.RESYNC, FLAG.pack(again))

    # ----------------------------------------------------------------------- backup

    def forget(self) -> None:
        """Note that committed batches were missed."""
        self._kept.clear()
        self._send(Kind.FORGET)
        self._said_complete = False  # it will say so, in some milliseconds
        self._note()

    def settle(self, done: Callable[[], None]) -> None:
        """Call `done` once all passed to `install`, or kept, is installed; without a worker now."""
        self._send_kept()
        self.flush(done)  # who does not capture answers in its turn

    def keep(self, batch: bytes) -> None:
        """Note a batch that is installed only if this node captures before it is complete."""
        if not self._complete:
            self._kept.append(batch)

    def install(self, batch: bytes) -> None:
        """Install a committed batch of another node."""
        self._kept.clear()  # there is a holder, and it tells everything
        if self._channel is not None and self._channel.backlog > BACKLOG_BYTES_MAX:
            self._give_up(f"behind by {self._channel.backlog} bytes")
            return
        self._send(Kind.INSTALL, batch)

    def _give_up(self, found: str) -> None:
        """End a worker that does not keep up; the next one starts with nothing to catch up."""
        log.error("flowsync worker=%r action=restart", found)
        if self._channel is not None:
            self._channel.abort()
            self._lost(self._channel)

    # ----------------------------------------------------------------------- frames

    def _send(self, kind: Kind, body: bytes = b"") -> None:
        if self._channel is not None:
            self._channel.send(kind, body)

    def _on_frame(self, kind: Kind, body: bytes) -> None:  # noqa: C901, PLR0912 - one arm a kind
        match kind:
            case Kind.PROPOSE:
                self._on_proposal(body)
            case Kind.FLUSHED:
                (number,) = NUMBER.unpack(body)
                done = self._flushes.pop(number, None)
                if done is not None:
                    done()
            case Kind.ANSWER:
                self._on_answer(body)
            case Kind.RECONCILED:
                (number,) = NUMBER.unpack_from(body)
                self._reconciled.pop(number, _ignore)(json.loads(body[NUMBER.size :]))
            case Kind.ENDED:
                self._endings.answered(body)
            case Kind.COUNTS:
                self._counts.take(body)
            case Kind.STATUS:
                self._counts.finish(partial(self._on_status, json.loads(body)))
            case Kind.ADDED:
                self._on_added(json.loads(body))
            case Kind.COMPLETE:
                (self._said_complete,) = FLAG.unpack(body)
                self._note()
            case _:
                log.error("flowsync worker=confused kind=%s", kind.name)

    def _note(self) -> None:
        complete = self._said_complete and not self._behind
        if complete != self._complete:
            self._complete = complete
            if complete:
                self._kept.clear()
            log.info("flowsync complete=%s", complete)
            self._completed(complete)

    def _on_proposal(self, body: bytes) -> None:
        sequence, term = PROPOSAL.unpack_from(body)
        channel = self._channel

        def done(committed: bool) -> None:  # noqa: FBT001 - called by the log
            if channel is self._channel:
                self._send(Kind.DONE, DONE.pack(sequence, committed))

        if not self._propose(term, body[PROPOSAL.size :], done):
            done(committed=False)

    async def query(self, selection: FlowQuery, *, limit: int, kill: bool = False) -> Answer:
        """Look flows up in this node's kernel; as holder delete them everywhere.

        Args:
            selection: Which.
            limit: How many to return at most; all are counted.
            kill: Delete them.

        Raises:
            RefusedError: The flow worker does not run, or does not answer in time.
        """
        if self._channel is None:
            raise RefusedError("connections: the flow worker is being started; try again soon")
        self._number += 1
        number = self._number
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._queries[number] = answer
        document = {"selection": selection.to_document(), "limit": limit, "kill": kill}
        self._send(Kind.QUERY, NUMBER.pack(number) + json.dumps(document).encode())
        try:
            async with asyncio.timeout(QUERY_S_MAX):
                return await answer
        except TimeoutError:
            raise RefusedError(
                f"connections: no answer of the flow worker within {QUERY_S_MAX:g} s; "
                'see "hanat status"'
            ) from None
        finally:
            self._queries.pop(number, None)

    def _on_answer(self, body: bytes) -> None:
        (number,) = NUMBER.unpack_from(body)
        waiting = self._queries.get(number)
        if waiting is not None and not waiting.done():
            document = json.loads(body[NUMBER.size :])
            records = [bytes.fromhex(record) for record in document["records"]]
            waiting.set_result(Answer(document["total"], records, document["error"]))

    def _on_status(self, document: Mapping[str, Any]) -> None:
        flows, self._whole = document["flows"], document["whole"]
        self._status = FlowStatus(**{**flows, "alarms": tuple(flows["alarms"])})
        self._told_at = self._loop.time()
        self._answered()

    def _on_added(self, document: Mapping[str, Any]) -> None:
        added = {
            Place(protocol, bytes.fromhex(listen), port, bytes.fromhex(server), own): Totals(*sums)
            for protocol, listen, port, server, own, *sums in document["rows"]
        }
        self.on_added(added, document["has_bytes"])

    def _answered(self) -> None:
        if self._asked is not None:
            self._asked.set_result(None)
            self._asked = None
        if self._behind:
            self._behind = False
            self._note()

    # ----------------------------------------------------------------------- status

    def look(self) -> None:
        """See whether the worker keeps up; call it often.

        It answers in order: an answer says that everything before the question is done.
        """
        if self._channel is None:
            return
        now, backlog = self._loop.time(), self._channel.backlog
        if backlog < self._backlog:
            self._progress_at = now
        self._backlog = backlog
        if self._asked is None:
            if now >= self._looked_at + LOOK_S:
                self._looked_at = now
                self._ask()
            return
        silent_s = now - self._asked_at
        if min(silent_s, now - self._progress_at) >= HUNG_S:
            self._give_up("silent")
        elif silent_s >= LOOK_S and not self._behind:
            log.warning("flowsync worker=behind silent_s=%.1f", silent_s)
            self._behind = True
            self._note()

    def _ask(self) -> None:
        self._asked, self._asked_at = self._loop.create_future(), self._loop.time()
        self._send(Kind.REPORT)

    def ask(self) -> None:
        """Have `counts` and `opened` brought up to date, without waiting for it."""
        if self._channel is not None and self._asked is None:
            self._ask()

    async def refresh(self) -> None:
        """Let `status` be that of now; gives up soon if the worker does not answer."""
        if self._channel is None:
            return
        if self._asked is not None and self._asked_at + REFRESH_S_MAX <= self._loop.time():
            return  # it hangs: others waited for that already
        if self._asked is None:
            self._ask()
        assert self._asked is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(REFRESH_S_MAX):
                await asyncio.shield(self._asked)

    def status(self) -> FlowStatus:
        """Return the counters, as of the last `refresh`."""
        age_s = None if self._told_at is None else self._loop.time() - self._told_at
        return replace(self._sum(), complete=self._complete, restarts=self._restarts, age_s=age_s)

    def _sum(self) -> FlowStatus:
        past, now = self._past, self._status
        sums = {
            name: getattr(past, name) + getattr(now, name)
            for name in (
                "captured", "committed", "received", "installed", "deleted", "clashed", "failed",
                "repaired", "dropped", "overruns", "resyncs", "ended", "clients_refused",
            )
        }  # fmt: skip
        return replace(now, **sums)

    def opened(self) -> Mapping[ServerKey, int]:
        """See `CountsReader.opened`."""
        return self._counts.opened

    def counts(self) -> Mapping[ServerKey, int]:
        """See `CountsReader.counts`."""
        return self._counts.counts

    def knows(self, age_s: float) -> bool:
        """Say whether `counts` are of all flows, and were told so many seconds ago at most."""
        told_at = self._told_at
        return self._whole and told_at is not None and self._loop.time() - told_at <= age_s
