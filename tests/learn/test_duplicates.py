"""Copies of a picture are found, other pictures are not."""

import io
from dataclasses import replace

import numpy as np
from PIL import Image, ImageOps

from roadworthy.learn.duplicates import hashes, nearest, perceptual_hash, without_duplicates
from roadworthy.learn.sample import Sample


def picture(seed: int) -> Image.Image:
    blobs = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(blobs).resize((96, 80), Image.Resampling.BICUBIC)


def sample(image: Image.Image, name: str = "a", kind: str = "PNG", **options: int) -> Sample:
    held = io.BytesIO()
    image.save(held, kind, **options)
    return Sample(held.getvalue(), name, "s")


def test_the_hash_is_the_signs_of_steps_to_the_right() -> None:
    rising = Image.fromarray(np.tile(np.arange(0, 238, 14, dtype=np.uint8), (16, 1)))
    assert np.bitwise_count(perceptual_hash(rising)).sum() == 256
    assert np.bitwise_count(perceptual_hash(ImageOps.mirror(rising))).sum() == 0


def test_nearest_equals_counting_one_by_one() -> None:
    own, others = (hashes(map(picture, part)) for part in (range(5), range(5, 12)))
    which, bits = nearest(own, others)
    for i, row in enumerate(own):
        slow = [sum(bin(int(a) ^ int(b)).count("1") for a, b in zip(row, o)) for o in others]  # noqa: B905
        assert (bits[i], which[i]) == (min(slow), slow.index(min(slow)))


def test_copies_of_test_pictures_leave_and_others_stay() -> None:
    tests = [sample(picture(i)) for i in range(8)]
    image = picture(3)
    copies = [
        sample(image, "same"),
        sample(image, "recompressed", "JPEG", quality=30),
        sample(image.resize((48, 40)), "resized"),
        sample(ImageOps.mirror(image), "flipped"),
    ]
    fresh = [sample(picture(100 + i), str(i)) for i in range(20)]
    kept = [each.name for each in without_duplicates([*copies, *fresh], tests)]
    assert kept == [each.name for each in fresh]
    untested = [each.name for each in without_duplicates(copies, [])]
    assert untested == [each.name for each in copies]
    assert list(without_duplicates([replace(tests[0], name="b")], tests, close=-1))
