"""All stages of learning by the command line, on a few rendered scenes."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from roadworthy.cli import main
from roadworthy.learn.overview import overview
from roadworthy.learn.shards import ShardSet
from roadworthy.learn.sources import samples
from roadworthy.options import parse
from roadworthy.options_learn import EXAMPLES, learn_request

TASKS = ("detection", "depth")
FIXED = "timm:vit_tiny_patch16_224@random"
RANDOM = "metanet:mn_xs@random"


def learned(*words: object) -> None:
    assert main(["learn", *map(str, words), "--device", "cpu"]) == 0


def each_task(folder: Path, option: str) -> list[str]:
    return [word for task in TASKS for word in (option, f"{task}=shards:{folder}")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lab")
    scenes, held = root / "scenes", root / "held"
    few: Sequence[object] = ("--size", 32, "--batch-size", 4, "--steps", 2)
    learned("pack", "scenes:0-16", "--size", 32, "--per-shard", 8, "--out", scenes)
    learned("pack", "scenes:90-96", "--size", 32, "--out", held)
    both = [f"shards:{scenes}", "--held", f"shards:{held}"]
    learned("amateur", RANDOM, "--source", *both, *few, "--out", root / "amateur")
    for task in TASKS:
        pair = ["--source", f"{task}=shards:{scenes}", "--held", f"{task}=shards:{held}"]
        learned("expert", root / "amateur", *pair, *few, "--out", root / task)
    sources = [*each_task(scenes, "--source"), *each_task(held, "--held"), *few]
    experts = ("--with", root / "depth")
    learned("generalist", root / "detection", *experts, *sources, "--out", root / "generalist")
    student = ("--student", root / "detection")
    learned("distill", root / "generalist", *student, *sources, "--out", root / "distilled")
    pair = ["--data", f"depth=shards:{scenes}", "--test", f"depth=shards:{held}", "--size", 32]
    learned("probe", RANDOM, root / "distilled", *pair, "--out", root / "probe")
    return root


def test_every_stage_leaves_a_manifest_and_a_record(lab: Path) -> None:
    for name in ("amateur", *TASKS, "generalist", "distilled"):
        manifest = json.loads((lab / name / "manifest.json").read_text())
        record = json.loads((lab / name / "run.json").read_text())
        assert manifest["held_out"] == record["held_out"] != []
        assert record["compute"]["images"] == 8
    assert record["command"] == "learn distill"
    assert record["total_compute"]["images"] == 8 * 5


def test_the_table_has_a_row_for_each(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["learn", "show", str(lab)]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split("|")[1].strip() for line in lines[2:]]
    assert names == ["amateur", *TASKS, "generalist", "distilled", RANDOM]
    assert "probe of held, rmse" in lines[0]


def test_a_probe_stands_beside_its_stage_from_wherever_it_was_typed(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = overview(lab)
    monkeypatch.chdir(lab / "probe")
    assert overview(Path("..")) == wanted
    assert {row["backbone"] for row in wanted if "TMACs" not in row} == {RANDOM}


@pytest.mark.parametrize("content", ['{"command": "learn', "{}", "[1]", "probe"])
def test_a_damaged_record_is_one_line(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    record = json.loads((lab / "probe" / "run.json").read_text())
    if content == "probe":
        content = json.dumps(record | {"config": {}})
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "run.json").write_text(content)
    assert main(["learn", "show", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    assert str(tmp_path / "probe" / "run.json") in said


def test_two_sources_of_one_name_are_both_recorded(tmp_path: Path) -> None:
    both = ("--source", "depth=scenes:0-4", "--source", "depth=scenes:4-10")
    few: Sequence[object] = ("--size", 32, "--batch-size", 2, "--steps", 1)
    learned("expert", RANDOM, *both, *few, "--out", tmp_path / "depth")
    told = json.loads((tmp_path / "depth" / "run.json").read_text())["data"]
    assert [row["n"] for row in told.values()] == [4, 6]


def test_a_part_is_packed_under_its_own_name(tmp_path: Path) -> None:
    part = ("--numbers", "1-3", "--source", "streets", "--split", "val")
    learned("pack", "scenes:0-4", "--size", 32, *part, "--out", tmp_path / "part")
    own, whole = ShardSet(str(tmp_path / "part")), list(samples("scenes:0-4", 32))
    assert [each.image for each in own] == [each.image for each in whole[1:3]]
    assert {(each.source, each.split) for each in own} == {("streets", "val")}
    assert own[0].licence == whole[0].licence


def test_images_of_which_nothing_is_said_are_left_out_on_demand(tmp_path: Path) -> None:
    for folder, names in (("images", "ab"), ("masks", "a")):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.new("L", (32, 32)).save(tmp_path / folder / f"{name}.png")
    packed = ("pack", f"masks:{tmp_path}", "--out")
    learned(*packed, tmp_path / "all")
    learned(*packed, tmp_path / "told", "--labelled")
    counts = [len(ShardSet(str(tmp_path / name))) for name in ("all", "told")]
    assert counts == [2, 1]


def test_the_same_command_again_changes_nothing(lab: Path) -> None:
    before = (lab / "depth" / "model.safetensors").read_bytes()
    pair = ["--source", f"depth=shards:{lab / 'scenes'}", "--size", 32, "--batch-size", 4]
    learned("expert", lab / "amateur", *pair, "--steps", 2, "--out", lab / "depth")
    assert (lab / "depth" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pack", "scenes:0-4", "--numbers", "2-5"], "scenes:0-4 has 0 to 4"),
        (["pack", "scenes:0-2", "--size", "0"], "--size 0 given; at least 1 is allowed"),
        (["pack", "scenes:0-2", "--size", "-32"], "--size -32 given"),
        (["expert", RANDOM, "--source", "depth=scenes:0-4", "--size", "0"], "0 pixels a side"),
        (["nothing"], "learn amateur, learn expert"),
        (["expert", RANDOM, "--source", "scenes:0-4"], "TASK=SPEC is needed"),
        (["expert", RANDOM, "--source", "colour=scenes:0-4"], "colour"),
        (["expert", RANDOM, "--source", "depth=scenes:0-4", "--held", "detection=scenes:4-6"],
         "no sources of detection"),
        (["expert", RANDOM, "--source", "depth=scenes:0"], "FROM-TO is needed"),
        (["expert", RANDOM, "--source", "depth=scenes:0-4", "--size", "33"], "multiple of 32"),
        (["expert", "metanet:none@random", "--source", "depth=scenes:0-4"], "none"),
        (["expert", FIXED, "--source", "depth=scenes:0-4"], "give --size 224"),
        (["amateur", FIXED, "--source", "scenes:0-4", "--batch-size", "2"], "give --size 224"),
        (["distill", FIXED, "--student", RANDOM, "--source", "depth=scenes:0-4"],
         "give --size 224"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    rest = ["--size", "32"] if "--size" not in words else []
    out = tmp_path / "out"
    try:
        steps = [] if "pack" in words else ["--steps", "1"]
        code = main(["learn", *words, *rest, *steps, "--out", str(out)])
    except SystemExit as left:
        code = left.code
    said = capsys.readouterr().err.strip()
    assert code == 2
    assert len(said.splitlines()) == 1
    assert message in said
    assert not out.exists()


def test_the_distilled_stage_of_the_examples_has_the_classifier_that_the_next_one_writes() -> None:
    distilled, classified = (
        parse(shlex.split("\n".join(EXAMPLES[name]).replace("\\\n", " "))[1:])
        for name in ("learn distill", "learn classifier")
    )
    assert distilled.out == classified.dir
    tasks = [task for task, _ in learn_request(distilled).sources.learned]
    assert "classification" in tasks


def test_a_probe_that_fails_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = ["--data", "depth=scenes:0-2", "--test", f"depth=shards:{tmp_path / 'missing'}"]
    out = tmp_path / "made" / "probe"
    assert main(["learn", "probe", RANDOM, *pair, "--size", "32", "--out", str(out)]) == 2
    assert "missing" in capsys.readouterr().err
    assert not out.parent.exists()


def test_a_record_says_how_and_where_it_learned(lab: Path) -> None:
    config = json.loads((lab / "depth" / "run.json").read_text())["config"]
    manifest = json.loads((lab / "depth" / "manifest.json").read_text())
    assert config["plan"] == manifest["plan"]
    assert config["machine"] == {"device": "cpu", "precision": "32-true", "strategy": "ddp"}


def test_a_catalog_is_filled_and_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("duckdb", reason="DuckDB is missing: pip install 'roadworthy[catalog]'")
    catalog = ["learn", "catalog"]
    added = ["add", str(tmp_path), "scenes:0-2", "--size", "32", "--split", "train"]
    assert main([*catalog, *added, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == 2
    assert main([*catalog, "sql", str(tmp_path), "SELECT count(*) FROM samples"]) == 0
    assert capsys.readouterr().out.split()[-1] == "2"
    assert main([*catalog, "show", str(tmp_path)]) == 0
    assert "Apache-2.0" in capsys.readouterr().out
    assert main([*catalog, "sql", str(tmp_path), "SELEC"]) == 2


def annotated(root: Path) -> None:
    """Two images as VOC lays them out, one of them with masks too."""
    box = "<xmin>3</xmin><ymin>5</ymin><xmax>20</xmax><ymax>30</ymax>"
    held = f"<object><name>car</name><bndbox>{box}</bndbox></object>"
    for name, kind in (("JPEGImages", "RGB"), ("masks", "L")):
        (root / name).mkdir(parents=True)
        for each in "ab":
            Image.effect_noise((32, 32), 90).point(lambda v: v % 2).convert(kind).save(
                root / name / f"{each}.png"
            )
    (root / "Annotations").mkdir()
    for each in "ab":
        (root / "Annotations" / f"{each}.xml").write_text(
            f"<annotation><size><width>32</width><height>32</height></size>{held}</annotation>"
        )
    (root / "names.txt").write_text("road\nsky\n")


def test_boxes_of_voc_and_named_masks_are_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("duckdb", reason="DuckDB is missing: pip install 'roadworthy[catalog]'")
    annotated(tmp_path / "set")
    boxes = f"voc:{tmp_path / 'set'}"
    named = f"masks:{tmp_path / 'set'}?images=JPEGImages&names=names.txt"
    catalog = str(tmp_path / "catalog")
    for spec in (boxes, named):
        assert main(["learn", "catalog", "add", catalog, spec, "--source", spec[:4]]) == 0
    capsys.readouterr()
    asked = "SELECT source, sum(len(boxes))::INT, any_value(mask_labels) FROM samples GROUP BY 1"
    assert main(["learn", "catalog", "sql", catalog, f"{asked} ORDER BY 1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows == [["mask", 0, ["road", "sky"]], ["voc:", 2, []]]
    sources = ["--source", f"detection={boxes}", "--source", f"segmentation={named}"]
    few = ["--size", 32, "--batch-size", 2, "--steps", 1, "--out", tmp_path / "out"]
    learned("expert", RANDOM, *sources, *few)
    heads = json.loads((tmp_path / "out" / "config.json").read_text())["heads"]
    assert [each["classes"] for each in heads] == [["car"], ["road", "sky"]]
