"""The metric of any model, torch or runtime, on any labelled data."""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from roadworthy.core.batches import Batches, Labels, batches
from roadworthy.core.data import Dataset, check_labels, load_data
from roadworthy.core.inputs import Stages, preprocess_from, stages_from
from roadworthy.core.models import check_onnx, check_says, load_model
from roadworthy.core.predict import Predictor, TorchPredictor
from roadworthy.core.runs import RunRecord, output_folder
from roadworthy.core.scores import score
from roadworthy.core.specs import OnnxSpec, parse_model_spec
from roadworthy.errors import BadModel
from roadworthy.requests import EvaluateRequest, RoadChoice


@dataclass(frozen=True)
class Evaluation:
    """A metric with its 95 % interval, over `n` images, `skipped` unreadable, and others of the
    same answers."""

    metric: str
    value: float
    n: int
    ci_low: float
    ci_high: float
    skipped: int
    seconds: float
    model: str
    data: str
    data_sha256: str
    also: dict[str, float] = field(default_factory=dict[str, float])


def evaluate(request: EvaluateRequest) -> Evaluation:
    """Top-1 accuracy of the requested model, the correlation of one that answers a number, or the
    metric of the task that the data set.

    Raises:
        BadInput: the model, the data or the preprocessing is not usable; the message says why.
    """
    if request.out is not None:
        output_folder(request.out, "evaluate")
    dataset = load_data(request.data).labelled()
    if dataset.task not in ("classification", "text"):
        return _of_task(request)
    predictor, preprocess = open_predictor(request.model, request.preprocess, request.device)
    if request.limit is not None:
        dataset = dataset.subset(min(request.limit, len(dataset)), request.seed)
    start = time.perf_counter()
    parts = batches(dataset, preprocess, request.batch_size, request.skip_bad, "evaluating")
    logits, labels = answers(predictor, parts)
    seconds = time.perf_counter() - start
    check_labels(dataset, logits.shape[1])
    found = score(logits, labels, dataset.task == "text", request.seed)
    result = Evaluation(
        found.metric,
        found.value,
        len(labels),
        found.low,
        found.high,
        len(parts.skipped),
        seconds,
        request.model,
        request.data,
        dataset.sha256,
        found.also,
    )
    if request.out is not None:
        record(request, result, dataset, preprocess).save(request.out / "run.json")
    return result


def _of_task(request: EvaluateRequest) -> Evaluation:
    """The metric of a task other than classification, its interval by resampling images."""
    # The road test opens its models by this module, so it cannot be imported before it.
    from roadworthy.noise.statistics import draws, estimate
    from roadworthy.noise.sweep import sweep
    from roadworthy.noise.systems import System
    from roadworthy.roadtest import open_road

    road = RoadChoice(
        data=request.data,
        preprocess=request.preprocess,
        limit=request.limit,
        batch_size=request.batch_size,
        skip_bad=request.skip_bad,
        seed=request.seed,
        device=request.device,
    )
    fleet, bench = open_road(request.model, road, None)
    base, start = System(fleet.preprocess), time.perf_counter()
    found = sweep(bench, base, [], "evaluating")
    seconds = time.perf_counter() - start
    n = len(found.indices)
    score = estimate(bench.task.values(found.evidence[base], draws(n, request.seed)))
    numbers = (score.value, n, score.low, score.high, len(found.bad), seconds)
    identity = (request.model, request.data, bench.dataset.sha256)
    result = Evaluation(bench.task.metric, *numbers, *identity)
    if request.out is not None:
        kept = record(request, result, bench.dataset, fleet.preprocess)
        kept.save(request.out / "run.json")
    return result


def answers(predictor: Predictor, parts: Batches) -> tuple[Float[Tensor, "n k"], Labels]:
    """Logits and labels of all batches; BadModel where a logit is NaN or infinite."""
    logits, labels = zip(*((predictor(x), y) for x, y in parts), strict=True)
    joined = torch.cat(logits)
    if not bool(joined.isfinite().all()):
        bad = int((~joined.isfinite()).any(1).sum())
        raise BadModel(
            f"{predictor.name} answers NaN or infinite values for {bad} of {len(joined)} images; "
            "check the model and its preprocessing"
        )
    return joined, torch.cat(labels)


def open_predictor(
    model: str, preprocess: str | None, device: str = "cpu"
) -> tuple[Predictor, Stages]:
    """A predictor and its preprocessing from a model spec, ``onnx:FILE`` or a quantized folder."""
    folder = Path(model)
    if folder.is_dir():
        return _runtime(folder / "model.onnx", preprocess)
    spec = parse_model_spec(model)
    if isinstance(spec, OnnxSpec):
        return _runtime(spec.path, preprocess)
    loaded = load_model(model).scoring()
    return TorchPredictor(loaded.module, model, device), loaded.chosen(preprocess)


def _runtime(path: Path, preprocess: str | None) -> tuple[Predictor, Stages]:
    from roadworthy.deploy.runtimes import OrtPredictor

    check_onnx(path)
    chosen = preprocess_from(preprocess, recorded_preprocess(path.parent))
    return OrtPredictor(path), chosen


def recorded_preprocess(folder: Path) -> Stages | None:
    """The preprocessing that `quantize` recorded beside its model.onnx; BadModel where labels
    cannot judge what that answers."""
    if not (folder / "run.json").is_file():
        return None
    config: object = RunRecord.load(folder).config
    told: dict[str, Any] = config if isinstance(config, dict) else {}
    check_says(told.get("says", "scores"), folder)
    stages = told.get("preprocess")
    return stages_from(stages) if isinstance(stages, dict) else None


def record(
    request: EvaluateRequest, result: Evaluation, dataset: Dataset, preprocess: Stages
) -> RunRecord:
    """What was asked and what came out."""
    return RunRecord(
        "evaluate",
        {**asdict(request), "preprocess": preprocess.to_dict()},
        request.seed,
        {"evaluation": {"spec": request.data, "sha256": dataset.sha256, "n": result.n}},
        {k: v for k, v in asdict(result).items() if k not in ("model", "data", "data_sha256")},
    )
