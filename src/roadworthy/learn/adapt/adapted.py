"""The folder of an adapted model: a stage's files, and a `model.py` that every command opens.

``py:DIR/model.py:build`` is a model that `evaluate`, `quantize` and `noise` take. It answers logits
``[b k]`` for classes, ``[b k h w]`` for masks, metres ``[b 1 h w]``, and for boxes ``[b n 4+k]``:
corners in pixels of the input and a share of each class.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from roadworthy.core.checkpoints import load_strictly, read_weights
from roadworthy.core.runs import write_atomically
from roadworthy.errors import BadModel
from roadworthy.learn.adapt.neighbours import NeighbourHead
from roadworthy.learn.backbones import Backbone, backbone
from roadworthy.learn.batches import Task
from roadworthy.learn.manifest import HEADS, HeadConfig, preprocess_of, read_config
from roadworthy.learn.probe import LinearDepth, LinearHead
from roadworthy.learn.tasks import answer, head_of, read

FILE = "model.py"
_MISREAD = 2
"""Classes that would make an answer look like finished boxes: a third, never found, is added."""
_BUILD = '''"""The adapted model of this folder."""

from pathlib import Path

from roadworthy.learn.adapt.adapted import open_adapted


def build():
    return open_adapted(Path(__file__).parent)
'''


class AdaptedModel(nn.Module):
    """A backbone and the head of one task, as one model that answers tensors."""

    def __init__(self, body: Backbone, head: nn.Module, task: Task, size: int) -> None:
        super().__init__()
        self.body, self.head = body, head
        self.task: Task = task
        self.preprocess = preprocess_of(size)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b _ *k"]:
        """What the head says; see above."""
        said = answer(self.task, self.head, read(self.body, self.task, images))
        if self.task != "detection":
            return said
        logits, boxes = said
        high, wide = images.shape[2:]
        boxes = boxes.clamp(min=0).minimum(boxes.new_tensor([wide, high, wide, high]))
        shares = logits.sigmoid()
        if shares.shape[2] == _MISREAD:
            shares = F.pad(shares, (0, 1))
        return torch.cat([boxes, shares], 2)


def write_opener(folder: Path) -> str:
    """Write `model.py` beside a stage's files; the spec that opens it."""
    with write_atomically(folder / FILE) as temporary:
        temporary.write_text(_BUILD)
    return f"py:{folder / FILE}:build"


def open_adapted(folder: Path) -> AdaptedModel:
    """The model of a folder that `roadworthy adapt` wrote, in eval mode.

    Raises:
        BadModel: no such folder, or one whose files are not what was written.
    """
    config = read_config(folder)
    if config.stage != "adapted":
        raise BadModel(f"{folder} is a {config.stage}; give a folder that roadworthy adapt wrote")
    body = backbone(str(folder))
    says = config.heads[0]
    weights = {name.removeprefix("0."): each for name, each in read_weights(folder / HEADS).items()}
    head = _head(config.protocol, says, body, weights)
    load_strictly(head, weights, f"head {folder / HEADS}")
    return AdaptedModel(body, head, says.task, config.size).eval()


def _head(protocol: str, says: HeadConfig, body: Backbone, weights: dict[str, Any]) -> nn.Module:
    """A head of the right kind and shape, to be filled."""
    match protocol:
        case "Neighbours":
            labels = torch.zeros(len(weights["known"]), dtype=torch.int64)
            count = int(weights["voters"])
            return NeighbourHead(weights["known"], labels, len(says.classes), count)
        case "Linear" if says.task == "depth":
            return LinearDepth(weights["weight"], weights["bias"], weights["limits"])
        case "Linear":
            return LinearHead(weights["weight"], weights["bias"])
        case _:
            return head_of(says.task, body, len(says.classes))
