"""Twelve images of a bright square on noise, with class, box, mask and depth."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

XML = """<annotation><size><width>48</width><height>40</height></size>
<object><name>dot</name><bndbox><xmin>{}</xmin><ymin>{}</ymin>
<xmax>{}</xmax><ymax>{}</ymax></bndbox></object></annotation>"""


def write_scenes(folder: Path) -> dict[str, str]:
    """Write them into `folder`; the data spec of each task."""
    random = np.random.default_rng(0)
    pixels: list[Any] = []
    for name in ("images", "masks", "JPEGImages", "depth", "Annotations"):
        (folder / name).mkdir()
    for i in range(12):
        x = random.integers(0, 40, (40, 48, 3), dtype=np.uint8)
        left, mask = 4 + 2 * i, np.zeros((40, 48), np.uint16)
        x[8:24, left : left + 16], mask[8:24, left : left + 16] = 120 + 10 * i, 1
        pixels.append(x)
        maps = {"masks": mask.astype(np.uint8), "depth": 1000 + 500 * mask}
        for name, held in {"images": x, "JPEGImages": x, **maps}.items():
            Image.fromarray(held).save(folder / name / f"{i}.png")
        box = XML.format(left + 1, 9, left + 16, 24)
        (folder / "Annotations" / f"{i}.xml").write_text(box)
    np.savez(folder / "a.npz", x=np.stack(pixels), y=np.arange(12) % 2, z=1 - np.arange(12) % 2)
    return {
        "classification": f"npz:{folder}/a.npz?x=x&y=y",
        "detection": f"voc:{folder}",
        "segmentation": f"masks:{folder}",
        "depth": f"depth:{folder}",
    }
