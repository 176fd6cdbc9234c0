"""Quantized text models against fp32 on onnxruntime: how fast, how small, how right.

MiniLM of recipes/finetune_text.py, one text at a time, one thread. fp32 is what torch exports, for
our files and for those that onnxruntime makes of it. All are timed in turns in one process on one
text of `--tokens` tokens, by the CPU time of the process, so that others on the machine count less:
ratios, not milliseconds, are what is measured. What is slow to make is kept in `--out`; our files
are exported anew from their folders, so that the exporter of today is timed. Right answers are
counted on the 872 labelled SST-2 sentences, at their own lengths.

    OMP_NUM_THREADS=1 python benchmarks/text_speed.py
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from deploy_speed import processor
from text_peers import export
from torch import Tensor

from roadworthy.cli import main as roadworthy
from roadworthy.core.batches import load_tensor
from roadworthy.core.capture import capture
from roadworthy.core.data import load_data
from roadworthy.core.metrics import accuracy
from roadworthy.core.models import load_model
from roadworthy.core.padding import in_batches, shortened
from roadworthy.deploy.export import export_onnx
from roadworthy.deploy.fused import fused
from roadworthy.deploy.rows import by_rows
from roadworthy.deploy.runtimes import OpenVinoPredictor, open_session
from roadworthy.journey import load_quantized
from roadworthy.judging import against_float

TEXTS = 256
NAMES = ("input_ids", "attention_mask", "token_type_ids")
Feed = dict[str, np.ndarray]


@dataclass(frozen=True)
class Texts:
    """Texts to calibrate on and to judge by ``[n 3 t]``, and the judged ones' labels."""

    shown: Tensor
    judged: Tensor
    labels: Tensor


class Ort:
    """A file of one input ``[b 3 t]``, or of three ``[b t]``, on onnxruntime and one thread."""

    def __init__(self, path: Path) -> None:
        self._session = open_session(str(path), 1)
        self._asked = [each.name for each in self._session.get_inputs()]

    def __call__(self, texts: Tensor) -> Tensor:
        given = {"tokens": texts.numpy(), **named(texts)}
        feed = {name: given[name] for name in self._asked}
        return torch.from_numpy(self._session.run(None, feed)[0])


@dataclass(frozen=True)
class Run:
    """A file, and who answers with it."""

    path: Path
    answer: Callable[[Tensor], Tensor]

    def seconds(self, texts: Tensor) -> float:
        start = time.process_time()
        self.answer(texts)
        return time.process_time() - start


def named(texts: Tensor) -> Feed:
    return {name: row.numpy() for name, row in zip(NAMES, texts.unbind(1), strict=True)}


def main() -> None:
    given = arguments()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    texts = read(given.model)
    runs = {name: Run(path, Ort(path)) for name, path in made(given, texts)}
    for name in [name for name in runs if given.openvino and "roadworthy" in name]:
        path = runs[name].path
        runs[f"{name} on OpenVINO"] = Run(path, OpenVinoPredictor(path, 1))
    one = example(given.tokens, texts.judged)
    rounds = [[run.seconds(one) for run in runs.values()] for _ in range(given.rounds + 2)]
    spent = 1e3 * np.array(rounds[2:])
    print(f"{processor()}, one thread, {given.tokens} tokens, {given.rounds} rounds\n")
    print("| file | MB | ms | speed-up | products in integers, in floats | right / agreement |")
    print("|---" * 6 + "|")
    fp32 = in_batches(runs["fp32"].answer, texts.judged) if given.judge else None
    for column, (name, run) in enumerate(runs.items()):
        size, found = run.path.stat().st_size / 1e6, fused(run.path)
        ratio = np.median(spent[:, 0] / spent[:, column])
        kernels = "" if "OpenVINO" in name else f"{found.integer}, {found.float}"
        times = f"{np.median(spent[:, column]):.1f} | {ratio:.2f}"
        print(f"| {name} | {size:.1f} | {times} | {kernels} | {right(run, texts, fp32)} |")


def right(run: Run, texts: Texts, fp32: Tensor | None) -> str:
    """Percent of right answers and of the float model's answers."""
    if fp32 is None:
        return ""
    said = in_batches(run.answer, texts.judged)
    same = against_float(fp32, said)["agreement"]
    return f"{100 * accuracy(said, texts.labels):.2f} / {100 * same:.1f}"


def read(model: str) -> Texts:
    loaded = load_model(model)
    assert loaded.texts is not None
    train, test = (load_data(spec(part)) for part in ("train", "test"))
    shown = load_tensor(train.subset(TEXTS, 0, stratified=False), loaded.texts)[0]
    return Texts(shown, *load_tensor(test, loaded.texts))


def spec(part: str) -> str:
    return f"text:{os.environ['ROADWORTHY_DATA']}/sst2/{part}.tsv?text=sentence&label=label"


def example(tokens: int, texts: Tensor) -> Tensor:
    """One text of that many tokens, joined from the judged ones."""
    ids = texts[:, 0][texts[:, 1].bool()][:tokens]
    return torch.stack([ids, torch.ones_like(ids), torch.zeros_like(ids)])[None]


def made(given: argparse.Namespace, texts: Texts) -> Iterator[tuple[str, Path]]:
    """Every file by name, fp32 first."""
    out = given.out
    model, fp32 = out / "model", out / "model.onnx"
    if not fp32.exists():
        model.unlink(missing_ok=True)
        model.symlink_to(Path(given.model.removeprefix("hf:")).resolve())
        export(out)
    yield "fp32", fp32
    if given.alike:
        alike = out / "alike.onnx"
        if not alike.exists():
            graph = capture(load_model(given.model).module, texts.judged[:1])
            export_onnx(by_rows(graph), texts.shown[:2], alike)
        yield "fp32, graph rewritten like ours", alike
    for bits in given.bits:
        folder = out / bits
        if not (folder / "run.json").exists():
            options = ["--bits", bits, "--method", given.method, "--out", str(folder)]
            assert roadworthy(["quantize", given.model, "--data", spec("train"), *options]) == 0
        path = out / f"{bits}.onnx"
        if not (given.kept and path.exists()):
            export_onnx(load_quantized(folder), texts.shown[:2], path)
        yield f"roadworthy, {bits.upper()}", path
    for name in given.peers:
        path = out / f"{name}.onnx"
        if not path.exists():
            PEERS[name](fp32, path, texts.shown)
        yield f"onnxruntime, {name}", path


def prepared(source: Path) -> Path:
    """The float file as onnxruntime wants it before it quantizes it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready = source.with_name("ready.onnx")
    quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
    return ready


def dynamic(source: Path, to: Path, _: Tensor) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(prepared(source), to, per_channel=True, weight_type=QuantType.QInt8)


def static(source: Path, to: Path, texts: Tensor) -> None:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = (named(shortened(text[None])) for text in texts)

        def get_next(self) -> Feed | None:
            return next(self.feeds, None)

    quantize_static(prepared(source), to, Reader(), per_channel=True)


PEERS: dict[str, Callable[[Path, Path, Tensor], None]] = {"dynamic": dynamic, "static": static}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    switch = argparse.BooleanOptionalAction
    parser.add_argument("--model", default="hf:out/minilm-sst2")
    parser.add_argument("--bits", nargs="+", default=["w8a8", "w6a6"], help="of ours")
    parser.add_argument("--method", default="outlier-suppression-plus", help="of ours")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--alike", action=switch, default=True, help="fp32 with our graph, too")
    parser.add_argument("--kept", action=switch, default=False, help="time our files as they are")
    parser.add_argument("--openvino", action=switch, default=True, help="our files there, too")
    parser.add_argument("--judge", action=switch, default=True)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("out/text-speed"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
