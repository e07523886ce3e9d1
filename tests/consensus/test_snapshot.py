"""Snapshots on disk: whole or not there, and whose they are."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.consensus import snapshot
from hanat.consensus.codec import NO_OP, Entry, wrap
from hanat.consensus.files import Files
from hanat.consensus.state import Barrier, Holder, NewConfiguration, State, encode
from hanat.consensus.store import SnapshotStore
from hanat.errors import SnapshotError, StartupError
from tests.consensus.disks import Failing, Full, LosingPower, Quick, Watched

PREVIOUS: Entry = (NO_OP, 41, 3)
LAST: Entry = (wrap(b"the last entry"), 42, 3)
SECTIONS = [(b"core", b"some"), (b"flows", bytes(100)), (b"flows", bytes(range(256)))]


def made(number: int = 0, *, cluster: str = "berlin") -> bytes:
    """Return a snapshot; no two numbers give the same."""
    last = (LAST[0], 42 + number, 3)
    return b"".join(snapshot.encode(cluster, (NO_OP, 41 + number, 3), last, SECTIONS))


def store_in(data_dir: Path, files: Files | None = None) -> SnapshotStore:
    store = SnapshotStore(data_dir, cluster="berlin", files=files or Quick())
    store.load()
    return store


@given(st.lists(st.tuples(st.sampled_from([b"core", b"flows", b"12345678"]), st.binary())))
def test_snapshot_gives_back_what_was_put_in(parts: list[tuple[bytes, bytes]]) -> None:
    data = b"".join(snapshot.encode("berlin", PREVIOUS, LAST, parts))
    found = snapshot.decode(data, "berlin")
    assert (found.previous, found.last) == (PREVIOUS, LAST)
    for kind in {kind for kind, _ in parts}:
        assert found.sections[kind] == b"".join(c for k, c in parts if k == kind)


def test_state_survives_a_snapshot() -> None:
    state = State()
    for entry in (Barrier(4, 2), Holder(4, 2), NewConfiguration(0, "zürich"), Barrier(5, 1)):
        state.apply(encode(entry))
    state.apply(b"\xff")
    restored = State()
    restored.restore(dict(state.freeze()))
    assert vars(restored) == vars(state)


def test_frozen_state_does_not_change_any_more() -> None:
    state = State()
    state.apply(encode(NewConfiguration(0, "old")))
    frozen = state.freeze()
    state.apply(encode(NewConfiguration(1, "new")))
    restored = State()
    restored.restore(dict(frozen))
    assert (restored.revision, restored.text) == (1, "old")


def test_no_flipped_byte_and_no_torn_end_goes_unnoticed() -> None:
    data = made()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x41
        with pytest.raises(SnapshotError):
            snapshot.decode(bytes(damaged), "berlin")
        with pytest.raises(SnapshotError):
            snapshot.decode(data[:position], "berlin")
        with pytest.raises(SnapshotError):
            snapshot.decode(data + data[:position] + b"x", "berlin")


@pytest.mark.parametrize("damage", [b"", b"hanatsnp", made()[:-1], made()[:-40] + bytes(40)])
def test_damaged_snapshot_is_told_and_kept(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot/current").write_bytes(damage)
    store = SnapshotStore(tmp_path, cluster="berlin")
    assert store.load() is None
    assert "it is" in store.report
    assert (tmp_path / "snapshot/damaged").read_bytes() == damage
    assert store.open() is None


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (made(cluster="hamburg"), "it belongs to cluster 'hamburg', not to 'berlin'"),
        (made()[:8] + b"\x07\x00" + made()[10:], "it has format 7, this hanat reads format 1"),
        (b"#!/bin/sh\n" * 9, "not a file of hanat"),
    ],
)
def test_snapshot_of_somebody_else_is_refused_and_not_touched(
    tmp_path: Path, content: bytes, found: str
) -> None:
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot/current").write_bytes(content)
    with pytest.raises(StartupError, match=found):
        SnapshotStore(tmp_path, cluster="berlin").load()
    assert (tmp_path / "snapshot/current").read_bytes() == content


def test_killed_process_leaves_the_old_snapshot_or_the_new(tmp_path: Path) -> None:
    disk = Watched()
    store = store_in(tmp_path / "alive", disk)
    store.write([made(0)])
    seen: set[int] = set()

    def crash() -> None:
        copy = shutil.copytree(tmp_path / "alive", tmp_path / "copy")
        found = store_in(copy).open()
        assert found is not None
        data = found.read(0, found.size)
        found.close()
        seen.add([made(0), made(1), made(2)].index(data))
        shutil.rmtree(copy)

    disk.changed = crash
    store.write([made(1)[:50], made(1)[50:]])
    store.receive(made(2)[:60], 0)
    store.receive(made(2)[60:], 60)
    assert store.received().last[1] == 44
    store.adopt()
    disk.changed = lambda: None
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("seed", range(5), ids="seed{}".format)
def test_lost_power_leaves_the_old_snapshot_or_the_new(tmp_path: Path, seed: int) -> None:
    rng, disk = Random(seed), LosingPower()
    store = store_in(tmp_path / "alive", disk)
    store.write([made(0)])
    newest = 0

    def crash() -> None:
        directory = tmp_path / "copy/snapshot"
        directory.mkdir(parents=True)
        disk.lose_power(rng, directory)
        found = SnapshotStore(tmp_path / "copy", cluster="berlin", files=Quick()).load()
        assert found is not None
        assert found.last[1] - 42 in (newest, newest + 1)
        shutil.rmtree(tmp_path / "copy")

    disk.changed = crash
    for number in range(1, 5):
        if number % 2:
            store.write([made(number)[:50], made(number)[50:]])
        else:
            store.receive(made(number), 0)
            store.received()
            store.adopt()
        newest = number
        crash()


def test_full_disk_leaves_the_old_snapshot(tmp_path: Path) -> None:
    disk = Full()
    store = store_in(tmp_path, disk)
    store.write([made(0)])
    disk.full = True
    with pytest.raises(OSError, match="No space left"):
        store.write([made(1)])
    found = store.load()
    assert found is not None
    assert found.last[1] == 42


def test_damaged_transfer_is_not_adopted(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.write([made(0)])
    store.receive(made(1)[:-1] + b"x", 0)
    with pytest.raises(SnapshotError, match="it is damaged"):
        store.received()
    store.receive(made(1), 0)  # another beginning
    assert store.received().last[1] == 43


def test_snapshot_that_is_being_sent_stays_what_it_is(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.write([made(0)])
    reader = store.open()
    assert reader is not None
    store.write([made(1)])
    assert reader.read(0, reader.size) == made(0)
    assert reader.digest == made(0)[-32:]
    reader.close()


class Unreadable(Quick):
    """Reads nothing; knows which files are open."""

    def __init__(self) -> None:
        self.descriptors: set[int] = set()

    def open(self, path: Path, *, create: bool = False) -> int:
        fd = super().open(path, create=create)
        self.descriptors.add(fd)
        return fd

    def close(self, fd: int) -> None:
        super().close(fd)
        self.descriptors.remove(fd)

    def read(self, fd: int, size: int, offset: int) -> bytes:  # noqa: ARG002 - nothing is read
        raise OSError(errno.EIO, "Input/output error")


def test_snapshot_that_cannot_be_read_is_not_left_open(tmp_path: Path) -> None:
    disk = Unreadable()
    store = store_in(tmp_path, disk)
    store.write([made()])
    with pytest.raises(OSError, match="Input/output error"):
        store.open()
    assert disk.descriptors == set()


def test_disk_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot/current").write_bytes(b"hanatsnp")
    disk = Failing(errno.EROFS)
    disk.fail_at = 1
    with pytest.raises(StartupError, match="make the data directory readable and writable"):
        SnapshotStore(tmp_path, cluster="berlin", files=disk).load()
