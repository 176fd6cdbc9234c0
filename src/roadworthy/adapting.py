"""`roadworthy adapt`: from a request to a folder with a model of the task, and its run.json."""

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from roadworthy.core.predict import resolve_device
from roadworthy.core.runs import RunRecord, output_room, plain
from roadworthy.errors import BadInput
from roadworthy.learn.adapt.adapted import write_opener
from roadworthy.learn.adapt.fit import Adapted, adapt
from roadworthy.learn.adapt.labelled import open_sets
from roadworthy.learn.backbones import architectures_of
from roadworthy.learn.batches import Source
from roadworthy.learn.expert import head_config
from roadworthy.learn.manifest import Made, StageConfig, is_stage, stage_folder, write_stage
from roadworthy.learn.tasks import judge_head
from roadworthy.learn_requests import AdaptRequest


def adapt_to_dir(request: AdaptRequest) -> RunRecord:
    """Adapt a backbone to a share of the labelled images, judge it, and write its folder.

    Raises:
        BadInput: the backbone's folder as `out`, or that of a finished adaptation of other options.
        BadInput, BadData, BadModel: as `learn.adapt` says.
    """
    with output_room(request.out, "adapt"):
        stage_folder(request.out, [request.model])
        _check_unlike(request)
        sets = open_sets(
            request.data, request.test, request.task, request.size, request.fraction, request.seed
        )
        for each in sets.warnings:
            warnings.warn(each, stacklevel=2)
        adapted = adapt(
            request.model,
            sets.labelled,
            request.protocol,
            request.out,
            request.seed,
            request.machine,
            request.out / "features",
        )
        judged = _judged(adapted, sets.test, resolve_device(request.machine.device))
        told = {**_told(request, adapted), **sets.row()}
        _write(request, sets.labelled, adapted, judged, told)
        spec = write_opener(request.out)
    shown = {"labelled": (request.data, sets.labelled), "test": (request.test, sets.test)}
    record = RunRecord(
        command="adapt",
        config=asdict(request),
        seed=request.seed,
        data={
            name: {"spec": spec, "n": len(each), "sha256": each.sha256}
            for name, (spec, each) in shown.items()
            if each is not None
        },
        numbers={**(judged[0] if judged else {}), **told, "spec": spec},
    )
    record.save(request.out / "run.json")
    return record


def _check_unlike(request: AdaptRequest) -> None:
    """BadInput where a finished adaptation of other options would be replaced."""
    if not is_stage(request.out) or not (request.out / "run.json").is_file():
        return
    held, asked = RunRecord.load(request.out).config, plain(asdict(request))
    unlike = [name for name in asked if name != "machine" and held.get(name) != asked[name]]
    if unlike:
        raise BadInput(
            f"--out {request.out} holds a finished adaptation of another {', '.join(unlike)}; give "
            "a folder of its own, or remove it"
        )


def _judged(adapted: Adapted, test: Source | None, device: torch.device) -> list[dict[str, Any]]:
    if test is None:
        return []
    verdict = judge_head(adapted.body, adapted.head, test, device)
    for each in (adapted.body, adapted.head):
        each.cpu()
    return [{"task": test.task, "judged_on": test.name, **asdict(verdict)}]


def _told(request: AdaptRequest, adapted: Adapted) -> dict[str, Any]:
    return {
        "protocol": type(request.protocol).__name__,
        "fraction": request.fraction,
        "chosen": adapted.chosen,
        "lent": adapted.lent,
        "trials": {f"{choice:g}": value for choice, value in adapted.trials.items()},
    }


def _write(
    request: AdaptRequest,
    labelled: Source,
    adapted: Adapted,
    judged: list[dict[str, Any]],
    told: dict[str, Any],
) -> None:
    architecture, *auxiliaries = architectures_of(request.model)
    config = StageConfig(
        stage="adapted",
        architecture=architecture,
        size=request.size,
        heads=(head_config(labelled),),
        auxiliaries=tuple(auxiliaries),
        protocol=told["protocol"],
    )
    parents = [Path(request.model)] if is_stage(request.model) else []
    told = {**told, "seed": request.seed}
    made = Made(parents, [labelled], adapted.plan, adapted.compute, judged, told)
    write_stage(request.out, config, adapted.body, nn.ModuleList([adapted.head]), made)
