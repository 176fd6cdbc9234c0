"""Which copies of test pictures the perceptual hash finds, and how often it is wrong.

    python benchmarks/near_duplicates.py --data imagefolder:DIR [--count 300]

Half of the pictures are the test set; copies of it should be found and the other half should not.
"""

import argparse
import io
from collections.abc import Callable

from PIL import Image, ImageOps

from roadworthy.core.data import load_data
from roadworthy.learn.duplicates import CLOSE, both_ways, hashes, nearest


def recompressed(image: Image.Image) -> Image.Image:
    held = io.BytesIO()
    image.save(held, "JPEG", quality=50)
    return Image.open(held)


def resized(image: Image.Image) -> Image.Image:
    return image.resize((max(1, image.width * 2 // 3), max(1, image.height * 2 // 3)))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "recompressed at quality 50": recompressed,
    "resized to two thirds": resized,
    "flipped": ImageOps.mirror,
    "all three": lambda image: recompressed(resized(ImageOps.mirror(image))),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--count", type=int, default=300)
    given = parser.parse_args()
    data = load_data(given.data).subset(given.count, seed=0)
    images = [data.load(i) for i in range(len(data))]
    tests, others = images[::2], images[1::2]
    known = both_ways(tests)
    for close in (CLOSE // 2, CLOSE, CLOSE * 3 // 2):
        print(f"{close} bits of 256, {len(tests)} test pictures, {len(others)} others")
        for name, changed in COPIES.items():
            copies = hashes(map(changed, tests))
            print(f"  {name:28} found {(nearest(copies, known)[1] <= close).mean():7.1%}")
        wrong = nearest(hashes(others), known)[1] <= close
        print(f"  {'other pictures':28} found {wrong.mean():7.1%} ({wrong.sum()})")


if __name__ == "__main__":
    main()
