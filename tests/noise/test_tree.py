import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from roadworthy.core.decoders import Decoder
from roadworthy.core.images import IMAGENET, Preprocess
from roadworthy.errors import BadData
from roadworthy.noise.tree import rasters, sight


def jpeg(size=(80, 60), seed=0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "jpeg", quality=90)
    return stream.getvalue()


WANTED = [
    IMAGENET,
    replace(IMAGENET, decode="opencv"),
    replace(IMAGENET, resize="opencv-linear"),
    replace(IMAGENET, colour="bgr"),
    replace(IMAGENET, mean=(0.5, 0.5, 0.5)),
    Preprocess(),
]


def test_a_tree_makes_what_each_preprocessing_makes_alone() -> None:
    content = jpeg()
    found = rasters(content, "a.jpg", WANTED)
    assert len(found) == 5  # the two that differ in their mean share a raster
    for stages in WANTED:
        alone = stages(stages.decoded(content, "a.jpg"))
        assert torch.equal(stages.normalised(found[sight(stages)]), alone)


def test_each_decoder_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    decode = Decoder.__call__

    def counted(self: Decoder, content: bytes, name: str):
        runs.append(self.name)
        return decode(self, content, name)

    monkeypatch.setattr(Decoder, "__call__", counted)
    rasters(jpeg(), "a.jpg", WANTED)
    assert sorted(runs) == ["opencv", "pillow"]


def test_an_unreadable_file_is_named() -> None:
    with pytest.raises(BadData, match=r"a\.jpg"):
        rasters(jpeg()[:300], "a.jpg", WANTED)
