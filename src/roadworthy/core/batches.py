"""Preprocessed batches of a dataset, read ahead by threads."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from jaxtyping import Float, Int
from torch import Tensor

from roadworthy.core.data import Dataset, check_pairs
from roadworthy.core.inputs import Stages, tensor_of
from roadworthy.core.predict import Inputs
from roadworthy.core.progress import track
from roadworthy.core.texts import TextInput
from roadworthy.errors import BadData, BadPreprocess

# Images that one thread prepares at a stretch: a hand-over costs as much as decoding a tiny image.
_CHUNK = 8
Labels = Int[Tensor, " _"] | Float[Tensor, " _"]
Batch = tuple[Tensor, Labels]
"""What a model is fed ``[b ...]``, and class ids or numbers ``[b]``."""


class Batches:
    """Preprocessed batches ``[b c h w]``, of texts ``[b r t]``, with labels ``[b]``, -1 where there
    is none.

    Files are read, decoded and resized by threads, a few batches ahead of the reader. Iterate it
    once or more; `skipped` names the images that the last pass left out.
    """

    def __init__(
        self,
        dataset: Dataset,
        preprocess: Stages,
        batch_size: int,
        skip_bad: bool = False,
        progress: str | None = None,
    ) -> None:
        if batch_size < 1:
            raise BadData(f"batch size {batch_size} given; 1 or more is allowed")
        read = "texts" if isinstance(preprocess, TextInput) else "images"
        if dataset.things != read:
            raise BadData(
                f"{dataset.spec} holds {dataset.things} and the model reads {read}; give data or a "
                "model of the other kind"
            )
        if isinstance(preprocess, TextInput) and preprocess.cut == "second":
            check_pairs(dataset)
        self.skipped: list[str] = []
        self._dataset, self._preprocess, self._size = dataset, preprocess, batch_size
        self._skip_bad, self._progress = skip_bad, progress

    def __len__(self) -> int:
        return -(-len(self._dataset) // self._size)

    def __iter__(self) -> Iterator[Batch]:
        self.skipped = []
        held: list[tuple[int, Tensor]] = []
        for item in track(self._tensors(), self._progress, len(self._dataset)):
            held.append(item)
            if len(held) == self._size:
                yield self._stack(held)
                held = []
        if held:
            yield self._stack(held)
        if len(self.skipped) == len(self._dataset):
            raise BadData(
                f"none of the {len(self.skipped)} {self._dataset.things} of {self._dataset.spec} "
                "is good"
            )

    def images(self) -> Iterator[Tensor]:
        """The batches without their labels."""
        return (images for images, _ in self)

    def _tensors(self) -> Iterator[tuple[int, Tensor]]:
        workers = min(8, os.cpu_count() or 1)
        with ThreadPoolExecutor(workers) as pool:
            ahead: deque[Future[list[tuple[int, Tensor | BadData]]]] = deque()
            starts = range(0, len(self._dataset), _CHUNK)
            try:
                for start in starts:
                    ahead.append(pool.submit(self._chunk, start))
                    if len(ahead) > max(2 * workers, self._size // _CHUNK):
                        yield from self._good(ahead.popleft().result())
                while ahead:
                    yield from self._good(ahead.popleft().result())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _chunk(self, start: int) -> list[tuple[int, Tensor | BadData]]:
        stop = min(start + _CHUNK, len(self._dataset))
        return [(index, self._tensor(index)) for index in range(start, stop)]

    def _tensor(self, index: int) -> Tensor | BadData:
        try:
            content, name = self._dataset.content(index), self._dataset.name(index)
            return tensor_of(self._preprocess, content, name)
        except BadData as error:
            return error

    def _good(self, chunk: list[tuple[int, Tensor | BadData]]) -> Iterator[tuple[int, Tensor]]:
        for index, tensor in chunk:
            if isinstance(tensor, Tensor):
                yield index, tensor
            elif self._skip_bad:
                self.skipped.append(self._dataset.name(index))
            else:
                things = self._dataset.things
                raise BadData(f"{tensor}; mend it, or leave such {things} out by --skip-bad")

    def _stack(self, held: list[tuple[int, Tensor]]) -> Batch:
        first = held[0]
        for index, tensor in held:
            if tensor.shape != first[1].shape:
                names = f"{self._dataset.name(first[0])} and {self._dataset.name(index)}"
                raise BadPreprocess(
                    f"{names} differ in size after preprocessing, {list(first[1].shape[1:])} "
                    f"and {list(tensor.shape[1:])}; give one with a crop or geometry: squash"
                )
        labels = [self._dataset.told(index) for index, _ in held]
        return torch.stack([t for _, t in held]), torch.tensor(
            [label if isinstance(label, int | float) else -1 for label in labels]
        )


def batches(
    dataset: Dataset,
    preprocess: Stages,
    batch_size: int,
    skip_bad: bool = False,
    progress: str | None = None,
) -> Batches:
    """Batches of `dataset`; a corrupt image stops with its name or, by `skip_bad`, is left out."""
    return Batches(dataset, preprocess, batch_size, skip_bad, progress)


def load_tensor(
    dataset: Dataset, preprocess: Stages, skip_bad: bool = False, progress: str | None = None
) -> tuple[Inputs, Labels]:
    """All images ``[n c h w]`` and labels ``[n]`` of `dataset` in memory."""
    return join(batches(dataset, preprocess, 256, skip_bad, progress))


def join(parts: Iterable[Batch]) -> tuple[Inputs, Labels]:
    """One batch out of many."""
    images, labels = zip(*parts, strict=True)
    sizes = {tuple(x.shape[1:]) for x in images}
    if len(sizes) > 1:
        raise BadPreprocess(f"images differ in size after preprocessing: {sorted(sizes)[:3]}")
    return torch.cat(images), torch.cat(labels)
