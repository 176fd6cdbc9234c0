"""Every way to run one model: its changes, runtimes and precisions, each a `Predictor`."""

import copy
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from roadworthy.compress.methods import Mse
from roadworthy.core.capture import capture
from roadworthy.core.inputs import Stages, preprocess_from
from roadworthy.core.models import check_onnx, load_model
from roadworthy.core.predict import Inputs, Predictor, TorchPredictor, resolve_device
from roadworthy.core.specs import onnx_file
from roadworthy.deploy.engines import Precision
from roadworthy.deploy.export import export_onnx
from roadworthy.deploy.extra_runtimes import Engine, ExtraPredictor
from roadworthy.deploy.runtimes import FilePredictor, Level, OpenVinoPredictor, OrtPredictor
from roadworthy.errors import BadInput, BadModel, RoadworthyError, brief
from roadworthy.journey import digest, quantize
from roadworthy.noise.changes import Changed, changes
from roadworthy.noise.onnx_changes import onnx_changes, write_onnx_changed
from roadworthy.noise.systems import AS_TRAINED, System
from roadworthy.opening import recorded_preprocess
from roadworthy.requests import one_of

FILE_RUNTIMES = (
    "onnxruntime-all",
    "onnxruntime-extended",
    "onnxruntime-basic",
    "onnxruntime-disable",
    "openvino-f32",
    "openvino-default",
    "mnn-f32",
    "mnn-default",
    "ncnn-f32",
    "ncnn-default",
    "litert-f32",
    "litert-f16",
)
"""Who runs an ONNX file; the words behind onnxruntime say how far it may rewrite the graph, the
others how precisely it is computed: ``default`` is what the library does by itself."""
TORCH_RUNTIMES = ("torch-bf16", "torch-fp16", *FILE_RUNTIMES, "int8", "w4a8")
"""For a torch model also its precisions; the integer ones are ours, run by onnxruntime."""
_PRECISIONS = {
    "torch-bf16": "bfloat16",
    "torch-fp16": "float16",
    "int8": "8-bit weights and activations",
    "w4a8": "4-bit weights, 8-bit activations",
}


class Deployments:
    """A model and all that may be deployed of it; predictors are made when asked for, and kept.

    Args:
        model: model spec, ``onnx:FILE`` or a folder that `quantize` wrote.
        preprocess: as on the command line; None is the model's own.
        device: of the training system; the other runtimes are the CPU's.
        raw: outputs may be anything that a task understands, not only logits ``[b k]``.
    """

    def __init__(
        self, model: str | nn.Module, preprocess: str | None, device: str, raw: bool = False
    ) -> None:
        self.settings: dict[str, Any] = {}
        self._scratch = tempfile.TemporaryDirectory()
        self._device, self._raw = device, raw
        self._made: dict[tuple[str, str], Predictor] = {}
        self._files: dict[tuple[str, str], Path] = {}
        self._images: Tensor | None = None
        path = onnx_file(model) if isinstance(model, str) else None
        if path is not None:
            self._module = None
            self._files[AS_TRAINED, AS_TRAINED] = check_onnx(path)
            self.preprocess: Stages = preprocess_from(preprocess, recorded_preprocess(path))
            self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            loaded = load_model(model).scoring()
            self._module, self.preprocess = loaded.module, loaded.chosen(preprocess)
            self.sha256 = digest(self._module)

    def show(self, images: Inputs) -> None:
        """Preprocessed images: their shape is the model's, integers are calibrated on them."""
        self._images = images

    def models(self) -> list[tuple[str, str | None]]:
        """The changes of the network, each with what keeps it from running."""
        if self._module is None:
            names = onnx_changes(self._files[AS_TRAINED, AS_TRAINED])
        else:
            names = changes(self._on_cpu(self._module), self._shown()[:1])
        return [(name, self._obstacle(System(self.preprocess, model=name))) for name in names]

    def check(self, system: System, posts: Sequence[str]) -> None:
        """BadInput where `system` names a change, a runtime or a finish that is not known here."""
        runtimes = FILE_RUNTIMES if self._module is None else TORCH_RUNTIMES
        named = (("runtime", system.runtime, runtimes), ("post", system.post, tuple(posts)))
        for what, given, known in named:
            one_of(what, given, (AS_TRAINED, *known))
        if system.model != AS_TRAINED:
            one_of("model", system.model, (AS_TRAINED, *(name for name, _ in self.models())))

    def runtimes(self) -> list[tuple[str, str | None]]:
        """The other runtimes and precisions, each with what keeps it from running here."""
        names = FILE_RUNTIMES[1:] if self._module is None else TORCH_RUNTIMES
        return [(name, self._obstacle(System(self.preprocess, runtime=name))) for name in names]

    def __call__(self, system: System) -> Predictor:
        """The predictor of a system; only its model and runtime matter."""
        key = system.model, system.runtime
        if key not in self._made:
            self._made[key] = self._make(*key)
            own = getattr(self._made[key], "settings", {"runtime": f"torch {torch.__version__}"})
            taken = {"precision": _PRECISIONS.get(system.runtime, "float32")}
            self.settings[" ".join(dict.fromkeys(key))] = taken | own
        return self._made[key]

    def _obstacle(self, system: System) -> str | None:
        try:
            self(system)(self._shown()[:1])
        except RoadworthyError as error:
            return str(error)
        return None

    def _make(self, model: str, runtime: str) -> Predictor:
        name = " ".join(part for part in (model, runtime) if part != AS_TRAINED) or AS_TRAINED
        match runtime.split("-"):
            case ["as", "trained"] if self._module is not None:
                return self._torch(self._variant(model), name, self._device)
            case ["torch", precision]:
                kind = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
                return self._torch(_Cast(self._variant(model), kind), name, "cpu")
            case ["as", "trained"]:
                return self._whole(OrtPredictor(self._file(model, AS_TRAINED), name=name))
            case ["onnxruntime", level]:
                path = self._file(model, AS_TRAINED)
                return self._whole(OrtPredictor(path, name=name, level=cast(Level, level)))
            case ["openvino", precision]:
                hint = None if precision == "default" else cast(Literal["f32"], precision)
                path = self._file(model, AS_TRAINED)
                return self._whole(OpenVinoPredictor(path, name=name, precision=hint))
            case ["mnn" | "ncnn" | "litert" as engine, precision]:
                path, how = self._file(model, AS_TRAINED), cast(Precision, precision)
                return self._whole(self._extra(engine, path, name, how))
            case _:
                return self._whole(OrtPredictor(self._file(model, runtime), name=name))

    def _extra(self, engine: Engine, path: Path, name: str, precision: Precision) -> FilePredictor:
        if not self._shown().is_floating_point():
            raise BadInput(f"{engine} runs images alone here; onnxruntime and openvino run texts")
        _, channels, height, width = self._shown().shape
        return ExtraPredictor(engine, path, (channels, height, width), None, name, precision)

    def _whole(self, predictor: FilePredictor) -> Predictor:
        """All outputs where the task may want them."""
        return _Everything(predictor) if self._raw else predictor

    def _torch(self, module: nn.Module, name: str, device: str) -> Predictor:
        kind = RawPredictor if self._raw else TorchPredictor
        return kind(module, name, device)

    def _variant(self, model: str) -> nn.Module:
        assert self._module is not None
        return self._module if model == AS_TRAINED else Changed(self._module, model)

    def _file(self, model: str, precision: str) -> Path:
        """The ONNX file of a variant in a precision, written where it is missing."""
        key = model, precision
        if key not in self._files:
            path = Path(self._scratch.name) / f"{model}-{precision}.onnx"
            if self._module is None:
                write_onnx_changed(self._files[AS_TRAINED, AS_TRAINED], model, path)
            elif precision == AS_TRAINED:
                images = self._shown()[:2]
                graph = capture(self._on_cpu(self._variant(model)), images[:1])
                export_onnx(graph, images, path)
            else:
                bits = {"int8": (8, 8), "w4a8": (4, 8)}[precision]
                module = self._on_cpu(self._variant(model))
                quantize(module, self._shown(), Mse(*bits)).export(path)
            self._files[key] = path
        return self._files[key]

    def _on_cpu(self, module: nn.Module) -> nn.Module:
        """Where files are written and the images of `show` are."""
        if resolve_device(self._device).type == "cpu":
            return module
        return copy.deepcopy(module).to("cpu")

    def _shown(self) -> Tensor:
        assert self._images is not None, "show() comes first"
        return self._images


class RawPredictor:
    """A torch module with any outputs: a tensor, several, some by name, or a dict for each image.

    >>> RawPredictor(nn.Conv2d(3, 85, 1))(torch.zeros(2, 3, 4, 4)).shape
    torch.Size([2, 85, 4, 4])
    """

    def __init__(self, module: nn.Module, name: str = "torch", device: str = "cpu") -> None:
        self.name, self._device = name, resolve_device(device)
        self._module = module.to(self._device)

    def __call__(self, images: Float[Tensor, "b c h w"]) -> Any:
        """Outputs of a batch in float32 on the CPU; BadModel where they are anything else."""
        try:
            with torch.inference_mode():
                outputs = self._module(images.to(self._device))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            reason = brief(error)
            raise BadModel(
                f"{self.name} fails on float32 images of shape {list(images.shape)}: {reason}; "
                "set size and crop of the preprocessing to the model's input"
            ) from error
        return self._kept(outputs)

    def _kept(self, outputs: Any) -> Any:
        match outputs:
            case Tensor():
                return outputs.float().cpu().clone()
            case [dict(), *_]:
                return [{k: self._kept(v) for k, v in each.items()} for each in outputs]
            case [Tensor(), *_] if all(isinstance(each, Tensor) for each in outputs):
                return [self._kept(each) for each in outputs]
            case dict() if any(isinstance(each, Tensor) for each in outputs.values()):
                # Hugging Face's answers also hold what was not asked for.
                kept = {k: v for k, v in outputs.items() if isinstance(v, Tensor)}
                return {k: self._kept(v) for k, v in kept.items()}
            case _:
                raise BadModel(
                    f"{self.name} answers a {type(outputs).__name__}; a tensor, a list or a dict "
                    "of tensors, or a list with a dict of tensors for each image, are allowed: "
                    "wrap it in a module that does so"
                )


class _Everything:
    """All outputs of a file."""

    def __init__(self, predictor: FilePredictor) -> None:
        self.name, self.settings = predictor.name, predictor.settings
        self._predictor = predictor

    def __call__(self, images: Inputs) -> Any:
        return self._predictor.everything(images)


class _Cast(nn.Module):
    """A copy of a module that computes in another precision."""

    def __init__(self, module: nn.Module, kind: torch.dtype) -> None:
        super().__init__()
        self.module, self.kind = copy.deepcopy(module).to(kind), kind

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.to(self.kind) if x.is_floating_point() else x)
