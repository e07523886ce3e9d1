"""The flow worker's end of the channel: a `FlowWorker` that a daemon commands."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict

from hanat.core.accounting import Place
from hanat.core.endings import Ended, from_document
from hanat.core.flow_scope import ReplicationScope
from hanat.core.flow_selection import FlowQuery
from hanat.core.reconcile import Rules
from hanat.core.totals import Totals
from hanat.errors import KernelError
from hanat.kernel.ports import Conntrack, Routes
from hanat.worker.client_set_sync import ClientSets
from hanat.worker.connection_counts import encoded
from hanat.worker.crowd_watch import CrowdWatch
from hanat.worker.flow_worker import FlowWorker
from hanat.worker.worker_channel import DONE, FLAG, NUMBER, PROPOSAL, TERM, Answer, Channel, Kind

log = logging.getLogger(__name__)


class FlowService:
    """Does what the daemon says, until that is gone.

    Args:
        conntrack: The kernel's table.
        routes: Its routing table.
        sets: Of clients, in its rules.
        clock: Seconds of CLOCK_BOOTTIME.
    """

    def __init__(
        self,
        conntrack: Conntrack,
        routes: Routes,
        sets: ClientSets,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._worker = FlowWorker(
            conntrack,
            routes,
            propose=self._propose,
            completed=lambda complete: self._channel.send(Kind.COMPLETE, FLAG.pack(complete)),
            clock=clock,
            client_sets=sets,
        )
        self._crowds = CrowdWatch(self._worker.keys, sets, whole=lambda: self._worker.whole)
        self._worker.accounting.tell = self._tell_added
        self._handlers: Mapping[Kind, Callable[[bytes], None]] = {
            Kind.SCOPE: self._set_scope,
            Kind.LEVEL: lambda body: self._worker.set_level(body[0]),
            Kind.START: self._start,
            Kind.STOP: self._stop,
            Kind.FLUSH: self._flush,
            Kind.DONE: self._done,
            Kind.INSTALL: self._worker.install,
            Kind.RESYNC: self._resync,
            Kind.FORGET: lambda _body: self._worker.forget(),
            Kind.REPORT: self._report,
            Kind.QUERY: self._query,
            Kind.RECONCILE: self._reconcile,
            Kind.END: self._end_connections,
        }
        self._ended = asyncio.Event()
        self._channel = Channel(self._on_frame, self._ended.set)
        self._sequence = 0
        self._proposed: dict[int, Callable[[bool], None]] = {}

    async def run(self, opened: socket.socket) -> None:
        """Serve the daemon at the other end of a socket until it is gone."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self._channel, sock=opened)
        await self._ended.wait()

    def _resync(self, body: bytes) -> None:
        (again,) = FLAG.unpack(body)
        self._worker.resync_for_peer(again=again)

    def _propose(self, term: int, batch: bytes, done: Callable[[bool], None]) -> bool:
        self._sequence += 1
        self._proposed[self._sequence] = done
        self._channel.send(Kind.PROPOSE, PROPOSAL.pack(self._sequence, term) + batch)
        return True

    def _on_frame(self, kind: Kind, body: bytes) -> None:
        handle = self._handlers.get(kind)
        if handle is None:
            log.error("flowsync daemon=confused kind=%s", kind.name)
        else:
            handle(body)

    def _start(self, body: bytes) -> None:
        (term,) = TERM.unpack(body)
        try:
            self._worker.start_capture(term)
        except KernelError as error:
            log.error("flowsync op=capture found=%r", str(error))  # noqa: TRY400 - the text says it all
            self._channel.abort()
        else:
            self._crowds.begin()

    def _stop(self, _body: bytes) -> None:
        self._worker.stop_capture()
        self._crowds.end()

    def _done(self, body: bytes) -> None:
        sequence, committed = DONE.unpack(body)
        self._proposed.pop(sequence)(committed)

    def _flush(self, body: bytes) -> None:
        self._worker.flush(lambda: self._channel.send(Kind.FLUSHED, body))

    def _set_scope(self, body: bytes) -> None:
        scope = ReplicationScope.from_document(json.loads(body))
        self._worker.set_scope(scope)
        self._crowds.configure(scope.crowds)
        self._worker.accounting.prepare()

    def _query(self, body: bytes) -> None:
        document = json.loads(body[NUMBER.size :])

        def done(answer: Answer) -> None:
            found = {
                "total": answer.total,
                "records": [record.hex() for record in answer.records],
                "error": answer.error,
            }
            self._channel.send(Kind.ANSWER, body[: NUMBER.size] + json.dumps(found).encode())

        self._worker.query(
            FlowQuery.from_document(document["selection"]),
            limit=document["limit"],
            kill=document["kill"],
            done=done,
        )

    def _reconcile(self, body: bytes) -> None:
        def done(counts: Mapping[str, int]) -> None:
            self._channel.send(
                Kind.RECONCILED, body[: NUMBER.size] + json.dumps(dict(counts)).encode()
            )

        self._worker.reconcile(Rules.from_document(json.loads(body[NUMBER.size :])), done)

    def _end_connections(self, body: bytes) -> None:
        def done(ended: Sequence[Ended]) -> None:
            self._channel.send(Kind.ENDED, body[: NUMBER.size] + json.dumps(ended).encode())

        endings = from_document(json.loads(body[NUMBER.size :]))
        self._worker.end_connections(endings, done)

    def _tell_added(self, added: Mapping[Place, Totals], has_bytes: bool) -> None:  # noqa: FBT001 - a callback
        rows = [
            (p.protocol, p.listen.hex(), p.port, p.server.hex(), p.server_port, *totals)
            for p, totals in added.items()
        ]
        document = {"has_bytes": has_bytes, "rows": rows}
        self._channel.send(Kind.ADDED, json.dumps(document, separators=(",", ":")).encode())

    def _report(self, _body: bytes) -> None:
        document = {"flows": asdict(self._worker.status()), "whole": self._worker.whole}
        self._report_some(encoded(self._worker.report()), json.dumps(document).encode())

    def _report_some(self, messages: Iterator[bytes], status: bytes) -> None:
        message = next(messages, None)
        if message is None:
            self._channel.send(Kind.STATUS, status)
            return
        self._channel.send(Kind.COUNTS, message)
        asyncio.get_running_loop().call_soon(self._report_some, messages, status)
