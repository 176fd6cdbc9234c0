"""WebDataset shards of samples: written once, streamed for training, indexed for evaluation.

A set is a folder, or any address that fsspec opens (``s3://...``), of tar files and an
``index.json`` with their hashes, their sources and where each sample begins. The index is written
last: a folder without one is no set.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, final, overload

import numpy as np

from roadworthy.core.sources import reason
from roadworthy.errors import BadData, BadInput
from roadworthy.learn.packing import END, pack, unpack
from roadworthy.learn.sample import Sample

INDEX = "index.json"


@dataclass(frozen=True)
class Shard:
    """One tar file: sample i is its bytes ``offsets[i]`` to ``offsets[i + 1]``."""

    file: str
    sha256: str
    offsets: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class Part:
    """How many samples of a set are from one split of one source."""

    source: str
    licence: str
    split: str
    samples: int


def write_shards(samples: Iterable[Sample], out: str | Path, per_shard: int = 1000) -> "ShardSet":
    """Write `samples` in their order, `per_shard` in each tar file.

    The same samples make the same bytes.

    Raises:
        BadInput: no sample, fewer than 1 a shard, or a set that is there already.
    """
    begin(out, per_shard)
    left = iter(samples)
    taken = enumerate(iter(lambda: list(islice(left, per_shard)), []))
    return finish((write_shard(each, out, i, per_shard) for i, each in taken), out)


class Written(NamedTuple):
    """A shard that lies there, and how many of its samples are from which part of a source."""

    shard: Shard
    parts: Counter[tuple[str, str, str]]


def begin(out: str | Path, per_shard: int) -> None:
    """BadInput where there is a set already, or without a sample a shard."""
    if per_shard < 1:
        raise BadInput(f"{per_shard} samples a shard given; 1 or more are needed")
    fs, root = _opened(str(out))
    if fs.exists(f"{root}/{INDEX}"):
        raise BadInput(f"{out} holds shards already; give another address or remove them")


def write_shard(samples: Sequence[Sample], out: str | Path, number: int, per_shard: int) -> Written:
    """Write shard `number` of a set whose earlier shards have `per_shard` samples each."""
    fs, root = _opened(str(out))
    packed = [pack(each, f"{number * per_shard + i:09d}") for i, each in enumerate(samples)]
    content = b"".join(packed) + END
    offsets = np.cumsum([0, *map(len, packed)]).tolist()
    shard = Shard(f"{number:05d}.tar", _sha256(content), tuple(offsets))
    fs.makedirs(root, exist_ok=True)
    _put(fs, f"{root}/{shard.file}", content)
    return Written(shard, Counter((each.source, each.licence, each.split) for each in samples))


def finish(written: Iterable[Written], out: str | Path) -> "ShardSet":
    """Write the index of the shards `written`, in their order; BadInput if there are none."""
    shards: list[Shard] = []
    parts: Counter[tuple[str, str, str]] = Counter()
    for shard, said in written:
        shards.append(shard)
        parts.update(said)
    if not shards:
        raise BadInput(f"no sample to write to {out}; give at least one")
    sources = [asdict(Part(*part, count)) for part, count in sorted(parts.items())]
    index = {"shards": [asdict(shard) for shard in shards], "sources": sources}
    fs, root = _opened(str(out))
    _put(fs, f"{root}/{INDEX}", json.dumps(index).encode())
    return ShardSet(out)


def _opened(address: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        fs, root = url_to_fs(address)
    except (ValueError, ImportError, OSError) as error:
        raise BadInput(
            f"{address} cannot be opened: {reason(error)}; give a folder or an address that an "
            "installed fsspec package opens"
        ) from error
    return fs, root.rstrip("/")


def _put(fs: Any, path: str, content: bytes) -> None:
    """Write the file whole or not at all."""
    fs.pipe_file(f"{path}.part", content)
    fs.mv(f"{path}.part", path)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@final
class ShardSet(Sequence[Sample]):
    """Samples of a set by number, each read when it is asked for; may be pickled.

    Raises:
        BadData: no set there, or samples that are damaged; names shard and member.
    """

    def __init__(self, address: str | Path) -> None:
        self.address = str(address)
        self._fs, self._root = _opened(self.address)
        try:
            content = self._fs.cat_file(f"{self._root}/{INDEX}")
            index = json.loads(content)
            self.shards = tuple(
                Shard(each["file"], each["sha256"], tuple(each["offsets"]))
                for each in index["shards"]
            )
            self.sources = tuple(Part(**each) for each in index["sources"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadData(
                f"{address} holds no finished shards: {reason(error)}; write_shards leaves an "
                f"{INDEX} there"
            ) from error
        self.sha256 = _sha256(content)
        """Hash of the index, which holds the hashes of the shards."""

    @cached_property
    def _ends(self) -> list[int]:
        return np.cumsum([len(shard) for shard in self.shards]).tolist()

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        """Sample `index`, read by itself."""
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        which = int(np.searchsorted(self._ends, number, side="right"))
        shard = self.shards[which]
        at = number - self._ends[which] + len(shard)
        start, end = shard.offsets[at : at + 2]
        content = self._read(shard, start, end)
        return unpack(content, f"{self.address}/{shard.file}")

    def packed(self, which: int) -> list[bytes]:
        """The samples of one shard, still packed, after a look at the shard's hash."""
        shard = self.shards[which]
        content = self._read(shard, 0, None)
        cuts = zip(shard.offsets, shard.offsets[1:], strict=False)
        packed = [content[start:end] for start, end in cuts]
        if _sha256(content) != shard.sha256:
            where = f"{self.address}/{shard.file}"
            for each in packed:  # to name the one that is damaged
                unpack(each, where)
            raise BadData(
                f"shard {where} is not what was written, its samples are; copy or write it again"
            )
        return packed

    def _read(self, shard: Shard, start: int, end: int | None) -> bytes:
        try:
            return self._fs.cat_file(f"{self._root}/{shard.file}", start, end)
        except OSError as error:
            raise BadData(
                f"shard {self.address}/{shard.file} cannot be read: {reason(error)}; copy or write "
                "it again"
            ) from error


class Position(NamedTuple):
    """How far a stream is: `taken` samples of draw number `draw`."""

    draw: int = 0
    taken: int = 0


BEGIN = Position()


@final
class Stream(Iterator[Sample]):
    """Samples without end, in an order that `seed` decides alone.

    Each draw takes `mixed` shards at random, one may come twice, and shuffles their samples
    together. Draws go to the ranks in turn.

    Args:
        address: of the set.
        seed: of draws and orders.
        rank: which of `ranks` processes this is; each sees samples of its own draws.
        ranks: number of processes.
        mixed: shards held in memory, still encoded.
        start: where a stream with the same arguments stood, its `position`.
    """

    def __init__(
        self,
        address: str | Path,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        mixed: int = 4,
        start: Position = BEGIN,
    ) -> None:
        if not 0 <= rank < ranks or mixed < 1:
            raise BadInput(
                f"rank {rank} of {ranks} with {mixed} shards mixed given; ranks count from 0 and "
                "at least one shard is needed"
            )
        self._shards, self._seed, self._mixed = ShardSet(address), seed, mixed
        self._rank, self._ranks = rank, ranks
        self.position = start
        """Where the next sample will be; a stream with this `start` goes on with it."""
        self._drawn = -1
        self._pool: list[tuple[str, bytes]] = []

    def __next__(self) -> Sample:
        """The next sample; there always is one."""
        draw, taken = self.position
        if self._drawn != draw:
            self._pool, self._drawn = self._draw(draw), draw
        if taken >= len(self._pool):
            raise BadInput(
                f"{self.position} given for {self._shards.address}, whose draw {draw} has "
                f"{len(self._pool)} samples; a position belongs to its set, seed, ranks and mixed"
            )
        sample = unpack(self._pool[taken][1], self._pool[taken][0])
        at_end = taken + 1 == len(self._pool)
        self.position = Position(draw + 1) if at_end else Position(draw, taken + 1)
        return sample

    def _draw(self, number: int) -> list[tuple[str, bytes]]:
        random = np.random.default_rng([self._seed, number * self._ranks + self._rank])
        shards = self._shards.shards
        chosen = random.integers(len(shards), size=self._mixed).tolist()
        held = {which: self._shards.packed(which) for which in sorted(set(chosen))}
        pool = [
            (f"{self._shards.address}/{shards[which].file}", each)
            for which in chosen
            for each in held[which]
        ]
        return [pool[i] for i in random.permutation(len(pool))]
