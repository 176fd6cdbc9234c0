"""The whole way of a model: captured, compressed, exported, proven, recorded."""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from roadworthy.compress.engine import Progress, Run, prepare, whole_model
from roadworthy.compress.freeze import freeze
from roadworthy.compress.methods import (
    BRECQ,
    AdaRound,
    Auto,
    Method,
    MinMax,
    Mse,
    OutlierSuppression,
    OutlierSuppressionPlus,
    QDrop,
    QDropPlus,
    SmoothQuant,
    at_effort,
    with_batch_size,
    with_iterations,
)
from roadworthy.compress.mixed import compress_within
from roadworthy.compress.place import Widths, place
from roadworthy.compress.quantize import Compressed, Plan
from roadworthy.compress.resume import Finished
from roadworthy.compress.select import compress_best
from roadworthy.compress.sensitivity import sensitivity
from roadworthy.compress.suppress import suppressed_shape
from roadworthy.core.backends import ACADEMIC, backend
from roadworthy.core.batches import batches, join
from roadworthy.core.capture import capture
from roadworthy.core.data import Dataset, load_data
from roadworthy.core.hf import stored_type
from roadworthy.core.images import Preprocess
from roadworthy.core.inputs import Stages
from roadworthy.core.models import load_model
from roadworthy.core.padding import in_batches, shortened
from roadworthy.core.predict import Inputs, OneOfMany, resolve_device
from roadworthy.core.runs import RunRecord, output_room, peak_memory_mb, write_atomically
from roadworthy.core.texts import TextInput
from roadworthy.core.units import partition
from roadworthy.deploy.bias import snap_biases
from roadworthy.deploy.export import export_onnx
from roadworthy.deploy.fused import fused
from roadworthy.deploy.integer import IntegerPredictor
from roadworthy.deploy.latency import latencies
from roadworthy.deploy.parity import affordable, assert_parity, compare
from roadworthy.deploy.runtimes import OrtPredictor
from roadworthy.deploy.store import fill, load_meaning, save_quantized
from roadworthy.errors import BadData, BadInput
from roadworthy.judging import identity, judge, judging_set
from roadworthy.judging_dense import refuse_uncompared, suited
from roadworthy.live import UnitProgress
from roadworthy.noise.deployed import as_deployed
from roadworthy.noise.mix import RandomPreprocess
from roadworthy.requests import QuantizeRequest, Solver, parse_bits

CALIBRATION_IMAGES, CALIBRATION_TEXTS = 1024, 256
BATCH = 64


@dataclass(frozen=True)
class QuantizedModel:
    """A quantized model: `module` simulates, `export` deploys, `record` tells how it came to be."""

    module: fx.GraphModule
    record: dict[str, Any]
    example: Inputs
    embeds: bool = False

    def export(self, path: str | Path) -> dict[str, Any]:
        """Write ONNX, compare it with the simulation on calibration images, keep it if equal.

        Raises:
            ParityError: the runtime disagrees on more than 0.5 % of them; nothing is written.
        """
        with write_atomically(Path(path)) as temporary:
            facts = export_onnx(self.module, self.example[:2], temporary)
            integer, written = IntegerPredictor(self.module), OrtPredictor(temporary)
            shown = affordable(integer, self.example)
            answers = in_batches(integer, shown), in_batches(written, shown)
            found = compare(*answers, self.embeds, shown)
            assert_parity(found, self.module, temporary, shortened(self.example[:BATCH]))
        return {**asdict(facts), "parity": found.to_dict()}


def quantize(
    model: str | nn.Module,
    batches: Iterable[OneOfMany] | Inputs,
    method: Method | None = None,
    *,
    backend_name: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> QuantizedModel:
    """Quantize `model` on `batches` of preprocessed images.

    Args:
        model: a module in eval mode, or a model spec.
        batches: images ``[b c h w]``, or all of them as one tensor.
        method: by default `QDrop()` at 4 bits with the published settings.
        backend_name: whose placement rules to follow; by default chosen by the widths.
        seed: of every random choice.
        progress: called now and then with where the run stands.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    >>> small = quantize(net, torch.rand(64, 3, 8, 8), Mse(8, 8))
    >>> small.module(torch.rand(2, 3, 8, 8)).shape
    torch.Size([2, 5])
    """
    method = method or QDrop()
    images = batches if isinstance(batches, Tensor) else torch.cat(list(batches))
    loaded = load_model(model)
    graph = capture(loaded.module, images[:1])
    chosen = backend(backend_name, method.act_bits)
    plan = Plan(method, chosen, Widths(method.weight_bits, method.act_bits))
    done = compress_best(graph, images, plan, Run(seed, progress=progress))
    snap_biases(done.module)
    return QuantizedModel(done.module, done.facts, images, loaded.embeds)


def method_of(solver: Solver, weight_bits: int, act_bits: int, images: int) -> Method:
    """The method that a request names, at its effort (for that many images) or number of steps."""
    kinds: dict[str, type[Method]] = {
        "minmax": MinMax,
        "mse": Mse,
        "adaround": AdaRound,
        "brecq": BRECQ,
        "qdrop": QDrop,
        "qdrop-plus": QDropPlus,
        "outlier-suppression": OutlierSuppression,
        "outlier-suppression-plus": OutlierSuppressionPlus,
        "smoothquant": SmoothQuant,
        "auto": Auto,
    }
    method = kinds[solver.method](weight_bits, act_bits, tries=solver.tries)
    if solver.iterations is None:
        method = at_effort(method, solver.effort, images)
    else:
        method = with_iterations(method, solver.iterations)
    return with_batch_size(method, solver.batch_size)


Compress = Callable[[fx.GraphModule, Inputs, Plan, Run], Compressed]
"""How a captured graph becomes integers."""


def quantize_to_dir(request: QuantizeRequest, compress: Compress | None = None) -> RunRecord:
    """Quantize, export, prove and record; what `roadworthy quantize` does.

    `compress` is another way to integers than the request's method alone.
    ``request.out`` then holds model.onnx, model.safetensors with quantization.json, run.json and
    report.html. What fails leaves in it at most the units that a next run need not learn again.

    Raises:
        BadInput: the model, the data or an option is not usable; the message says why.
        ParityError: the exported file disagrees with the simulation.
    """
    with output_room(request.out, "quantize") as out:
        return _quantize_into(out, request, compress)


def _quantize_into(out: Path, request: QuantizeRequest, compress: Compress | None) -> RunRecord:
    from roadworthy.report import write_report

    start = time.perf_counter()
    loaded = load_model(request.model)
    if request.scheme.max_drop is not None and loaded.embeds:
        loaded.scoring()
    preprocess = loaded.chosen(request.data.preprocess)
    answered = loaded.says in ("spans", "texts")
    dataset, images, labels, skipped = _calibration(request, preprocess, answered)
    if loaded.answers is not None:
        images = loaded.answers.generated(images)
    device = resolve_device(request.device)
    graph = capture(loaded.module, images[:1]).to(device)
    judging = judging_set(request.data.evaluation, graph, loaded)
    scheme = request.scheme
    refuse_uncompared(request, graph, images)
    chosen = backend(scheme.backend, scheme.act_bits)
    method = method_of(request.solver, scheme.weight_bits, scheme.act_bits, len(images))
    method = suited(method, graph, images)
    widths = Widths(scheme.weight_bits, scheme.act_bits, tuple(scheme.keep_8bit))
    plan = Plan(method, chosen, widths, request.solver.blocks)
    config = _config(request, preprocess, chosen.name, method) | loaded.meaning
    fingerprint = {
        **{name: config[name] for name in config.keys() - {"eval", "max_drop", "options"}},
        "images": dataset.sha256,
        "weights": digest(loaded.module),
        "seed": request.seed,
        "version": metadata.version("roadworthy"),
    }
    finished = Finished(out / ".unfinished", fingerprint)
    if not request.resume:
        finished.clear()
    with UnitProgress(f"{request.solver.method} {scheme.bits}") as bar:
        run = Run(request.seed, finished, bar.show, request.solver.memory)
        if scheme.max_drop is None:
            done = (compress or compress_best)(graph, images.to(device), plan, run)
        else:
            done = compress_within(graph, images.to(device), labels, plan, run, scheme.max_drop)
    if request.sensitivity and scheme.max_drop is None:
        done.facts["sensitivity"] = sensitivity(graph, images.to(device), plan)
    if isinstance(preprocess, TextInput):
        _name_tokens(done.facts, preprocess)
    module = done.module.cpu()
    snap_biases(module)
    config["settings"] = asdict(done.method)
    meaning = {**config, "input_shape": list(images.shape[1:]), "layers": done.facts["layers"]}
    meaning["raised"] = done.facts.get("raised_to_8bit", [])
    with _together(out) as new:
        numbers = _deploy(module, graph.cpu(), images, new, loaded.embeds)
        numbers |= judge(request, judging, loaded, module, preprocess, new)
        save_quantized(module, meaning, new)
        record = RunRecord(
            "quantize",
            config,
            request.seed,
            {"calibration": identity(dataset, skipped), **numbers.pop("data")},
            {
                **done.facts,
                **numbers,
                "stored_as": stored_type(request.model),
                "seconds": time.perf_counter() - start,
                "peak_memory_mb": peak_memory_mb(),
            },
        )
        record.save(new / "run.json")
    write_report([out], out / "report.html")
    finished.clear()
    return record


def _name_tokens(facts: dict[str, Any], texts: TextInput) -> None:
    """Beside the ids of tokens that carry outliers, what they are."""
    for row in facts.get("suppression", {}).get("norms", ()):
        for told in (row["before"], row["after"]):
            if told is not None:
                told["names"] = texts.names([token for token, _ in told["tokens"]])


def digest(module: nn.Module) -> str:
    """Hash of all weights: a kept unit belongs to the checkpoint that it was learned from."""
    total = hashlib.sha256()
    for name, value in module.state_dict().items():
        total.update(name.encode())
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        total.update(raw.numpy().tobytes())
    return total.hexdigest()


@contextmanager
def _together(out: Path) -> Generator[Path]:
    """A folder whose files move into `out` once all of them are written, and else are gone."""
    new = out / ".new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        yield new
        for file in new.iterdir():
            file.replace(out / file.name)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _calibration(
    request: QuantizeRequest, preprocess: Stages, answered: bool
) -> tuple[Dataset, Tensor, Tensor, int]:
    dataset = load_data(request.data.calibration, answered)
    most = CALIBRATION_IMAGES if isinstance(preprocess, Preprocess) else CALIBRATION_TEXTS
    wanted = request.data.calib_size or min(most, len(dataset))
    if wanted < len(dataset):
        dataset = dataset.subset(wanted, request.seed)
    elif wanted > len(dataset):
        things = dataset.things
        raise BadData(
            f"--calib-size {wanted} given and {dataset.spec} holds {len(dataset)} {things}; "
            f"give more {things} or a smaller --calib-size"
        )
    read, stages = dataset, preprocess
    if request.data.calib_noise:
        if not isinstance(preprocess, Preprocess):
            raise BadInput("--calib-noise given to a text model; it is about decoders of images")
        read, stages = as_deployed(dataset, RandomPreprocess(preprocess), request.seed)
    parts = batches(read, stages, 64, request.data.skip_bad, "reading calibration images")
    images, labels = join(parts)
    return dataset, images, labels, len(parts.skipped)


def _config(
    request: QuantizeRequest, preprocess: Stages, backend_name: str, method: Method
) -> dict[str, Any]:
    return {
        "model": request.model,
        "data": request.data.calibration,
        "eval": request.data.evaluation,
        "bits": request.scheme.bits,
        "keep_8bit": list(request.scheme.keep_8bit),
        "max_drop": request.scheme.max_drop,
        "method": request.solver.method,
        "effort": request.solver.effort if request.solver.iterations is None else None,
        "iterations": [p.iterations for p in method.passes],
        "backend": backend_name,
        "blocks": list(request.solver.blocks),
        "settings": asdict(method),
        "preprocess": preprocess.to_dict(),
        "calib_noise": _noise(preprocess) if request.data.calib_noise else None,
        "options": {
            "calib_size": request.data.calib_size,
            "preprocess": request.data.preprocess,
            "batch_size": request.solver.batch_size,
            "skip_bad": request.data.skip_bad,
            "out": str(request.out),
        },
    }


def _noise(preprocess: Stages) -> Any:
    return RandomPreprocess(preprocess).choices if isinstance(preprocess, Preprocess) else None


def _deploy(
    module: fx.GraphModule, graph: nn.Module, images: Tensor, out: Path, embeds: bool
) -> dict[str, Any]:
    """Write model.onnx once it agrees with the simulation; size and speed against float."""
    quantized = QuantizedModel(module, {}, images, embeds)
    facts = quantized.export(out / "model.onnx")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.onnx"
        written = export_onnx(graph, images[:2], path)
        low = OrtPredictor(out / "model.onnx")
        timed = latencies({"float": OrtPredictor(path), "quantized": low}, images[:1])
    return {
        "parity": facts["parity"],
        "onnx": {"opset": facts["opset"], "ops": facts["ops"]},
        "kernels": asdict(fused(out / "model.onnx")),
        "files": {
            "float_onnx_bytes": written.bytes,
            "quantized_onnx_bytes": facts["bytes"],
        },
        "latency": {
            "float_ms": timed["float"]["median_ms"],
            "quantized_ms": timed["quantized"]["median_ms"],
            "detail": timed,
            "settings": low.settings,
        },
    }


def load_quantized(folder: str | Path) -> fx.GraphModule:
    """The simulated model that `quantize_to_dir` left in `folder`, bit for bit.

    The structure comes from capturing the model that its quantization.json names once more, all
    numbers from its model.safetensors.
    """
    folder = Path(folder)
    meaning = load_meaning(folder)
    loaded = load_model(meaning["model"])
    graph = capture(loaded.module, loaded.example(meaning["input_shape"]))
    suppressed_shape(graph, meaning["settings"])
    weight_bits, act_bits = parse_bits(meaning["bits"])
    raised = dict.fromkeys(meaning["raised"], 8)
    widths = Widths(weight_bits, act_bits, tuple(meaning["keep_8bit"]), raised)
    chosen = backend(meaning["backend"], act_bits)
    frozen = freeze(whole_model(prepare(graph, chosen, widths, meaning["blocks"])))
    fill(frozen, folder)
    return frozen


def list_blocks(model: str, image_size: int | None = None) -> list[dict[str, Any]]:
    """The units that reconstruction would work on, with their layers."""
    loaded = load_model(model)
    channels, *sides = loaded.input_shape or (3, 32, 32)
    shape = (channels, image_size, image_size) if image_size else (channels, *sides)
    graph = capture(loaded.module, loaded.example(shape))
    quantizers = place(graph, ACADEMIC, Widths(8, 8))
    names = {layer.node: layer.name for layer in quantizers.layers}
    units = partition(graph, quantizers.placement.activations)
    return [
        {
            "name": unit.name,
            "layers": [names[node] for node in unit.layers if node in names],
            "output": [int(size) for size in unit.exit.meta["val"].shape[1:]],
        }
        for unit in units
        if unit.layers
    ]
