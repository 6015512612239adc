"""Large embeddings on object storage: rows are read by range, kept while there is room, fetched again when damaged."""

import contextlib
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from embedded import embedded
from stores import OnObjectStorage
from toys import summary_text

from samref.embeddings import EmbeddingError, Embeddings, EmbeddingWriter, join
from samref.shards import Shards
from samref_sweep.errors import DamagedError, StoreError
from samref_sweep.store import object_store, ranges
from samref_sweep.store.object_store import ObjectStore

KEYS = [f"image {i}" for i in range(20)]


@pytest.fixture
def node(bucket: str, tmp_path: Path) -> Callable[[str], ObjectStore]:
    return OnObjectStorage(bucket, tmp_path / "caches").node


def put(store: ObjectStore, make: Callable[[Path], object]) -> None:
    with store.claim(["embed-1"]) as claim, claim.workspace("embed-1") as folder:
        make(folder)
        (folder / "summary.json").write_text(summary_text("embed-1"))


@pytest.fixture
def features(node: Callable[[str], ObjectStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Those of twenty images in ten shards, in the store; they count as large."""
    features = torch.randn(20, 4, 16, 16)
    embedded(tmp_path, KEYS, {"embedding": features}, "fp32", wave=2)

    def make(folder: Path) -> None:
        for path in (tmp_path / "embedded").iterdir():
            path.rename(folder / path.name)

    put(node("one"), make)
    monkeypatch.setattr(object_store, "LARGE_BYTES", 0)
    return features


def test_rows_come_by_range_are_kept_and_fetched_again_when_damaged(
    node: Callable[[str], ObjectStore], features: torch.Tensor
) -> None:
    store = node("another")
    folder = store.open("embed-1")
    assert not list(folder.glob("embedding.*.npy"))
    far = pickle.loads(pickle.dumps(store.far))
    order = random.Random(0).sample(range(20), 20)
    found = Embeddings(folder, far).read([KEYS[i] for i in order], "cpu")["embedding"]
    assert torch.equal(found, features[order])
    kept = sorted(store.node.root.glob("ranges/stages/embed-1/*/embedding.*.npy"))
    assert len(kept) == 10

    content = bytearray(kept[4].read_bytes())
    content[-1] ^= 1
    kept[4].write_bytes(content)
    assert torch.equal(Embeddings(folder, far).read(KEYS, "cpu")["embedding"], features)
    assert kept[4].read_bytes()[-1] == content[-1] ^ 1

    store._bucket.write(f"stages/embed-1/{kept[4].parent.name}/{kept[4].name}", bytes(content[ranges.BLOCK :]))
    content[-1] ^= 1
    assert torch.equal(Embeddings(folder, far).read(KEYS, "cpu")["embedding"], features)  # from what is kept here
    kept[4].unlink()
    with pytest.raises(EmbeddingError, match=r"embedding\.4\.npy: row 1, of image 9, .* run again with --redo embed"):
        Embeddings(folder, pickle.loads(pickle.dumps(far))).read(KEYS, "cpu")
    assert (node("one").open("embed-1") / "embedding.0.npy").exists()  # whole, where it was made


def test_who_lists_what_is_done_takes_nothing_from_a_stage_that_reads(
    node: Callable[[str], ObjectStore], features: torch.Tensor
) -> None:
    store = node("another")
    folder = store.open("embed-1")
    assert node("another").done() == {"embed-1"}  # another process of this node, a moment after the stage was done
    found = Embeddings(folder, pickle.loads(pickle.dumps(store.far))).read(KEYS, "cpu")["embedding"]
    assert torch.equal(found, features)


def test_a_missing_array_is_found_when_the_stage_is_opened_or_read_which_is_then_made_anew(
    node: Callable[[str], ObjectStore], features: torch.Tensor
) -> None:
    store = node("another")
    embeddings = Embeddings(store.open("embed-1"), store.far)
    place = OnObjectStorage(store.where.removesuffix("/sweeps"), Path())
    place.change("embed-1", "embedding.4.npy", lambda content: None)
    said = r"embedding\.4\.npy is missing.*; done/embed-1\.json was removed; run again to make it anew"
    done = store._bucket.read("done/embed-1.json")
    with pytest.raises(DamagedError, match=said):
        embeddings.read(KEYS, "cpu")
    assert not store.has("embed-1")
    store._bucket.write("done/embed-1.json", done)
    with pytest.raises(DamagedError, match=said):
        node("third").open("embed-1")
    assert not store.has("embed-1")


def test_features_of_other_nodes_are_joined_where_they_are(node: Callable[[str], ObjectStore]) -> None:
    features = torch.randn(8, 4, 16, 16)

    def work(store: ObjectStore, number: int) -> Shards:
        shards = Shards(store.shards("embed-1").scratch / "shards-0", 8, 4)
        with shards.writing(number) as folder:
            writer = EmbeddingWriter(folder, KEYS[4 * number :][:4], {"embedding": (4, 16)}, "fp32")
            writer.receive(0, {"embedding": features[4 * number :][:4]})()
            writer.close()
        return shards

    one, another = node("one"), node("another")
    one.shards("embed-1").hand_over(work(one, 1).path(1))
    with contextlib.suppress(KeyboardInterrupt), another.claim(["embed-1"]) as claim:
        with claim.workspace("embed-1") as out, claim.scratch("embed-1"):
            shards = work(another, 0)
            another.shards("embed-1").fetch()
            assert [path.name for path in sorted(shards.path(1).iterdir())] == ["checksums.npy", "shard.json"]
            join(shards, out, KEYS[:8], "fp32")
            (out / "summary.json").write_text(summary_text("embed-1"))
        raise KeyboardInterrupt  # it is joined, and not uploaded
    assert not another.has("embed-1")
    with another.claim(["embed-1"]):
        assert another.has("embed-1")
    assert not another.cache.has("embed-1")
    for name in ("another", "third"):
        folder = node(name).open("embed-1")
        assert torch.equal(Embeddings(folder).read(KEYS[:8], "cpu")["embedding"], features)


def test_any_part_is_read_with_and_without_room_to_keep_it(
    node: Callable[[str], ObjectStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = random.Random(0).randbytes(3 * ranges.BLOCK + 17)
    put(node("one"), lambda folder: (folder / "x.0.npy").write_bytes(content))
    store = node("another")
    store.summary("embed-1")
    assert store.far is not None
    parts = [(0, 1), (ranges.BLOCK - 1, 2), (5, len(content) - 5), (3 * ranges.BLOCK, 17), (ranges.BLOCK, ranges.BLOCK)]
    for free in (1.0, 0.0, 0.0):  # of the disk, that is left to others
        monkeypatch.setattr(ranges, "LEFT_FREE", free)
        for start, count in parts:
            assert store.far(Path("embed-1/x.0.npy"), start, count) == content[start : start + count]
        (kept,) = store.node.root.glob("ranges/stages/embed-1/*/x.0.npy")
        assert (kept.stat().st_size > 0) == (free == 0)


def test_what_a_disk_has_no_room_for_is_read_and_replaced_and_never_fetched_whole(
    node: Callable[[str], ObjectStore], small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(folder: Path) -> None:
        for number in range(10):
            (folder / f"x.{number}.npy").write_bytes(bytes([number]) * 2**20)

    put(node("one"), make)
    where = node("one").where
    monkeypatch.setenv("SAMREF_CACHE", str(small_disk))
    store = ObjectStore(where)
    with pytest.raises(
        StoreError, match=r"embed-1 takes 10.5 MB and 8\..* MB are free; make room, or name another disk"
    ):
        store.open("embed-1")
    assert store.far is not None
    for number in (*range(10), 0):
        assert store.far(Path(f"embed-1/x.{number}.npy"), 0, 2**20) == bytes([number]) * 2**20
    kept = [path.name for path in store.node.root.glob("ranges/stages/embed-1/*/*") if path.stat().st_size]
    assert "x.0.npy" in kept
    assert "x.9.npy" in kept
    assert 3 < len(kept) < 8
