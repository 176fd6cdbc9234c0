"""Puts the backbone of a stage into the package, for ``metanet:NAME``, and writes its model card.

    python recipes/ship_backbone.py out/small-0/distilled   (seconds)

DIR is what `roadworthy learn` left, a single branch of a named MetaNet; its ancestors are found by
their hashes, where they were or beside it. The weights alone go, as float32 and byte for byte the
same each time; hashes of their origin lie in the file. What the card says of data, cost and quality
is read from the manifests of all these stages, and from the probes beside DIR; whatever source they
name must stand in `TERMS`.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from roadworthy.core.checkpoints import check_finite, load_strictly, read_weights
from roadworthy.core.cost import macs, parameters
from roadworthy.core.metadata import for_safetensors
from roadworthy.core.metanet import POINTS, MetaNet
from roadworthy.core.runs import write_atomically
from roadworthy.errors import BadInput, BadModel, RoadworthyError
from roadworthy.learn.manifest import (
    MANIFEST,
    MODEL,
    StageConfig,
    is_stage,
    preprocess_of,
    read_config,
    read_manifest,
)
from roadworthy.learn.overview import Row, short, table

Manifest = Mapping[str, Any]
ROOT = Path(__file__).parents[1]
MOST = 8_000_000
"""Bytes that a file of weights may take in the package."""
BY = ("roadworthy", "torch")
RESEARCH = "for non-commercial research and education"
TERMS = {
    "roadworthy scenes (synthetic)": "Apache-2.0, rendered by this package",
    "tiny_imagenet": f"tiny ImageNet, on ImageNet's terms: {RESEARCH}",
    "flickr8k": f"Flickr8k, photographs of users of Flickr and captions: {RESEARCH}",
    "coco_val128": "COCO val2017: photographs on Flickr's terms of use, annotations CC BY 4.0",
}
"""What the images of a source may be used for."""


@dataclass(frozen=True)
class Origin:
    """A stage that weights came about by.

    Args:
        folder: its name alone, without the place.
        sha256: of its backbone.
    """

    folder: str
    sha256: str
    manifest: Manifest


def lineage(folder: Path) -> list[Origin]:
    """The stage and all that it began with, each once, parents first.

    Raises:
        BadModel: a stage that is damaged, or an ancestor that is no longer there.
    """
    found: dict[str, Origin] = {}

    def visit(at: Path) -> None:
        manifest = read_manifest(at)
        sha256 = manifest["files"][MODEL]
        if sha256 in found:
            return
        for parent in manifest["parents"]:
            visit(_place(parent, folder.parent))
        found[sha256] = Origin(at.resolve().name, sha256, manifest)

    visit(folder)
    return [*found.values()]


def _place(parent: Mapping[str, str], beside: Path) -> Path:
    """Where an ancestor lies: where it was, or beside the stage that is shipped."""
    recorded = Path(parent["folder"])
    for at in (recorded, beside / recorded.name):
        if is_stage(at) and read_manifest(at)["files"][MODEL] == parent["sha256"]:
            return at
    raise BadModel(
        f"the stage {recorded} with a backbone of sha256 {parent['sha256'][:12]} is neither there "
        f"nor in {beside}; copy the folders of all stages into one"
    )


def sources_of(stages: Sequence[Origin]) -> list[Row]:
    """A row for each set that any stage learned from, for one task, and which stages those are."""
    rows: dict[tuple[str, str, str], Row] = {}
    for stage in stages:
        for each in stage.manifest["data"]:
            key = each["name"], each["task"], each["sha256"]
            row = rows.setdefault(key, {**each, "stages": []})
            row["stages"].append(stage.folder)
    strange = sorted({name for name, _, _ in rows} - {*TERMS})
    if strange:
        raise BadInput(
            f"learned from {', '.join(strange)}, of unknown terms; {', '.join(TERMS)} have some: "
            "say in TERMS of this recipe what its images may be used for"
        )
    return sorted(rows.values(), key=lambda row: (row["name"], row["task"]))


def name_of(config: StageConfig, folder: Path) -> str:
    """Which of `POINTS` a stage's backbone is; BadModel where it is none of them."""
    told = config.architecture
    name = told.removeprefix("metanet:").partition("@")[0] if isinstance(told, str) else ""
    if name not in POINTS or config.auxiliaries:
        raise BadModel(
            f"{folder} is a {config.stage} of {told} and {len(config.auxiliaries)} auxiliaries; "
            f"give a stage of one of {', '.join(POINTS)}, such as `learn distill` leaves"
        )
    return name


def packed(weights: Mapping[str, Tensor], told: Mapping[str, str]) -> bytes:
    """A ``.safetensors`` file of float32, the same bytes for the same content.

    safetensors leaves the order of metadata to chance: the header is written again, sorted.
    """
    exact = {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
    drawn = save({k: v.contiguous() for k, v in exact.items()}, dict(told))
    end = 8 + int.from_bytes(drawn[:8], "little")
    header = json.dumps(json.loads(drawn[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + drawn[end:]


def content_of(folder: Path, name: str, stages: Sequence[Origin]) -> bytes:
    """What is shipped: the backbone, what turns a photo into its input, and hashes of its origin.

    Raises:
        BadModel: weights that do not fit, are not finite, or are more than `MOST` bytes.
    """
    config, weights = read_config(folder), read_weights(folder / MODEL)
    module = MetaNet(POINTS[name])
    load_strictly(module, weights, f"stage {folder}")
    check_finite(module, f"stage {folder}")
    data = [
        {key: row[key] for key in ("name", "task", "n", "sha256")} for row in sources_of(stages)
    ]
    origin = {
        "architecture": name,
        "stages": {stage.sha256: stage.manifest["stage"] for stage in stages},
        "manifest": hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest(),
        "data": data,
    }
    told = for_safetensors(preprocess_of(config.size)) | {"origin": json.dumps(origin)}
    content = packed(weights, told)
    if len(content) > MOST:
        raise BadModel(f"{folder} takes {len(content)} bytes; {MOST} are allowed in the package")
    return content


def probes_beside(folder: Path) -> Iterator[Row]:
    """What linear probes beside a stage have said of it, and of weights at random."""
    for path in sorted(folder.resolve().parent.glob("*/run.json")):
        record = json.loads(path.read_text())
        if record["command"] != "learn probe":
            continue
        own = [each for each in record["probes"] if Path(each["model"]).name == folder.name]
        drawn = [each for each in record["probes"] if each["model"].endswith("@random")]
        for each in own:
            yield {
                "judged on": short(record["config"]["test"][1]),
                "images": each["n"],
                "labels": each["trained_on"],
                "pixels": record["config"]["size"],
                "metric": each["metric"],
                "these weights": float(each["value"]),
                "weights at random": float(drawn[0]["value"]) if drawn else None,
            }


def card(folder: Path, name: str, content: bytes, stages: Sequence[Origin]) -> str:
    """The model card, in Markdown."""
    config, last = read_config(folder), stages[-1].manifest
    net, data = MetaNet(POINTS[name]), sources_of(stages)
    held = [
        {"head of": r.get("head"), "task": r.get("task"), "judged on": r["judged_on"]}
        | {"images": r["n"]}
        | {"metric": r["metric"], "value": float(r["value"])}
        for r in last["held_out"]
    ]
    cost = macs(lambda: MetaNet(POINTS[name]), 3, config.size, config.size)
    maps = ", ".join(map(str, net.channels))
    about = {
        "network": f"MetaNet `{name}` without a classifier",
        "parameters": f"{parameters(net):,}",
        "multiply-accumulates": f"{cost:,} at {config.size} x {config.size} pixels",
        "answers": f"{net.width} pooled features; maps of {maps} channels at strides 4, 8, 16, 32",
        "preprocessing": f"`{json.dumps(preprocess_of(config.size).to_dict())}`",
        "file": f"`core/weights/{name}.safetensors`, {len(content):,} bytes, float32",
        "sha256 of the file": f"`{hashlib.sha256(content).hexdigest()}`",
        "stage": f"{config.stage}, backbone of sha256 `{stages[-1].sha256}`",
        "learned by": ", ".join(f"{k} {v}" for k, v in last["versions"].items() if k in BY),
    }
    used = {row["name"]: TERMS[row["name"]] for row in data}
    probed = [*probes_beside(folder)]
    probes = table(probed) if probed else "No probe lay beside the stage."
    return CARD.format(
        name=name,
        size=config.size,
        tasks=", ".join(sorted({row["task"] for row in data})),
        about="\n".join(["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in about.items())]),
        sources=table([_said(row) for row in data]),
        terms="\n".join(f"- {source}: {terms}" for source, terms in used.items()),
        stages=table([_step(stage) for stage in stages]),
        total=_spent(last["total"]),
        held=table(held) if held else "Nothing was held out.",
        probes=probes,
    )


def _said(row: Row) -> Row:
    return {
        "source": row["name"],
        "task": row["task"],
        "images": row["n"],
        "sha256": f"`{row['sha256'][:12]}`",
        "in": ", ".join(row["stages"]),
    }


def _step(stage: Origin) -> Row:
    told = stage.manifest
    plan = told["plan"] or {}
    return {
        "folder": stage.folder,
        "stage": told["stage"],
        **{what: plan.get(key) for what, key in (("steps", "steps"), ("images a step", "batch"))},
        "rate": f"{plan['rate']:g}" if plan else None,
        "seed": told["seed"],
        "sha256": f"`{stage.sha256[:12]}`",
        "CPU minutes": f"{told['compute']['cpu_seconds'] / 60:.1f}",
        "asked of the teacher": ", ".join(told.get("hints", ())) or None,
        "TMACs": told["compute"]["macs"] / 1e12,
    }


def _spent(total: Mapping[str, Any]) -> str:
    gpu = f", {total['gpu_seconds'] / 60:.1f} GPU minutes" if total["gpu_seconds"] else ""
    return (
        f"{total['images']:,} images seen, {total['macs'] / 1e12:.2f} TMACs forward and backward, "
        f"{total['cpu_seconds'] / 60:.1f} CPU minutes{gpu}"
    )


CARD = """# `metanet:{name}`: weights that come along

A small backbone to adapt and to try things with: it answers features, not classes. It has learned
in the stages of [learn](../learn.md): {tasks}.

```
roadworthy adapt metanet:{name} --task classification --data imagefolder:train \\
    --test imagefolder:val --fraction 0.1 --out out/adapted
roadworthy quantize py:out/adapted/model.py:build --data imagefolder:train --out out/w8a8
```

{about}

## What it learned from

{sources}

{terms}

Hashes are those of images and annotations as stages hold them, squashed to {size} pixels a side.

## How

{stages}

In all: {total}.

## What it reaches

Its own heads, which do not come along, on held-out images:

{held}

Linear probes on frozen features:

{probes}

These images have been looked at while the settings of the stages were chosen.

## Limits

- **Small, of small images**: {size} pixels a side, squashed. Larger images run, but nothing was
  learned from them.
- **Little data**: the counts above. A backbone that was pretrained on ImageNet or more
  (`timm:NAME`) is better wherever its size and cost are no matter.
- **Partly synthetic**: sources that are called so are rendered streets, few and simple shapes.
- **Not for decisions about people**: photographs show people as the web does, in unequal numbers,
  and nobody has measured what that does. Nor for anything where a miss does harm: measure your own
  adapted model on your own data.

## Licence

The weights come under Apache-2.0 as far as the rights in them are this project's. The images have
terms of their own, in part for research only: take the weights as a research artefact, and ask
whether these terms bind you before you use them for more.

Written from the stages' manifests by `python recipes/ship_backbone.py DIR`; `runs/stages.sh` lists
such stages.
"""


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dir", type=Path, metavar="DIR", help="a stage's folder")
    parser.add_argument("--root", type=Path, default=ROOT, metavar="DIR", help="of the checkout")
    given = parser.parse_args()
    try:
        name = name_of(read_config(given.dir), given.dir)
        stages = lineage(given.dir)
        content = content_of(given.dir, name, stages)
        text = card(given.dir, name, content, stages)
    except RoadworthyError as error:
        sys.exit(f"ship_backbone: {error}")
    for path, held in (
        (given.root / "src/roadworthy/core/weights" / f"{name}.safetensors", content),
        (given.root / "docs/models" / f"{name}.md", text.encode()),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as temporary:
            temporary.write_bytes(held)
        print(f"{path}: {len(held):,} bytes")


if __name__ == "__main__":
    main()
