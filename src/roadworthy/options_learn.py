"""The grammar of `roadworthy learn`, and how what was typed becomes a request."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from roadworthy.learn.machine import Machine, Precision, Strategy
from roadworthy.learn.plan import Plan
from roadworthy.learn_requests import (
    CatalogAddRequest,
    CatalogAskRequest,
    CatalogRequest,
    Contrast,
    LearnRequest,
    PackRequest,
    ProbeRequest,
    SearchMethod,
    SearchRequest,
    Sources,
    parse_source,
)
from roadworthy.requests import Hint

BACKBONE = (
    "metanet:mn_xs, whose weights come along; metanet:NAME or timm:NAME with @random or @FILE; "
    "a stage's DIR"
)
SPEC = (
    "scenes:FROM-TO, shards:ADDRESS, captions:FILE@IMAGES, imagefolder:DIR, npz:FILE, yolo:DIR, "
    "coco:IMAGES@FILE.json, voc:DIR?split=NAME, masks:..., depth:..."
)
PURPOSES = {
    "learn amateur": "a backbone that learns from captions",
    "learn expert": "a backbone that learns one type of task, or several with a head each",
    "learn generalist": "an expert that goes on learning with what other experts see",
    "learn distill": "one small backbone out of a generalist",
    "learn classifier": "backbone and classifier of a stage as one model to quantize and road-test",
    "learn search": "the best network around a MetaNet within a budget of multiply-accumulates",
    "learn probe": "what frozen features are worth: a linear head on them",
    "learn show": "what the stages and probes of a folder have reached, and their cost",
    "learn pack": "samples of any source as WebDataset shards",
    "learn catalog add": "samples of any source into a catalog",
    "learn catalog show": "what a catalog holds: licences, unmapped names, duplicates",
    "learn catalog sql": "one SELECT over the samples of a catalog",
}
EXAMPLES = {
    "learn amateur": [
        "roadworthy learn amateur metanet:mn_xs@random --source shards:scenes \\",
        "    --held scenes:9000-9200 --steps 600 --out out/amateur",
    ],
    "learn expert": [
        "roadworthy learn expert out/amateur --source detection=shards:scenes \\",
        "    --held detection=scenes:9000-9200 --steps 600 --out out/detection",
    ],
    "learn generalist": [
        "roadworthy learn generalist out/detection --with out/depth out/segmentation \\",
        "    --source detection=shards:scenes --source depth=shards:scenes \\",
        "    --source segmentation=shards:scenes --steps 600 --out out/generalist",
    ],
    "learn distill": [
        "roadworthy learn distill out/generalist --student metanet:mn_xs@random \\",
        "    --source classification=shards:scenes --source detection=shards:scenes \\",
        "    --steps 900 --out out/distilled",
    ],
    "learn classifier": [
        "roadworthy learn classifier out/distilled --out out/classifier.safetensors",
    ],
    "learn search": [
        "roadworthy learn search metanet:mn_xs --source classification=imagefolder:train \\",
        "    --held classification=imagefolder:held --steps 500 --evaluations 80 --out out/search",
    ],
    "learn probe": [
        "roadworthy learn probe metanet:mn_xs@random out/distilled --fraction 0.1 --size 32 \\",
        "    --data classification=npz:train.npz --test classification=npz:test.npz",
    ],
    "learn show": ["roadworthy learn show out"],
    "learn pack": ["roadworthy learn pack scenes:0-2000 --size 64 --out scenes"],
    "learn catalog add": [
        "roadworthy learn catalog add catalog captions:flickr/captions.txt@flickr/images \\",
        "    --source flickr8k --licence CC-BY-2.0 --split train",
    ],
    "learn catalog show": ["roadworthy learn catalog show catalog"],
    "learn catalog sql": [
        "roadworthy learn catalog sql catalog 'SELECT source, count(*) FROM samples GROUP BY 1'",
    ],
}


def add_learn(name: str, parser: argparse.ArgumentParser) -> None:
    """The options of a command of `PURPOSES`."""
    match name:
        case "learn probe":
            _probe(parser)
        case "learn search":
            _search(parser)
        case "learn show":
            parser.add_argument("dir", type=Path, metavar="DIR", help="that stages lie in")
        case "learn classifier":
            parser.add_argument("dir", type=Path, metavar="DIR", help="an expert's or distilled")
            parser.add_argument("--out", required=True, type=Path, metavar="FILE.safetensors")
        case "learn pack":
            _pack(parser)
        case "learn catalog add" | "learn catalog show" | "learn catalog sql":
            _catalog(name, parser)
        case _:
            _stage(name, parser)


def _stage(name: str, parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    captions = name == "learn amateur"
    form = "SPEC" if captions else "TASK=SPEC"
    what = {"learn generalist": "DIR", "learn distill": "TEACHER"}.get(name, "BACKBONE")
    add("model", metavar=what, help=_MODELS.get(name, BACKBONE))
    add("--source", action="append", required=True, metavar=form, help=f"(repeatable) {SPEC}")
    add("--held", action="append", default=[], metavar=form, help="(repeatable) what judges")
    if name == "learn generalist":
        add("--with", dest="auxiliaries", nargs="+", type=Path, required=True, metavar="DIR")
        help = "(repeatable) images of their own that choose how far to go from the experts"
        add("--choose", action="append", default=[], metavar=form, help=help)
    if name == "learn distill":
        add("--student", required=True, metavar="BACKBONE", help=BACKBONE)
        help = "what of the teacher is learned: features, what its heads of a task say (all)"
        add("--hints", nargs="+", choices=get_args(Hint), default=get_args(Hint), help=help)
    if captions:
        add("--loss", choices=get_args(Contrast), default="declip", help="(declip)")
    add("--steps", type=int, required=True, metavar="N", help="updates of the weights")
    add("--batch-size", type=int, default=64, metavar="N", help="images of a step (64)")
    add("--rate", type=float, default=2e-3, metavar="R", help="highest learning rate (0.002)")
    help = "of the draw among sources: 1 by size, larger ones more evenly (2)"
    add("--temperature", type=float, default=2.0, metavar="T", help=help)
    add("--size", type=int, default=64, metavar="PIXELS", help="(64)")
    add("--precision", choices=get_args(Precision), default="32-true", help="(32-true)")
    add("--strategy", choices=get_args(Strategy), default="ddp", help="under torchrun (ddp)")
    add("--resume", action=argparse.BooleanOptionalAction, default=True, help="an interrupted run")
    add("--out", required=True, type=Path, metavar="DIR", help="where weights and manifest.json go")


def _search(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="METANET", help="metanet:mn_xs ... or metanet:FILE.json")
    form = "classification=SPEC"
    add("--source", action="append", required=True, metavar=form, help=SPEC)
    add("--held", action="append", default=[], metavar=form, help="images that judge networks")
    help = "most multiply-accumulates of a network for one image (what METANET takes)"
    add("--budget", type=int, metavar="MACS", help=help)
    add("--evaluations", type=int, required=True, metavar="N", help="networks that are judged")
    add("--method", choices=get_args(SearchMethod), default="evolution", help="(evolution)")
    add("--steps", type=int, required=True, metavar="N", help="updates of the supernet's weights")
    add("--batch-size", type=int, default=64, metavar="N", help="images of a step (64)")
    add("--rate", type=float, default=3e-3, metavar="R", help="highest learning rate (0.003)")
    add("--size", type=int, default=64, metavar="PIXELS", help="(64)")
    add("--resume", action=argparse.BooleanOptionalAction, default=True, help="an interrupted run")
    add("--out", required=True, type=Path, metavar="DIR", help="where the best network goes")


_MODELS = {
    "learn generalist": "folder of the expert that goes on learning",
    "learn distill": "folder of a generalist, or of any stage",
}


def _probe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("models", nargs="+", metavar="BACKBONE", help=BACKBONE)
    add("--data", required=True, metavar="TASK=SPEC", help=f"to learn from: {SPEC}")
    add("--test", required=True, metavar="TASK=SPEC", help="to judge by")
    add("--fraction", type=float, default=1.0, metavar="F", help="share of --data, by class (1)")
    add("--size", type=int, default=64, metavar="PIXELS", help="(64)")
    add("--out", type=Path, metavar="DIR", help="where run.json goes")


def _pack(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("spec", metavar="SPEC", help=SPEC)
    add("--size", type=int, default=64, metavar="PIXELS", help="of rendered scenes (64)")
    add("--numbers", metavar="FROM-TO", help="which samples, the last one not among them (all)")
    add("--labelled", action="store_true", help="leave out images of which nothing is said")
    add("--per-shard", type=int, default=500, metavar="N", help="samples (500)")
    _origin(parser)
    add("--out", required=True, type=Path, metavar="DIR", help="where the shards go")


def _origin(parser: argparse.ArgumentParser) -> None:
    for option in ("--source", "--licence", "--split"):
        parser.add_argument(option, default="", metavar="NAME", help="(what the spec says)")


def _catalog(name: str, parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("dir", type=Path, metavar="DIR", help="the catalog's folder")
    if name == "learn catalog sql":
        add("query", metavar="SQL", help="one SELECT over samples")
    if name == "learn catalog add":
        add("spec", metavar="SPEC", help=SPEC)
        _origin(parser)
        add("--size", type=int, default=64, metavar="PIXELS", help="of rendered scenes (64)")


def learn_request(given: argparse.Namespace) -> LearnRequest:
    """The request that was typed; BadInput where a value is not allowed."""
    stage = given.command.removeprefix("learn ")
    pair: Callable[[str], tuple[str, str]] = parse_source
    if stage == "amateur":
        pair = _captions
    return LearnRequest(
        stage=stage,
        model=given.model,
        sources=Sources(
            learned=tuple(map(pair, given.source)),
            held=tuple(map(pair, given.held)),
            choosing=tuple(map(pair, getattr(given, "choose", ()))),
            size=given.size,
        ),
        plan=Plan(
            steps=given.steps,
            batch=given.batch_size,
            rate=given.rate,
            temperature=given.temperature,
            seed=given.seed,
        ),
        machine=Machine(given.device, given.precision, given.strategy),
        out=given.out,
        auxiliaries=tuple(getattr(given, "auxiliaries", ())),
        student=getattr(given, "student", ""),
        hints=tuple(getattr(given, "hints", ())),
        contrast=getattr(given, "loss", "declip"),
        resume=given.resume,
    )


def search_request(given: argparse.Namespace) -> SearchRequest:
    """The request that was typed; BadInput where a value is not allowed."""
    learned, held = (tuple(map(parse_source, each)) for each in (given.source, given.held))
    return SearchRequest(
        model=given.model,
        sources=Sources(learned, held, size=given.size),
        plan=Plan(steps=given.steps, batch=given.batch_size, rate=given.rate, seed=given.seed),
        machine=Machine(given.device),
        out=given.out,
        evaluations=given.evaluations,
        budget=given.budget,
        method=given.method,
        resume=given.resume,
    )


def probe_request(given: argparse.Namespace) -> ProbeRequest:
    """The request that was typed; BadInput where a value is not allowed."""
    return ProbeRequest(
        models=tuple(given.models),
        data=parse_source(given.data),
        test=parse_source(given.test),
        size=given.size,
        fraction=given.fraction,
        seed=given.seed,
        device=given.device,
        out=given.out,
    )


def pack_request(given: argparse.Namespace) -> PackRequest:
    """The request that was typed."""
    said = {"source": given.source, "licence": given.licence, "split": given.split}
    told = {name: value for name, value in said.items() if value}
    return PackRequest(
        spec=given.spec,
        out=given.out,
        size=given.size,
        per_shard=given.per_shard,
        told=told,
        numbers=given.numbers or "",
        labelled=given.labelled,
    )


def catalog_request(given: argparse.Namespace) -> CatalogRequest:
    """The request that was typed."""
    if given.command == "learn catalog add":
        names = given.source, given.licence, given.split
        return CatalogAddRequest(given.dir, given.spec, *names, given.size)
    return CatalogAskRequest(given.dir, getattr(given, "query", None))


def _captions(spec: str) -> tuple[str, str]:
    return "captions", spec
