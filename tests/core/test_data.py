import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from images_on_disk import class_folders, jpeg_store, picture, save

from roadworthy.core.batches import batches, load_tensor
from roadworthy.core.data import Dataset, check_labels, load_data
from roadworthy.core.images import IMAGENET, Preprocess
from roadworthy.core.sources import Arrays
from roadworthy.errors import BadData, BadPreprocess


def arrays(labels: list[int]) -> Dataset:
    x = np.arange(len(labels), dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, 2, 2, 3), np.uint8
    )
    source = Arrays(Path("made"), x, np.array(labels))
    return Dataset("made", ("0", "1", "2"), source, tuple(range(len(labels))))


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(0, 9), st.data())
def test_a_subset_has_no_image_twice_and_begins_the_larger_ones(labels, seed, data) -> None:
    whole = arrays(labels)
    n = data.draw(st.integers(1, len(labels)))
    part = whole.subset(n, seed)
    assert len(set(part.indices)) == n
    assert whole.subset(len(labels), seed).indices[:n] == part.indices


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(0, 9), st.data())
def test_a_stratified_subset_takes_from_each_class_alike(labels, seed, data) -> None:
    n = data.draw(st.integers(1, len(labels)))
    part = arrays(labels).subset(n, seed)
    taken = [sum(part.label(i) == c for i in range(n)) for c in set(labels)]
    left = [labels.count(c) - t for c, t in zip(set(labels), taken, strict=True)]
    ahead = max(taken)
    assert all(t >= ahead - 1 or rest == 0 for t, rest in zip(taken, left, strict=True))


def test_seeds_differ_and_repeat() -> None:
    whole = arrays([0, 1, 2] * 20)
    assert whole.subset(30, 1).indices == whole.subset(30, 1).indices
    assert whole.subset(30, 1).indices != whole.subset(30, 2).indices


@pytest.mark.parametrize("n", [0, -1, 4])
def test_a_subset_larger_than_the_set_is_refused(n: int) -> None:
    with pytest.raises(BadData, match="which has 3"):
        arrays([0, 1, 2]).subset(n, 0)


def test_the_hash_sees_pixels_labels_names_and_order(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "a")
    first = load_data(f"imagefolder:{root}")
    before = first.sha256
    assert load_data(f"imagefolder:{class_folders(tmp_path / 'elsewhere')}").sha256 == before
    assert first.subset(5, 0).sha256 != first.subset(5, 1).sha256
    save(root / "class0" / "0.png", picture(999))
    assert load_data(f"imagefolder:{root}").sha256 != before
    assert arrays([0, 1]).sha256 != arrays([1, 0]).sha256


def test_class_folders_in_sorted_order_are_the_classes(tmp_path: Path) -> None:
    found = load_data(f"imagefolder:{class_folders(tmp_path)}")
    assert found.classes == ("class0", "class1", "class2")
    assert [found.label(i) for i in range(len(found))] == [0] * 4 + [1] * 4 + [2] * 4
    assert found.name(5) == str(tmp_path / "class1" / "1.png")
    assert found.load(0).size == (32, 24)


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / ".hidden.png")
    (tmp_path / "notes.txt").write_text("not an image")
    found = load_data(f"imagefolder:{tmp_path}")
    assert len(found) == 1
    assert found.label(0) is None
    with pytest.raises(BadData, match="has no labels to judge by"):
        found.labelled()


def test_a_label_file_gives_class_ids(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    (tmp_path / "labels.tsv").write_text("b.png\t7\na.png\t0\n")
    found = load_data(f"imagefolder:{tmp_path}@labels.tsv")
    assert [found.label(i) for i in range(2)] == [7, 0]
    assert len(found.classes) == 8


def test_npz_arrays_and_stores(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(5), gray=x[..., 0], plane=x[..., :1])
    colour = load_data(f"npz:{tmp_path / 'a.npz'}?x=x&y=y")
    assert np.array_equal(np.asarray(colour.load(3)), x[3])
    assert colour.label(3) == 3
    for name in ("gray", "plane"):
        gray = load_data(f"npz:{tmp_path / 'a.npz'}?x={name}")
        assert np.array_equal(np.asarray(gray.load(2))[..., 1], x[2, ..., 0])
        assert gray.label(2) is None
    store = load_data(f"npz:{jpeg_store(tmp_path / 'b.npz')}")
    assert len(store) == 6
    assert store.load(5).size == (32, 24)
    assert store.label(5) == 1


def test_class_ids_of_an_archive_have_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 4, 4), np.uint8), y=np.array([2, 0, 2]))
    (tmp_path / "names.txt").write_text("cat\ndog\nowl\nelk\n")
    named = f"npz:{tmp_path}/a.npz?x=x&y=y&names={tmp_path}/names.txt"
    assert load_data(named).classes == ("cat", "dog", "owl", "elk")
    assert load_data(named).sha256 == load_data(named.partition("&names")[0]).sha256
    for names, message in (("cat\ndog\n", "2 names"), ("cat\ndog\ncat\n", "2 of them different")):
        (tmp_path / "names.txt").write_text(names)
        with pytest.raises(BadData, match=message):
            load_data(named)
    (tmp_path / "names.txt").unlink()
    with pytest.raises(BadData, match=r"names\.txt cannot be read"):
        load_data(named)


def test_builtin_photos_are_there_and_partly_labelled() -> None:
    photos = load_data("builtin:photos")
    assert len(photos) > 30
    assert len(photos.labelled()) == 20
    assert load_data("builtin:imagenet20").label(0) == 243
    x, y = load_tensor(photos.subset(3, 0), IMAGENET)
    assert x.shape == (3, 3, 224, 224)
    assert y.shape == (3,)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "imagefolder:DIR"),
        ("cats", "npz:FILE"),
        ("imagefolder:", "builtin:NAME, yolo:DIR"),
        ("coco:images@a.json", "a.json cannot be read"),
        ("coco:images", "coco:IMAGES@annotations.json"),
        ("yolo:x", "has no images in x/images"),
        ("masks:x", "has no images in x/images; name the folders"),
        ("text:x.tsv", "No such file"),
        ("imagefolder:/nowhere", "is not there"),
        ("imagefolder:/nowhere@labels.tsv", "is no folder"),
        ("npz:/nowhere.npz", "is not a file"),
        ("npz:/nowhere.npz?y=labels", "x=IMAGES"),
        ("builtin:cats", "builtin:photos"),
    ],
)
def test_a_wrong_spec_says_what_is_allowed(spec: str, message: str) -> None:
    with pytest.raises(BadData, match="(?s)" + message.replace("?", r"\?")):
        load_data(spec)


def test_folders_that_are_none(tmp_path: Path) -> None:
    file = save(tmp_path / "a.png")
    with pytest.raises(BadData, match="a file, not a folder"):
        load_data(f"imagefolder:{file}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadData, match="holds no images"):
        load_data(f"imagefolder:{tmp_path / 'empty'}")
    class_folders(tmp_path)
    with pytest.raises(BadData, match=r"1 images beside its class folders, e\.g\. a\.png"):
        load_data(f"imagefolder:{tmp_path}")


@pytest.mark.parametrize("line", ["a.png 3", "a.png\tcat", "a.png\t-1", "\t3"])
def test_a_bad_line_of_a_label_file_is_named(tmp_path: Path, line: str) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "labels.tsv").write_text(f"a.png\t1\n{line}\n")
    with pytest.raises(BadData, match="line 2"):
        load_data(f"imagefolder:{tmp_path}@labels.tsv")


def test_npz_files_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"")
    with pytest.raises(BadData, match=r"no readable \.npz"):
        load_data(f"npz:{path}")
    np.savez(path, x=np.zeros((3, 4, 4, 3), np.uint8), y=np.arange(2), f=np.zeros((3, 4, 4, 3)))
    with pytest.raises(BadData, match="no jpeg, offset, label; it holds x, y, f"):
        load_data(f"npz:{path}")
    with pytest.raises(BadData, match="labels are int64"):
        load_data(f"npz:{path}?x=x&y=y")
    with pytest.raises(BadData, match="images are float64"):
        load_data(f"npz:{path}?x=f")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BadData, match=r"no readable \.npz"):
        load_data(f"npz:{path}?x=x")
    np.savez(path, jpeg=np.zeros(9, np.uint8), offset=np.array([0, 99]), label=np.array([0]))
    with pytest.raises(BadData, match="do not go together"):
        load_data(f"npz:{path}")


def test_a_metric_needs_two_classes_and_the_models_ids(tmp_path: Path) -> None:
    one = load_data(f"imagefolder:{class_folders(tmp_path / 'one', classes=1)}")
    assert len(load_tensor(one, Preprocess())[0]) == 4
    with pytest.raises(BadData, match="images of 1 class only"):
        check_labels(one, 1)
    three = load_data(f"imagefolder:{class_folders(tmp_path / 'three')}")
    check_labels(three, 3)
    with pytest.raises(BadData, match="3 class folders and the model 1000 outputs"):
        check_labels(three, 1000)
    check_labels(arrays([0, 2]), 3)
    with pytest.raises(BadData, match="class id 2 and the model 2 outputs"):
        check_labels(arrays([0, 2]), 2)


@pytest.mark.parametrize("size", [1, 3, 5, 7, 100])
def test_batches_are_all_images_in_order(size: int) -> None:
    whole = arrays([0, 1, 2] * 11)
    found = list(batches(whole, Preprocess(), size))
    assert [len(y) for _, y in found[:-1]] == [size] * (len(found) - 1)
    assert torch.cat([x for x, _ in found])[:, 0, 0, 0].mul(255).tolist() == pytest.approx(
        list(range(33)), abs=1e-4
    )
    assert torch.cat([y for _, y in found]).tolist() == [0, 1, 2] * 11


def test_unlabelled_images_have_label_minus_one(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    _, labels = load_tensor(load_data(f"imagefolder:{tmp_path}"), Preprocess())
    assert labels.tolist() == [-1]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"no image at all", "no known image format"), (None, "cannot be read")],
)
def test_a_bad_image_stops_with_its_name_or_is_skipped(tmp_path: Path, content, message) -> None:
    root = class_folders(tmp_path)
    found = load_data(f"imagefolder:{root}")
    bad = root / "class1" / "2.png"
    bad.unlink() if content is None else bad.write_bytes(content)
    with pytest.raises(BadData, match=rf"(?s)class1/2\.png .*{message}.*--skip-bad"):
        load_tensor(found, Preprocess())
    kept = batches(found, Preprocess(), 5, skip_bad=True)
    assert sum(len(y) for _, y in kept) == 11
    assert kept.skipped == [str(bad)]
    assert len(found.sha256) == 64


def test_a_truncated_jpeg_is_corrupt(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", picture(size=(200, 200)), quality=95)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(BadData, match=r"a\.jpg is corrupt"):
        load_data(f"imagefolder:{tmp_path}").load(0)


def test_nothing_left_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(BadData, match="none of the 1 images"):
        load_tensor(load_data(f"imagefolder:{tmp_path}"), Preprocess(), skip_bad=True)


def test_images_of_two_sizes_are_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "b.png", picture(size=(9, 9)))
    with pytest.raises(BadPreprocess, match=r"(?s)a\.png.*b\.png differ in size"):
        load_tensor(load_data(f"imagefolder:{tmp_path}"), Preprocess())


def test_cifar_reads_as_published(data: Path) -> None:
    found = load_data(f"npz:{data}/cifar10/lossless.npz?x=xte&y=yte")
    assert len(found) == 1017
    assert found.load(0).size == (32, 32)
    assert len(load_data(f"imagefolder:{data}/imagenet_sample@labels.tsv")) == 300


@pytest.mark.parametrize("label", ["5000000000", "1000001", "9" * 5000, "²", "1e3"])
def test_class_ids_that_are_none_name_their_line(tmp_path: Path, label: str) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "labels.tsv").write_text(f"a.png\t{label}\n")
    with pytest.raises(BadData, match=r"labels\.tsv, line 1: "):
        load_data(f"imagefolder:{tmp_path}@labels.tsv")


@pytest.mark.parametrize("label", [2**40, 1_000_001, -1])
def test_huge_class_ids_of_an_archive_are_refused(tmp_path: Path, label: int) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 4, 4), np.uint8), y=np.array([0, label]))
    with pytest.raises(BadData, match=rf"a\.npz\?x=x&y=y has class id {label}; 0 to 1000000"):
        load_data(f"npz:{tmp_path / 'a.npz'}?x=x&y=y")


@pytest.mark.parametrize(
    "changed",
    [
        {"label": np.array([[0], [1]])},
        {"label": np.array(1)},
        {"offset": np.array([[0], [1], [2]])},
        {"offset": np.array(2)},
        {"offset": np.array([0, 2, 1], np.uint64)},
        {"jpeg": np.zeros((2, 2), np.uint8)},
        {"jpeg": np.array(1, np.uint8)},
    ],
)
def test_a_store_has_one_axis_everywhere(tmp_path: Path, changed) -> None:
    store = {"jpeg": np.zeros(2, np.uint8), "offset": np.arange(3), "label": np.arange(2)}
    np.savez(tmp_path / "a.npz", **store)
    assert len(load_data(f"npz:{tmp_path / 'a.npz'}")) == 2
    np.savez(tmp_path / "a.npz", **store | changed)
    with pytest.raises(BadData, match="do not go together"):
        load_data(f"npz:{tmp_path / 'a.npz'}")


@pytest.mark.parametrize("shape", [(40, 0, 0, 3), (40, 4, 0), ()])
def test_images_without_pixels_are_refused(tmp_path: Path, shape) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(shape, np.uint8), y=np.zeros(shape[:1], int))
    with pytest.raises(BadData, match="images are uint8"):
        load_data(f"npz:{tmp_path / 'a.npz'}?x=x&y=y")


@pytest.mark.parametrize(
    ("content", "message"),
    [("array", "it is a single array"), (b"some text", "it is no zip archive"), (b"", "empty")],
)
def test_a_file_that_is_no_archive_says_how_to_make_one(tmp_path: Path, content, message) -> None:
    path = tmp_path / "a.npz"
    if content == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        path.write_bytes(content)
    with pytest.raises(BadData, match=rf"{message}.*; make one by numpy\.savez\(FILE") as found:
        load_data(f"npz:{path}")
    assert "pickle" not in str(found.value)


def test_a_raw_member_of_an_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x", b"no array")
    with pytest.raises(BadData, match="images are"):
        load_data(f"npz:{tmp_path / 'a.npz'}?x=x")


def test_a_broken_link_stops_the_run_or_is_counted(tmp_path: Path) -> None:
    broken = class_folders(tmp_path) / "class0" / "zz.jpg"
    broken.symlink_to(tmp_path / "gone.jpg")
    found = load_data(f"imagefolder:{tmp_path}")
    with pytest.raises(BadData, match=r"class0/zz\.jpg cannot be read: No such file"):
        load_tensor(found, Preprocess())
    kept = batches(found, Preprocess(), 5, skip_bad=True)
    assert sum(len(y) for _, y in kept) == 12
    assert kept.skipped == [str(broken)]


def test_a_label_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    save(tmp_path / "ä.png")
    (tmp_path / "labels.tsv").write_text("ä.png\t1\n", encoding="utf-8-sig")
    assert load_data(f"imagefolder:{tmp_path}@labels.tsv").load(0).size == (32, 24)


def test_a_file_listed_twice_names_the_line(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "labels.tsv").write_text("a.png\t1\nb.png\t0\n\na.png\t1\n")
    with pytest.raises(BadData, match=r"labels\.tsv, line 4: a\.png is listed twice"):
        load_data(f"imagefolder:{tmp_path}@labels.tsv")


def test_a_label_file_of_another_kind_is_told_what_is_allowed(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "good.csv").write_text("a.png,1\n")
    with pytest.raises(BadData, match=r"'good\.csv' given .* \.tsv or \.txt file .* is allowed"):
        load_data(f"imagefolder:{tmp_path}@good.csv")


def test_a_folder_may_hold_an_at_sign(tmp_path: Path) -> None:
    class_folders(tmp_path / "me@work")
    (tmp_path / "me").mkdir()
    assert len(load_data(f"imagefolder:{tmp_path / 'me@work'}")) == 12
