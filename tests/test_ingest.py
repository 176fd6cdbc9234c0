"""Two local workers of Ray Data leave the bytes that one process leaves."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadworthy.errors import BadData
from roadworthy.ingest import catalog_add_by_ray
from roadworthy.learn.catalog import STATE
from roadworthy.learn.inventory import catalog_add, write_selected
from roadworthy.learn.readers import Origin

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("ray", "duckdb", "pyarrow", "pandas"))),
    reason="Ray Data is missing: pip install 'roadworthy[catalog,cluster]'",
)
ORIGIN = Origin("blobs", "CC0", "train")


@pytest.fixture
def spec(tmp_path: Path) -> str:
    for i in range(11):
        file = tmp_path / "photos" / ("car", "flumph")[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        blobs = np.random.default_rng(i).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(blobs).resize((48, 40), Image.Resampling.BICUBIC).save(file)
    return f"imagefolder:{tmp_path}/photos"


def test_two_workers_leave_what_one_process_leaves(
    tmp_path: Path, spec: str, two_workers: None
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    alone = catalog_add(str(one), spec, ORIGIN)
    write_selected(one, "true", tmp_path / "shards-one", per_shard=4)
    shared = catalog_add_by_ray(str(two), spec, str(tmp_path / "shards-two"), ORIGIN, per_shard=4)
    assert shared == alone
    assert (alone["total"], alone["unmapped"]) == (11, (("blobs", "flumph", 5),))
    assert (one / STATE).read_bytes() == (two / STATE).read_bytes()
    files = sorted(path.name for path in (tmp_path / "shards-one").iterdir())
    assert files == ["00000.tar", "00001.tar", "00002.tar", "index.json"]
    for file in files:
        left, right = (tmp_path / name / file for name in ("shards-one", "shards-two"))
        assert left.read_bytes() == right.read_bytes()


def test_a_fault_in_a_worker_is_told_as_it_would_be_here(
    tmp_path: Path, spec: str, two_workers: None
) -> None:
    damaged = tmp_path / "photos" / "car" / "8.png"
    damaged.write_bytes(damaged.read_bytes()[:300])
    with pytest.raises(BadData, match=r"8\.png"):
        catalog_add_by_ray(str(tmp_path / "c"), spec, str(tmp_path / "s"), ORIGIN, per_shard=4)
    assert not (tmp_path / "s" / "index.json").exists()
    with pytest.raises(BadData, match=r"8\.png"):
        catalog_add(str(tmp_path / "c"), spec, ORIGIN)
