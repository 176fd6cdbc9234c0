"""A stage's folder: weights, what they are of, and how they came about.

==========================  =======================================================================
``model.safetensors``       the backbone alone; ``metanet:NAME@FOLDER/model.safetensors`` opens it
``heads.safetensors``       what stood on it: heads, text tower, adapters
``tokenizer.json``          of a text tower: how it reads
``config.json``             `StageConfig`: how to build both
``manifest.json``           parents, data, seed, what it cost, versions, and a hash of each file
==========================  =======================================================================
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from roadworthy.core.checkpoints import load_strictly, read_weights
from roadworthy.core.images import IMAGENET, Preprocess
from roadworthy.core.metadata import for_safetensors
from roadworthy.core.metanet import MetaNetConfig, config_of
from roadworthy.core.runs import host, output_folder, plain, versions, write_atomically
from roadworthy.errors import BadInput, BadModel
from roadworthy.learn.backbones import Architecture
from roadworthy.learn.batches import Source, Task
from roadworthy.learn.captions import Captioned
from roadworthy.learn.loop import Compute
from roadworthy.learn.plan import Plan
from roadworthy.learn.texts import FILE as TOKENIZER
from roadworthy.learn.texts import TextConfig

MODEL, HEADS, CONFIG, MANIFEST = (
    "model.safetensors",
    "heads.safetensors",
    "config.json",
    "manifest.json",
)


@dataclass(frozen=True)
class HeadConfig:
    """A head: of which source and task, and the names of its classes."""

    source: str
    task: Task
    classes: tuple[str, ...]


@dataclass(frozen=True)
class StageConfig:
    """How the model of a stage is built.

    Args:
        stage: amateur, expert, multitask, generalist, distilled or adapted.
        architecture: spec without weights, or a network that has no name.
        size: pixels a side that it learned from.
        heads: in the order of ``heads.safetensors``.
        auxiliaries: architectures of a generalist's other branches.
        text: the amateur's text tower; None of other stages.
        protocol: by which an adapted model was made; "" of other stages.
    """

    stage: str
    architecture: Architecture
    size: int
    heads: tuple[HeadConfig, ...] = ()
    auxiliaries: tuple[Architecture, ...] = ()
    text: TextConfig | None = None
    protocol: str = ""


@dataclass(frozen=True)
class Made:
    """How a stage came about.

    Args:
        parents: folders of the stages that it began with.
        sources: what it learned from.
        plan: None where nothing was learned step by step.
        compute: its own, without its parents'.
        held_out: metrics of its heads.
        told: what this kind of stage alone has to say.
    """

    parents: Sequence[Path]
    sources: Sequence[Source | Captioned]
    plan: Plan | None
    compute: Compute
    held_out: Sequence[Mapping[str, Any]] = ()
    told: Mapping[str, Any] = field(default_factory=dict[str, Any])


def stage_folder(out: Path, begun: Sequence[str | Path]) -> Path:
    """`output_folder` of a stage that begins with others, none of which it may overwrite.

    Args:
        begun: specs and folders that it begins with.

    Raises:
        BadInput: `out` is one of them, or as `output_folder` says.
    """
    for each in begun:
        weights = Path(str(each).rpartition("@")[2])
        held = Path(each) if is_stage(each) else weights.parent
        own = is_stage(held) or (weights.is_file() and weights.name in (MODEL, HEADS))
        if own and held.resolve() == out.resolve():
            raise BadInput(
                f"--out {out} given, which this run begins with and would overwrite; give a folder "
                "of its own"
            )
    return output_folder(out)


def write_stage(
    out: Path, config: StageConfig, backbone: nn.Module, heads: nn.Module, made: Made
) -> dict[str, Any]:
    """Write the four files, the manifest last, and hand out what it says.

    A text tower's tokenizer must have been written.

    Raises:
        BadModel: a parent is damaged; nothing is written.
    """
    parents = [(folder, read_manifest(folder)) for folder in made.parents]
    metadata = for_safetensors(preprocess_of(config.size))
    _save(out / MODEL, backbone.state_dict(), metadata)
    _save(out / HEADS, heads.state_dict(), {})
    _json(out / CONFIG, asdict(config))
    names = (MODEL, HEADS, CONFIG, *([TOKENIZER] if config.text else []))
    manifest = plain({
        "stage": config.stage,
        "parents": [
            {"folder": str(folder), "sha256": found["files"][MODEL]} for folder, found in parents
        ],
        "data": [
            {"name": each.name, "task": each.task, "n": len(each), "sha256": each.sha256}
            for each in made.sources
        ],
        "seed": made.plan and made.plan.seed,
        "plan": made.plan,
        "compute": made.compute,
        "held_out": made.held_out,
        **made.told,
        "total": _total(made.compute, [found for _, found in parents]),
        "files": {name: _sha256(out / name) for name in names},
        "versions": versions(),
        "host": host(),
    })  # fmt: skip
    _json(out / MANIFEST, manifest)
    return manifest


def write_network(network: MetaNetConfig, path: Path) -> Path:
    """Write what ``metanet:FILE.json`` opens; `path`."""
    _json(path, asdict(network))
    return path


def preprocess_of(size: int) -> Preprocess:
    """What turns a photo into what a stage saw: squashed to a square, ImageNet's mean."""
    return Preprocess(
        resize="pillow-bilinear",
        geometry="squash",
        size=(size, size),
        mean=IMAGENET.mean,
        std=IMAGENET.std,
    )


def _total(own: Compute, parents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the stage and all that it began with have cost, each ancestor once."""
    ancestors: dict[str, Any] = {}
    for each in parents:
        ancestors |= each["total"]["ancestors"]
        ancestors[each["files"][MODEL]] = each["compute"]
    summed = Compute()
    for cost in (asdict(own), *ancestors.values()):
        summed = summed.plus(**cost)
    return {**asdict(summed), "ancestors": ancestors}


def is_stage(folder: str | Path) -> bool:
    """Whether a stage has been written there."""
    return (Path(folder) / MANIFEST).is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """What ``manifest.json`` says, after a look at the hash of each file.

    Raises:
        BadModel: no finished stage, or a file that is not what was written.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        files = dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadModel(
            f"{folder} is no finished stage: {MANIFEST} is missing or damaged; give a folder that "
            "roadworthy learn wrote"
        ) from error
    for name, expected in files.items():
        if not (folder / name).is_file() or _sha256(folder / name) != expected:
            raise BadModel(
                f"{folder / name} is not what {MANIFEST} says was written: it is missing, cut off "
                "or changed; copy the whole folder again"
            )
    return manifest


def read_config(folder: Path) -> StageConfig:
    """How the stage's model is built; the folder's files are looked at first."""
    read_manifest(folder)
    held = json.loads((folder / CONFIG).read_text())
    heads = tuple(
        HeadConfig(each["source"], each["task"], tuple(each["classes"])) for each in held["heads"]
    )
    auxiliaries = tuple(map(_architecture, held.get("auxiliaries", ())))
    text = TextConfig(**held["text"]) if held.get("text") else None
    names = held["stage"], _architecture(held["architecture"]), held["size"]
    return StageConfig(*names, heads, auxiliaries, text, held.get("protocol", ""))


def _architecture(told: Any) -> Architecture:
    return told if isinstance(told, str) else config_of(told)


def fill(module: nn.Module, folder: Path, name: str = MODEL) -> nn.Module:
    """`module` with the weights of a stage's file; every key must fit.

    Raises:
        BadModel: keys are missing, unknown or of another shape; lists them.
    """
    load_strictly(module, read_weights(folder / name), f"stage {folder / name}")
    return module


def _save(path: Path, weights: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    held = {name: each.detach().cpu().contiguous().clone() for name, each in weights.items()}
    with write_atomically(path) as temporary:
        save_file(held, temporary, metadata)


def _json(path: Path, values: Any) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
