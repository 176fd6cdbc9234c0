"""`roadworthy adapt`: from a request to a folder with a model of the task, and its run.json."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from roadworthy.core.runs import RunRecord, output_room
from roadworthy.learn.adapt.adapted import write_opener
from roadworthy.learn.adapt.fit import Adapted, adapt
from roadworthy.learn.backbones import architectures_of
from roadworthy.learn.batches import Source
from roadworthy.learn.expert import head_config
from roadworthy.learn.manifest import Made, StageConfig, is_stage, write_stage
from roadworthy.learn.probe import part_of
from roadworthy.learn.tasks import judge_head
from roadworthy.learn_requests import AdaptRequest, Sources
from roadworthy.learning import held


def adapt_to_dir(request: AdaptRequest) -> RunRecord:
    """Adapt a backbone to a share of the labelled images, judge it, and write its folder.

    Raises:
        BadInput, BadData, BadModel: as `learn.adapt.fit` says.
    """
    with output_room(request.out, "adapt"):
        tested = ((request.task, request.test),) if request.test else ()
        given = Sources(((request.task, request.data),), tested, size=request.size)
        (whole,), tests, _ = held(given)
        labelled = part_of(whole, request.fraction, request.seed)
        adapted = adapt(
            request.model,
            labelled,
            request.protocol,
            request.out,
            request.seed,
            request.machine,
            request.out / "features",
        )
        judged = [
            {"task": test.task, "judged_on": test.name}
            | asdict(judge_head(adapted.body, adapted.head, test))
            for test in tests
        ]
        told = _told(request, adapted)
        _write(request, labelled, adapted, judged, told)
        spec = write_opener(request.out)
    shown = [(request.data, labelled), *((request.test, each) for each in tests)]
    record = RunRecord(
        command="adapt",
        config=asdict(request),
        seed=request.seed,
        data={
            name: {"spec": spec, "n": len(each), "sha256": each.sha256}
            for name, (spec, each) in zip(("labelled", "test"), shown, strict=False)
        },
        numbers={**(judged[0] if judged else {}), **told, "spec": spec},
    )
    record.save(request.out / "run.json")
    return record


def _told(request: AdaptRequest, adapted: Adapted) -> dict[str, Any]:
    return {
        "protocol": type(request.protocol).__name__,
        "fraction": request.fraction,
        "chosen": adapted.chosen,
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
