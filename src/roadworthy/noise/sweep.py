"""Many systems over the same images in one pass, finished parts kept.

Images are read and prepared by threads while the model runs; a batch is held as 8-bit rasters, one
for each different sight, so memory does not grow with the data.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from roadworthy.core.data import Dataset
from roadworthy.core.images import Placement, Preprocess, Size, placement
from roadworthy.core.inputs import Stages
from roadworthy.core.memory import keep_freed_memory
from roadworthy.core.predict import Inputs, Predictor
from roadworthy.core.progress import track
from roadworthy.core.resizers import Raster
from roadworthy.core.runs import write_atomically
from roadworthy.core.tasks import Answer, Evidence, Task
from roadworthy.core.texts import TextInput, Tokens
from roadworthy.errors import BadData, BadModel
from roadworthy.noise.systems import System
from roadworthy.noise.tree import Sight, sight, views

SHARD = 128
"""Images that are finished and kept together."""
Judged = tuple[Evidence, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class View:
    """One image, or text, as all systems see it, and the image's own size."""

    made: dict[Sight, Raster | Tokens]
    size: Size | None


@dataclass(frozen=True)
class Findings:
    """What systems did with the images that all of them could read.

    Args:
        evidence: per system, what the metric needs of every image ``[n ...]``.
        flips: per system, how much of each answer is not the base's ``[n]``.
        brief: per system, the first number of every answer: the class ``[n]``.
        indices: which images of the dataset these are.
        bad: what was wrong with the others.
    """

    evidence: Mapping[System, Evidence]
    flips: Mapping[System, np.ndarray]
    brief: Mapping[System, np.ndarray]
    indices: np.ndarray
    bad: Mapping[int, str]


Spread = Callable[[System, Sequence[System], Sequence[range]], Iterable[tuple[range, Findings]]]
"""Judges parts of the data elsewhere, and hands each over as it is done."""


@dataclass(frozen=True)
class Bench:
    """What stays the same in a sweep.

    Args:
        dataset: the images.
        task: what answers are worth.
        predictor: the predictor of a system.
        kept: folder for finished shards, None to keep nothing.
        batch_size: images that are held and predicted together.
        skip_bad: leave unreadable images out, counted, instead of stopping.
        spread: who judges the parts that are not kept; None is this process.
    """

    dataset: Dataset
    task: Task
    predictor: Callable[[System], Predictor]
    kept: Path | None = None
    batch_size: int = 32
    skip_bad: bool = False
    spread: Spread | None = None


def sweep(bench: Bench, base: System, systems: Sequence[System], what: str) -> Findings:
    """Answers of `base` and of every system, image by image.

    Args:
        bench: data, task and predictors.
        base: the training system; truths of unlabelled images are its answers.
        systems: the others.
        what: name of the progress bar.

    Raises:
        BadData: an image that one of the systems cannot read, unless those are skipped.
        BadModel: answers that are not finite.
    """
    keep_freed_memory()
    everyone = tuple(dict.fromkeys((base, *systems)))
    n = len(bench.dataset)
    parts = [range(start, min(start + SHARD, n)) for start in range(0, n, SHARD)]
    done = dict(track(_done(bench, base, everyone, parts), what, len(parts)))
    shards = [done[part] for part in parts]
    bad = {index: why for shard in shards for index, why in shard.bad.items()}
    if not any(len(shard.indices) for shard in shards):
        raise BadData(f"none of the {n} {bench.dataset.things} of {bench.dataset.spec} is good")

    def joined(field: str) -> dict[System, np.ndarray]:
        return {s: np.concatenate([getattr(shard, field)[s] for shard in shards]) for s in everyone}

    return Findings(
        joined("evidence"),
        joined("flips"),
        joined("brief"),
        np.concatenate([shard.indices for shard in shards]),
        bad,
    )


def _done(
    bench: Bench, base: System, systems: Sequence[System], parts: Sequence[range]
) -> Iterator[tuple[range, Findings]]:
    """Findings of every part: those that were kept, then the others, which are kept now."""
    kept, name = bench.kept, _digest(systems)
    paths = {part: kept / f"{part.start:08d}-{name}.npz" for part in parts} if kept else {}
    wanted: list[range] = []
    for part in parts:
        known = _load(paths[part], systems) if part in paths else None
        if known is None or (known.bad and not bench.skip_bad):
            wanted.append(part)
        else:
            yield part, known
    here = ((part, judge(bench, base, systems, part)) for part in wanted)
    for part, found in bench.spread(base, systems, wanted) if bench.spread else here:
        if part in paths:
            _save(paths[part], found, systems)
        yield part, found


def judge(
    bench: Bench, base: System, systems: Sequence[System], indices: Sequence[int]
) -> Findings:
    """What `systems`, `base` the first of them, do with the images `indices`; nothing is kept."""
    wanted = [system.preprocess for system in systems]
    nothing = bench.task.evidence([], []), np.zeros(0), np.zeros(0)
    parts: dict[System, list[Judged]] = {system: [nothing] for system in systems}
    good: list[int] = []
    bad: dict[int, str] = {}
    for held in _batches(bench, wanted, indices, bad):
        good += [index for index, _ in held]
        for system, judged in _judged(bench, base, systems, held):
            parts[system].append(judged)
    evidence, flips, brief = (
        {system: np.concatenate([part[i] for part in own]) for system, own in parts.items()}
        for i in range(3)
    )
    return Findings(evidence, flips, brief, np.array(good, np.int64), bad)


def _judged(
    bench: Bench, base: System, systems: Sequence[System], held: Sequence[tuple[int, View]]
) -> Iterator[tuple[System, Judged]]:
    """Evidence, flips and brief of every system on one batch; `base` comes first."""
    task = bench.task
    own: Sequence[Answer] = ()
    truths: Sequence[Answer] = ()
    for system, said in _answers(bench, systems, [view for _, view in held]):
        if system == base:
            own = said
            labels = [bench.dataset.truth(index) for index, _ in held]
            truths = [
                task.truth(answer) if label is None else label
                for answer, label in zip(own, labels, strict=True)
            ]
        brief = np.array([task.brief(answer) for answer in said])
        yield system, (task.evidence(said, truths), np.asarray(task.flips(said, own)), brief)


def _answers(
    bench: Bench, systems: Sequence[System], seen: Sequence[View]
) -> Iterator[tuple[System, list[Answer]]]:
    """Answers of every system to one batch; systems that differ in `post` share their outputs."""
    outputs: dict[System, Any] = {}
    for system in systems:
        key = replace(system, post="")
        if key not in outputs:
            outputs[key] = _finite(bench.predictor(system), _batch(system.preprocess, seen))
        yield system, bench.task.answers(outputs[key], _places(system, seen), system.post)


def _batch(stages: Stages, seen: Sequence[View]) -> Inputs:
    made = [view.made[sight(stages)] for view in seen]
    match stages:
        case Preprocess():
            return torch.stack([stages.normalised(cast(Raster, each)) for each in made])
        case TextInput():
            return stages.batched(torch.from_numpy(np.stack(made)))


def _places(system: System, seen: Sequence[View]) -> list[Placement]:
    """Where each image lies in the model's input; a text lies nowhere."""
    return [placement(system.image, view.size) for view in seen if view.size is not None]


def _finite(predictor: Predictor, images: Inputs) -> Any:
    outputs: Any = predictor(images)
    if not all(bool(each.isfinite().all()) for each in _tensors(outputs)):
        raise BadModel(
            f"{predictor.name} answers NaN or infinite values; check the model and its precision"
        )
    if len(images) not in (answered := _answered(outputs)):
        raise BadModel(
            f"{predictor.name} answers for {', '.join(map(str, sorted(answered)))} of a batch of "
            f"{len(images)}; the first axis of its outputs must be the batch's"
        )
    return outputs


def _answered(outputs: Any) -> set[int]:
    """How many inputs the outputs may be for; several outputs may differ."""
    match outputs:
        case [dict(), *_]:
            return {len(outputs)}
        case _:
            return {len(each) if each.ndim else 0 for each in _tensors(outputs)}


def _tensors(outputs: Any) -> Iterator[Tensor]:
    """The tensors in what a model answers: one, several, by name, or by name for each image."""
    match outputs:
        case Tensor():
            yield outputs
        case dict():
            yield from _tensors(list(outputs.values()))
        case list():
            for each in outputs:
                yield from _tensors(each)
        case _:
            pass


def _batches(
    bench: Bench, wanted: Sequence[Stages], indices: Sequence[int], bad: dict[int, str]
) -> Iterator[list[tuple[int, View]]]:
    held: list[tuple[int, View]] = []
    for index, view in _prepared(bench, wanted, indices):
        if isinstance(view, BadData):
            if not bench.skip_bad:
                things = bench.dataset.things
                raise BadData(f"{view}; mend it, or leave such {things} out by --skip-bad")
            bad[index] = str(view)
            continue
        held.append((index, view))
        if len(held) == bench.batch_size:
            yield held
            held = []
    if held:
        yield held


def _prepared(
    bench: Bench, wanted: Sequence[Stages], indices: Sequence[int]
) -> Iterator[tuple[int, View | BadData]]:
    """Rasters of every image, prepared by threads at most a batch ahead."""
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[tuple[int, Future[View | BadData]]] = deque()
        try:
            for index in indices:
                ahead.append((index, pool.submit(_views, bench.dataset, index, wanted)))
                if len(ahead) > bench.batch_size:
                    first, future = ahead.popleft()
                    yield first, future.result()
            while ahead:
                first, future = ahead.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _views(dataset: Dataset, index: int, wanted: Sequence[Stages]) -> View | BadData:
    known: dict[Hashable, Any] = {}
    try:
        found = views(dataset.content(index), dataset.name(index), wanted, known)
        first = wanted[0]
        size = known[first.decode].shape[:2] if isinstance(first, Preprocess) else None
        return View(found, size)
    except BadData as error:
        return error


def _digest(systems: Sequence[System]) -> str:
    text = json.dumps([system.to_dict() for system in systems], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _save(path: Path, found: Findings, systems: Sequence[System]) -> None:
    arrays = {"indices": found.indices, "bad": np.array(json.dumps(found.bad))}
    for number, system in enumerate(systems):
        arrays[f"evidence-{number}"] = found.evidence[system]
        arrays[f"flips-{number}"] = found.flips[system]
        arrays[f"brief-{number}"] = found.brief[system]
    with write_atomically(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def _load(path: Path, systems: Sequence[System]) -> Findings | None:
    """What was kept, None where the file was damaged since."""
    try:
        with np.load(path, allow_pickle=False) as store:
            evidence, flips, brief = (
                {system: store[f"{field}-{number}"] for number, system in enumerate(systems)}
                for field in ("evidence", "flips", "brief")
            )
            bad = {int(index): why for index, why in json.loads(str(store["bad"])).items()}
            return Findings(evidence, flips, brief, store["indices"], bad)
    except Exception:  # damaged archives raise ValueError, BadZipFile, zlib.error ...
        return None
