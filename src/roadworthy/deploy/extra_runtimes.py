"""MNN, ncnn and LiteRT as Predictors, each in a process of its own, with what they really take."""

import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from roadworthy.core.libraries import hint, installed_version
from roadworthy.deploy.child import Child
from roadworthy.deploy.engines import Precision
from roadworthy.deploy.runtimes import (
    FilePredictor,
    check_file,
    fixed_batch,
    open_session,
    refused,
    unfit,
)
from roadworthy.errors import BadInput, BadModel

Engine = Literal["mnn", "ncnn", "litert"]
_NAMES: dict[Engine, str] = {"mnn": "MNN", "ncnn": "ncnn", "litert": "LiteRT"}
_LIBRARIES: dict[Engine, tuple[str, ...]] = {
    "mnn": ("mnn",),
    "ncnn": ("ncnn", "pnnx"),
    "litert": ("ai-edge-litert",),
}


class ExtraPredictor(FilePredictor):
    """An ONNX file, converted by the runtime's own tool, on MNN, ncnn or LiteRT.

    Both run in a child process: a file that crashes them is refused in one line.

    Args:
        engine: the runtime.
        path: the ONNX file.
        size: channels, height and width of the images; converters need to know.
        threads: None is as many as torch computes on.
        name: what messages call it.
        precision: float32, float16 (LiteRT alone), or what the library does by itself.

    Raises:
        BadInput: a library or a converter is missing; says what to install.
        BadModel: the file is broken, or has operators that this runtime lacks.
    """

    def __init__(
        self,
        engine: Engine,
        path: Path,
        size: tuple[int, int, int],
        threads: int | None = None,
        name: str | None = None,
        precision: Precision = "f32",
    ) -> None:
        if reason := lacking(engine):
            raise BadInput(reason)
        check_file(path)
        self._size = size
        input_name, batch, self._shapes = _declared(path, size)
        if engine != "mnn" and batch not in (None, 1):
            raise BadModel(
                f"{path} takes batches of {batch}; {_NAMES[engine]} runs images one by one: export "
                "it with a batch of 1 or any"
            )
        threads = threads or torch.get_num_threads()
        try:
            self._child = Child(
                f"roadworthy.deploy.engines:{engine}",
                path=str(path.resolve()),
                names=(input_name, list(self._shapes)),
                size=list(size),
                threads=threads,
                precision=precision,
            )
        except (RuntimeError, ChildProcessError) as error:
            raise refused(path, _NAMES[engine], error) from error
        versions = (f"{each} {installed_version(each)}" for each in _LIBRARIES[engine])
        settings: dict[str, Any] = {
            "runtime": ", ".join(versions),
            "threads": threads,
            "asked": precision,
            **self._child.facts,
        }
        # MNN says by itself whether this CPU lets it compute in halves, which it then does.
        if told := [line for line in self._child.printed() if "device supports" in line]:
            settings["cpu"] = told[0]
            if precision == "default" and "fp16:1" in told[0]:
                settings["precision"] = "float16"
        super().__init__(name or engine, tuple(self._shapes), batch, settings)

    def _run(self, images: Float[Tensor, "b c h w"]) -> list[Tensor]:
        if tuple(images.shape[1:]) != self._size:
            wanted = ["batch", *self._size]
            raise unfit(
                images, wanted, ValueError("the size was fixed when the file was converted")
            )
        try:
            found: list[NDArray[Any]] = self._child(images.numpy())
        except (RuntimeError, ChildProcessError) as error:
            reason = " ".join(str(error).split())
            raise BadModel(f"{self.name} fails on {len(images)} images: {reason}") from error
        pairs = zip(found, self._shapes.items(), strict=True)
        return [torch.from_numpy(self._laid(each, *declared)) for each, declared in pairs]

    def _laid(self, found: NDArray[Any], output: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """An output as the file declares it: LiteRT has the channels last."""
        wanted = (len(found), *shape)
        if found.shape == wanted:
            return found
        moved = np.moveaxis(found, -1, 1) if found.ndim > 2 else found
        if moved.shape == wanted:
            return np.ascontiguousarray(moved)
        if found.size == np.prod(wanted):
            return found.reshape(wanted)
        raise BadModel(
            f"{self.name} answers {list(found.shape)} for output {output} where the file says "
            f"{list(wanted)}: its converter reads an operator otherwise"
        )


def lacking(engine: Engine) -> str | None:
    """What to install before `engine` can run, in one line; None where it can."""
    for library in _LIBRARIES[engine]:
        if installed_version(library) is None:
            return hint(library, engine)
    if engine == "litert" and shutil.which("onnx2tf") is None:
        return (
            "LiteRT's converter onnx2tf is not on the PATH; uv tool install --python 3.12 onnx2tf, "
            "away from this environment, whose onnx and Python it does not take"
        )
    return None


def _declared(
    path: Path, size: tuple[int, int, int]
) -> tuple[str, int | None, dict[str, tuple[int, ...]]]:
    """The input's name, the batch, and the shape of each output for one image.

    Files rarely say the shapes of outputs in numbers, so onnxruntime runs an image.
    """
    try:
        session = open_session(str(path), 1, "disable")
    except Exception as error:
        raise refused(path, "onnxruntime", error) from error
    entry = session.get_inputs()[0]
    batch = fixed_batch(entry.shape[0])
    image = torch.zeros(batch or 1, *size)
    try:
        outputs = session.run(None, {entry.name: image.numpy()})
    except Exception as error:
        raise unfit(image, entry.shape, error) from error
    names = [output.name for output in session.get_outputs()]
    return entry.name, batch, {n: tuple(o.shape[1:]) for n, o in zip(names, outputs, strict=True)}
