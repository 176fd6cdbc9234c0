"""onnxruntime and OpenVINO as Predictors, with every setting that touches the numbers recorded."""

from abc import ABC, abstractmethod
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from roadworthy.core.predict import Inputs
from roadworthy.errors import BadInput, BadModel, brief

# MatMulNBits quantizes its activations again by default (accuracy level 4, errors of about 0.1).
_SESSION = {"session.qdq_matmulnbits_accuracy_level": "1"}


Level = Literal["disable", "basic", "extended", "all"]
"""How far onnxruntime may rewrite a graph."""


def open_session(
    model: str | bytes,
    threads: int | None = None,
    level: Level = "all",
    keep: Path | None = None,
) -> Any:
    """An onnxruntime session on the CPU with our settings, from a path or a serialized model.

    The graph that it really runs is written to `keep`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = {
        "disable": levels.ORT_DISABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "all": levels.ORT_ENABLE_ALL,
    }[level]
    if keep is not None:
        options.optimized_model_filepath = str(keep)
    for key, value in _SESSION.items():
        options.add_session_config_entry(key, value)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class FilePredictor(ABC):
    """An ONNX file on a runtime; any batch size, fixed-batch files included.

    Args:
        name: what messages call it.
        outputs: names of the file's outputs, in order.
        batch: that every run must have, None where any will do.
        settings: all that touches the numbers.
    """

    def __init__(
        self, name: str, outputs: tuple[str, ...], batch: int | None, settings: dict[str, Any]
    ) -> None:
        self.name, self.outputs, self.settings = name, outputs, settings
        self._batch = batch

    @abstractmethod
    def _run(self, images: Inputs) -> list[Tensor]:
        """Every output of one run."""

    def __call__(self, images: Inputs) -> Float[Tensor, " b *k"]:
        """The first output of a batch, ``[b k]`` of a classifier."""
        return torch.cat([found[0] for found in self._pieces(images)])

    def everything(self, images: Inputs) -> Tensor | dict[str, Tensor] | list[dict[str, Tensor]]:
        """The one output of a batch; several by name; of a file for one image a dict for each.

        Files for one image are those of detectors that end with as many rows as there are objects.
        """
        pieces = self._pieces(images)
        if len(self.outputs) == 1:
            return torch.cat([found[0] for found in pieces])
        if self._batch == 1 and any(len(output) != 1 for found in pieces for output in found):
            return [self._named(found) for found in pieces]
        return self._named([torch.cat(parts) for parts in zip(*pieces, strict=True)])

    def _named(self, found: list[Tensor]) -> dict[str, Tensor]:
        return {name: each.float() for name, each in zip(self.outputs, found, strict=True)}

    def _pieces(self, images: Inputs) -> list[list[Tensor]]:
        """Outputs of runs of exactly the file's batch, the last one filled up for its sake."""
        images = (images.float() if images.dtype is not torch.int64 else images).contiguous()
        if self._batch is None:
            return [self._run(images)]
        parts = torch.split(images, self._batch)
        *whole, last = parts
        missing = self._batch - len(last)
        if not missing:
            return [self._run(part) for part in parts]
        filled = torch.cat([last, last[-1:].expand(missing, *last.shape[1:])]).contiguous()
        cut = [output[: len(last)].clone() for output in self._run(filled)]
        return [*map(self._run, whole), cut]


class OrtPredictor(FilePredictor):
    """An ONNX file on onnxruntime's CPU provider.

    `threads` None means onnxruntime's own choice. `.settings` holds version, threads and options.
    """

    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        name: str = "onnxruntime",
        level: Level = "all",
    ) -> None:
        check_file(path)
        try:
            self._session = open_session(str(path), threads, level)
        except Exception as error:
            raise refused(path, "onnxruntime", error) from error
        entry = self._session.get_inputs()[0]
        self._input = entry.name
        settings = {
            "runtime": f"onnxruntime {metadata.version('onnxruntime')}",
            "providers": self._session.get_providers(),
            "threads": threads,
            "graph_optimization_level": level,
            **_SESSION,
        }
        # Sequences, maps and strings are nobody's answer about an image.
        kinds = {output.name: output.type for output in self._session.get_outputs()}
        outputs = tuple(
            n
            for n, kind in kinds.items()
            if kind.startswith("tensor(") and kind != "tensor(string)"
        )
        super().__init__(name, outputs, fixed_batch(entry.shape[0]), settings)

    def _run(self, images: Inputs) -> list[Tensor]:
        try:
            outputs = self._session.run(self.outputs, {self._input: images.numpy()})
        except Exception as error:
            raise unfit(images, self._session.get_inputs()[0].shape, error) from error
        return [torch.from_numpy(cast("np.ndarray[Any, Any]", output)) for output in outputs]


class OpenVinoPredictor(FilePredictor):
    """An ONNX file on OpenVINO's CPU plugin, in float32 unless `precision` says otherwise.

    None leaves the choice to OpenVINO, which takes bfloat16 where the CPU has it;
    ``.settings["INFERENCE_PRECISION_HINT"]`` says what was taken.
    """

    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        name: str = "openvino",
        precision: Literal["f32", "bf16", "f16"] | None = "f32",
    ) -> None:
        try:
            import openvino
        except ImportError as error:
            raise BadInput("OpenVINO is not installed; pip install roadworthy[openvino]") from error
        check_file(path)
        options = {"PERFORMANCE_HINT": "LATENCY"}
        if precision is not None:
            options["INFERENCE_PRECISION_HINT"] = precision
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            model = _core().read_model(str(path))
            self._model: Any = _core().compile_model(model, "CPU", options)
        except Exception as error:
            raise refused(path, "OpenVINO", error) from error
        shape = model.inputs[0].get_partial_shape()
        length = shape[0].get_length() if shape[0].is_static else None
        self._shape = str(shape)
        settings = {
            "runtime": f"openvino {openvino.__version__}",
            "device": "CPU",
            "threads": threads,
            **options,
            "INFERENCE_PRECISION_HINT": (taken := _taken(self._model)),
            "precision": {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}.get(taken, taken),
        }
        outputs = tuple(output.get_any_name() for output in model.outputs)
        super().__init__(name, outputs, fixed_batch(length), settings)

    def _run(self, images: Inputs) -> list[Tensor]:
        try:
            outputs = self._model({0: images.numpy()})
        except Exception as error:
            raise unfit(images, self._shape, error) from error
        return [torch.from_numpy(np.array(outputs[i])) for i in range(len(self.outputs))]


@cache
def _core() -> Any:
    """OpenVINO's core, one for the whole process and never freed.

    Every core's CPU plugin puts a signal stack of its own in place of the one before and puts that
    back when it goes: with two of them the next signal (Ctrl-C, a data loader's worker that ends)
    may arrive on freed memory and kill the process.
    """
    import openvino

    return openvino.Core()


def _taken(compiled: Any) -> str:
    """The precision that OpenVINO really computes in, as ``f32`` or ``bf16``."""
    kind = compiled.get_property("INFERENCE_PRECISION_HINT")
    return str(kind.get_type_name() if hasattr(kind, "get_type_name") else kind)


def fixed_batch(size: object) -> int | None:
    """The batch size that a model's first dimension demands; None for a symbol.

    >>> fixed_batch(4), fixed_batch("batch")
    (4, None)
    """
    return size if isinstance(size, int) and size > 0 else None


def check_file(path: Path) -> None:
    """BadModel where `path` is missing, no file or empty."""
    if not path.is_file():
        raise BadModel(f"no ONNX file at {path}; give the path of an existing .onnx file")
    if path.stat().st_size == 0:
        raise BadModel(f"{path} is empty (0 bytes); export or copy it again")


def refused(path: Path, runtime: str, error: Exception) -> BadModel:
    """A runtime's refusal to load, in one line."""
    reason = brief(error, 300)
    return BadModel(
        f"{runtime} cannot load {path}: {reason}; the file is corrupt or uses operators that this "
        "version does not have: export it again or update the runtime"
    )


def unfit(images: Tensor, wanted: object, error: Exception) -> BadInput:
    """A batch that the model does not take, in one line."""
    reason = brief(error)
    return BadInput(
        f"images of shape {list(images.shape)} given to a model that takes {wanted}: {reason}; "
        "set size and crop of the preprocessing to the model's input"
    )
