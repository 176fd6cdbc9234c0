"""The road test of a model: what `roadworthy noise`, its attribute and its identify do."""

import json
import shutil
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import yaml
from torch import nn

from roadworthy.core.batches import batches, join
from roadworthy.core.boxes import class_count, head_of
from roadworthy.core.data import Dataset, check_labels, load_data
from roadworthy.core.dense import depth_of, segmentation_of
from roadworthy.core.detection import detection_of
from roadworthy.core.images import Size
from roadworthy.core.inputs import Stages, stages_from
from roadworthy.core.instances import instances_of
from roadworthy.core.models import check_says
from roadworthy.core.predict import resolve_device
from roadworthy.core.runs import RunRecord, output_room, plain, write_atomically
from roadworthy.core.tasks import Classification, Task
from roadworthy.core.text_data import BETWEEN
from roadworthy.core.texts import TextInput
from roadworthy.deployments import Deployments
from roadworthy.errors import BadData, BadInput, BadModel, BadPreprocess, brief
from roadworthy.noise import study
from roadworthy.noise.advice import advice
from roadworthy.noise.fingerprint import fingerprint
from roadworthy.noise.identify import EXACT, identify
from roadworthy.noise.options import Option, options
from roadworthy.noise.pictures import pictures
from roadworthy.noise.sweep import Bench, Findings, Spread
from roadworthy.noise.systems import System
from roadworthy.opening import answered_by
from roadworthy.requests import (
    AttributeRequest,
    IdentifyRequest,
    NoiseRequest,
    RoadChoice,
    parse_stages,
)

CALIBRATION = 256
"""Images that integer precisions are calibrated on, without their labels."""
SHOWN = 24
"""Changed answers that a record keeps for the report."""
_REST = ("model", "runtime", "post")


def check(model: str | nn.Module, data: str, out: str | Path, **choices: Any) -> RunRecord:
    """Road-test `model` on `data`; the record, which also lies in `out` with a report.

    Args:
        model: a module in eval mode, a model spec, ``onnx:FILE`` or a folder of `quantize`.
        data: data spec; without labels, agreement with the training system is measured.
        out: folder for noise.json, run.json and report.html.
        choices: fields of `NoiseRequest` and `RoadChoice`, e.g. ``stages=("decode", "resize")``.
    """
    own = {k: choices.pop(k) for k in ("stages", "combine", "tolerance") if k in choices}
    if "stages" in own:
        own["stages"] = parse_stages(own["stages"])
    return noise_to_dir(NoiseRequest(model, RoadChoice(data, **choices), Path(out), **own))


def noise_to_dir(request: NoiseRequest) -> RunRecord:
    """Sweep every option of the stages, stack the worst, write noise.json, run.json, report.html.

    Raises:
        BadInput: the model, the data or an option is not usable; the message says why.
    """
    with output_room(request.out, "noise") as out, _workers(request.model, request.road) as spread:
        return _noise_to_dir(request, out, spread)


def _noise_to_dir(request: NoiseRequest, out: Path, spread: Spread | None) -> RunRecord:
    from roadworthy.report import write_report

    start = time.perf_counter()
    fleet, bench = open_road(request.model, request.road, out / ".unfinished", spread)
    base = System(fleet.preprocess)
    offered = _offered(fleet, base, request, bench.task.posts)
    rows = study.classes(bench, base, offered, request.tolerance)
    chosen = study.heads(rows, offered)
    seed = request.road.seed
    alone = study.measure(bench, base, [o.system for o in chosen], seed, "one change at a time")
    rows = study.filled(rows, offered, alone)
    rungs = study.stacked(alone, study.worst_of_each(rows, chosen), seed)
    images = len(alone.findings.indices)
    table = [row_of(row) for row in rows]
    numbers: dict[str, Any] = {
        "metric": bench.task.metric,
        "value": alone.value(base),
        "n": images,
        "things": bench.dataset.things,
        "judged_by": _judge(bench),
        "advice": advice(rows, rungs, _measure(bench), images, bench.dataset.things),
        "rows": table,
        "ladder": [asdict(rung) for rung in rungs],
        "flips": _flips(bench.dataset, alone.findings, base, chosen),
        "skipped": list(alone.findings.bad.values()),
        "fingerprint": {**fingerprint(), "runtimes": fleet.settings},
    }
    if request.combine == "exhaustive":
        numbers["combinations"] = study.exhaustive(bench, base, chosen, seed)
    numbers["seconds"] = time.perf_counter() - start
    record = _record("noise", plain(request), request.road.seed, bench, fleet, numbers)
    with write_atomically(out / "noise.json") as temporary:
        temporary.write_text(json.dumps(table, indent=1))
    with write_atomically(out / "pictures.json") as temporary:
        shown = pictures(bench.dataset, base, chosen, numbers["flips"])
        temporary.write_text(json.dumps(shown))
    record.save(out / "run.json")
    write_report([out], out / "report.html")
    shutil.rmtree(out / ".unfinished", ignore_errors=True)
    return record


def attribute_run(request: AttributeRequest) -> RunRecord:
    """Shapley shares of the stages in which two systems differ; run.json where `out` is given.

    Raises:
        BadInput: the systems are the same, or something cannot be used; the message says why.
    """
    room = output_room(request.out, "noise attribute") if request.out else nullcontext()
    with room as out, _workers(request.model, request.road) as spread:
        return _attribute_run(request, out / ".unfinished" if out else None, spread)


def _attribute_run(
    request: AttributeRequest, folder: Path | None, spread: Spread | None
) -> RunRecord:
    start = time.perf_counter()
    fleet, bench = open_road(request.model, request.road, folder, spread)
    own = fleet.preprocess
    train = system_from(request.train, own) if request.train else System(own)
    deploy = system_from(request.deploy, own)
    for system in (train, deploy):
        fleet.check(system, bench.task.posts)
        _check_size(system)
    found = study.attribute(bench, train, deploy, request.road.seed)
    best = max(found.bought_back, key=lambda stage: found.bought_back[stage].value)
    numbers = {
        "metric": bench.task.metric,
        "things": bench.dataset.things,
        "judged_by": _judge(bench),
        "n": found.images,
        "skipped": list(found.bad),
        "total": asdict(found.total),
        "shares": {stage: share.value for stage, share in found.shares.items()},
        "intervals": {stage: [s.low, s.high] for stage, s in found.shares.items()},
        "bought_back": {stage: asdict(gain) for stage, gain in found.bought_back.items()},
        "best_change": best,
        "train": train.to_dict(),
        "deploy": deploy.to_dict(),
        "fingerprint": {**fingerprint(), "runtimes": fleet.settings},
        "seconds": time.perf_counter() - start,
    }
    record = _record("noise attribute", plain(request), request.road.seed, bench, fleet, numbers)
    if request.out is not None:
        record.save(request.out / "run.json")
    return record


def identify_run(request: IdentifyRequest) -> dict[str, Any]:
    """The pipelines that come closest to a dumped tensor; ``found`` says whether one made it.

    Raises:
        BadInput: the image or the tensor cannot be read.
    """
    try:
        content = request.image.read_bytes()
    except OSError as error:
        raise BadData(f"--image {request.image} cannot be read: {error.strerror}") from error
    try:
        with request.tensor.open("rb") as file:
            tensor = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(
            f"--tensor {request.tensor} cannot be read: {reason}; give the .npy file of one array, "
            "as numpy.save writes it"
        ) from error
    matches = identify(content, str(request.image), tensor)
    found = bool(matches) and matches[0].residual <= EXACT
    return {"found": found, "matches": [match.to_dict() for match in matches]}


def system_from(path: Path, own: Stages) -> System:
    """A system out of a YAML or JSON file: preprocess stages, and model, runtime, post.

    Of texts it names what is not as in the model's `own` stages.

    Raises:
        BadPreprocess: the file cannot be read, or names what is not known.
    """
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = brief(error)
        raise BadPreprocess(f"system file {path} cannot be read: {reason}") from error
    if not isinstance(values, dict):
        raise BadPreprocess(f"system file {path} holds no stages, e.g. resize: opencv-linear")
    named = {str(name): value for name, value in values.items()}
    rest = {name: str(named.pop(name)) for name in _REST if name in named}
    try:
        return System(stages_from(named, own), **rest)
    except BadPreprocess as error:
        raise BadPreprocess(f"system file {path}: {error}") from error


def row_of(row: study.Row) -> dict[str, Any]:
    """A row as noise.json holds it; differences in points, positive where accuracy is lost."""
    loss = row.loss
    return {
        "stage": row.stage,
        "option": row.option,
        "class": row.member_of,
        "delta": loss.value if loss else None,
        "ci_low": loss.low if loss else None,
        "ci_high": loss.high if loss else None,
        "p": row.p,
        "flip_rate": row.flip_rate,
        "measurable": loss.measurable if loss else None,
        "distance": None if row.distance in (None, float("inf")) else row.distance,
        "missing": row.missing,
    }


@contextmanager
def _workers(model: Any, road: RoadChoice) -> Generator[Spread | None]:
    """Who judges parts of the data, each with a model and images of its own; None: this process."""
    match road.workers:
        case "none":
            yield None
        case "ray":
            from roadworthy.cluster import ray_workers

            device = resolve_device(road.device).type
            opened = partial(open_bench, model, replace(road, device=device))
            with ray_workers(opened, device == "cuda") as spread:
                yield spread
        case _:
            assert_never(road.workers)


def open_bench(model: Any, road: RoadChoice) -> Bench:
    """The bench of a worker, which keeps nothing."""
    return open_road(model, road, None)[1]


def open_road(
    model: Any, road: RoadChoice, folder: Path | None, spread: Spread | None = None
) -> tuple[Deployments, Bench]:
    """The model in all its forms, and the images it is tested on.

    `folder` keeps finished parts, `spread` judges them elsewhere.
    """
    if isinstance(model, str) and (words := answered_by(model)) is not None:
        check_says(words, model)
    dataset = load_data(road.data)
    if road.limit is not None:
        dataset = dataset.subset(min(road.limit, len(dataset)), road.seed)
    raw = dataset.task not in ("classification", "text")
    fleet = Deployments(model, road.preprocess, road.device, raw)
    few = dataset.subset(min(CALIBRATION, len(dataset)), road.seed)
    images, _ = join(batches(few, fleet.preprocess, 64, road.skip_bad, "reading a first few"))
    fleet.show(images)
    outputs = fleet(System(fleet.preprocess))(images[:1])
    if any(map(dataset.known, range(len(dataset)))):
        dataset = dataset.labelled()
    task = task_of(dataset, outputs, (images.shape[-2], images.shape[-1]))
    kept = folder / f"{fleet.sha256[:12]}-{dataset.sha256[:12]}" if folder else None
    return fleet, Bench(dataset, task, fleet, kept, road.batch_size, road.skip_bad, spread)


def task_of(dataset: Dataset, outputs: Any, seen: Size) -> Task:
    """The task that `dataset` sets to a model with such `outputs` for inputs of the size `seen`.

    Raises:
        BadInput: labels that cannot be the model's, or outputs that are no answer to the task.
    """
    match dataset.task:
        case "classification" | "text":
            if outputs.shape[1] == 1:
                raise BadModel(
                    f"the model answers one number to each of the {dataset.things}; the road test "
                    "judges classes: give a classifier, or take `evaluate`"
                )
            if dataset.known(0):
                check_labels(dataset, outputs.shape[1])
            return Classification()
        case "instances":
            return instances_of(dataset, outputs, seen)
        case "detection":
            head = head_of(outputs)
            return detection_of(dataset, head, class_count(head, outputs))
        case "segmentation":
            return segmentation_of(dataset, outputs, seen)
        case "depth":
            return depth_of(dataset, outputs, seen)
        case _:
            assert_never(dataset.task)


def _offered(
    fleet: Deployments, base: System, request: NoiseRequest, posts: Sequence[str]
) -> list[Option]:
    models = fleet.models() if "model" in request.stages else ()
    runtimes = fleet.runtimes() if "runtime" in request.stages else ()
    found = options(base, request.stages, models, runtimes, posts)
    return [_batchable(option, base) for option in found]


def _batchable(option: Option, base: System) -> Option:
    """An option whose tensors differ in size where the model's do not cannot be measured."""
    if isinstance(base.preprocess, TextInput):
        return option
    fixed, now = base.image.output_size, option.system.image.output_size
    if option.missing or fixed is None or now is not None:
        return option
    return replace(option, missing="makes inputs of different sizes; give the preprocessing a crop")


def _check_size(system: System) -> None:
    stages = system.preprocess
    if isinstance(stages, TextInput):
        return
    if stages.geometry is not None and stages.output_size is None:
        raise BadPreprocess(
            f"geometry {stages.geometry} without a crop makes inputs of different sizes; "
            "add crop: PIXELS, or take squash or letterbox"
        )


def _judge(bench: Bench) -> str:
    return "labels" if bench.dataset.known(0) else "agreement with the training system"


def _measure(bench: Bench) -> str:
    from roadworthy.report.facts import METRICS

    metric = bench.task.metric
    return METRICS.get(metric, metric) if bench.dataset.known(0) else "agreement"


def _flips(
    dataset: Dataset, found: Findings, base: System, chosen: list[Option]
) -> list[dict[str, Any]]:
    """Images that change their answer most often, with the first option that changes them."""
    changed = np.stack([found.flips[option.system] for option in chosen]) if chosen else None
    if changed is None:
        return []
    often = changed.sum(0)
    shown = [int(i) for i in np.argsort(-often, kind="stable")[:SHOWN] if often[i] > 0]
    first = {i: chosen[int(changed[:, i].argmax())] for i in shown}
    return [
        {
            "image": dataset.name(int(found.indices[i])),
            "index": int(found.indices[i]),
            "text": _text(dataset, int(found.indices[i])),
            "label": dataset.label(int(found.indices[i])),
            "before": found.brief[base][i].item(),
            "after": found.brief[first[i].system][i].item(),
            "stage": first[i].stage,
            "option": first[i].name,
            "changed": float(changed[:, i].max()),
            "options": int((changed[:, i] > 0).sum()),
        }
        for i in shown
    ]


def _text(dataset: Dataset, index: int) -> str | None:
    content = dataset.content(index) if dataset.task == "text" else None
    return content.decode().replace(BETWEEN, " | ") if isinstance(content, bytes) else None


def _record(
    command: str,
    config: dict[str, Any],
    seed: int,
    bench: Bench,
    fleet: Deployments,
    numbers: dict[str, Any],
) -> RunRecord:
    data = bench.dataset
    config = {**config, "preprocess": fleet.preprocess.to_dict(), "weights": fleet.sha256}
    identity = {"spec": data.spec, "sha256": data.sha256, "n": len(data)}
    return RunRecord(command, config, seed, {"road": identity}, numbers)
