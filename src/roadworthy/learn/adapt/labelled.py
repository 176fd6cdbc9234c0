"""The images that are learned from and those that judge, and what the two have in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from roadworthy.core.dense_data import VOID
from roadworthy.core.progress import track
from roadworthy.errors import BadData
from roadworthy.learn.batches import NOTHING, Source, Task
from roadworthy.learn.duplicates import Repeat, repeats
from roadworthy.learn.gvb.part import few
from roadworthy.learn.gvb.subsets import stratified
from roadworthy.learn.holding import classes_of, hold
from roadworthy.learn.sample import Sample
from roadworthy.learn.sources import classes_with, names_of, samples

_NAMED = 10
"""Of test images that are learned from too, how many are named."""


@dataclass(frozen=True, eq=False)
class Sets:
    """What an adaptation is given.

    Args:
        labelled: a share of the labelled images.
        test: what judges, by the same classes and behind them those that it alone shows, which no
            model of the labelled images answers; None where nothing does.
        repeats: test images that are among the labelled ones too, or nearly.
    """

    labelled: Source
    test: Source | None = None
    repeats: tuple[Repeat, ...] = ()

    @property
    def unlearned(self) -> tuple[str, ...]:
        """Classes of test images that no labelled image shows."""
        return () if self.test is None else without(occurring(self.test), self.labelled)

    @property
    def untested(self) -> tuple[str, ...]:
        """Classes of labelled images that no test image shows."""
        return () if self.test is None else without(occurring(self.labelled), self.test)

    @property
    def warnings(self) -> list[str]:
        """A sentence for each thing that makes a verdict worth less."""
        found: list[str] = []
        if self.labelled.task == "classification" and len(self.labelled.classes) == 1:
            found.append(
                f"all labelled images are of one class, {self.labelled.classes[0]}: any answer is "
                "right; label some of others"
            )
        if self.test is None:
            return found
        if self.repeats:
            names = few([each.test for each in self.repeats])
            found.append(
                f"{names} of {len(self.test)} test images also stand among the labelled ones, or "
                "nearly; the verdict counts them: take them out of either"
            )
        if self.unlearned:
            found.append(
                f"no labelled image shows {few(self.unlearned)} of the test images' classes; label "
                "some, or take the class out of --test"
            )
        return found

    def row(self) -> dict[str, Any]:
        """For a record; empty where nothing judges."""
        if self.test is None:
            return {}
        first = [each._asdict() for each in self.repeats[:_NAMED]]
        return {
            "repeats": {"n": len(self.repeats), "first": first},
            "unlearned": list(self.unlearned),
            "untested": list(self.untested),
            "warnings": self.warnings,
        }


def open_sets(
    data: str, test: str, task: Task, size: int, fraction: float = 1.0, seed: int = 0
) -> Sets:
    """A share of the images of `data`, drawn as `gvb.subsets.stratified` says, and all of `test`.

    Classes to be learned are those of `data` alone, so that what judges changes no model.

    Args:
        test: spec that judges; "" means that nothing does.
        size: pixels a side.

    Raises:
        BadInput: a share that is not allowed, or leaves a class without an image.
        BadData: as `hold` says, or test images of which nothing is said.
    """
    shown = list(samples(data, size))
    classes = classes_with(data, shown, task)
    part = share(data, shown, task, classes, fraction, seed)
    labelled = hold(part, task, size, classes)
    if not test:
        return Sets(labelled)
    tested = list(samples(test, size))
    judging = hold(tested, task, size, judged_classes(classes, tested, task))
    check_said(judging, "test", "judge by")
    found = repeats(part, track(tested, "looking for test images among the labelled"))
    return Sets(labelled, judging, tuple(found))


def judged_classes(learned: Sequence[str], tested: Sequence[Sample], task: Task) -> tuple[str, ...]:
    """The learned classes in their order, and behind them what only test images show."""
    found = classes_of(tested, task)
    if task == "segmentation" and not any(each.mask_labels for each in tested):
        found = found[len(learned) :]  # ids without names are those of the learned classes
    return tuple(dict.fromkeys([*learned, *found]))


def check_said(source: Source, which: str, purpose: str) -> None:
    """BadData where all annotations are empty.

    Args:
        which: of the images these are, in a word.
        purpose: what the annotations are for.
    """
    held = source.content
    lacking = ""
    if held.box_labels is not None and (held.box_labels == NOTHING).all():
        lacking = "object"
    if held.masks is not None and (held.masks == VOID).all():
        lacking = "pixel of a class"
    if held.depth is not None and not held.depth.isfinite().any():
        lacking = "depth"
    if lacking:
        raise BadData(
            f"{len(source)} {which} images of {source.name} have no {lacking} to {purpose}; "
            "give more of them, or others"
        )


def share(
    spec: str,
    shown: Sequence[Sample],
    task: Task,
    classes: Sequence[str],
    fraction: float,
    seed: int,
) -> list[Sample]:
    """Of all samples of a spec a share, the same of each class; fails as `stratified` does."""
    labels: list[int] = []
    if task == "classification":
        numbers = {name: number for number, name in enumerate(classes)}
        labels = [numbers[each.labels[0]] for each in shown]
    return [shown[i] for i in stratified(names_of(spec), labels, fraction, seed)]


def occurring(source: Source) -> tuple[str, ...]:
    """Classes that images of a source show, in their order; () where a task has none."""
    held = source.content
    ids = {
        "classification": held.labels,
        "detection": held.box_labels,
        "segmentation": held.masks,
        "depth": None,
    }[source.task]
    if ids is None:
        return ()
    return tuple(source.classes[i] for i in ids.unique().tolist() if 0 <= i < len(source.classes))


def without(names: Sequence[str], other: Source) -> tuple[str, ...]:
    """Those of some classes that no image of a source shows; () where the task has none."""
    there = frozenset(occurring(other))
    return tuple(each for each in names if each not in there)
