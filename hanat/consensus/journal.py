"""The journal: the replicated log, the term and the vote, on disk.

The log is a row of append-only segments (`segments`), read and judged at the
start (`loading`); term, vote and the log's bounds are in a file of their own
(`vote`); `disk` changes both. Everything lives in ``journal/`` below the data directory:

    lock   vote   00000000000000000001.log   00000000000000041033.log   ...

What is durable when. Term and vote: before `setCurrentTerm` returns. An entry: it
is in the kernel's page cache before `add` returns, so a dead process loses none;
a dead machine may lose what was added since the last `sync`. Flows are not worth a
sync each; whoever acknowledges a configuration calls `sync` first.

One write an entry, no buffer of ours: for 100 bytes the write is 1.1 of the 3 µs that
adding takes, and a buffer that somebody must flush before an acknowledgement leaves is
easily forgotten.

The saved commit index is not believed after a restart: the log may be an older
version of itself, and committing up to a remembered number could commit entries
nobody else has. The leader tells the commit index anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol, overload

from hanat.consensus.background import Background, Done
from hanat.consensus.codec import Entry
from hanat.consensus.disk import PROBE, Disk, Place
from hanat.consensus.files import FILES, Files
from hanat.consensus.loading import Loaded, damage, load
from hanat.consensus.segments import SEGMENT_BYTES_MAX
from hanat.consensus.vote import CLUSTER_BYTES_MAX, Vote, VoteFile
from hanat.core.members import Members, drops_majority, named
from hanat.errors import JournalError, StartupError

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Log(Protocol):
    """What of a journal is read outside the library: entries (command, index, term)."""

    @overload
    def __getitem__(self, index: int) -> tuple[bytes, int, int]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[bytes, int, int]]: ...

    def __len__(self) -> int: ...

    def getVotedForNodeId(self) -> int | None:  # noqa: N802 - the library's name
        """Return who got this node's vote in its term."""
        ...


class Journal:
    """The journal of one node; offers what the library calls, under its names.

    Positions count from the log's first entry, as in a list.

    Attributes:
        report: What was cut off when the journal was opened, empty if nothing was.
    """

    def __init__(self, disk: Disk, entries: list[Entry], *, name: Path, report: str) -> None:
        self._disk, self._entries, self._name = disk, entries, name
        self.report = report
        self._broken: JournalError | None = None
        self._closed = False

    # ----------------------------------------------------------------- reading

    @overload
    def __getitem__(self, index: int) -> Entry: ...

    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...

    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        return self._entries[index]

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def lost_tail_possible(self) -> bool:
        """Whether entries that this node acknowledged, or its vote, may be missing."""
        return self._disk.vote.lost_tail

    @property
    def members(self) -> Members:
        """All nodes, as counted when this one last took part; empty while unknown."""
        return self._disk.vote.members

    @property
    def log_bytes(self) -> int:
        """How long the log is on disk."""
        return self._disk.size

    @property
    def durable_index(self) -> int:
        """Highest index known to be synced."""
        return self._disk.durable

    def getCurrentTerm(self) -> int:  # noqa: N802 - the library's name
        """Return the newest term this node heard of."""
        return self._disk.vote.term

    def getVotedForNodeId(self) -> int | None:  # noqa: N802 - the library's name
        """Return who got the vote of that term."""
        return self._disk.vote.voted_for

    def getRaftCommitIndex(self) -> int:  # noqa: N802 - the library's name
        """Return 1: only the first entry is known to be committed."""
        return 1

    # ----------------------------------------------------------------- changing

    def add(self, command: bytes, index: int, term: int) -> None:
        """Append an entry.

        Raises:
            JournalError: It was not appended; free the disk, then it can be.
        """
        if self._closed or self._broken:
            self._check_usable()
        entry = (command, index, term)
        try:
            self._disk.append(entry)
        except OSError as error:
            raise self._refusal(f"append entry {index} to", error) from error
        self._entries.append(entry)

    def setCurrentTerm(self, term: int, votedForNodeId: int | None) -> None:  # noqa: N802, N803 - the library's names
        """Remember term and vote, durably.

        Raises:
            JournalError: They may be durable or not. They count in this process, and
                nothing is appended before they are.
        """
        self._check_usable()
        try:
            self._disk.remember(term=term, voted_for=votedForNodeId)
        except OSError as error:
            raise self._refusal(f"save term {term} in", error) from error

    def sync(self) -> None:
        """Make every entry durable; may take as long as the disk is slow.

        Raises:
            JournalError: Nothing more is accepted: what a failed sync left on disk
                cannot be known before the next start.
        """
        self._check_usable()
        with self._all_or_broken("sync"):
            self._disk.sync()

    def sync_in(self, background: Background, done: Done) -> None:
        """Make every entry there is now durable, beside the loop.

        Meanwhile the journal may be used as ever; if it is cut, less is durable than
        was asked for: see `durable_index`.

        Args:
            background: Where the sync runs.
            done: Called on the loop; with a JournalError nothing more is accepted.

        Raises:
            JournalError: It could not begin; nothing more is accepted.
        """
        self._check_usable()
        with self._all_or_broken("sync"):
            sync = self._disk.begin_sync()

        def ended(error: BaseException | None) -> None:
            self._disk.end_sync(sync, done=error is None)
            if isinstance(error, OSError):
                error = self._broken = self._refusal("sync", error)
            done(error)

        background(sync.run, ended)

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803 - the library's names
        """Cut the tail off, durably: keep `entryFrom` entries.

        Raises:
            JournalError: Nothing more is accepted.
        """
        self._check_usable()
        if entryFrom >= len(self._entries):
            return
        if entryFrom <= 0:
            self.clear()
            return
        last = self._entries[entryFrom - 1][1]
        with self._all_or_broken("cut the tail of"):
            self._disk.cut_tail(last)
        del self._entries[entryFrom:]

    def trim(self, position: int, background: Background, done: Done) -> None:
        """Cut the head off, at once for readers, by and by on disk.

        Args:
            position: How many entries; at least one must be left.
            background: Where the disk is changed.
            done: Called on the loop; with a JournalError nothing more is accepted.

        Raises:
            JournalError: It could not begin; nothing more is accepted.
        """
        self._check_usable()
        assert 0 < position < len(self._entries), (position, len(self._entries))
        start = self._entries[position][1]
        with self._all_or_broken("cut the head of"):
            trim = self._disk.begin_trim(start)
        del self._entries[:position]

        def ended(error: BaseException | None) -> None:
            self._disk.end_sync(trim.sync, done=error is None)
            if isinstance(error, OSError):
                error = self._broken = self._refusal("cut the head of", error)
            done(error)

        background(trim.run, ended)

    def clear(self) -> None:
        """Forget every entry; the next one may have any index.

        Raises:
            JournalError: Nothing more is accepted.
        """
        self._check_usable()
        with self._all_or_broken("clear"):
            self._disk.clear()
        self._entries.clear()

    def recovered(self) -> None:
        """Note that the node holds again whatever a crash may have taken.

        Raises:
            JournalError: It was not noted.
        """
        self._check_usable()
        try:
            self._disk.remember(lost_tail=False)
        except OSError as error:
            raise self._refusal("note the recovery in", error) from error

    def admit(self, members: Members) -> None:
        """Refuse a member list that leaves out most nodes of the present one.

        Raises:
            StartupError: It does; the journal is closed.
        """
        if drops_majority(self.members, members):
            self.close()
            raise StartupError(
                tried=f"use the journal {self._name} with nodes {named(members)}",
                found=f"it was used with nodes {named(self.members)}, and a majority of them is "
                "left out: they could go on without the new ones",
                to_do="correct the list of peers, or change it in steps that each keep a majority",
            )

    def join(self, members: Members) -> None:
        """Note, durably, that this node takes part under another member list.

        It may lack what the nodes of that list agreed on, as after a loss.

        Raises:
            JournalError: It was not noted.
        """
        self._check_usable()
        try:
            self._disk.remember(members=members, lost_tail=True)
        except OSError as error:
            raise self._refusal("save the member list in", error) from error

    def forget(self) -> None:
        """Note that entries or the vote may be missing.

        Raises:
            JournalError: It was not noted.
        """
        self._check_usable()
        try:
            self._disk.remember(lost_tail=True)
        except OSError as error:
            raise self._refusal("note the loss in", error) from error

    def repair(self) -> None:
        """Make the journal usable again after an error.

        May take as long as the disk is slow. Nothing else but reading may be done
        meanwhile, so it may run in a thread.

        Raises:
            JournalError: The disk cannot be written, or has too little room.
        """
        assert not self._closed, "the journal is closed"
        try:
            self._disk.probe()
            self._disk.save()
            if self._broken is not None:
                self._disk.rewrite(self._entries)
        except OSError as error:
            raise self._refusal("write again to", error) from error
        self._broken = None

    def close(self) -> None:
        """Sync everything and let others open the journal; idempotent.

        Raises:
            JournalError: Not everything could be synced; it is closed nevertheless.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self._broken is None:
                with self._all_or_broken("close"):
                    self._disk.sync()
                    self._disk.remember(closed=True)
        finally:
            self._disk.close()

    # --------------------------------------------------- the rest of the library's

    def setRaftCommitIndex(self, _index: int) -> None:  # noqa: N802 - the library's name
        """Forget the commit index at once, see the module."""

    def onOneSecondTimer(self) -> None:  # noqa: N802 - the library's name
        """Do nothing: there is nothing that waits to be saved."""

    def _destroy(self) -> None:
        self.close()

    # ----------------------------------------------------------------- helpers

    def _check_usable(self) -> None:
        assert not self._closed, "the journal is closed"
        if self._broken is not None:
            raise self._broken

    def _refusal(self, doing: str, error: OSError) -> JournalError:
        return JournalError(
            tried=f"{doing} the journal {self._name}",
            found=error.strerror or str(error),
            to_do="free or repair the disk; until then this node only watches",
        )

    @contextlib.contextmanager
    def _all_or_broken(self, doing: str) -> Iterator[None]:
        """Refuse everything from now on if this fails halfway."""
        try:
            yield
        except OSError as error:
            self._broken = self._refusal(doing, error)
            raise self._broken from error


def open_journal(
    data_dir: Path,
    *,
    node_id: int = 0,
    cluster: str = "",
    files: Files = FILES,
    boot_id: str = "",
    segment_bytes_max: int = SEGMENT_BYTES_MAX,
) -> Journal:
    """Open or create the journal of a node.

    Args:
        data_dir: The node's data directory; made if it is missing.
        node_id: Whose journal it must be, 0 if that does not matter.
        cluster: Of which cluster, empty if that does not matter.
        files: How to change the disk.
        boot_id: Of the machine's present boot, empty to ask the kernel.
        segment_bytes_max: A segment that is longer takes no more entries.

    Raises:
        StartupError: Another hanat uses it, it is another node's, it is damaged, or it
            cannot be read or written. Nothing was changed.
    """
    assert len(cluster.encode()) <= CLUSTER_BYTES_MAX, f"cluster name {cluster!r} is too long"
    directory = data_dir / "journal"
    lock: int | None = None
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        lock = _lock(directory, files)
        boot_id = boot_id or BOOT_ID.read_text().strip()
        place = Place(directory, files, lock, segment_bytes_max)
        return _open(place, Vote(node_id=node_id, cluster=cluster, boot_id=boot_id))
    except BaseException as error:
        if lock is not None:
            files.close(lock)
        if isinstance(error, OSError):
            raise _cannot_open(directory, error) from error
        raise


def _lock(directory: Path, files: Files) -> int:
    try:
        return files.lock(directory / "lock")
    except BlockingIOError as error:
        raise StartupError(
            tried=f"open the journal {directory}",
            found="another hanat uses it",
            to_do="stop the other one, or give each node a data_dir of its own",
        ) from error


def _cannot_open(directory: Path, error: OSError) -> StartupError:
    return StartupError(
        tried=f"open the journal {directory}",
        found=f"{error.filename or directory}: {error.strerror or error}",
        to_do="make the data directory readable and writable for hanat, on a disk with room",
    )


def _open(place: Place, present: Vote) -> Journal:
    """Open the locked journal; `present` is what is true of node and machine now."""
    directory, path = place.directory, place.directory / "vote"
    _refuse_strangers(directory)
    if (directory / PROBE).exists():  # killed while it looked for room
        place.files.remove(directory / PROBE)
    if path.exists():
        file = VoteFile.load(path, place.files)
        try:
            loaded = _resume(place, file, present)
        except BaseException:
            file.close()
            raise
    else:
        for segment in sorted(directory.glob("*.log")):
            raise damage(segment, "it is part of a log, but the file `vote` is missing")
        place.files.sync_names(directory.parent)
        # Perhaps it is not new, but lost.
        present = replace(present, lost_tail=True)
        file, loaded = VoteFile.create(path, place.files, present), Loaded()
    disk = Disk(place, file, loaded.segments)
    return Journal(disk, loaded.entries, name=directory, report=loaded.report)


def _refuse_strangers(directory: Path) -> None:
    for path in sorted(directory.iterdir()):
        if path.suffix != ".log" and path.name not in ("lock", "vote", "vote.new", PROBE):
            raise damage(path, "hanat makes no such file")


def _resume(place: Place, file: VoteFile, present: Vote) -> Loaded:
    was = file.value
    for name, mine, its in (
        ("node", present.node_id, was.node_id),
        ("cluster", present.cluster, was.cluster),
    ):
        if mine and its and mine != its:
            raise StartupError(
                tried=f"open the journal {place.directory} for {name} {mine!r}",
                found=f"it belongs to {name} {its!r}",
                to_do="correct data_dir, the node or the cluster's name",
            )
    vote = replace(
        was,
        node_id=present.node_id or was.node_id,
        cluster=present.cluster or was.cluster,
        boot_id=present.boot_id,
        closed=False,
    )
    rebooted = was.boot_id != vote.boot_id and not was.closed
    loaded = load(place.directory, was, rebooted=rebooted)
    if rebooted or loaded.acknowledged:
        vote = replace(vote, lost_tail=True)
    if not file.whole or vote != was:
        # The new boot comes last: until the lost tail is off, it must be judged by the old.
        file.save(replace(vote, boot_id=was.boot_id))
    loaded.tidy(place.files)
    if was.boot_id != vote.boot_id:
        file.save(vote)
    return loaded
