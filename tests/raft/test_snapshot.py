"""Snapshots on disk: whole or not there, and whose they are."""

from __future__ import annotations

import errno
import shutil
from hashlib import blake2b
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanat.errors import SnapshotError, StartupError
from hanat.raft import snapshot
from hanat.raft.files import Files
from hanat.raft.messages import NO_OP, Entry, wrap
from hanat.raft.snapshot_store import HEAD_BYTES, NAMES, SnapshotStore
from hanat.raft.state import Barrier, Holder, NewConfiguration, State, encode
from tests.raft.disks import Failing, LosingPower, Quick, Watched

PREVIOUS: Entry = (NO_OP, 41, 3)
LAST: Entry = (wrap(b"the last entry"), 42, 3)
SIZE = 4096
SECTIONS = [(b"core", b"some"), (b"flows", bytes(100)), (b"flows", bytes(range(256)))]


def made(number: int = 0, *, cluster: str = "berlin") -> bytes:
    """Return a snapshot; no two numbers give the same."""
    last = (LAST[0], 42 + number, 3)
    return b"".join(snapshot.encode(cluster, (NO_OP, 41 + number, 3), last, SECTIONS))


def of_level(level: int) -> bytes:
    """Return a whole snapshot of another feature level."""
    end = -(snapshot.END_BYTES)
    body = made()[:8] + level.to_bytes(2, "little") + made()[10:end]
    digest = blake2b(body, digest_size=snapshot.DIGEST_BYTES).digest()
    return body + made()[end : -snapshot.DIGEST_BYTES] + digest


def store_in(data_dir: Path, files: Files | None = None) -> SnapshotStore:
    store = SnapshotStore(data_dir, cluster="berlin", files=files or Quick(), size=SIZE)
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


def kept(store: SnapshotStore, data: bytes) -> None:
    """Make a snapshot the current one, on disk."""
    store.write([data[:50], data[50:]])
    store.flush()


def files_of(data_dir: Path) -> list[Path]:
    return [data_dir / "snapshot" / name for name in NAMES]


def test_snapshots_use_the_files_in_turn_and_never_more_room(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    sizes = [path.stat().st_size for path in files_of(tmp_path)]
    assert sizes == [SIZE, SIZE]
    for number in range(5):
        was = [path.read_bytes() for path in files_of(tmp_path)]
        kept(store, made(number))
        now = [path.read_bytes() for path in files_of(tmp_path)]
        assert sum(a != b for a, b in zip(was, now, strict=True)) == 1
        found = store_in(tmp_path).open()
        assert found is not None
        assert found.data == made(number)
    assert [path.stat().st_size for path in files_of(tmp_path)] == sizes


@pytest.mark.parametrize("position", [0, 3, 20, 40, 100, 400])
def test_damaged_snapshot_gives_way_to_the_one_before(tmp_path: Path, position: int) -> None:
    store = store_in(tmp_path)
    for number in range(2):
        kept(store, made(number))
    damaged = bytearray(files_of(tmp_path)[0].read_bytes())
    assert made(1) in damaged
    damaged[position] ^= 0x41
    files_of(tmp_path)[0].write_bytes(damaged)
    store = SnapshotStore(tmp_path, cluster="berlin", files=Quick(), size=SIZE)
    found = store.load()
    assert found is not None
    assert found.last[1] == 42
    assert position < HEAD_BYTES or "the one before counts" in store.report
    kept(store, made(2))
    found = SnapshotStore(tmp_path, cluster="berlin", files=Quick()).load()
    assert found is not None
    assert found.last[1] == 44


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (made(cluster="hamburg"), "it belongs to cluster 'hamburg', not to 'berlin'"),
        (of_level(7), "it has feature level 7, this hanat reads 5"),
    ],
)
def test_snapshot_of_somebody_else_is_refused_and_not_touched(
    tmp_path: Path, content: bytes, found: str
) -> None:
    store = SnapshotStore(tmp_path, cluster="", files=Quick(), size=SIZE)
    store.load()
    kept(store, content)
    was = [path.read_bytes() for path in files_of(tmp_path)]
    with pytest.raises(StartupError, match=found):
        SnapshotStore(tmp_path, cluster="berlin").load()
    assert [path.read_bytes() for path in files_of(tmp_path)] == was


def test_killed_process_leaves_the_old_snapshot_or_the_new(tmp_path: Path) -> None:
    disk = Watched()
    store = store_in(tmp_path / "alive", disk)
    kept(store, made(0))
    seen: set[int] = set()

    def crash() -> None:
        copy = shutil.copytree(tmp_path / "alive", tmp_path / "copy")
        found = store_in(copy).open()
        assert found is not None
        seen.add([made(0), made(1), made(2)].index(found.data))
        shutil.rmtree(copy)

    disk.changed = crash
    kept(store, made(1))
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
    kept(store, made(0))
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
            kept(store, made(number))
        else:
            store.receive(made(number), 0)
            store.received()
            store.adopt()
        newest = number
        crash()


def test_failing_disk_leaves_the_new_snapshot_in_memory_and_the_old_on_disk(tmp_path: Path) -> None:
    disk = Failing(errno.EIO)
    store = store_in(tmp_path, disk)
    kept(store, made(0))
    disk.fail_at, disk.lasting = disk.changes + 1, True
    store.write([made(1)])
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            store.flush()
        found = store.open()
        assert found is not None
        assert found.data == made(1)
        on_disk = SnapshotStore(tmp_path, cluster="berlin", files=Quick()).load()
        assert on_disk is not None
        assert on_disk.last[1] == 42
    disk.fail_at = None
    store.flush()
    on_disk = SnapshotStore(tmp_path, cluster="berlin", files=Quick()).load()
    assert on_disk is not None
    assert on_disk.last[1] == 43


def test_snapshot_that_is_too_large_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    kept(store, made(0))
    with pytest.raises(OSError, match="its file has"):
        store.write([bytes(SIZE)])
    with pytest.raises(OSError, match="larger than its file"):
        store.receive(bytes(SIZE), 0)
    found = store.open()
    assert found is not None
    assert found.data == made(0)


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


def test_disk_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    disk = Failing(errno.EROFS)
    disk.fail_at = 1
    with pytest.raises(StartupError, match="make the data directory readable and writable"):
        SnapshotStore(tmp_path, cluster="berlin", files=disk).load()
