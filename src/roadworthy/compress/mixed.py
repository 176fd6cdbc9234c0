"""Accuracy-aware mixed precision: the fewest layers raised to 8 bits that keep the accuracy."""

from dataclasses import replace

from torch import Tensor, fx

from roadworthy.compress.calibrate import held_out
from roadworthy.compress.engine import Run
from roadworthy.compress.quantize import Compressed, Plan
from roadworthy.compress.select import compress_best
from roadworthy.compress.sensitivity import sensitivity
from roadworthy.core.batches import Labels
from roadworthy.core.padding import choices, in_batches
from roadworthy.core.predict import Inputs, things
from roadworthy.errors import BadInput

HELD_OUT = 4
"""One image in so many judges and is not learned from."""


def compress_within(
    graph: fx.GraphModule,
    images: Inputs,
    labels: Labels,
    plan: Plan,
    run: Run,
    max_drop: float,
) -> Compressed:
    """Raise the most sensitive layers to 8 bits until the drop is at most `max_drop` points.

    The number of layers is found by bisection along the order of `sensitivity`, each time with the
    whole method. The drop is judged on a quarter of the calibration images that no step sees: lost
    accuracy where they are labelled, else disagreement with the float model, which bounds it. Where
    texts are answered by texts, that is the share of other tokens behind what the float model says.

    Raises:
        BadInput: even all layers at 8 bits lose more.
    """
    judging = held_out(images, HELD_OUT, "--max-drop")
    answers = labels[judging].to(images.device)
    judging = judging.to(images.device)
    seen, unseen = images[~judging], images[judging]
    outputs = choices(in_batches(graph, unseen), unseen)
    if outputs.shape[-1] == 1:
        raise BadInput(
            "--max-drop given to a model that answers one number, which has no accuracy to lose; "
            "leave it out"
        )
    wanted = outputs.argmax(-1)
    order = sensitivity(graph, seen, plan)

    def attempt(count: int) -> tuple[float, Compressed]:
        raised = dict.fromkeys([cost["layer"] for cost in order[:count]], 8)
        chosen = replace(plan, widths=replace(plan.widths, raised=raised))
        done = compress_best(graph, seen, chosen, replace(run, attempt=f"raised{count}-"))
        done.facts["raised_to_8bit"] = list(raised)
        done.facts["sensitivity"] = order
        said = choices(in_batches(done.module, unseen), unseen).argmax(-1)
        return _drop(said, wanted, answers), done

    low, high = 0, len(order)
    drop, best = attempt(0)
    if drop <= max_drop:
        return best
    drop, best = attempt(high)
    if drop > max_drop:
        kept = run.finished.folder
        told = f"; {kept} keeps what was learned for it" if kept and kept.is_dir() else ""
        raise BadInput(
            f"--max-drop {max_drop} given and all layers at 8 bits lose {drop:.2f} points on the "
            f"held-out calibration {things(images)}; allow more{told}, or give more of them"
        )
    while high - low > 1:
        middle = (low + high) // 2
        drop, done = attempt(middle)
        low, high, best = (low, middle, done) if drop <= max_drop else (middle, high, best)
    return best


def _drop(got: Tensor, wanted: Tensor, labels: Tensor) -> float:
    """Points lost: of accuracy where labels are known, else of agreement with the float model."""
    if bool((labels < 0).any()):
        return 100 * float((got != wanted).double().mean())
    return 100 * float((wanted == labels).double().mean() - (got == labels).double().mean())
