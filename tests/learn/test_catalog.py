"""The catalog: every addition is whole, none doubles, questions change nothing, faults are told."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from roadworthy.errors import BadData, BadInput
from roadworthy.learn import inventory
from roadworthy.learn.catalog import STATE, Added, add, ask
from roadworthy.learn.concepts import load
from roadworthy.learn.duplicates import perceptual_hash
from roadworthy.learn.inventory import catalog_add, catalog_show, catalog_sql, write_selected
from roadworthy.learn.readers import Origin
from roadworthy.learn.rows import bits, row, tables
from roadworthy.learn.sample import Sample
from roadworthy.learn.scenes import render
from roadworthy.learn.shards import ShardSet

pytest.importorskip("duckdb", reason="DuckDB is missing: pip install 'roadworthy[catalog]'")
pytest.importorskip("pyarrow", reason="pyarrow is missing: pip install 'roadworthy[catalog]'")


def picture(seed: int) -> Image.Image:
    blobs = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(blobs).resize((48, 40), Image.Resampling.BICUBIC)


def sample(seed: int, source: str = "s", **more: object) -> Sample:
    held = io.BytesIO()
    picture(seed).save(held, "PNG")
    return replace(Sample(held.getvalue(), f"{seed}.png", source), **more)


def given(*samples: Sample) -> Iterator[object]:
    return tables(samples, "none", load())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of three pictures each."""
    for i in range(6):
        file = tmp_path / "photos" / ("car", "dog")[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(i).save(file)
    return tmp_path / "photos"


def test_a_row_says_what_the_sample_says() -> None:
    scene = render(3, 32)
    said = row(scene, "scenes:3-4", 0, load())
    assert (said["width"], said["height"], said["sha256"]) == (32, 32, scene.sha256)
    assert (said["has_mask"], said["has_depth"], said["licence"]) == (True, True, "Apache-2.0")
    assert scene.boxes is not None
    corners = [[each[side] for side in ("x1", "y1", "x2", "y2")] for each in said["boxes"]]
    assert corners == np.asarray(scene.boxes, float).tolist()
    assert [each["label"] for each in said["boxes"]] == list(scene.box_labels)
    assert said["concepts"] == [load().find(each) for each in scene.labels]
    image = Image.open(io.BytesIO(scene.image))
    hashed = bits([said["phash"], said["phash_mirrored"]])
    assert (hashed[0] == perceptual_hash(image)).all()
    assert (hashed[1] == perceptual_hash(ImageOps.mirror(image))).all()


def test_the_same_again_changes_nothing_and_new_facts_replace_old(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    three = [sample(i, labels=("car",)) for i in range(3)]
    assert add(folder, given(*three)) == Added(3, 3, 3, 0, ())
    state = (folder / STATE).read_bytes()
    assert add(folder, given(*three)) == Added(3, 0, 3, 0, ())
    assert (folder / STATE).read_bytes() == state
    changed = add(folder, given(replace(three[1], labels=("dog",)), sample(9)))
    assert (changed.new, changed.total) == (1, 4)
    rows = ask(folder, "SELECT name, labels FROM samples ORDER BY name")[1]
    assert rows == [("0.png", ["car"]), ("1.png", ["dog"]), ("2.png", ["car"]), ("9.png", [])]
    files = {path.name for path in folder.glob("*.parquet")}
    assert files == {each["file"] for each in json.loads((folder / STATE).read_text())["parts"]}


def test_an_order_of_additions_makes_no_difference(tmp_path: Path) -> None:
    tests = [sample(i, split="test") for i in range(3)]
    trained = [sample(i, "t", split="train") for i in range(1, 5)]
    found = []
    for name, first, second in (("a", tests, trained), ("b", trained, tests)):
        add(tmp_path / name, given(*first))
        add(tmp_path / name, given(*second))
        found.append(ask(tmp_path / name, "SELECT * FROM samples ORDER BY source, name")[1])
    assert found[0] == found[1]


def test_what_resembles_a_held_out_picture_is_marked(tmp_path: Path) -> None:
    held = io.BytesIO()
    ImageOps.mirror(picture(2)).save(held, "JPEG", quality=80)
    copy = Sample(held.getvalue(), "copy", "t", split="train")
    kept = [sample(i, "t", split="train") for i in (4, 5)]
    given_ = [*(sample(i, split="test") for i in range(3)), copy, *kept]
    assert add(tmp_path, given(*given_)).marked == 1
    rows = ask(tmp_path, "SELECT name, duplicate_of FROM samples WHERE duplicate_of NOT NULL")[1]
    assert rows == [("copy", "s/test/2.png")]


def test_names_without_a_concept_are_reported(tmp_path: Path) -> None:
    odd = [sample(i, labels=("flumph", "car")) for i in range(2)]
    assert add(tmp_path, given(*odd)).unmapped == (("s", "flumph", 2),)
    assert catalog_show(str(tmp_path))["sources"][0]["unmapped"] == ["flumph"]


def test_show_counts_by_source_and_split(tmp_path: Path) -> None:
    add(
        tmp_path,
        given(
            *(sample(i, labels=("car",), split="train") for i in (0, 1)),
            sample(0, name="again", split="train"),
            sample(1, "other", labels=("dog",), licence="CC0", captions=("a dog",)),
            render(1, 32),
        ),
    )
    shown = catalog_show(str(tmp_path))
    json.dumps(shown)
    other, scenes, own = shown["sources"]
    assert (other["source"], other["licences"], other["captioned"]) == ("other", ["CC0"], 1)
    assert (other["repeated"], other["elsewhere"]) == (0, 1)
    assert (scenes["masks"], scenes["depths"]) == (1, 1)
    assert scenes["boxes"] == len(render(1, 32).box_labels)
    assert (own["samples"], own["labelled"], own["classes"], own["repeated"]) == (3, 2, 1, 2)
    assert own["licences"] == ["unknown"], "a source without a licence says so"
    assert [each["second"] for each in shown["disagreements"]] == ["s: car"]


def test_a_selection_becomes_shards_of_what_was_read(tmp_path: Path, photos: Path) -> None:
    folder, spec = str(tmp_path / "c"), f"imagefolder:{photos}"
    done = catalog_add(folder, spec, Origin("photos", "CC0", "train"))
    assert (done["samples"], done["total"]) == (6, 6)
    catalog_add(folder, "scenes:5-9", Origin("", "", "train"), size=32)
    chosen = "split = 'train' AND duplicate_of IS NULL AND (labels = ['dog'] OR number = 2)"
    write_selected(Path(folder), chosen, tmp_path / "shards")
    held = list(ShardSet(tmp_path / "shards"))
    assert [Path(each.name).name for each in held] == [
        "4.png",
        "1.png",
        "3.png",
        "5.png",
        "scene-7",
    ]
    assert {(each.source, each.licence) for each in held[:4]} == {("photos", "CC0")}
    assert held[4].image == render(7, 32).image
    catalog_add(str(tmp_path / "d"), f"shards:{tmp_path / 'shards'}")
    assert catalog_sql(folder=str(tmp_path / "d"), query="SELECT count(*) n FROM samples") == {
        "columns": ["n"],
        "rows": [[5]],
    }
    with pytest.raises(BadInput, match="selects no sample"):
        write_selected(Path(folder), "width = 1", tmp_path / "none")
    picture(77).save(photos / "dog" / "1.png")
    with pytest.raises(BadData, match=r"1\.png .*is not what it was"):
        write_selected(Path(folder), "labels = ['dog']", tmp_path / "late")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT colour FROM samples", "DESCRIBE samples"),
        ("SELECT 1; SELECT 2", "one SELECT"),
        ("DROP VIEW samples", "one SELECT"),
        ("COPY samples TO 'x.csv'", "one SELECT"),
        ("SELECT * FROM read_csv('/etc/hosts')", "disabled by configuration"),
        ("SET enable_external_access = true", "one SELECT"),
        ("", "one SELECT"),
    ],
)
def test_other_sql_is_one_line(tmp_path: Path, query: str, said: str) -> None:
    add(tmp_path / "c", given(sample(0)))
    with pytest.raises(BadInput, match=said) as told:
        catalog_sql(str(tmp_path / "c"), query)
    assert "\n" not in str(told.value)


def test_a_corrupt_image_leaves_what_was_there(tmp_path: Path) -> None:
    add(tmp_path, given(sample(0)))
    state = (tmp_path / STATE).read_bytes()
    cut = sample(1)
    with pytest.raises(BadData, match=r"1\.png"):
        add(tmp_path, given(sample(2), replace(cut, image=cut.image[:200])))
    assert (tmp_path / STATE).read_bytes() == state
    assert len(ask(tmp_path, "SELECT 1 FROM samples")[1]) == 1
    assert not (tmp_path / "staged.parquet").exists()


def test_other_folders_damage_and_names_that_are_two_are_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BadData, match="no catalog and not empty"):
        add(tmp_path, given(sample(0)))
    with pytest.raises(BadData, match="holds no catalog"):
        catalog_show(str(tmp_path / "missing"))
    folder = tmp_path / "c"
    with pytest.raises(BadData, match=r"two images of s are called 0\.png"):
        add(folder, given(sample(0), sample(1, name="0.png")))
    add(folder, given(sample(0)))
    file = next(folder.glob("*.parquet"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    for use in (lambda: catalog_show(str(folder)), lambda: add(folder, given(sample(1)))):
        with pytest.raises(BadData, match=f"{file.name} is missing or damaged"):
            use()


def test_only_one_process_adds_and_a_killed_one_leaves_what_was_there(tmp_path: Path) -> None:
    add(tmp_path / "c", given(sample(0)))
    slow = (
        "import sys, time; from pathlib import Path; from roadworthy.learn.catalog import add\n"
        "def given():\n    print('in', flush=True); time.sleep(60); yield\n"
        "add(Path(sys.argv[1]), given())"
    )
    asked = [sys.executable, "-c", slow, str(tmp_path / "c")]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with pytest.raises(BadInput, match="another process adds"):
            add(tmp_path / "c", given(sample(1)))
        os.kill(other.pid, signal.SIGKILL)
    assert len(ask(tmp_path / "c", "SELECT 1 FROM samples")[1]) == 1
    assert add(tmp_path / "c", given(sample(1))).total == 2


def test_samples_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roadworthy.learn.rows.ROWS", 2)
    assert [each.num_rows for each in given(*map(sample, range(5)))] == [2, 2, 1]
    add(tmp_path, given(*map(sample, range(5))))
    rows = ask(tmp_path, "SELECT number FROM samples")[1]
    assert all(a < b for a, b in pairwise(rows))
    assert inventory.show(tmp_path)[0]["samples"] == 5
