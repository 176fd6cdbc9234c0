"""onnxruntime and OpenVINO as Predictors, with every setting that touches the numbers recorded."""

from importlib import metadata
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from roadworthy.errors import BadInput, BadModel

# MatMulNBits quantizes its activations again by default (accuracy level 4, errors of about 0.1).
_SESSION = {"session.qdq_matmulnbits_accuracy_level": "1"}


Level = Literal["disable", "basic", "extended", "all"]
"""How far onnxruntime may rewrite a graph."""


def open_session(model: str | bytes, threads: int | None = None, level: Level = "all") -> Any:
    """An onnxruntime session on the CPU with our settings, from a path or a serialized model."""
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
    for key, value in _SESSION.items():
        options.add_session_config_entry(key, value)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class OrtPredictor:
    """An ONNX file on onnxruntime's CPU provider; any batch size, fixed-batch files included.

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
        self.name, self._input, self._batch = name, entry.name, fixed_batch(entry.shape[0])
        self.settings: dict[str, Any] = {
            "runtime": f"onnxruntime {metadata.version('onnxruntime')}",
            "providers": self._session.get_providers(),
            "threads": threads,
            "graph_optimization_level": level,
            **_SESSION,
        }

    def __call__(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, " b *k"]:
        """Outputs of a batch, ``[b k]`` of a classifier."""
        return in_batches(self._run, images, self._batch)

    def _run(self, images: Tensor) -> Tensor:
        try:
            outputs = self._session.run(None, {self._input: images.numpy()})
        except Exception as error:
            raise unfit(images, self._session.get_inputs()[0].shape, error) from error
        return torch.from_numpy(cast("np.ndarray[Any, Any]", outputs[0]))


class OpenVinoPredictor:
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
            model = openvino.Core().read_model(str(path))
            self._model: Any = openvino.compile_model(model, "CPU", options)
        except Exception as error:
            raise refused(path, "OpenVINO", error) from error
        shape = model.inputs[0].get_partial_shape()
        length = shape[0].get_length() if shape[0].is_static else None
        self.name, self._batch, self._shape = name, fixed_batch(length), str(shape)
        self.settings: dict[str, Any] = {
            "runtime": f"openvino {openvino.__version__}",
            "device": "CPU",
            "threads": threads,
            **options,
            "INFERENCE_PRECISION_HINT": _taken(self._model),
        }

    def __call__(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, " b *k"]:
        """Outputs of a batch, ``[b k]`` of a classifier."""
        return in_batches(self._run, images, self._batch)

    def _run(self, images: Tensor) -> Tensor:
        try:
            outputs = self._model({0: images.numpy()})
        except Exception as error:
            raise unfit(images, self._shape, error) from error
        return torch.from_numpy(np.array(outputs[0]))


def _taken(compiled: Any) -> str:
    """The precision that OpenVINO really computes in, as ``f32`` or ``bf16``."""
    kind = compiled.get_property("INFERENCE_PRECISION_HINT")
    return str(kind.get_type_name() if hasattr(kind, "get_type_name") else kind)


def in_batches(run: Any, images: Float[Tensor, "b c h w"], batch: int | None) -> Tensor:
    """Run `images` in pieces of exactly `batch` (None: all at once), the last one padded."""
    images = images.float().contiguous()
    if batch is None:
        return run(images)
    parts = [run(_pad(part, batch))[: len(part)].clone() for part in torch.split(images, batch)]
    return torch.cat(parts)


def _pad(images: Tensor, batch: int) -> Tensor:
    missing = batch - len(images)
    return torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]).contiguous()


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
    reason = " ".join(str(error).split())[:300]
    return BadModel(
        f"{runtime} cannot load {path}: {reason}; the file is corrupt or uses operators that this "
        "version does not have: export it again or update the runtime"
    )


def unfit(images: Tensor, wanted: object, error: Exception) -> BadInput:
    """A batch that the model does not take, in one line."""
    reason = " ".join(str(error).split())[:200]
    return BadInput(
        f"images of shape {list(images.shape)} given to a model that takes {wanted}: {reason}; "
        "set size and crop of the preprocessing to the model's input"
    )
