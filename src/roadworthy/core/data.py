"""Data specs, seeded and hashed subsets.

========================================  ======================================================
``imagefolder:DIR``                       class sub-folders (sorted names are the classes), or a
                                          flat folder of unlabelled images
``imagefolder:DIR@labels.tsv``            flat folder, ``file<TAB>class id`` lines
``npz:FILE``                              jpeg/offset/label store
``npz:FILE?x=xte&y=yte``                  uint8 images ``[n h w c]`` and labels ``[n]``
``npz:FILE?names=LIST.txt``               the same with names of the classes, a line each
``builtin:NAME``                          photos inside installed packages
``yolo:DIR``                              images/, boxes in labels/, classes.yaml
``coco:IMAGES@annotations.json``          images and boxes; classes are ranks of category ids, or
                                          with ``?ids=file`` those ids
``voc:DIR?split=train``                   JPEGImages/, boxes in Annotations/, lists in
                                          ImageSets/Main/; names as of masks, else those that occur
``instances:DIR``                         images/, outlines in labels/ or instances/, classes.yaml
``instances:IMAGES@annotations.json``     the same out of COCO's annotation file; ``?ids=file`` as
                                          above
``text:FILE.tsv?text=A&label=B``          texts of column A, pairs of ``text=A,C``; class ids or
                                          names of column B
``masks:DIR``                             images/ and masks/ of class ids; other folders by
                                          ``?images=A&masks=B``, void by ``ignore=ID``; names of
                                          classes.yaml or ``names=LIST.txt``, a line each
``depth:DIR``                             images/ and depth/ in millimetres, else by ``?scale=``
========================================  ======================================================
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from roadworthy.core.boxes_data import name_lines, open_coco, open_yolo
from roadworthy.core.builtin import open_builtin
from roadworthy.core.dense_data import open_depth, open_masks
from roadworthy.core.mask_data import open_instances
from roadworthy.core.sources import (
    MAX_CLASS_ID,
    Pixels,
    Source,
    decode,
    open_folder,
    open_listed,
    open_npz,
)
from roadworthy.core.text_data import BETWEEN, Texts, Told, open_texts
from roadworthy.core.voc_data import open_voc
from roadworthy.errors import BadData

Task = Literal["classification", "detection", "instances", "text", "segmentation", "depth"]


@runtime_checkable
class Truths(Protocol):
    """A source that knows more than one class id of an image."""

    def known(self, index: int) -> bool:
        """Whether `truth` has an answer; reads no image."""
        ...

    def truth(self, index: int) -> NDArray[Any] | None:
        """What a right answer is, in the form that its task compares."""
        ...


@dataclass(frozen=True)
class Dataset:
    """Images in a fixed order, with or without class ids.

    Args:
        spec: what `load_data` was given.
        classes: their names; empty where nothing is labelled.
        source: the whole store.
        indices: which of its images these are.
        ranked: class ids are ranks of folder names, so they mean the model's only if all are there.
    """

    spec: str
    classes: tuple[str, ...]
    source: Source
    indices: tuple[int, ...]
    ranked: bool = False
    task: Task = "classification"

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def things(self) -> str:
        """What there are several of."""
        return "texts" if self.task == "text" else "images"

    def load(self, index: int) -> Image.Image:
        """Image `index`: 8-bit RGB, upright. Raises BadData, naming a file that cannot be read."""
        where = self.indices[index]
        return decode(self.source.read(where), self.source.name(where))

    def content(self, index: int) -> bytes | Pixels:
        """What is stored of image `index`: a file's bytes, or pixels that never were a file."""
        return self.source.read(self.indices[index])

    def truth(self, index: int) -> NDArray[Any] | None:
        """What a right answer to image `index` is, None where nobody knows."""
        if isinstance(self.source, Truths):
            return self.source.truth(self.indices[index])
        label = self.label(index)
        return None if label is None else np.array([label])

    def known(self, index: int) -> bool:
        """Whether somebody knows the right answer to image `index`; reads no image."""
        if isinstance(self.source, Truths):
            return self.source.known(self.indices[index])
        return self.told(index) is not None

    def label(self, index: int) -> int | None:
        """Class id of image `index`, None where it has none."""
        return self.source.label(self.indices[index])

    def told(self, index: int) -> Told:
        """Class id of image `index`, or the number or the text that a model is to answer to it."""
        return _told(self.source, self.indices[index])

    def name(self, index: int) -> str:
        """File of image `index`, to be blamed in messages."""
        return self.source.name(self.indices[index])

    def subset(self, n: int, seed: int, stratified: bool = True) -> "Dataset":
        """`n` images drawn at random; `stratified` takes as many of each class as there are.

        For one seed a smaller subset is the beginning of a larger one.
        """
        if not 1 <= n <= len(self):
            raise BadData(
                f"{n} {self.things} asked of {self.spec}, which has {len(self)}; 1 to that many"
            )
        order = np.random.default_rng(seed).permutation(len(self)).tolist()
        if stratified:
            order = _in_turns(order, [self.label(i) for i in range(len(self))])
        return replace(self, indices=tuple(self.indices[i] for i in order[:n]))

    def head(self, n: int) -> "Dataset":
        """The first `n` images, all where there are fewer."""
        return replace(self, indices=self.indices[:n])

    def labelled(self) -> "Dataset":
        """The images whose right answer is known; BadData where there are none."""
        kept = tuple(own for i, own in enumerate(self.indices) if self.known(i))
        if not kept:
            raise BadData(
                f"{self.spec} has no labels to judge by; give class sub-folders, "
                "imagefolder:DIR@labels.tsv or npz:FILE?x=IMAGES&y=LABELS, boxes by yolo:DIR "
                "with labels/, coco:IMAGES@annotations.json or voc:DIR, outlines by instances:DIR, "
                "masks by masks:DIR, depths by depth:DIR, labels of texts by &label=COLUMN"
            )
        return replace(self, indices=kept)

    @cached_property
    def sha256(self) -> str:
        """Hash over names, contents and labels, in order; the same wherever the images lie."""
        total = hashlib.sha256()
        for i in self.indices:
            total.update(f"{self.source.key(i)}\0{_told(self.source, i)}\0".encode())
            total.update(hashlib.sha256(_content(self.source, i)).digest())
        return total.hexdigest()


def load_data(spec: str, answered: bool = False) -> Dataset:
    """The images that a data spec names; nothing is decoded yet.

    Args:
        spec: see above.
        answered: texts are answered by texts, so labels are such answers and no classes.

    Raises:
        BadData: an unknown spec, or one whose files are missing, empty or inconsistent.
    """
    kind, _, rest = spec.partition(":")
    match kind:
        case "imagefolder" if rest:
            return _imagefolder(spec, rest)
        case "npz" if rest:
            path, _, query = rest.partition("?")
            keys = _query(spec, query)
            return _named(_identified(spec, open_npz(Path(path), keys)), keys.get("names"))
        case "builtin" if rest:
            return _identified(spec, open_builtin(rest))
        case "yolo" if rest:
            source, classes = open_yolo(Path(rest))
            return Dataset(spec, classes, source, tuple(range(len(source))), task="detection")
        case "coco" if rest:
            source, classes, ranked = open_coco(rest)
            return Dataset(spec, classes, source, tuple(range(len(source))), ranked, "detection")
        case "voc" if rest:
            source, classes, ranked = open_voc(rest)
            return Dataset(spec, classes, source, tuple(range(len(source))), ranked, "detection")
        case "instances" if rest:
            source, classes, ranked = open_instances(rest)
            return Dataset(spec, classes, source, tuple(range(len(source))), ranked, "instances")
        case "text" if rest:
            source, classes, ranked = open_texts(rest, answered)
            return Dataset(spec, classes, source, tuple(range(len(source))), ranked, "text")
        case "masks" if rest:
            source, classes = open_masks(rest)
            return Dataset(spec, classes, source, tuple(range(len(source))), task="segmentation")
        case "depth" if rest:
            source = open_depth(rest)
            return Dataset(spec, (), source, tuple(range(len(source))), task="depth")
        case _:
            what = f"data {spec!r} given"
    raise BadData(
        f"{what}; imagefolder:DIR, imagefolder:DIR@labels.tsv, npz:FILE, "
        "npz:FILE?x=IMAGES&y=LABELS, builtin:NAME, yolo:DIR, coco:IMAGES@annotations.json, "
        "voc:DIR?split=NAME, instances:DIR, masks:DIR, depth:DIR and "
        "text:FILE.tsv?text=COLUMN&label=COLUMN are allowed"
    )


def check_labels(dataset: Dataset, outputs: int) -> None:
    """Raise BadData unless the labels can be the `outputs` classes of a model, or the numbers of
    one that answers one.

    One class alone says nothing, and folder ranks are the model's class ids only if every class of
    the model has its folder.
    """
    if dataset.task == "text" and (outputs == 1 or isinstance(dataset.told(0), float)):
        return _check_numbers(dataset, outputs)
    labels = {dataset.label(i) for i in range(len(dataset))} - {None}
    if len(labels) < 2:
        raise BadData(
            f"{dataset.spec} has {dataset.things} of {len(labels)} class only; a metric needs two "
            "or more"
        )
    if dataset.ranked and dataset.task == "text" and len(dataset.classes) != outputs:
        raise BadData(
            f"{dataset.spec} has {len(dataset.classes)} class names and the model {outputs} "
            "outputs; name a column of the model's own class ids by label="
        )
    if dataset.ranked and len(dataset.classes) != outputs:
        raise BadData(
            f"{dataset.spec} has {len(dataset.classes)} class folders and the model {outputs} "
            "outputs; give the model's own class ids by imagefolder:DIR@labels.tsv"
        )
    highest = max(label for label in labels if label is not None)
    if highest >= outputs:
        raise BadData(
            f"{dataset.spec} has class id {highest} and the model {outputs} outputs; 0 to "
            f"{outputs - 1} are allowed"
        )


def check_pairs(dataset: Dataset) -> None:
    """Raise BadData unless texts are pairs of a question and a context."""
    if isinstance(dataset.source, Texts) and BETWEEN not in dataset.source.texts[0]:
        raise BadData(
            f"{dataset.spec} names one column of texts and the model finds answers in a context; "
            "name both, text=QUESTION,CONTEXT"
        )


def _check_numbers(dataset: Dataset, outputs: int) -> None:
    if outputs > 1:
        raise BadData(
            f"{dataset.spec} has numbers such as {dataset.told(0)} for labels and the model "
            f"{outputs} outputs; name a column of class ids, or of names, by label="
        )
    if dataset.ranked:
        raise BadData(
            f"{dataset.spec} has names for labels and the model answers one number; name a column "
            "of numbers by label="
        )
    if len({dataset.told(i) for i in range(len(dataset))}) < 2:
        raise BadData(f"{dataset.spec} has one number for all texts; two or more are needed")


def _told(source: Source, index: int) -> Told:
    """What is right; one that is not told tells the same as a class id that is not."""
    return source.told[index] if isinstance(source, Texts) else source.label(index)


def _imagefolder(spec: str, rest: str) -> Dataset:
    folder, _, listing = rest.rpartition("@")
    if listing.endswith((".tsv", ".txt")) and folder:
        return _identified(spec, open_listed(Path(folder), Path(listing)))
    if folder and Path(folder).is_dir() and not Path(rest).exists():
        raise BadData(
            f"label file {listing!r} given in {spec}; a .tsv or .txt file of file<TAB>class id "
            "lines is allowed"
        )
    source, classes = open_folder(Path(rest))
    return Dataset(spec, classes, source, tuple(range(len(source))), ranked=bool(classes))


def _identified(spec: str, source: Source) -> Dataset:
    if not len(source):
        raise BadData(f"{spec} holds no images")
    labels = [source.label(i) for i in range(len(source))]
    known = [label for label in labels if label is not None]
    wrong = [label for label in known if not 0 <= label <= MAX_CLASS_ID]
    if wrong:
        raise BadData(
            f"{spec} has class id {wrong[0]}; 0 to {MAX_CLASS_ID} are allowed, number the classes "
            "from 0"
        )
    classes = tuple(map(str, range(max(known) + 1))) if known else ()
    return Dataset(spec, classes, source, tuple(range(len(source))))


def _query(spec: str, query: str) -> dict[str, str]:
    keys = dict(parse_qsl(query))
    if set(keys) - {"x", "y", "names"} or (query and not keys) or ("y" in keys and "x" not in keys):
        raise BadData(
            f"data {spec!r} given; npz:FILE or npz:FILE?x=IMAGES&y=LABELS is allowed, either with "
            "names=LIST.txt"
        )
    return keys


def _named(data: Dataset, listing: str | None) -> Dataset:
    """With names for class ids: lines of a file, in the ids' order."""
    if listing is None:
        return data
    names = name_lines(Path(listing))
    if len(names) < len(data.classes):
        raise BadData(
            f"{listing} has {len(names)} names and {data.spec} class ids up to "
            f"{len(data.classes) - 1}; one line for each class is needed"
        )
    return replace(data, classes=names)


def _in_turns(order: Sequence[int], labels: Sequence[int | None]) -> list[int]:
    """Stable sort of `order` by how many of its class came before: one of each class in turn."""
    seen: dict[int | None, int] = {}
    turns: dict[int, int] = {}
    for i in order:
        turns[i] = seen.get(labels[i], 0)
        seen[labels[i]] = turns[i] + 1
    return sorted(order, key=turns.__getitem__)


def _content(source: Source, index: int) -> bytes:
    try:
        content = source.read(index)
    except BadData:
        return b"unreadable"
    return content if isinstance(content, bytes) else content.tobytes()
