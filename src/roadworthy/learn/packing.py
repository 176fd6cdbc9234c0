"""A sample as members of a WebDataset tar file, and back.

``KEY.jpg`` (or what the image file is), ``KEY.json``, and where there are any ``KEY.mask.png`` and
``KEY.depth.npy.gz``. The same sample makes the same bytes, and packed samples, one after the other
with `END` behind them, are a tar file.
"""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from roadworthy.core.sources import png, reason
from roadworthy.errors import BadData
from roadworthy.learn.sample import Sample

END = bytes(2 * tarfile.BLOCKSIZE)
"""What a tar file ends with."""
_SAID = ("name", "source", "licence", "split", "captions", "labels", "box_labels", "mask_labels")


def pack(sample: Sample, key: str) -> bytes:
    """`sample` as tar members called `key`, without the end of a tar file; the image as it is."""
    said: dict[str, Any] = {name: getattr(sample, name) for name in _SAID}
    said["sha256"] = sample.sha256
    if sample.boxes is not None:
        said["boxes"] = np.asarray(sample.boxes, np.float64).tolist()
    members = {_suffix(sample.image): sample.image, "json": json.dumps(said).encode()}
    if sample.mask is not None:
        members["mask.png"] = png(Image.fromarray(sample.mask))
    if sample.depth is not None:
        members["depth.npy.gz"] = _gzipped(sample.depth)
    return b"".join(_member(f"{key}.{suffix}", each) for suffix, each in members.items())


def _suffix(image: bytes) -> str:
    with Image.open(io.BytesIO(image)) as opened:
        kind = (opened.format or "bin").lower()
    return {"jpeg": "jpg"}.get(kind, kind)


def _gzipped(depth: NDArray[np.float32]) -> bytes:
    held = io.BytesIO()
    np.save(held, depth)
    return gzip.compress(held.getvalue(), 4, mtime=0)


def _member(name: str, content: bytes) -> bytes:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    filled = content + bytes(-len(content) % tarfile.BLOCKSIZE)
    return header.tobuf(tarfile.USTAR_FORMAT) + filled


def unpack(content: bytes, shard: str) -> Sample:
    """The sample that `pack` made `content` of; `shard` is the file to blame.

    Raises:
        BadData: damaged; names shard and member.
    """
    members = _members(content, shard)
    (name, image), *others = members.items()
    said = _part(shard, others, ".json", _json)
    if hashlib.sha256(image).hexdigest() != said.pop("sha256", None):
        raise _damaged(shard, name, "its content is not what was written")
    lists: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in said.items()}
    if "boxes" in said:
        lists["boxes"] = np.array(said["boxes"], np.float64).reshape(-1, 4)
    mask, depth = _part(shard, others, ".mask.png", _mask), _part(shard, others, ".npy.gz", _depth)
    try:
        return Sample(image, mask=mask, depth=depth, **lists)
    except (BadData, TypeError) as error:
        raise BadData(f"shard {shard}, {name}: {reason(error)}") from error


def _members(content: bytes, shard: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    at, end = "its first member", 0
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for each in tar:
                at, opened = each.name, tar.extractfile(each)
                found[at] = b"" if opened is None else opened.read()
                end = each.offset_data + each.size + -each.size % tarfile.BLOCKSIZE
    except (tarfile.TarError, OSError, ValueError) as error:
        raise _damaged(shard, at, reason(error)) from error
    # A damaged header behind the first ends the file without a word.
    if end != len(content) or len(found) < 2:
        raise _damaged(shard, at, "it ends early or what follows it is no member")
    return found


def _part(
    shard: str,
    members: list[tuple[str, bytes]],
    suffix: str,
    read: Callable[[bytes], Any],
) -> Any:
    for name, content in members:
        if name.endswith(suffix):
            # Damaged content makes json, Pillow and numpy raise nearly anything.
            try:
                return read(content)
            except Exception as error:
                raise _damaged(shard, name, reason(error)) from error
    return None


def _damaged(shard: str, member: str, why: str) -> BadData:
    return BadData(f"shard {shard}, {member} is damaged: {why}; copy or write the shard again")


def _json(content: bytes) -> dict[str, Any]:
    return dict(json.loads(content))


def _mask(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(content)))


def _depth(content: bytes) -> NDArray[np.float32]:
    return np.load(io.BytesIO(gzip.decompress(content)), allow_pickle=False)
