"""The metric of any model, torch or runtime, on any labelled data."""

import time
from dataclasses import asdict, dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from roadworthy.core.batches import Batches, Labels, batches
from roadworthy.core.data import Dataset, check_labels, load_data
from roadworthy.core.inputs import Stages
from roadworthy.core.predict import Predictor
from roadworthy.core.runs import RunRecord, output_room
from roadworthy.core.scores import Score, score
from roadworthy.core.spans import each_score, passages
from roadworthy.core.spans import score as spans_score
from roadworthy.errors import BadModel
from roadworthy.judging_answers import references, written
from roadworthy.judging_answers import score as rouge_of
from roadworthy.judging_spans import asking_set
from roadworthy.opening import answered_by, open_finder, open_predictor, open_writer
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
    """Top-1 accuracy of the requested model, the correlation of one that answers a number, ROUGE-L
    of one that answers texts, F1 of one that finds answers, or the metric of the task that the data
    set.

    Raises:
        BadInput: the model, the data or the preprocessing is not usable; the message says why.
    """
    if request.out is None:
        return _evaluated(request)
    with output_room(request.out, "evaluate"):
        return _evaluated(request)


def _evaluated(request: EvaluateRequest) -> Evaluation:
    match answered_by(request.model):
        case "texts":
            return _of_answers(request)
        case "spans":
            return _of_spans(request)
        case None:
            pass
    dataset = load_data(request.data).labelled()
    if dataset.task not in ("classification", "text"):
        return _of_task(request)
    predictor, preprocess = open_predictor(request.model, request.preprocess, request.device)
    dataset = _limited(dataset, request)
    start = time.perf_counter()
    parts = batches(dataset, preprocess, request.batch_size, request.skip_bad, "evaluating")
    logits, labels = answers(predictor, parts)
    seconds = time.perf_counter() - start
    check_labels(dataset, logits.shape[1])
    found = score(logits, labels, dataset.task == "text", request.seed)
    return _recorded(request, found, dataset, len(parts.skipped), seconds, preprocess)


def _of_answers(request: EvaluateRequest) -> Evaluation:
    """ROUGE of what a model writes token by token."""
    dataset = _limited(load_data(request.data, answered=True).labelled(), request)
    predictor, preprocess, bounds = open_writer(request.model, request.preprocess, request.device)
    start = time.perf_counter()
    parts = batches(dataset, preprocess, request.batch_size, request.skip_bad, "evaluating")
    said = [each for texts, _ in parts for each in written(predictor, bounds, preprocess, texts)]
    seconds = time.perf_counter() - start
    wanted = references(dataset, parts.skipped)
    assert wanted is not None  # the data are labelled
    found = rouge_of(said, wanted, request.seed)
    return _recorded(request, found, dataset, len(parts.skipped), seconds, preprocess)


def _of_spans(request: EvaluateRequest) -> Evaluation:
    """F1 and exact match of the passages that a model finds."""
    predictor, preprocess = open_finder(request.model, request.preprocess, request.device)
    dataset = _limited(asking_set(request.data), request)
    start = time.perf_counter()
    parts = batches(dataset, preprocess, request.batch_size, request.skip_bad, "evaluating")
    logits, _ = answers(predictor, parts)
    asked = passages(dataset, preprocess, parts.skipped)
    said = each_score(asked.answers(logits.transpose(1, 2)), asked.wanted)
    seconds = time.perf_counter() - start
    found = spans_score(said, request.seed)
    return _recorded(request, found, dataset, len(parts.skipped), seconds, preprocess)


def _limited(dataset: Dataset, request: EvaluateRequest) -> Dataset:
    if request.limit is None:
        return dataset
    return dataset.subset(min(request.limit, len(dataset)), request.seed)


def _of_task(request: EvaluateRequest) -> Evaluation:
    """The metric of a task other than classification, its interval by resampling images."""
    # It takes a while to import, and only these tasks need it.
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
    swept = sweep(bench, base, [], "evaluating")
    seconds = time.perf_counter() - start
    drawn = draws(len(swept.indices), request.seed)
    told = estimate(bench.task.values(swept.evidence[base], drawn))
    found = Score(bench.task.metric, told.value, told.low, told.high)
    return _recorded(request, found, bench.dataset, len(swept.bad), seconds, fleet.preprocess)


def _recorded(
    request: EvaluateRequest,
    found: Score,
    dataset: Dataset,
    skipped: int,
    seconds: float,
    preprocess: Stages,
) -> Evaluation:
    """The result, and ``run.json`` where it is asked for."""
    value, n = (found.metric, found.value), len(dataset) - skipped
    numbers = (*value, n, found.low, found.high, skipped, seconds)
    identity = (request.model, request.data, dataset.sha256)
    result = Evaluation(*numbers, *identity, found.also)
    if request.out is not None:
        record(request, result, preprocess).save(request.out / "run.json")
    return result


def answers(predictor: Predictor, parts: Batches) -> tuple[Float[Tensor, " n *k"], Labels]:
    """Logits and labels of all batches; BadModel where a logit is NaN or infinite."""
    logits, labels = zip(*((predictor(x), y) for x, y in parts), strict=True)
    joined = torch.cat(logits)
    if not bool(joined.isfinite().all()):
        bad = int((~joined.isfinite()).flatten(1).any(1).sum())
        raise BadModel(
            f"{predictor.name} answers NaN or infinite values for {bad} of {len(joined)} inputs; "
            "check the model and its preprocessing"
        )
    return joined, torch.cat(labels)


def record(request: EvaluateRequest, result: Evaluation, preprocess: Stages) -> RunRecord:
    """What was asked and what came out."""
    return RunRecord(
        "evaluate",
        {**asdict(request), "preprocess": preprocess.to_dict()},
        request.seed,
        {"evaluation": {"spec": request.data, "sha256": result.data_sha256, "n": result.n}},
        {k: v for k, v in asdict(result).items() if k not in ("model", "data", "data_sha256")},
    )
