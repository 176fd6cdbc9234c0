"""The amateur learns from captions, goes on exactly, and opens as a pair of towers."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learn.stopping import interruption
from safetensors.torch import load_file

from roadworthy.errors import BadData, BadInput, BadModel
from roadworthy.learn.amateur import DeCLIP, Method, SigLIP, learn_amateur
from roadworthy.learn.backbones import backbone
from roadworthy.learn.captions import Captioned, Tokens, hold_captions
from roadworthy.learn.contrastive import UNTOUCHED
from roadworthy.learn.distill import distill
from roadworthy.learn.expert import Job, learn_expert
from roadworthy.learn.generalist import learn_generalist
from roadworthy.learn.loop import Feed, Machine
from roadworthy.learn.plan import Plan
from roadworthy.learn.sample import Sample
from roadworthy.learn.scenes import render
from roadworthy.learn.sources import captioned, source
from roadworthy.learn.texts import MASK, PAD, CaptionTokenizer
from roadworthy.learn.towers import chance, open_amateur, recall

XS = "metanet:mn_xs@random"
PLAN = Plan(steps=4, batch=4, every=2)
CPU = Machine("cpu")


@pytest.fixture(scope="module")
def scenes() -> Captioned:
    return captioned("scenes:0-8", 32)


@pytest.fixture(scope="module")
def done(scenes: Captioned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stage") / "amateur"
    learn_amateur(XS, [scenes], Job(out, PLAN, CPU), DeCLIP(queue=6), judged=[scenes])
    return out


def test_a_killed_amateur_goes_on_to_the_same_files_queue_and_all(
    done: Path, scenes: Captioned, tmp_path: Path
) -> None:
    job = Job(tmp_path / "again", PLAN, CPU)
    with interruption(3):
        learn_amateur(XS, [scenes], job, DeCLIP(queue=6))
    with pytest.raises(BadInput, match="state of another run"):
        learn_amateur(
            XS, [scenes], job, DeCLIP(queue=6, weights=replace(DeCLIP().weights, views=0))
        )
    learn_amateur(XS, [scenes], job, DeCLIP(queue=6))
    for name in ("model.safetensors", "heads.safetensors", "tokenizer.json"):
        assert (job.out / name).read_bytes() == (done / name).read_bytes()
    state = torch.load(job.out / "state.pt", weights_only=True)["model"]
    wanted = torch.load(done / "state.pt", weights_only=True)["model"]
    assert state["terms.queue.pushed"] == PLAN.steps * PLAN.batch
    assert all(torch.equal(each, wanted[name]) for name, each in state.items())


def test_its_folder_opens_as_towers_and_as_a_backbone(done: Path, scenes: Captioned) -> None:
    pair = open_amateur(done)
    images = torch.randn(3, 3, 32, 32)
    rows, texts = pair.images(images), pair.texts(["a red car by day", "two people"])
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    scaled = pair.towers.temperature().detach() * rows @ texts.T
    torch.testing.assert_close(pair.similarity(images, ["a red car by day", "two people"]), scaled)
    torch.testing.assert_close(pair.texts(["two people"]), texts[1:])
    own = backbone(str(done)).state_dict()
    assert all(torch.equal(x, own[name]) for name, x in pair.backbone.state_dict().items())
    held = load_file(done / "heads.safetensors")
    assert all(torch.equal(x, held[name]) for name, x in pair.towers.state_dict().items())


def test_its_manifest_hashes_the_tokenizer_and_judges_beside_chance(
    done: Path, scenes: Captioned
) -> None:
    manifest = json.loads((done / "manifest.json").read_text())
    assert manifest["stage"] == "amateur"
    assert manifest["data"][0]["task"] == "captions"
    assert manifest["data"][0]["sha256"] == scenes.sha256
    first, fifth = manifest["held_out"]
    assert [first["metric"], fifth["metric"]] == [
        "image to text recall@1",
        "image to text recall@5",
    ]
    assert first["chance"] == pytest.approx(1 / 8)
    assert fifth["chance"] == pytest.approx(5 / 8)
    assert 0 <= first["value"] <= fifth["value"] <= 1
    (done / "tokenizer.json").rename(done / "kept")
    with pytest.raises(BadModel, match=r"tokenizer\.json is not what manifest\.json says"):
        open_amateur(done)
    (done / "kept").rename(done / "tokenizer.json")


def test_an_expert_is_no_amateur_but_begins_with_one(done: Path, tmp_path: Path) -> None:
    cars = source("scenes:0-4", "classification", 32)
    told = learn_expert(str(done), [cars], Job(tmp_path / "expert", replace(PLAN, steps=1), CPU))
    parent = json.loads((done / "manifest.json").read_text())
    assert told["parents"][0]["sha256"] == parent["files"]["model.safetensors"]
    with pytest.raises(BadModel, match="is of the stage expert; a folder of an amateur is needed"):
        open_amateur(tmp_path / "expert")


def test_an_amateur_teaches_and_is_heard_though_it_has_no_head(done: Path, tmp_path: Path) -> None:
    depth = source("scenes:0-4", "depth", 32)
    job = Job(tmp_path / "student", replace(PLAN, steps=1), CPU)
    told = distill(str(done), str(done), [depth], job)
    assert [each["folder"] for each in told["parents"]] == [str(done)]
    experts = [done, job.out]
    for main, other in (experts, experts[::-1]):
        told = learn_generalist(
            main, [other], [depth], replace(job, out=tmp_path / f"{main.name}-2")
        )
        assert told["stage"] == "generalist"


@pytest.mark.parametrize(
    ("method", "term", "knowing_nothing"),
    [
        (DeCLIP(queue=64), "clip", math.log(8)),
        (SigLIP(), "loss", math.log(8) + 7 * math.log(8 / 7)),
    ],
)
def test_it_learns_eight_scenes_by_heart(
    method: Method, term: str, knowing_nothing: float, scenes: Captioned, tmp_path: Path
) -> None:
    plan = Plan(steps=16, batch=8, rate=5e-3, every=40)
    told = learn_amateur(XS, [scenes], Job(tmp_path, plan, CPU), method, judged=[scenes])
    assert told["held_out"][1]["value"] >= 0.875  # of what it has seen; by chance 5/8
    rows = [json.loads(row) for row in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1][term] < 0.95 * knowing_nothing


def test_both_views_and_both_captions_of_a_batch_are_of_the_same_images() -> None:
    captions = [[f"picture {i} version {j}" for j in range(1 + i % 3)] for i in range(6)]
    tokenizer = CaptionTokenizer.trained(t for each in captions for t in each)
    tokens = Tokens.of(captions, tokenizer, 24)
    numbers = np.array([5, 0, 4, 1])
    parts = [slice(0, 2), slice(2, 4), slice(0, 4)]
    drawn = [tokens.drawn(numbers, p, torch.Generator().manual_seed(0)) for p in parts]
    for name, each in drawn[2].items():  # ranks with a part each draw what one process does
        assert torch.equal(torch.cat([drawn[0][name], drawn[1][name]]), each)
    for number, (one, other) in zip(numbers, drawn[2]["texts"], strict=True):
        texts = [tokenizer.text(one), tokenizer.text(other)]
        assert set(texts) <= set(captions[number])
        assert (texts[0] != texts[1]) == (len(captions[number]) > 1)
    shown, hidden, first = drawn[2]["shown"], drawn[2]["hidden"], drawn[2]["texts"][:, 0]
    assert torch.equal(torch.where(hidden == UNTOUCHED, shown, hidden), first)
    assert MASK not in first
    assert PAD in first


def test_the_second_view_is_another_one_of_the_same_images(scenes: Captioned) -> None:
    tokenizer = CaptionTokenizer.trained(t for each in scenes.captions for t in each)
    feed = Feed(scenes, tokens=Tokens.of(scenes.captions, tokenizer, 32))
    numbers = np.arange(4)
    whole, half = (
        feed.batch(PLAN, 0, numbers, part, torch.device("cpu"))
        for part in (slice(0, 4), slice(2, 4))
    )
    assert whole.again is not None
    assert half.again is not None
    assert not torch.allclose(whole.images, whole.again, atol=0.1)
    torch.testing.assert_close(whole.again[2:], half.again)
    level = [each.mean((1, 2, 3)) for each in (whole.images, whole.again)]
    assert float(torch.corrcoef(torch.stack(level))[0, 1]) > 0.5  # by day and by night


def test_recall_is_that_of_a_loop_and_chance_of_all_orders() -> None:
    from itertools import permutations

    random = torch.Generator().manual_seed(0)
    near = torch.randn(7, 5, generator=random)
    right = torch.rand(7, 5, generator=random) < 0.4
    for k in (1, 2, 5, 9):
        hits = 0
        for row, good in zip(near.tolist(), right.tolist(), strict=True):
            hits += any(good[j] for j in sorted(range(5), key=lambda j, r=row: -r[j])[:k])
        assert recall(near, right, k) == pytest.approx(hits / 7)
        lucky = [any(g[j] for j in p[:k]) for g in right.tolist() for p in permutations(range(5))]
        assert chance(right, k) == pytest.approx(sum(lucky) / len(lucky))


def test_names_of_classes_are_captions_and_bare_numbers_are_none() -> None:
    held = replace(render(3, 32), captions=())
    for label, said in (("owl", "a photo of an owl"), ("n01443537", "a photo of a goldfish")):
        assert hold_captions([replace(held, labels=(label,))], 32).captions == ((said,),)
    for label in ("7", "n00000007"):
        with pytest.raises(BadData, match=r"image scene-3 of .* has no caption"):
            hold_captions([replace(held, labels=(label,))], 32)


def test_what_says_nothing_is_refused_in_one_line(scenes: Captioned, tmp_path: Path) -> None:
    bare: Sample = replace(render(3, 32), captions=(), labels=())
    with pytest.raises(BadData, match="has no caption"):
        hold_captions([render(2, 32), bare], 32)
    with pytest.raises(BadData, match="has an empty caption; remove it or write one"):
        replace(bare, captions=("a car", " "))
    with pytest.raises(BadData, match="no sample to learn captions from"):
        hold_captions([], 32)
    with pytest.raises(BadInput, match="50 pixels a side given; a multiple of 32"):
        hold_captions([render(2, 32)], 50)
    job = Job(tmp_path, PLAN, CPU)
    with pytest.raises(BadInput, match="no source given"):
        learn_amateur(XS, [], job)
    with pytest.raises(BadInput, match="batch 1 given; an image is told from others"):
        learn_amateur(XS, [scenes], replace(job, plan=replace(PLAN, batch=1)))
    with pytest.raises(BadData, match="has 8 images for batches of 16"):
        learn_amateur(XS, [scenes], replace(job, plan=replace(PLAN, batch=16)))
    with pytest.raises(BadInput, match="an amateur is judged by captions"):
        learn_amateur(XS, [scenes], replace(job, held_out=[source("scenes:0-2", "depth", 32)]))
    with pytest.raises(BadInput, match=r"sources of \[32, 64\] pixels a side given"):
        learn_amateur(XS, [scenes, captioned("scenes:0-8", 64)], job)


@pytest.mark.data
def test_captions_of_photos_are_held(data: Path, tmp_path: Path) -> None:
    listing = tmp_path / "captions.txt"
    rows = (data / "flickr8k_1000/captions.txt").read_text().splitlines()[:21]
    listing.write_text("\n".join(rows))
    held = captioned(f"captions:{listing}@{data / 'flickr8k_1000/images'}", 32)
    assert [len(each) for each in held.captions] == [5] * 4
    assert held.content.images.shape == (4, 3, 32, 32)
