"""A stage's backbone and its classifier as one ordinary model, to be compressed and road-tested."""

from pathlib import Path

from safetensors.torch import save_file

from roadworthy.core.checkpoints import read_weights
from roadworthy.core.metadata import for_safetensors
from roadworthy.core.runs import write_atomically
from roadworthy.errors import BadInput, BadModel
from roadworthy.learn.backbones import Architecture
from roadworthy.learn.manifest import (
    HEADS,
    MODEL,
    is_stage,
    preprocess_of,
    read_config,
    write_network,
)


def write_classifier(folder: Path, out: Path) -> tuple[str, tuple[str, ...]]:
    """Write the weights of a stage's backbone and of its first classifier into one file.

    Returns:
        The spec that `load_model` opens it by, and the names of its classes.

    Raises:
        BadInput: `out` is no ``.safetensors``, or lies in a stage's folder, whose files it would be
            among.
        BadModel: no finished stage, a generalist of several branches, a backbone of timm, or no
            head for classes.
    """
    if out.suffix != ".safetensors":
        raise BadInput(f"{out} given; a file that ends in .safetensors is needed")
    if is_stage(out.parent):
        raise BadInput(
            f"{out} given, which lies in the folder of a stage and might overwrite its files; give "
            "a file elsewhere"
        )
    config = read_config(folder)
    architecture = config.architecture
    heads = dict(enumerate(config.heads))
    number = next((n for n, head in heads.items() if head.task == "classification"), None)
    if config.auxiliaries or (isinstance(architecture, str) and not _is_metanet(architecture)):
        raise BadModel(
            f"{folder} is a {config.stage} of {_short(architecture)} and {len(config.auxiliaries)} "
            "auxiliaries; give a stage of one metanet: an expert, or what `learn distill` left"
        )
    if number is None:
        tasks = ", ".join(head.task for head in config.heads) or "none"
        raise BadModel(f"{folder} has heads for {tasks}; one for classification is needed")
    weights, own = read_weights(folder / MODEL), read_weights(folder / HEADS)
    for part in ("weight", "bias"):
        weights[f"classifier.{part}"] = own[f"{number}.linear.{part}"]
    out.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(out) as temporary:
        save_file(weights, temporary, for_safetensors(preprocess_of(config.size)))
    return f"{_named(architecture, out)}@{out}", heads[number].classes


def _is_metanet(architecture: str) -> bool:
    return architecture.startswith("metanet:")


def _short(architecture: Architecture) -> str:
    """A spec without its weights."""
    return architecture.partition("@")[0] if isinstance(architecture, str) else "metanet"


def _named(architecture: Architecture, out: Path) -> str:
    """By which spec it is built; a network without a name is written beside `out`."""
    if isinstance(architecture, str):
        return _short(architecture)
    return f"metanet:{write_network(architecture, out.with_suffix('.json'))}"
