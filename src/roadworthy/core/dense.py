"""Answers for every pixel as tasks: classes judged by mean IoU, depths by RMSE.

Networks answer on a grid of their own, of their input. Answers are placed back onto the pixels of
the image file, where the user looks, so that resizers and geometries are judged too.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from roadworthy.core.data import Dataset
from roadworthy.core.dense_data import VOID
from roadworthy.core.images import Placement, Size
from roadworthy.core.progress import track
from roadworthy.core.tasks import Answer, Evidence
from roadworthy.errors import BadData, BadModel

FAR = 1.25
"""Ratio of two depths above which they are taken for different ones (Eigen et al. 2014)."""
NAMES = ("out", "logits", "predicted_depth")
"""Of the wanted one of several outputs: torchvision's, Hugging Face's of masks and of depths."""
_CELLS = 2**22


class Segmentation:
    """Mean intersection over union of classes; an answer is the class of every pixel ``[h w]``.

    Logits are enlarged to the image file bilinearly and the best class taken of that, or
    (``argmax-first``) the best class is taken first and enlarged to the nearest, or
    (``align-corners``) the outermost answers lie on the outermost pixels. Pixels that the model's
    input does not show are `VOID` in an answer, and missed.

    Args:
        classes: that the model tells apart.
        seen: height and width of the model's input.

    >>> task = Segmentation(2, (1, 2))
    >>> place = Placement((0.5, 0.5), (0, 0), (2, 4))
    >>> task.answers(torch.tensor([[[[1.0, 0.0]], [[0.0, 9.0]]]]), [place], "argmax-first")[0]
    array([[0, 0, 1, 1],
           [0, 0, 1, 1]], dtype=uint8)
    """

    metric = "miou"
    points = 100.0
    posts: tuple[str, ...] = ("argmax-first", "align-corners")

    def __init__(self, classes: int, seen: Size) -> None:
        self._classes, self._seen = classes, seen

    def answers(self, outputs: Any, places: Sequence[Placement], post: str) -> list[Answer]:
        """The class of every pixel of each image file, `VOID` where the model sees nothing."""
        maps = tensor_of(outputs)
        return [self._answer(x, place, post) for x, place in zip(maps, places, strict=True)]

    def _answer(self, logits: Float[Tensor, "k y x"], place: Placement, post: str) -> Answer:
        if post == "argmax-first":
            said = nearest(_best(logits), place, self._seen)
        else:
            parts = enlarged(logits, place, self._seen, post == "align-corners")
            said = torch.cat([_best(part) for part in parts])
        return np.where(visible(place, self._seen), said.numpy(), np.uint8(VOID))

    def evidence(self, answers: Sequence[Answer], truths: Sequence[Answer]) -> Evidence:
        """Pixels of each class found rightly, answered, and there ``[n k 3]``."""
        pairs = zip(answers, truths, strict=True)
        counted = [overlap(answer, truth, self._classes) for answer, truth in pairs]
        return np.array(counted, np.float64).reshape(-1, self._classes, 3)

    def values(self, evidence: Evidence, counts: Int[NDArray[np.int64], "r n"]) -> Float[Any, " r"]:
        """The mean over the classes that a resample shows or that are answered in it."""
        summed = np.tensordot(counts.astype(np.float64), evidence, 1)
        right, said, there = np.moveaxis(summed, 2, 0)
        union = said + there - right
        shares = right / np.maximum(union, 1)
        return shares.sum(1) / np.maximum((union > 0).sum(1), 1)

    def flips(self, answers: Sequence[Answer], base: Sequence[Answer]) -> Float[Any, " n"]:
        """Share of the pixels that have another class."""
        pairs = zip(answers, base, strict=True)
        return np.array([float((answer != own).mean()) for answer, own in pairs])

    def truth(self, answer: Answer) -> Answer:
        """The class of every pixel."""
        return answer

    def brief(self, answer: Answer) -> float:
        """The most frequent class."""
        return float(np.bincount(answer.ravel(), minlength=VOID + 1)[:VOID].argmax())


class Depth:
    """Root of the mean squared error in metres; an answer is the depth of every pixel ``[h w]``.

    Depths are enlarged to the image file bilinearly, or by one of `posts`. Pixels that the model's
    input does not show are NaN in an answer and not judged; where a model answers no finite number
    it counts as 0 m. A point is a centimetre.

    Args:
        seen: height and width of the model's input.

    >>> task = Depth((1, 1))
    >>> evidence = task.evidence([np.array([[1.0, 2.0]])], [np.array([[1.5, np.nan]])])
    >>> task.values(evidence, np.array([[1]])).tolist()
    [0.5]
    """

    metric = "rmse"
    points = -100.0
    posts: tuple[str, ...] = ("nearest", "align-corners")

    def __init__(self, seen: Size) -> None:
        self._seen = seen

    def answers(self, outputs: Any, places: Sequence[Placement], post: str) -> list[Answer]:
        """The depth of every pixel of each image file in metres."""
        maps = tensor_of(outputs)
        maps = maps[:, None] if maps.ndim == 3 else maps
        return [self._answer(x, place, post) for x, place in zip(maps, places, strict=True)]

    def _answer(self, depths: Float[Tensor, "1 y x"], place: Placement, post: str) -> Answer:
        if post == "nearest":
            said = nearest(depths[0], place, self._seen)
        else:
            aligned = post == "align-corners"
            said = torch.cat([part[0] for part in enlarged(depths, place, self._seen, aligned)])
        finite = np.nan_to_num(said.numpy(), nan=0.0, posinf=0.0, neginf=0.0)
        return np.where(visible(place, self._seen), finite, np.float32(np.nan))

    def evidence(self, answers: Sequence[Answer], truths: Sequence[Answer]) -> Evidence:
        """Sum of the squared errors and how many pixels they come from ``[n 2]``."""
        errors = [answer - truth for answer, truth in zip(answers, truths, strict=True)]
        sums = [[np.nansum(e.astype(np.float64) ** 2), np.isfinite(e).sum()] for e in errors]
        return np.array(sums, np.float64).reshape(-1, 2)

    def values(self, evidence: Evidence, counts: Int[NDArray[np.int64], "r n"]) -> Float[Any, " r"]:
        """RMSE over all pixels of each resample."""
        squares, pixels = (counts @ evidence).T
        return np.sqrt(squares / np.maximum(pixels, 1))

    def flips(self, answers: Sequence[Answer], base: Sequence[Answer]) -> Float[Any, " n"]:
        """Share of the pixels whose depth is more than `FAR` times the other one."""
        pairs = zip(answers, base, strict=True)
        return np.array([1.0 - float(alike(answer, own).mean()) for answer, own in pairs])

    def truth(self, answer: Answer) -> Answer:
        """The depth of every pixel."""
        return answer

    def brief(self, answer: Answer) -> float:
        """The median in metres."""
        return float(np.nanmedian(answer)) if np.isfinite(answer).any() else 0.0


def _best(logits: Float[Tensor, "k h w"]) -> UInt8[Tensor, "h w"]:
    # Five times as fast as argmax along the first axis.
    return logits.max(0).indices.byte()


def tensor_of(outputs: Any) -> Float[Tensor, " b *axes"]:
    """The one tensor of outputs, or the entry that libraries name after what is wanted.

    Raises:
        BadModel: there is neither.

    >>> tensor_of({"aux": torch.zeros(1), "out": torch.ones(1)})
    tensor([1.])
    """
    held = outputs if isinstance(outputs, dict) else {NAMES[0]: outputs}
    found = next((held[name] for name in NAMES if name in held), None)
    if isinstance(found, Tensor):
        return found
    names = f" of {', '.join(map(str, outputs))}" if isinstance(outputs, dict) else ""
    raise BadModel(
        f"the model answers a {type(outputs).__name__}{names}; one tensor is needed for a value of "
        f"every pixel, or a dict with one under {', '.join(NAMES)}"
    )


def enlarged(
    maps: Float[Tensor, "k y x"], place: Placement, seen: Size, aligned: bool = False
) -> Iterator[Float[Tensor, "k rows w"]]:
    """Maps of the input, bilinear between their cells, on the pixels of the image; some rows each.

    Args:
        maps: of the whole input, at any size.
        place: where the image lies in the input.
        seen: height and width of the input.
        aligned: outermost cells lie on the outermost pixels, instead of cells covering them.
    """
    size = maps.shape[1], maps.shape[2]
    rows, columns = (_cells(place, seen, size, axis, aligned) for axis in (0, 1))
    y, x = (2 * (at + 0.5) / side - 1 for at, side in zip((rows, columns), size, strict=True))
    step = max(1, _CELLS // (len(maps) * len(x)))
    for part in y.split(step):
        grid = torch.stack(torch.meshgrid(part, x, indexing="ij")[::-1], -1)[None]
        yield grid_sample(maps[None], grid, padding_mode="border", align_corners=False)[0]


def nearest(cells: Tensor, place: Placement, seen: Size) -> Tensor:
    """The cells ``[y x]`` of the input that the pixels of the image lie in ``[h w]``.

    >>> nearest(torch.tensor([[1, 2]]), Placement((1.0, 1.0), (0, 0), (1, 4)), (1, 4)).tolist()
    [[1, 1, 2, 2]]
    """
    size = cells.shape[0], cells.shape[1]
    rows, columns = (
        (_cells(place, seen, size, axis, False) + 0.5).floor().long().clamp(0, size[axis] - 1)
        for axis in (0, 1)
    )
    return cells[rows][:, columns]


def _cells(place: Placement, seen: Size, size: Size, axis: int, aligned: bool) -> Tensor:
    """Where the pixels of an axis of the image lie among the cells of a map of the input."""
    own, ratio = place.size[axis], size[axis] / seen[axis]
    first, span = place.offset[axis] * ratio, own * place.scale[axis] * ratio
    pixels = torch.arange(own, dtype=torch.float64)
    if aligned:
        return (first + pixels / max(own - 1, 1) * (span - 1)).float()
    return (first + (pixels + 0.5) / own * span - 0.5).float()


def visible(place: Placement, seen: Size) -> Bool[NDArray[np.bool_], "h w"]:
    """Which pixels of the image the input shows: all but those that were cropped away.

    >>> visible(Placement((1.0, 1.0), (0, -1), (1, 4)), (1, 2)).tolist()
    [[False, True, True, False]]
    """
    shown: list[NDArray[np.bool_]] = []
    for own, scale, offset, side in zip(place.size, place.scale, place.offset, seen, strict=True):
        at = (np.arange(own) + 0.5) * scale + offset
        shown.append((at >= 0) & (at <= side))
    return shown[0][:, None] & shown[1][None]


def overlap(
    answer: UInt8[NDArray[np.uint8], "h w"], truth: UInt8[NDArray[np.uint8], "h w"], classes: int
) -> Int[NDArray[np.int64], "k 3"]:
    """Pixels of each class found rightly, answered, and there; void ones are not judged.

    >>> overlap(np.uint8([[0, 1, 1]]), np.uint8([[0, 0, 255]]), 2).tolist()
    [[1, 1, 2], [0, 1, 0]]
    """
    pairs = (truth.astype(np.int32) << 8 | answer).ravel()
    table = np.bincount(pairs, minlength=1 << 16).reshape(256, 256)[:VOID]
    found = np.stack([table.diagonal(), table.sum(0)[:VOID], table.sum(1)], 1)
    return found[:classes]


def alike(answer: Answer, base: Answer) -> Bool[NDArray[np.bool_], "h w"]:
    """Where two depths differ by less than the factor `FAR`, or neither is known."""
    with np.errstate(invalid="ignore"):
        near = (answer < FAR * base) & (base < FAR * answer)
    return near | (np.isnan(answer) & np.isnan(base))


def segmentation_of(dataset: Dataset, outputs: Any, seen: Size) -> Segmentation:
    """The task that masks set to a model; every mask is read once, so that none stops the sweep.

    Args:
        dataset: of masks, or of images without any.
        outputs: of the model for some image.
        seen: height and width of the model's input.

    Raises:
        BadModel: outputs that are no maps of two classes or more.
        BadData: a mask that cannot be read, class ids that the model does not have, or no pixel
            that is judged.
    """
    shape = list(tensor_of(outputs).shape)
    if len(shape) != 4 or not 2 <= shape[1] <= VOID:
        raise BadModel(
            f"the model answers {shape} where masks need [batch, classes, height, width], 2 to "
            f"{VOID} classes; give one that returns the logits of every class"
        )
    judged: list[int] = []
    for index, truth in _truths(dataset, "checking masks"):
        ids = truth[truth != VOID]
        judged.append(ids.size)
        if ids.size and int(ids.max()) >= shape[1]:
            raise BadData(
                f"the mask of {dataset.name(index)} has class id {ids.max()} and the model "
                f"{shape[1]} classes; 0 to {shape[1] - 1} are allowed, {VOID} or ignore=ID of the "
                "data spec where nothing is to be judged"
            )
    _check_judged(dataset, judged, f"class ids are needed, {VOID} and ignore=ID are not judged")
    return Segmentation(shape[1], seen)


def depth_of(dataset: Dataset, outputs: Any, seen: Size) -> Depth:
    """The task that depth maps set to a model; every map is read once, as masks are.

    Raises:
        BadModel: outputs that are no maps of one depth.
        BadData: a depth map that cannot be read, or not a single depth.
    """
    shape = list(tensor_of(outputs).shape)
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[1] != 1):
        raise BadModel(
            f"the model answers {shape} where depth maps need [batch, 1, height, width] in metres; "
            "wrap it in a module that returns them"
        )
    seen_depths = [
        int(np.isfinite(truth).sum()) for _, truth in _truths(dataset, "checking depth maps")
    ]
    _check_judged(dataset, seen_depths, "0, 65535 and NaN mean that no depth was seen")
    return Depth(seen)


def _truths(dataset: Dataset, what: str) -> Iterator[tuple[int, Answer]]:
    """The map of each image that can be read; the sweep names the others, or leaves them out."""
    for index in track([i for i in range(len(dataset)) if dataset.known(i)], what):
        truth = dataset.truth(index) if _readable(dataset, index) else None
        if truth is not None:
            yield index, truth


def _readable(dataset: Dataset, index: int) -> bool:
    try:
        dataset.load(index)
    except BadData:
        return False
    return True


def _check_judged(dataset: Dataset, pixels: Sequence[int], why: str) -> None:
    """BadData where there are maps and not a pixel of them says anything."""
    if pixels and not any(pixels):
        raise BadData(f"{dataset.spec} has {len(pixels)} maps and no pixel to judge by; {why}")
