"""A small Mask R-CNN that finds people, trained here on the outlines of coco_val128.

python benchmarks/maskrcnn.py --data $ROADWORTHY_DATA/coco_val128 --out out/maskrcnn
roadworthy noise py:benchmarks/maskrcnn.py:build@out/maskrcnn/model.pth
    --data instances:out/maskrcnn/unseen --out out/road/maskrcnn

MobileNetV2 with torchvision's ImageNet weights, a feature pyramid of strides 8, 16 and 32, input of
288x288. Of the 100 images that have outlines a third, by a hash of the name, is held out.
"""

import argparse
import hashlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from faster_coco_eval.core import mask as packed
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models import mobilenet_v2
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign, masks_to_boxes

from roadworthy.core.images import Preprocess, placement
from roadworthy.core.mask_data import drawn
from roadworthy.core.progress import track
from roadworthy.demo import find_weights

SIDE = 288
PREPROCESS = {
    "resize": "pillow-bilinear",
    "geometry": "letterbox",
    "size": SIDE,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
PERSON = 1
WIDTH = 128


class People(nn.Module):
    """Mask R-CNN that takes batches and numbers its one class 0, as the label files do."""

    def __init__(self) -> None:
        super().__init__()
        features = mobilenet_v2().features
        stages = {"6": "0", "13": "1", "18": "2"}
        pyramid = BackboneWithFPN(features, stages, [32, 96, 1280], WIDTH)
        pools = ["0", "1", "2"]
        self.net = MaskRCNN(
            pyramid,
            min_size=SIDE,
            max_size=SIDE,
            # Preprocessing is the road test's business: the network neither resizes nor normalises.
            image_mean=[0.0] * 3,
            image_std=[1.0] * 3,
            _skip_resize=True,
            rpn_anchor_generator=AnchorGenerator(
                ((16, 24), (40, 64), (96, 140), (190, 260)), ((0.5, 1.0, 2.0),) * 4
            ),
            rpn_head=None,
            rpn_pre_nms_top_n_test=200,
            rpn_post_nms_top_n_test=100,
            rpn_pre_nms_top_n_train=400,
            rpn_post_nms_top_n_train=200,
            rpn_batch_size_per_image=64,
            box_roi_pool=MultiScaleRoIAlign(pools, 7, 2),
            box_head=TwoMLPHead(WIDTH * 49, 256),
            box_predictor=FastRCNNPredictor(256, 2),
            box_batch_size_per_image=48,
            box_detections_per_img=20,
            mask_roi_pool=MultiScaleRoIAlign(pools, 14, 2),
            mask_head=MaskRCNNHeads(WIDTH, (64, 64), 1),
            mask_predictor=MaskRCNNPredictor(64, 64, 2),
        )

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Boxes, scores, labels and masks of each image ``[b 3 h w]``, in its pixels."""
        return [{**found, "labels": found["labels"] - 1} for found in self.net(list(images))]


def build() -> nn.Module:
    """The network in eval mode, without weights: give them by ``@out/maskrcnn/model.pth``."""
    return People().eval()


def folders(data: Path, out: Path) -> dict[str, Path]:
    """``train``, ``held`` and ``all`` below `out`, in the form of ``instances:``, people only.

    ``unseen`` has the images of ``held`` without their outlines.
    """
    made = {part: out / part for part in ("train", "held", "all")}
    for folder in made.values():
        shutil.rmtree(folder, ignore_errors=True)
        for inner in ("images", "labels"):
            (folder / inner).mkdir(parents=True)
        (folder / "classes.yaml").write_text("names: [person]\n")
    for outlines in sorted((data / "instances").glob("*.txt")):
        held = hashlib.sha256(outlines.stem.encode()).digest()[0] % 3 == 0
        lines = [line.partition(" ") for line in outlines.read_text().splitlines()]
        people = "".join(f"0 {rest}\n" for label, _, rest in lines if label == str(PERSON))
        for folder in (made["held" if held else "train"], made["all"]):
            shutil.copy(data / "images" / f"{outlines.stem}.jpg", folder / "images")
            (folder / "labels" / outlines.name).write_text(people)
    shutil.copytree(made["held"] / "images", out / "unseen" / "images", dirs_exist_ok=True)
    return made


Example = tuple[Tensor, list[np.ndarray]]


def examples(folder: Path) -> list[Example]:
    """Preprocessed images ``[3 h w]``, corners ``[n 2]`` of each person as shares of them."""
    from roadworthy.core.data import load_data
    from roadworthy.core.mask_data import Masks

    dataset, stages = load_data(f"instances:{folder}"), Preprocess.from_dict(PREPROCESS)
    assert isinstance(dataset.source, Masks)
    found: list[Example] = []
    for i in range(len(dataset)):
        image = dataset.load(i)
        place = placement(stages, image.size[::-1])
        size, scale, offset = (
            np.array(each[::-1]) for each in (place.size, place.scale, place.offset)
        )
        shapes = dataset.source.shapes[i] or ()
        corners = [(part * size * scale + offset) / SIDE for shape in shapes for part in shape]
        found.append((stages(image), corners))
    return found


def varied(example: Example, random: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """A part of an example, enlarged to the whole, by chance mirrored, lighter or darker."""
    image, corners = example
    side = int(SIDE * random.uniform(0.55, 1.0))
    top, left = random.integers(0, SIDE - side + 1, 2)
    cut = image[None, :, top : top + side, left : left + side]
    image = interpolate(cut, (SIDE, SIDE), mode="bilinear")[0] * random.uniform(0.8, 1.2)
    moved = [(part * SIDE - [left, top]) / side for part in corners]
    if random.random() < 0.5:
        image, moved = image.flip(2), [[1, 0] + part * [-1, 1] for part in moved]
    drawings = [packed.decode(drawn((part,), (SIDE, SIDE), "")) for part in moved]
    masks = torch.from_numpy(np.array(drawings).reshape(-1, SIDE, SIDE))
    masks = masks[masks.sum((1, 2)) > 20]
    boxes = masks_to_boxes(masks) + torch.tensor([0.0, 0.0, 1.0, 1.0]) if len(masks) else None
    return image, {
        "boxes": torch.zeros(0, 4) if boxes is None else boxes,
        "labels": torch.ones(len(masks), dtype=torch.int64),
        "masks": masks,
    }


def batches(found: list[Example], size: int, steps: int, seed: int) -> Iterator[tuple]:
    """`steps` batches, images in a new order each time round."""
    random = np.random.default_rng(seed)
    order: list[int] = []
    for _ in range(steps):
        if len(order) < size:
            order = [*order, *random.permutation(len(found))]
        picked, order = order[:size], order[size:]
        yield tuple(zip(*(varied(found[i], random) for i in picked), strict=True))


def train(found: list[Example], steps: int, batch: int, seed: int, kept: Path) -> None:
    """Write the network to `kept` now and then; stem and batch statistics stay ImageNet's."""
    torch.manual_seed(seed)
    model = People().train()
    body = model.net.backbone.body
    weights = torch.load(find_weights(), weights_only=True)
    stem = {k.removeprefix("features."): v for k, v in weights.items() if "features." in k}
    body.load_state_dict(stem)
    for name, stage in body.named_children():
        stage.requires_grad_(int(name) > 3)
    learned = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learned, 6e-4, weight_decay=0.01)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-4, steps, pct_start=0.1)
    for step, (images, targets) in enumerate(
        track(batches(found, batch, steps, seed), "training", steps)
    ):
        body.eval()
        losses = model.net(list(images), list(targets))
        total = sum(losses.values())
        optimiser.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(learned, 5.0)
        optimiser.step()
        pace.step()
        if step % 25 == 0:
            each = ", ".join(f"{k.removeprefix('loss_')} {v.item():.3f}" for k, v in losses.items())
            print(f"step {step}: {each}", flush=True)
        if step % 100 == 99 or step == steps - 1:
            torch.save(model.state_dict(), kept)


def main() -> None:
    """Train, write model.pth and the folders that it is judged on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("out/maskrcnn"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    made = folders(args.data, args.out)
    kept = args.out / "model.pth"
    train(examples(made["train"]), args.steps, args.batch, args.seed, kept)
    print(f"{kept}, {time.process_time() - start:.0f} s of CPU")


if __name__ == "__main__":
    main()
