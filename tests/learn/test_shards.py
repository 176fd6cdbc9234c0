"""Shards give back what was written, in the order that a seed decides; damage is named."""

import hashlib
import io
import json
import pickle
import tarfile
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from roadworthy.errors import BadData, BadInput
from roadworthy.learn.packing import END, pack, unpack
from roadworthy.learn.sample import Sample
from roadworthy.learn.scenes import scenes
from roadworthy.learn.shards import INDEX, Position, ShardSet, Stream, write_shards

N = 23


@pytest.fixture(scope="module")
def streets() -> list[Sample]:
    return list(scenes(range(N), 32))


@pytest.fixture
def written(streets: list[Sample], tmp_path: Path) -> Path:
    write_shards(streets, tmp_path / "set", per_shard=5)
    return tmp_path / "set"


def fields(sample: Sample) -> dict[str, Any]:
    return {k: v.tobytes() if isinstance(v, np.ndarray) else v for k, v in vars(sample).items()}


def plain(image: str = "JPEG", **said: Any) -> Sample:
    held = io.BytesIO()
    Image.new("RGB", (4, 3)).save(held, image)
    return Sample(held.getvalue(), "a", "s", **said)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_unpacking_undoes_packing(kind: str) -> None:
    depth = np.array([[0.1, np.nan, 3, 1e9]] * 3, np.float32)
    boxes = np.array([[0.1, 0, 4, 3]])
    full = {"depth": depth, "mask": np.full((3, 4), 255, np.uint8), "boxes": boxes}
    for said in ({}, {"captions": ("größer.",)}, {**full, "box_labels": ("car",)}):
        sample = plain(kind, **said)
        assert fields(unpack(pack(sample, "x"), "s")) == fields(sample)


def test_the_set_is_the_samples(written: Path, streets: list[Sample]) -> None:
    held = ShardSet(written)
    assert [fields(each) for each in held] == [fields(each) for each in streets]
    assert fields(held[-1]) == fields(held[N - 1]) == fields(streets[-1])
    assert [each.name for each in held[3:9:2]] == ["scene-3", "scene-5", "scene-7"]
    with pytest.raises(IndexError):
        held[N]
    assert [len(shard) for shard in held.shards] == [5, 5, 5, 5, 3]
    assert [(part.source, part.samples) for part in held.sources] == [(streets[0].source, N)]
    for shard in held.shards:
        assert hashlib.sha256((written / shard.file).read_bytes()).hexdigest() == shard.sha256
    assert fields(pickle.loads(pickle.dumps(held))[4]) == fields(streets[4])


def test_the_same_samples_make_the_same_bytes(written: Path, streets: list[Sample]) -> None:
    again = write_shards(iter(streets), written.parent / "again", per_shard=5)
    assert again.sha256 == ShardSet(written).sha256


def test_webdataset_reads_it(written: Path, streets: list[Sample]) -> None:
    wds = pytest.importorskip("webdataset")
    files = [str(path) for path in sorted(written.glob("*.tar"))]
    found = list(wds.WebDataset(files, shardshuffle=False).decode("rgb8"))
    assert len(found) == N
    for each, sample in zip(found, streets, strict=True):
        assert each["json"]["captions"] == list(sample.captions)
        expected = np.asarray(Image.open(io.BytesIO(sample.image)))
        assert np.array_equal(each["png"], expected)
        assert np.array_equal(each["mask.png"][..., 0], sample.mask)


def test_any_address_of_fsspec(streets: list[Sample]) -> None:
    address = "memory://shards/some"
    write_shards(streets[:7], address, 3)
    assert fields(ShardSet(address)[6]) == fields(streets[6])
    assert sorted(fsspec.filesystem("memory").ls("/shards/some", detail=False)) == [
        f"/shards/some/{name}" for name in ("00000.tar", "00001.tar", "00002.tar", INDEX)
    ]


def names(stream: Stream, n: int) -> list[str]:
    return [each.name for each in islice(stream, n)]


def test_a_stream_resumes_exactly(written: Path) -> None:
    whole = names(Stream(written, 5, mixed=2), 60)
    assert whole != names(Stream(written, 6, mixed=2), 60)
    for n in range(0, 40, 7):
        first = Stream(written, 5, mixed=2)
        assert names(first, n) == whole[:n]
        start = Position(*json.loads(json.dumps(first.position)))
        assert names(Stream(written, 5, mixed=2, start=start), 20) == whole[n : n + 20]


def test_a_stream_is_shuffled_and_fair(tmp_path: Path) -> None:
    samples = [replace(plain(), name=str(i)) for i in range(23)]
    write_shards(samples, tmp_path / "set", 5)
    found = [int(each) for each in names(Stream(tmp_path / "set", 0), 800)]
    # A shard is in a fifth of the draws: 800 / 23 = 35 each, about 5 from the mean.
    assert all(15 < count < 60 for count in np.bincount(found, minlength=23))
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.2


def test_ranks_share_the_draws_of_one_process(written: Path) -> None:
    alone = Stream(written, 3, mixed=1)
    draws: list[list[str]] = [[]]
    for sample in alone:
        draws[-1].append(sample.name)
        if alone.position.taken == 0:
            if len(draws) == 6:
                break
            draws.append([])
    for rank in range(2):
        own = [name for draw in draws[rank::2] for name in draw]
        assert names(Stream(written, 3, rank, 2, mixed=1), len(own)) == own


def damaged(path: Path, change: Any) -> None:
    content = path.read_bytes()
    path.write_bytes(change(content))


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


@pytest.mark.parametrize("member", ["png", "json", "mask.png", "depth.npy.gz"])
@pytest.mark.parametrize("part", ["header", "content"])
def test_a_damaged_member_is_named(written: Path, member: str, part: str) -> None:
    with tarfile.open(written / "00001.tar") as tar:
        info = tar.getmember(f"000000007.{member}")
    # The beginning of what a file says; a name in JSON may change without being noticed there.
    at = info.offset_data if part == "content" else info.offset + 130
    damaged(written / "00001.tar", lambda content: flipped(content, at))
    with pytest.raises(BadData, match=r"set/00001\.tar, .*damaged") as seen:
        ShardSet(written)[7]
    with pytest.raises(BadData, match=r"set/00001\.tar, .*damaged"):
        names(Stream(written, 0, mixed=8), 1)
    if part == "content":
        assert f"000000007.{member}" in str(seen.value)
    assert "\n" not in str(seen.value)
    assert ShardSet(written)[6].name == "scene-6"


@pytest.mark.parametrize("kept", [0, 700, 9000])
def test_a_truncated_shard_is_named(written: Path, kept: int) -> None:
    damaged(written / "00002.tar", lambda content: content[:kept])
    with pytest.raises(BadData, match=r"set/00002\.tar, .*damaged"):
        list(ShardSet(written))
    with pytest.raises(BadData, match=r"set/00002\.tar, .*damaged"):
        names(Stream(written, 0, mixed=8), 200)


def test_a_shard_that_only_its_hash_tells_apart_is_refused_by_a_stream(written: Path) -> None:
    damaged(written / "00000.tar", lambda content: content[: -len(END)])
    with pytest.raises(BadData, match="is not what was written"):
        names(Stream(written, 0, mixed=8), 200)


def test_missing_shards_and_indices(written: Path, tmp_path: Path) -> None:
    (written / "00003.tar").unlink()
    with pytest.raises(BadData, match=r"set/00003\.tar cannot be read"):
        list(ShardSet(written))
    (written / INDEX).write_text("{}")
    with pytest.raises(BadData, match="holds no finished shards"):
        ShardSet(written)
    with pytest.raises(BadData, match="holds no finished shards"):
        ShardSet(tmp_path / "nothing")
    with pytest.raises(BadInput, match=r"nosuch://x cannot be opened"):
        ShardSet("nosuch://x")


def test_what_cannot_be_written_or_asked(written: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds shards already"):
        write_shards([plain()], written)
    with pytest.raises(BadInput, match="no sample"):
        write_shards([], tmp_path / "none")
    with pytest.raises(BadInput, match="1 or more"):
        write_shards([plain()], tmp_path / "none", 0)
    with pytest.raises(BadInput, match="rank 2 of 2"):
        Stream(written, 0, 2, 2)
    with pytest.raises(BadInput, match="a position belongs to its set"):
        next(Stream(written, 0, start=Position(0, 999)))


def test_an_interrupted_writer_leaves_no_set(streets: list[Sample], tmp_path: Path) -> None:
    def ends() -> Any:
        yield from streets[:12]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(ends(), tmp_path / "set", 50)
    assert not (tmp_path / "set").exists()
    with pytest.raises(KeyboardInterrupt):
        write_shards(ends(), tmp_path / "set", 5)
    with pytest.raises(BadData, match="no finished shards"):
        ShardSet(tmp_path / "set")
    assert len(write_shards(streets, tmp_path / "set", 5)) == N
