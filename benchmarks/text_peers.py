"""Text models, side by side: roadworthy and the public tools on MiniLM fine-tuned on SST-2.

Every tool gets the same model (recipes/finetune_text.py), the same tokens of 256 training texts
drawn by seed, and is judged on the 872 labelled sentences: accuracy, agreement with the float
model, squared error of the logits over their variance; size of what it deploys and cost of
quantizing. --race times what the first seed deploys against onnxruntime's float file, in turns in
one process. Each peer lives in an environment of its own, made here with uv; finished cells are
kept.

    python benchmarks/text_peers.py --out out/text-peers
    python benchmarks/text_peers.py --out out/text-peers --race
    python benchmarks/text_peers.py --out out/text-peers --finished
"""

import argparse
import json
import os
import sys
from pathlib import Path
from shutil import copytree

import numpy as np
import torch
from peer_table import Result, cpu_name
from ptq_peers import Job, Peer, finished, run

from roadworthy.core.batches import load_tensor
from roadworthy.core.data import load_data
from roadworthy.core.metrics import correct
from roadworthy.core.models import load_model
from roadworthy.core.padding import in_batches
from roadworthy.core.predict import TorchPredictor
from roadworthy.judging import against_float

TEXTS, SEEDS = 256, (0, 1, 2)
COLUMNS = ("w8a8", "w6a6", "w4a8")
ORT = "onnxruntime==1.32.0"  # in every environment, for the race
TORCH = ("torch==2.15.0", "transformers==5.23.0", "numpy", ORT)
OURS = Peer("text_roadworthy", (), ("outlier-suppression-plus", "smoothquant-1"))
PEERS = (
    OURS,
    Peer(
        "text_onnxruntime",
        (ORT, "onnx", "onnx_ir", "sympy"),
        ("minmax", "minmax-7bit", "dynamic", "matmul-nbits"),
    ),
    Peer("text_nncf", ("nncf==3.4.0", "openvino==2026.4.1", "onnx", ORT), ("smoothquant",)),
    Peer(
        "text_torchao",
        ("torchao==0.18.0", *TORCH),
        ("pt2e-dynamic", "pt2e-x86", "pt2e-x86-embeddings", "intx"),
    ),
    Peer("text_inc", ("neural-compressor-pt==3.10", "torchao==0.18.0", *TORCH), ("static",)),
    Peer(
        "text_onc",
        ("onnx-neural-compressor==1.0", ORT, "onnx", "prettytable", "scipy"),
        ("smoothquant",),
    ),
)
HAVE = {
    **dict.fromkeys(("text_onnxruntime", "text_inc", "text_onc"), ("w8a8",)),
    "matmul-nbits": ("w4a8",),
    "intx": ("w4a8",),
}
"""Columns of a method, else of a tool, that has not all of them."""
UNCALIBRATED = ("dynamic", "matmul-nbits", "pt2e-dynamic", "intx")
"""Methods that look at no text, so that one seed is all."""


def prepare(work: Path, folder: Path) -> None:
    """Write what every tool is handed: model/, model.onnx, data.npz."""
    if (work / "data.npz").exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    copytree(folder, work / "model", dirs_exist_ok=True)
    loaded = load_model(f"hf:{folder}")
    root = os.environ["ROADWORTHY_DATA"]
    train, test = (
        load_data(f"text:{root}/sst2/{part}.tsv?text=sentence&label=label")
        for part in ("train", "test")
    )
    x, y = load_tensor(test, loaded.stages)
    drawn = (train.subset(TEXTS, seed, stratified=False) for seed in SEEDS)
    texts = [load_tensor(some, loaded.stages)[0] for some in drawn]
    export(work)
    np.savez(
        work / "data.npz",
        test=x.numpy(),
        labels=y.numpy(),
        logits=in_batches(TorchPredictor(loaded.module, "float"), x).numpy(),
        **{f"cal{seed}": t.numpy() for seed, t in zip(SEEDS, texts, strict=True)},
    )


def export(work: Path) -> None:
    """The float model as ONNX: ids, mask and types [batch tokens] to logits."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(work / "model").eval()
    names = ["input_ids", "attention_mask", "token_type_ids"]
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", max=128)}
    torch.onnx.export(
        model,
        kwargs={name: torch.ones(2, 16, dtype=torch.int64) for name in names},
        f=work / "model.onnx",
        opset_version=21,
        dynamo=True,
        external_data=False,
        dynamic_shapes=dict.fromkeys(names, sizes),
        input_names=names,
        output_names=["logits"],
    )


def columns_of(peer: Peer, method: str) -> tuple[str, ...]:
    return HAVE.get(method, HAVE.get(peer.name, COLUMNS))


def jobs(given: argparse.Namespace) -> list[Job]:
    """Every method at the columns that it has, each seed."""
    return [
        Job(peer, method, column, seed)
        for column in given.columns
        for peer in PEERS
        if not given.only or peer.name.removeprefix("text_") in given.only
        for method in peer.methods
        if not given.methods or method in given.methods
        if column in columns_of(peer, method)
        for seed in (given.seeds[:1] if method in UNCALIBRATED else given.seeds)
    ]


def told(job: Job) -> str:
    return f"{job.peer.name.removeprefix('text_')} {job.method}"


def interval(gains: torch.Tensor, resamples: int = 10_000) -> torch.Tensor:
    """Mean over sentences [n], its 95 % bootstrap interval; a sentence's seeds stay together."""
    random = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(gains), (resamples, len(gains)), generator=random)
    means = gains[drawn].mean(1)
    return torch.cat([gains.mean()[None], means.quantile(torch.tensor([0.025, 0.975]).double())])


class Judge:
    """The sentences' labels and float logits, and the cells' logits."""

    def __init__(self, out: Path) -> None:
        with np.load(out / "work" / "data.npz") as store:
            self.labels, self.float = (torch.from_numpy(store[k]) for k in ("labels", "logits"))
        self.cells = out / "cells"

    def logits(self, job: Job) -> torch.Tensor:
        with np.load(self.cells / f"{job.key}.npz") as store:
            return torch.from_numpy(store["logits"])

    def row(self, runs: list[tuple[Job, Result]], against: list[Job]) -> str:
        """Means over seeds; differences from `against` on the same sentences and seeds."""
        name = told(runs[0][0])
        good = [(job, found) for job, found in runs if "cpu_s" in found]
        if not good:
            why = next(iter(runs[0][1].items()))
            return f"| {name} | {why[0]}: {why[1]} | | | | | |"
        logits = [self.logits(job) for job, _ in good]
        right = [100 * float(correct(x, self.labels).double().mean()) for x in logits]
        facts = [against_float(self.float, x) for x in logits]
        same, error = (np.mean([f[k] for f in facts]) for k in ("agreement", "logit_error"))
        size, cpu = (np.mean([found[k] for _, found in good]) for k in ("mebibytes", "cpu_s"))
        raced = [found["fp32_ms"] / found["ms"] for _, found in good if "ms" in found]
        speed = f"{np.mean(raced):.2f}" if raced else "-"
        paired = self.paired([job for job, _ in good], against)
        return (
            f"| {name} ({len(good)}) | {np.mean(right):.2f} ±{np.std(right):.2f} / {100 * same:.1f}"
            f" / {error:.4f} | {paired} | {size:.1f} | {cpu:.0f} | {speed} |"
        )

    def paired(self, theirs: list[Job], against: list[Job]) -> str:
        """Points that `against` is more often right and as the float model says."""
        ours = {job.seed: job for job in against}
        seeds = [job for job in theirs if job.seed in ours]
        if not seeds or theirs == against:
            return "- | -"
        pairs = [(self.logits(job), self.logits(ours[job.seed])) for job in seeds]
        parts = []
        for truth in (self.labels, self.float.argmax(1)):
            gains = [correct(b, truth).double() - correct(a, truth).double() for a, b in pairs]
            found = 100 * interval(torch.stack(gains).mean(0))
            parts.append("{:+.2f} [{:+.2f}, {:+.2f}]".format(*found.tolist()))
        return " | ".join(parts)

    def table(self, column: str, ours: str, cells: list[tuple[Job, Result]]) -> str:
        """One pair of widths; `ours` is the method that every row is compared with."""
        here = [cell for cell in cells if cell[0].column == column]
        reference = f"roadworthy {ours}"
        against = [job for job, found in here if told(job) == reference and "cpu_s" in found]
        lines = [
            f"| {column.upper()} (seeds) | right / agreement / logit error | {reference}: right "
            "more often, points | agrees more often, points | MiB | CPU s | times fp32's speed |",
            "|---" * 7 + "|",
        ]
        for name in dict.fromkeys(told(job) for job, _ in here):
            lines.append(self.row([cell for cell in here if told(cell[0]) == name], against))
        return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=Path("out/minilm-sst2"))
    parser.add_argument("--venvs", type=Path, default=Path.home() / ".cache" / "roadworthy-peers")
    parser.add_argument("--only", nargs="+", metavar="PEER")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="only these of each tool")
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=list(COLUMNS))
    parser.add_argument("--ours", choices=OURS.methods, default=OURS.methods[0], help="compared")
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=list(SEEDS))
    parser.add_argument("--finished", action="store_true", help="run nothing, print what is there")
    parser.add_argument("--race", action="store_true", help="time the finished cells of seed 0")
    parser.add_argument("--timeout", type=float, default=1200, help="seconds for one cell")
    return parser.parse_args()


def answered(job: Job, given: argparse.Namespace) -> Result | None:
    """The cell's numbers, run now where they are missing and asked for."""
    path = given.out / "cells" / f"{job.key}.json"
    found = finished(job, given.out)
    if given.finished or given.race:
        found = json.loads(path.read_text()) if path.exists() else None
    if given.race and job.seed == SEEDS[0] and found and "cpu_s" in found:
        raced = run(job, given.venvs, given.out, given.timeout, "race")
        found |= raced if "ms" in raced else {"race": raced}
    elif found is None and not (given.finished or given.race):
        found = run(job, given.venvs, given.out, given.timeout)
    else:
        return found
    path.write_text(json.dumps(found))
    print(f"{job.key}: {found}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    given = arguments()
    (given.out / "cells").mkdir(parents=True, exist_ok=True)
    prepare(given.out / "work", given.model)
    found = [(job, answered(job, given)) for job in jobs(given)]
    done = [(job, numbers) for job, numbers in found if numbers is not None]
    judge = Judge(given.out)
    right = 100 * float(correct(judge.float, judge.labels).double().mean())
    versions = sorted({f"{n} {v}" for _, f in done for n, v in f.get("versions", {}).items()})
    for column in given.columns:
        print(judge.table(column, given.ours, done) + "\n")
    print(f"float {right:.2f} %; {cpu_name()}, one core; {versions}")


if __name__ == "__main__":
    main()
