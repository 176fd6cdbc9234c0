"""The amateur: a backbone that learns what images show from their captions, after DeCLIP."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from roadworthy.errors import BadData, BadInput
from roadworthy.learn import contrastive as terms
from roadworthy.learn.backbones import Backbone, architectures_of, backbone_for
from roadworthy.learn.batches import Augmentation, Batch
from roadworthy.learn.captions import Captioned, Tokens
from roadworthy.learn.expert import Job
from roadworthy.learn.loop import Feed, Learner, train
from roadworthy.learn.manifest import (
    Made,
    StageConfig,
    is_stage,
    read_manifest,
    stage_folder,
    write_stage,
)
from roadworthy.learn.ranks import gathered, wait
from roadworthy.learn.texts import PAD, CaptionTokenizer, TextConfig, keys
from roadworthy.learn.towers import Pair, Towers, retrieval

VIEWS = Augmentation(crop=(0.5, 1.0))
_LONGEST = 32


@dataclass(frozen=True)
class DeCLIP:
    """Supervision within images, within texts, across views and by neighbours (arXiv 2110.05208).

    Args:
        queue: texts among which the nearest are looked for.
    """

    weights: terms.Weights = field(default_factory=terms.Weights)
    queue: int = 4096


@dataclass(frozen=True)
class SigLIP:
    """Each pair by itself (arXiv 2303.15343); scale 10 and bias -10 at first."""


Method = DeCLIP | SigLIP
Features = tuple[Tensor, Tensor]


class DeclipLoss(nn.Module):
    """What DeCLIP needs beside the towers: SimSiam's two perceptrons and the queue of texts."""

    def __init__(self, method: DeCLIP, pooled: int, width: int) -> None:
        super().__init__()
        self.weights = method.weights
        self.projector = nn.Sequential(*_hidden(pooled, width), *_hidden(width, width)[:2])
        self.predictor = nn.Sequential(*_hidden(width, width // 4), nn.Linear(width // 4, width))
        self.queue = terms.TextQueue(method.queue, width)

    def forward(self, towers: Towers, pooled: Features, batch: Batch) -> dict[str, Tensor]:
        """The five terms and their weighted sum; the texts join the queue."""
        assert batch.texts is not None
        assert batch.shown is not None
        assert batch.hidden is not None
        scale = towers.temperature()
        images = (towers.images(pooled[0]), towers.images(pooled[1]))
        texts = _both(towers, batch.texts)
        projected = (self.projector(pooled[0]), self.projector(pooled[1]))
        predicted = (self.predictor(projected[0]), self.predictor(projected[1]))
        words = towers.text.words(towers.text(batch.shown)[1][terms.gaps(batch.hidden)])
        near = self.queue.nearest(texts[0])
        self.queue.push(terms.Texts(*map(gathered, (texts[0].features.detach(), texts[0].keys))))
        found = terms.Terms(
            clip=terms.info_nce(images[0], texts[0], scale, gathered),
            images=terms.simsiam(predicted, projected),
            texts=terms.masked_language(words, batch.hidden),
            views=terms.multi_view(images, texts, scale, gathered),
            neighbours=terms.nearest_neighbour(images, near, scale, gathered),
        )
        return {"loss": found.total(self.weights), **vars(found)}


class SiglipLoss(nn.Module):
    """What SigLIP needs beside the towers: a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def forward(self, towers: Towers, pooled: Features, batch: Batch) -> dict[str, Tensor]:
        """The loss of both views with a caption each."""
        assert batch.texts is not None
        scale = towers.temperature()
        texts = _both(towers, batch.texts)
        pairs = [(towers.images(x), text) for x, text in zip(pooled, texts, strict=True)]
        each = [terms.siglip(*pair, scale, self.bias, gathered) for pair in pairs]
        return {"loss": torch.stack(each).mean()}


def _both(towers: Towers, texts: Tensor) -> tuple[terms.Texts, terms.Texts]:
    """The first and the second caption of each image."""
    ids = torch.cat([texts[:, 0], texts[:, 1]])
    features, numbers = towers(ids).chunk(2), keys(ids).chunk(2)
    return terms.Texts(features[0], numbers[0]), terms.Texts(features[1], numbers[1])


class Amateur(Learner):
    """A backbone, its towers and what its loss needs."""

    def __init__(self, body: Backbone, text: TextConfig, method: Method) -> None:
        super().__init__()
        self.backbone = body
        self.method = method
        match method:
            case DeCLIP():
                self.towers = Towers(body.width, text)
                self.terms = DeclipLoss(method, body.width, text.width)
            case SigLIP():
                self.towers = Towers(body.width, text, scale=10.0)
                self.terms = SiglipLoss()
            case _:
                assert_never(method)

    def extra_repr(self) -> str:
        """How it learns: what a run that goes on must have in common."""
        return repr(self.method)

    def forward(self, tensors: dict[str, Tensor], source: int) -> dict[str, Tensor]:
        """The loss and its terms; all sources are learned alike."""
        batch = Batch(**tensors)
        assert batch.again is not None
        first, second = self.backbone(torch.cat([batch.images, batch.again])).chunk(2)
        return self.terms(self.towers, (first, second), batch)


def learn_amateur(
    begin: str,
    sources: Sequence[Captioned],
    job: Job,
    method: Method | None = None,
    judged: Sequence[Captioned] = (),
) -> dict[str, Any]:
    """Train the backbone of `begin`, a spec or a stage's folder, on captions; the manifest.

    Beside the files of every stage it leaves ``tokenizer.json``; `open_amateur` opens them all.

    Args:
        method: DeCLIP by default.
        judged: held-out images and captions: an image is to find its own.

    Raises:
        BadInput: no sources, a batch without others to be told from, held-out data of experts, a
            backbone that cannot be shown images of their size, `begin` as `out`.
        BadData: a source with fewer images than a batch.
    """
    _check(sources, job)
    torch.manual_seed(job.plan.seed)
    tokenizer = CaptionTokenizer.trained(t for s in sources for each in s.captions for t in each)
    tokens = [_tokens(each, tokenizer) for each in sources]
    text = TextConfig(len(tokenizer), length=max(each.ids.shape[2] for each in tokens))
    learner = Amateur(backbone_for(begin, sources[0].content.side), text, method or DeCLIP())
    stage_folder(job.out, [begin])
    pairs = zip(sources, tokens, strict=True)
    feeds = [Feed(source, VIEWS, tokens=said) for source, said in pairs]
    trained = train(learner, feeds, job.plan, job.out, job.machine, job.resume)
    learner = trained.learner
    assert isinstance(learner, Amateur)
    if trained.first:
        tokenizer.save(job.out)
        size = sources[0].content.side
        pair = Pair(learner.backbone, learner.towers, tokenizer, size)
        numbers = [row for each in judged for row in retrieval(pair, each)]
        architecture, *others = architectures_of(begin)
        config = StageConfig("amateur", architecture, size, (), tuple(others), text)
        parents = [Path(begin)] if is_stage(begin) else []
        made = Made(parents, sources, job.plan, trained.compute, numbers)
        write_stage(job.out, config, learner.backbone, learner.towers, made)
    wait(job.out)
    return read_manifest(job.out)


def _check(sources: Sequence[Captioned], job: Job) -> None:
    if not sources:
        raise BadInput("no source given; an amateur needs at least one with captions")
    if job.plan.batch < 2:
        raise BadInput("batch 1 given; an image is told from others: 2 or more are needed")
    if job.held_out:
        raise BadInput("held-out data with labels given; an amateur is judged by captions")
    for each in sources:
        if len(each) < job.plan.batch:
            raise BadData(
                f"{each.name} has {len(each)} images for batches of {job.plan.batch}, where each "
                "is to be told from the others; give a smaller batch or more images"
            )


def _tokens(source: Captioned, tokenizer: CaptionTokenizer) -> Tokens:
    """As short as its longest caption."""
    made = Tokens.of(source.captions, tokenizer, _LONGEST)
    longest = int((made.ids != PAD).sum(2).max())
    return Tokens(made.ids[:, :, :longest], made.counts, made.words)


def _hidden(width: int, out: int) -> list[nn.Module]:
    return [nn.Linear(width, out, bias=False), nn.BatchNorm1d(out), nn.ReLU()]
