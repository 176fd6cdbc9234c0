"""What a quantized model is worth whose answers are masks, depths or boxes: the metric of the data.

Images, places and metric are those of `evaluate` and `noise`; the forms of the model are judged in
one pass over the images, so that their difference has a paired interval.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from roadworthy.compress.methods import Method
from roadworthy.core.answers import answers_boxes, check_compared, dense_shape
from roadworthy.core.data import Dataset, load_data
from roadworthy.core.images import Size
from roadworthy.core.inputs import Stages
from roadworthy.core.predict import Predictor
from roadworthy.core.tasks import Task
from roadworthy.errors import BadData, BadInput
from roadworthy.requests import QuantizeRequest


@dataclass(frozen=True)
class Seen:
    """Labelled images, and what they ask of a model."""

    dataset: Dataset
    task: Task


def seeing_set(spec: str, shape: tuple[int, ...], seen: Size) -> Seen:
    """The labelled images of `spec`, known to fit the answers.

    Args:
        spec: of the data.
        shape: of the answer to an image.
        seen: height and width of the model's input.

    Raises:
        BadData: classes, or labels that cannot be the model's.
        BadModel: the model does not answer what the data ask.
    """
    from roadworthy.roadtest import task_of

    dataset = load_data(spec).labelled()
    if dataset.task in ("classification", "text"):
        raise BadData(
            f"--eval {spec} has classes of whole {dataset.things} and the model answers "
            f"{['batch', *shape]}; masks by masks:DIR, depths by depth:DIR, boxes by voc:DIR, "
            "yolo:DIR or coco:IMAGES@annotations.json are allowed, or leave --eval out"
        )
    return Seen(dataset, task_of(dataset, torch.zeros(1, *shape), seen))


def refuse_uncompared(request: QuantizeRequest, graph: fx.GraphModule, images: Tensor) -> None:
    """BadInput where an option needs the classes of images, which the model does not answer."""
    if not images.is_floating_point():
        return  # texts, whose tokens are answered
    placed = dense_shape(graph)
    if placed is not None and request.scheme.max_drop is not None:
        raise BadInput(
            f"--max-drop {request.scheme.max_drop} given and the model answers "
            f"{['batch', *placed]}; it counts classes of images: leave it out, and see what is "
            "lost by --eval"
        )
    if request.sensitivity:
        check_compared(graph, images, "--sensitivity")


def suited(method: Method, graph: fx.GraphModule, images: Tensor) -> Method:
    """The method without passes that compare classes, where the model answers boxes; warns."""
    kept = tuple(each for each in method.passes if each.loss != "kl")
    if len(kept) == len(method.passes) or not answers_boxes(graph, images):
        return method
    warnings.warn(
        "the model answers boxes: the pass over the whole network, which compares classes, is left "
        "out, and what is learned is learned unit by unit",
        stacklevel=2,
    )
    return replace(method, passes=kept)


def judged(
    request: QuantizeRequest,
    seen: Seen,
    preprocess: Stages,
    module: nn.Module,
    low: Mapping[str, Predictor],
) -> tuple[dict[str, Any], int]:
    """The metric of the float `module` and of its `low` forms, what the deployed one wins, and how
    much it answers as the float one does; and how many images were left out."""
    # They take a while to import, and only these answers need them.
    from roadworthy.deployments import RawPredictor
    from roadworthy.noise.statistics import estimate
    from roadworthy.noise.study import measure
    from roadworthy.noise.sweep import Bench
    from roadworthy.noise.systems import System

    forms = {"float": RawPredictor(module, "float"), **low}
    task, systems = seen.task, {name: System(preprocess, runtime=name) for name in forms}
    bad = request.data.skip_bad
    bench = Bench(seen.dataset, task, lambda each: forms[each.runtime], skip_bad=bad)
    base, *others = systems.values()
    measured = measure(bench, base, others, request.seed, "judging")
    values = {
        name: np.asarray(task.values(measured.findings.evidence[each], measured.counts))
        for name, each in systems.items()
    }
    found: dict[str, Any] = {}
    for name, each in values.items():
        told = estimate(each)
        found[name] = {"metric": task.metric, "value": told.value, "ci": [told.low, told.high]}
    won = estimate(values["deployed"] - values["float"])
    found["change"] = {"delta": won.value, "low": won.low, "high": won.high}
    flips = measured.findings.flips[systems["deployed"]]
    found["against_float"] = {"agreement": 1 - float(flips.mean())}
    return found, len(measured.findings.bad)
