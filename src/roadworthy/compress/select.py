"""Held-out selection: several seeds and keep probabilities, the best on images not learned from."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import fx

from roadworthy.compress.calibrate import held_out
from roadworthy.compress.divergence import divergence
from roadworthy.compress.engine import Run
from roadworthy.compress.methods import Method
from roadworthy.compress.quantize import Compressed, Plan, compress
from roadworthy.compress.shift import scalable
from roadworthy.core.answers import check_compared
from roadworthy.core.padding import choices, in_batches
from roadworthy.core.predict import Inputs

HELD_OUT = 8
"""One image in so many judges and is not learned from."""
KEPT = (0.5, 0.75, 0.25)
"""Keep probabilities, taken in turns; QDrop's own comes first."""


def compress_best(graph: fx.GraphModule, images: Inputs, plan: Plan, run: Run) -> Compressed:
    """`compress`, or the best of the method's candidates, or of ``plan.method.tries`` of it.

    Try number i has the seed ``run.seed + i`` and the keep probability ``KEPT[i % 3]`` in the
    passes that drop; the one whose logits have the least KL divergence from the float model's on
    an eighth of the images is returned. None of the tries learns from that eighth.
    """
    trials = _candidates(graph, plan, run) or _tries(plan, run)
    if not trials:
        return compress(graph, images, plan, run)
    what = "--method auto" if plan.method.candidates else "--tries"
    check_compared(graph, images, what)
    judging = held_out(images, HELD_OUT, what).to(images.device)
    seen, unseen = images[~judging], images[judging]
    wanted = choices(in_batches(graph, unseen), unseen)
    best: Compressed | None = None
    rows: list[dict[str, Any]] = []
    for trial in trials:
        done = compress(graph, seen, trial.plan, trial.run)
        kl = divergence(wanted, choices(in_batches(done.module, unseen), unseen))
        if best is None or kl < min(row["kl"] for row in rows):
            best = done
        rows.append({**trial.told, "kl": kl})
    assert best is not None
    best.facts["tries"] = rows
    return best


@dataclass(frozen=True)
class _Trial:
    """One of several, with what the record says of it."""

    plan: Plan
    run: Run
    told: dict[str, Any]


def _candidates(graph: fx.GraphModule, plan: Plan, run: Run) -> list[_Trial]:
    """Without norms to migrate those methods are left that need none."""
    found = plan.method.candidates
    if found and not scalable(graph):
        found = [each for each in found if each.suppress is None]
    return [
        _Trial(
            replace(plan, method=each),
            replace(run, attempt=f"{run.attempt}candidate{number}-"),
            {"method": type(each).__name__, "suppress": each.suppress and asdict(each.suppress)},
        )
        for number, each in enumerate(found)
    ]


def _tries(plan: Plan, run: Run) -> list[_Trial]:
    if plan.method.tries == 1:
        return []
    trials: list[_Trial] = []
    for number in range(plan.method.tries):
        kept, seed = KEPT[number % len(KEPT)], run.seed + number
        trials.append(
            _Trial(
                replace(plan, method=_keeping(plan.method, kept)),
                replace(run, seed=seed, attempt=f"{run.attempt}try{number}-"),
                {"seed": seed, "keep_quantized": kept},
            )
        )
    return trials


def _keeping(method: Method, kept: float) -> Method:
    """`method` with another keep probability in the passes that drop elementwise."""
    passes = (
        replace(each, keep_quantized_input=kept, keep_quantized_inside=kept)
        if 0 < each.keep_quantized_inside < 1
        else each
        for each in method.passes
    )
    return replace(method, passes=tuple(passes))
