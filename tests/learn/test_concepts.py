"""The label system: what a thing is, may be, and is not."""

from pathlib import Path

import pytest

from roadworthy.errors import BadData
from roadworthy.learn.concepts import Disagreement, disagreements, load
from roadworthy.learn.sample import Sample
from roadworthy.learn.scenes import CLASSES, render

SETS = {
    "cifar10": "airplane automobile bird cat deer dog frog horse ship truck",
    "voc": "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor",
    "camvid": "sky building pole road pavement tree signsymbol fence car pedestrian bicyclist",
    "bccd": "RBC WBC Platelets",
}


@pytest.mark.parametrize("source", SETS)
def test_every_class_has_a_concept(source: str) -> None:
    assert load().unmapped(SETS[source].split(), source) == []


def test_every_class_of_the_renderer_has_one_and_strangers_are_reported() -> None:
    assert load().unmapped([*CLASSES, "flurble", "car", "flurble"]) == ["flurble"]
    assert load().find("flurble") is None


def test_the_real_sets_have_concepts(data: Path) -> None:
    import yaml

    names = yaml.safe_load((data / "coco_val128" / "classes.yaml").read_text())["names"]
    assert load().unmapped(names.values(), "coco") == []
    wnids = (data / "tiny_imagenet" / "wnids.txt").read_text().split()
    assert load().unmapped(wnids) == []


@pytest.mark.parametrize(
    ("label", "positive", "unknown", "negative"),
    [
        ("car", "vehicle", "taxi", "person"),
        ("bus", "vehicle", "trolleybus", "car"),
        ("vehicle", "vehicle", "car", "dog"),
        ("stop sign", "traffic sign", "flurble", "traffic light"),
        ("pedestrian", "person", "woman", "road"),
    ],
)
def test_positives_and_negatives(label: str, positive: str, unknown: str, negative: str) -> None:
    words = [positive, unknown, negative]
    assert load().positives(label, words) == [positive]
    assert load().negatives(label, words) == [negative]


def test_a_kind_is_never_a_negative_of_what_it_is() -> None:
    held = load()
    names = [*CLASSES, "vehicle", "dog", "woman"]
    for name in names:
        concept = held.find(name)
        assert concept
        assert not any(held.exclude(concept, above) for above in held.above(concept))
        assert not set(held.positives(name, names)) & set(held.negatives(name, names))
        for other in names:  # it is mutual
            assert (other in held.negatives(name, names)) == (name in held.negatives(other, names))


def test_synonyms_are_one_concept_and_sources_may_mean_another() -> None:
    held = load()
    assert held.find("automobile") == held.find("car") == held.find("cars")
    assert held.find("couch") == held.find("sofa")
    mouse, device = held.find("mouse"), held.find("mouse", "coco")
    assert mouse
    assert device
    assert held.find("animal") in held.above(mouse)
    assert held.find("animal") not in held.above(device)


def extras(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["name\tconcept\tparents", *rows]) + "\n")
    return path


def test_a_user_s_map(tmp_path: Path) -> None:
    held = load(extras(tmp_path / "own.tsv", "robotaxi\trobotaxi\t02958343"))
    assert held.positives("robotaxi", ["vehicle", "dog"]) == ["vehicle"]
    assert load().find("robotaxi") is None


@pytest.mark.parametrize(
    ("rows", "blamed"),
    [
        (["a\ta\tb", "b\tb\tc", "c\tc\ta"], "makes a cycle: .*a"),
        (["vehicle\t04524313\t02958343"], "makes a cycle: .*02958343"),
        (["a\ta\tnowhere"], "parents nowhere, which are no concepts"),
        (["a\ta\t"], "line 2: concept 'a' is new and has no parents"),
        (["a\ta"], "line 2: .* needed"),
        (["\ta\tb"], "line 2: .* needed"),
    ],
)
def test_maps_that_make_no_sense(tmp_path: Path, rows: list[str], blamed: str) -> None:
    with pytest.raises(BadData, match=blamed):
        load(extras(tmp_path / "own.tsv", *rows))


def test_files_that_are_no_maps(tmp_path: Path) -> None:
    (tmp_path / "own.tsv").write_text("a,b\n")
    with pytest.raises(BadData, match="name<TAB>concept<TAB>parents"):
        load(tmp_path / "own.tsv")
    with pytest.raises(BadData, match="cannot be read"):
        load(tmp_path / "none.tsv")


def test_sources_that_disagree_are_reported() -> None:
    def says(source: str, *labels: str) -> Sample:
        return Sample(image, "a", source, labels=labels)

    image, other = render(0, 16).image, render(1, 16).image
    agreed = [says("a", "car"), says("b", "vehicle"), says("c", "flurble"), says("d", "car", "dog")]
    assert disagreements([*agreed, Sample(other, "b", "e", labels=("dog",))], load()) == []
    (found,) = disagreements([*agreed[:1], says("f", "dog")], load())
    assert found == Disagreement(agreed[0].sha256, "a: car", "f: dog")
