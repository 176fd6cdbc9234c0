"""`roadworthy learn`: from what was typed to a stage's folder and its run.json."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

import torch

from roadworthy.core.predict import resolve_device
from roadworthy.core.runs import RunRecord, output_room
from roadworthy.errors import BadInput
from roadworthy.learn.amateur import DeCLIP, SigLIP, learn_amateur
from roadworthy.learn.backbones import backbone
from roadworthy.learn.batches import Source, Task
from roadworthy.learn.distill import distill
from roadworthy.learn.expert import Job, learn_expert
from roadworthy.learn.generalist import learn_generalist
from roadworthy.learn.holding import hold
from roadworthy.learn.probe import linear_probe, part_of
from roadworthy.learn.readers import Origin
from roadworthy.learn.sample import Sample
from roadworthy.learn.shards import write_shards
from roadworthy.learn.sources import (
    captioned,
    classes_with,
    count,
    number_range,
    numbered,
    samples,
    source,
)
from roadworthy.learn_requests import (
    CatalogAddRequest,
    CatalogAskRequest,
    CatalogRequest,
    LearnRequest,
    PackRequest,
    ProbeRequest,
    Sources,
)


def learn(request: LearnRequest) -> RunRecord:
    """Run one stage; its folder holds run.json beside what the stage writes.

    Raises:
        BadInput: as the stage says.
    """
    with output_room(request.out, f"learn {request.stage}"):
        manifest = _stage(request)
    record = RunRecord(
        command=f"learn {request.stage}",
        config=asdict(request),
        seed=request.plan.seed,
        data=keyed(manifest["data"]),
        numbers={name: manifest[name] for name in ("stage", "parents", "compute", "held_out")}
        | {"total_compute": {k: v for k, v in manifest["total"].items() if k != "ancestors"}},
    )
    if os.environ.get("RANK", "0") == "0":
        record.save(request.out / "run.json")
    return record


def keyed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Each row by its name and task; what comes again gets a number.

    >>> [*keyed([{"name": "scenes", "task": "depth"}, {"name": "scenes", "task": "depth"}])]
    ['scenes depth', 'scenes depth 2']
    """
    keys = [f"{row['name']} {row['task']}" for row in rows]
    times = [keys[:place].count(key) + 1 for place, key in enumerate(keys)]
    unique = [key if n == 1 else f"{key} {n}" for key, n in zip(keys, times, strict=True)]
    return dict(zip(unique, rows, strict=True))


def _stage(request: LearnRequest) -> dict[str, Any]:
    given = request.sources
    job = Job(request.out, request.plan, request.machine, resume=request.resume)
    if request.stage == "amateur":
        judged = [captioned(spec, given.size) for _, spec in given.held]
        learned = [captioned(spec, given.size) for _, spec in given.learned]
        method = DeCLIP() if request.contrast == "declip" else SigLIP()
        return learn_amateur(request.model, learned, job, method, judged)
    sources, judged, choosing = held(given)
    job = replace(job, held_out=judged)
    match request.stage:
        case "expert":
            return learn_expert(request.model, sources, job)
        case "generalist":
            main = Path(request.model)
            return learn_generalist(main, request.auxiliaries, sources, job, choosing)
        case "distill":
            return distill(request.model, request.student, sources, job, request.hints)


def held(given: Sources) -> tuple[list[Source], list[Source], list[Source]]:
    """What is learned from, what judges it and what chooses, by the same classes.

    They are those of the spec that is learned from, in the order of its ids, and then what else
    occurs in any.

    Raises:
        BadInput: images that no source's head, or more than one, could be judged by.
    """
    learned: list[tuple[Task, list[Sample]]] = [
        (cast(Task, task), list(samples(spec, given.size))) for task, spec in given.learned
    ]
    judging, choosing = (
        _beside(option, pairs, learned, given.size)
        for option, pairs in (("--held", given.held), ("--choose", given.choosing))
    )
    sources: list[Source] = []
    others: tuple[list[Source], list[Source]] = ([], [])
    specs = [spec for _, spec in given.learned]
    for spec, (task, shown), *sets in zip(specs, learned, judging, choosing, strict=True):
        classes = classes_with(spec, [*shown, *chain(*chain(*sets))], task)
        sources.append(hold(shown, task, given.size, classes))
        for into, found in zip(others, sets, strict=True):
            into += [hold(each, task, given.size, classes) for each in found]
    return sources, *others


def _beside(
    option: str,
    pairs: Sequence[tuple[str, str]],
    learned: Sequence[tuple[Task, Sequence[Sample]]],
    size: int,
) -> list[list[list[Sample]]]:
    """For each source the sets of an option that its head is judged by."""
    beside: list[list[list[Sample]]] = [[] for _ in learned]
    for task, spec in pairs:
        found = list(samples(spec, size))
        beside[_judged_by(task, found, learned, f"{option} {task}={spec}")].append(found)
    return beside


def _judged_by(
    task: str, found: Sequence[Sample], learned: Sequence[tuple[Task, Sequence[Sample]]], given: str
) -> int:
    """Which source held-out samples judge: that of their name, or the only one of their task."""
    of_task = [number for number, (other, _) in enumerate(learned) if other == task]
    names = {each.source for each in found}
    alike = [number for number in of_task if {each.source for each in learned[number][1]} == names]
    fits = alike or of_task
    if len(fits) != 1:
        raise BadInput(
            f"{given} given and {len(fits) or 'no'} sources of {task} that it could "
            "judge; give one --source of that task, or judge them one by one"
        )
    return fits[0]


def probe(request: ProbeRequest) -> RunRecord:
    """Judge frozen features of each model by a linear head.

    Raises:
        BadInput, BadData: as `linear_probe`, `source` and `part_of` say.
    """
    with nullcontext() if request.out is None else output_room(request.out, "learn probe"):
        record = _probe(request)
    if request.out is not None:
        record.save(request.out / "run.json")
    return record


def _probe(request: ProbeRequest) -> RunRecord:
    (task, spec), (tested, shown) = request.data, request.test
    learned = source(spec, cast(Task, task), request.size)
    judged = source(shown, cast(Task, tested), request.size, learned.classes)
    part = part_of(learned, request.fraction, request.seed)
    device = resolve_device(request.device)
    found: list[dict[str, Any]] = []
    for model in request.models:
        torch.manual_seed(request.seed)  # of weights that are drawn
        probed = linear_probe(backbone(model), part, judged, request.seed, device=device)
        found.append({"model": model, **probed.row()})
    return RunRecord(
        command="learn probe",
        config=asdict(request),
        seed=request.seed,
        data={
            "train": {"spec": spec, "n": len(part), "sha256": part.sha256},
            "test": {"spec": shown, "n": len(judged), "sha256": judged.sha256},
        },
        numbers={"probes": found},
    )


def catalog(request: CatalogRequest) -> dict[str, Any]:
    """Add to a catalog, or ask it.

    Raises:
        BadInput, BadData: as `learn.inventory` says.
    """
    from roadworthy.learn.inventory import catalog_add, catalog_show, catalog_sql

    folder = str(request.dir)
    match request:
        case CatalogAddRequest():
            origin = Origin(request.source, request.licence, request.split)
            return catalog_add(folder, request.spec, origin, request.size)
        case CatalogAskRequest(query=str() as query):
            return catalog_sql(folder, query)
        case _:
            return catalog_show(folder)


def pack(request: PackRequest) -> dict[str, Any]:
    """Write the samples of a spec as shards.

    Raises:
        BadInput: numbers that are no range, or beyond the samples.
    """
    from roadworthy.core.progress import track

    found = _numbered(request) if request.numbers else samples(request.spec, request.size)
    told = (
        replace(each, **request.told)
        for each in track(found, "packing")
        if each.annotated or not request.labelled
    )
    write_shards(told, str(request.out), request.per_shard)
    return {"out": str(request.out), "spec": f"shards:{request.out}"}


def _numbered(request: PackRequest) -> Iterable[Sample]:
    numbers, there = number_range(request.numbers), count(request.spec)
    if numbers.stop > there:
        raise BadInput(f"numbers {request.numbers} given; {request.spec} has 0 to {there}")
    return numbered(request.spec, request.size, numbers)
