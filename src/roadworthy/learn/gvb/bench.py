"""The benchmark itself: a backbone adapted to a share of a data set, and judged on its test part.

A row is one data set, one backbone and one seed, which draws the share and everything random.
"""

import hashlib
import shutil
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from roadworthy.core.predict import resolve_device
from roadworthy.core.runs import versions
from roadworthy.learn.adapt.fit import adapt
from roadworthy.learn.adapt.labelled import without
from roadworthy.learn.adapt.protocols import (
    Frozen,
    Linear,
    Neighbours,
    Protocol,
    protocol_of,
)
from roadworthy.learn.backbones import backbone
from roadworthy.learn.batches import Task
from roadworthy.learn.features import network_hash
from roadworthy.learn.gvb.entries import entry
from roadworthy.learn.gvb.entry import Entry
from roadworthy.learn.gvb.own import own
from roadworthy.learn.gvb.part import Part, few
from roadworthy.learn.gvb.shown import Shown, answers, repeated, show
from roadworthy.learn.gvb.subsets import draw, listed, take
from roadworthy.learn.gvb.terms import Terms
from roadworthy.learn.holding import hold
from roadworthy.learn.manifest import HEADS, is_stage, read_manifest

Row = dict[str, Any]


@dataclass(frozen=True)
class Named:
    """One of the 26 data sets, by its name, below `root`."""

    name: str
    root: str


@dataclass(frozen=True)
class Pair:
    """A user's own data: a spec to learn from and one to be judged by."""

    task: Task
    train: str
    test: str


DataSet = Named | Pair


@dataclass(frozen=True)
class Unit:
    """What makes one row."""

    dataset: DataSet
    model: str
    seed: int


@dataclass(frozen=True, eq=False)
class Opened:
    """A data set whose files have been listed."""

    entry: Entry
    train: Part
    test: Part


@lru_cache(maxsize=64)
def opened(dataset: DataSet, size: int) -> Opened:
    """Its parts; no image is read but where classes are to be found.

    Raises:
        BadInput: no data set of that name.
        BadData: files that are missing, or in another layout.
    """
    match dataset:
        case Named(name, root):
            known = entry(name)
            return Opened(known, known.open(Path(root), "train"), known.open(Path(root), "test"))
        case Pair(task, train, test):
            mine = own(task, train, test, size)
            return Opened(mine, mine.open(Path(), "train"), mine.open(Path(), "test"))


@lru_cache(maxsize=1)
def _shown(dataset: DataSet, size: int) -> Shown:
    """The test images of the data set that was asked for last."""
    return show(opened(dataset, size).test, size)


def forget() -> None:
    """Open files anew: they may have changed since another call of the same process."""
    opened.cache_clear()
    _shown.cache_clear()


def suited(terms: Terms, task: Task) -> Protocol:
    """The protocol for a task: neighbours vote on classes only, and boxes have no linear head.

    >>> suited(Terms(protocol="knn"), "depth")
    Linear()
    >>> type(suited(Terms(), "detection")).__name__
    'Frozen'
    """
    found = protocol_of(terms.protocol, terms.descent)
    if terms.protocol == "knn" and task != "classification":
        found = protocol_of("linear", terms.descent)
    if terms.protocol in ("knn", "linear") and task == "detection":
        found = Frozen(terms.descent)
    return found


def begun_of(model: str, seed: int) -> str:
    """Hash of what a row of that seed begins with: a network, and a stage's heads."""
    torch.manual_seed(seed)  # of weights that are drawn
    heads = read_manifest(Path(model))["files"].get(HEADS, "") if is_stage(model) else ""
    return network_hash(backbone(model)) + heads


def key_of(unit: Unit, terms: Terms, begun: str) -> str:
    """What a row depends on: what it begins with, lists of files, the share of them, the protocol,
    seed and release.

    What is in the files counts where it is known without reading them all, as of shards.
    """
    here = opened(unit.dataset, terms.size)
    how = suited(terms, here.entry.task)
    files = [(listed(part), part.sha256) for part in (here.train, here.test)]
    said = (begun, *files, terms.fraction, terms.size, how, versions().get("roadworthy"))
    return hashlib.sha256(repr((unit, *said)).encode()).hexdigest()


def measured(unit: Unit, terms: Terms, work: Path) -> Row:
    """The row of a unit.

    Args:
        work: folder for what an interrupted adaptation goes on from; gone at the end.

    Raises:
        BadInput: a fraction that leaves a class without an image.
        BadData, BadModel, RoadworthyError: as `opened` and `adapt` say.
    """
    here = opened(unit.dataset, terms.size)
    task, classes = here.entry.task, here.train.classes
    drawn = draw(here.train, terms.fraction, unit.seed)
    shown = _shown(unit.dataset, terms.size)
    labelled = hold(take(here.train, drawn), task, terms.size, classes)
    how = suited(terms, task)
    cache = Path(terms.cache) if terms.cache else None
    adapted = adapt(unit.model, labelled, how, work, unit.seed, terms.machine, cache)
    kept = cache if isinstance(how, Neighbours | Linear | Frozen) else None
    said = answers(adapted, task, len(classes), shown, resolve_device(terms.machine.device), kept)
    scored = here.entry.metric(said, here.test)
    again = repeated(here.test, shown, labelled.content.images)
    names = few([each.partition(" ")[0] for each in again])
    odd = [f"test images also among those that seed {unit.seed} learns from: {names}"]
    unseen = without(classes, labelled)
    alone = task == "classification" and len(classes) == 1
    lost = [f"no image that seed {unit.seed} learns from shows {few(unseen)}"]
    shutil.rmtree(work, ignore_errors=True)
    return {
        **about(unit, here),
        "value": scored.value,
        "also": scored.also,
        "told": [
            *here.train.told,
            *here.test.told,
            *(odd if again else []),
            *(lost if unseen else []),
            *(["one class only: any answer is right"] if alone else []),
            *scored.told,
        ],
        "trained_on": len(labelled),
        "tested_on": len(here.test),
        "subset": drawn.sha256,
        "protocol": type(how).__name__,
        "chosen": adapted.chosen,
        "lent": adapted.lent,
        "compute": asdict(adapted.compute),
    }


def about(unit: Unit, here: Opened) -> Row:
    """What of a row is known before."""
    return {
        "dataset": here.entry.name,
        "title": here.entry.title,
        "task": here.entry.task,
        "metric": here.entry.metric.name,
        "higher": here.entry.metric.higher,
        "backbone": unit.model,
        "seed": unit.seed,
    }
