"""The command line's grammar, and how what was typed becomes a request.

argparse, since it is imported and printed in 40 ms where tyro takes 400.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, get_args

from roadworthy import options_adapt, options_benchmark, options_learn
from roadworthy.requests import (
    AttributeRequest,
    BackendName,
    Combine,
    DataChoice,
    Device,
    Effort,
    EvaluateRequest,
    IdentifyRequest,
    Method,
    NoiseRequest,
    QuantizeRequest,
    RoadChoice,
    Scheme,
    Solver,
    StageName,
    Workers,
    folder_names,
    parse_bits,
    parse_kept,
    parse_memory,
    parse_stages,
)

MODEL = (
    "timm:NAME, torchvision:NAME, metanet:NAME, hf:ID_OR_DIR or py:FILE.py:FUNCTION; each may end "
    "in @FILE.pth"
)
DATA = (
    "imagefolder:DIR, imagefolder:DIR@labels.tsv, npz:FILE?x=IMAGES&y=LABELS, builtin:photos; "
    "boxes: yolo:DIR, voc:DIR, coco:IMAGES@FILE.json; instances:DIR, masks:DIR?images=A&masks=B, "
    "depth:DIR?images=A&depth=B; texts: text:FILE.tsv?text=COLUMN&label=COLUMN"
)
PREPROCESS = "imagenet, or a YAML or JSON file (default: the model's own metadata)"

EXAMPLES = {
    "demo": ["roadworthy demo --out demo-out"],
    "quantize": [
        "roadworthy quantize timm:mobilenetv2_100 --data imagefolder:photos --bits w8a8 --out out",
        "roadworthy quantize py:net.py:build --data 'npz:set.npz?x=xcal&y=ycal' \\",
        "    --eval 'npz:set.npz?x=xte&y=yte' --bits w4a4 --method qdrop --out out",
    ],
    "evaluate": [
        "roadworthy evaluate out --data imagefolder:val",
        "roadworthy evaluate timm:mobilenetv2_100@weights.pth --data imagefolder:val --json",
    ],
    "noise": [
        "roadworthy noise timm:mobilenetv2_100 --data imagefolder:photos --out road",
        "roadworthy noise out --data imagefolder:val --stages decode,resize,colour --out road",
        "roadworthy noise timm:resnet18 out --data imagefolder:val --workers ray --out board",
    ],
    "noise attribute": [
        "roadworthy noise attribute timm:mobilenetv2_100 --data imagefolder:val \\",
        "    --train train.yaml --deploy phone.yaml",
    ],
    "noise identify": ["roadworthy noise identify --image photo.jpg --tensor fed.npy"],
    "blocks": ["roadworthy blocks torchvision:mobilenet_v2@random"],
    "benchmark": options_benchmark.EXAMPLES,
    "report": ["roadworthy report out/w8a8 out/w4a4 --out comparison.html"],
    "adapt": options_adapt.EXAMPLE,
    **options_learn.EXAMPLES,
}


class Parser(argparse.ArgumentParser):
    """A parser that complains in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit 2 with what was wrong and where to look."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options of one command, its name under ``command``."""
    parser = Parser(
        prog="roadworthy",
        description="Takes a trained model to the field and proves that it still works there.",
        epilog="example:\n  roadworthy demo\n\nroadworthy COMMAND --help shows an example of each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _demo(_command(commands, "demo", "the whole journey on a model and photos that come along"))
    _quantize(_command(commands, "quantize", "a verified low-bit ONNX model out of a trained one"))
    _evaluate(_command(commands, "evaluate", "metric of any model, torch or runtime"))
    _noise(_command(commands, "noise", "what decoders, resizers, runtimes ... do to a model"))
    _attribute(_command(commands, "noise attribute", "which stage of a deployment is to blame"))
    _identify(_command(commands, "noise identify", "which pipeline made the tensor of a photo"))
    _blocks(_command(commands, "blocks", "the units that reconstruction would work on"))
    options_benchmark.add_benchmark(_command(commands, "benchmark", options_benchmark.PURPOSE))
    _report(_command(commands, "report", "one self-contained HTML page out of run.json files"))
    options_adapt.add_adapt(_command(commands, "adapt", options_adapt.PURPOSE))
    for name, purpose in options_learn.PURPOSES.items():
        options_learn.add_learn(name, _command(commands, name, purpose))
    typed = list(sys.argv[1:] if arguments is None else arguments)
    words = 3 if typed[:2] == ["learn", "catalog"] else 2
    joined = " ".join(typed[:words])
    if joined in ("learn -h", "learn --help"):
        print(*(f"{name:<18} {says}" for name, says in options_learn.PURPOSES.items()), sep="\n")
        parser.exit(0)
    if typed[:1] == ["learn"] and joined not in EXAMPLES:
        parser.error(f"{joined!r} given; {', '.join(options_learn.PURPOSES)} are allowed")
    return parser.parse_args([joined, *typed[words:]] if joined in EXAMPLES else typed)


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="print the version")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(f"roadworthy {version('roadworthy')}")
        parser.exit()


def _command(
    commands: "argparse._SubParsersAction[Parser]",  # pyright: ignore[reportPrivateUsage]
    name: str,
    purpose: str,
) -> argparse.ArgumentParser:
    lines = "\n".join(f"  {line}" for line in EXAMPLES[name])
    parser = commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        epilog=f"example:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shared = parser.add_argument_group("every command")
    shared.add_argument("--json", action="store_true", help="the result as JSON, nothing else")
    shared.add_argument("--seed", type=_seed, default=0, help="of every random choice (0)")
    shared.add_argument("--device", choices=get_args(Device), default="auto")
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} given; 0 to {2**31 - 1} is allowed")
    return int(text)


def _place(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} given; name a folder, or . for this one")
    return Path(text)


def _quantize(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", help=MODEL)
    add("--data", required=True, metavar="SPEC", help=f"images to calibrate on: {DATA}")
    add("--eval", metavar="SPEC", help="labelled images to judge by")
    add("--out", required=True, type=_place, metavar="DIR", help="where model.onnx and run.json go")
    add("--bits", default="w4a4", help="widths of weights and activations, w2a2 to w8a8 (w4a4)")
    add("--method", choices=get_args(Method), default="qdrop-plus", help="(qdrop-plus)")
    add("--effort", choices=get_args(Effort), default="standard", help="(standard)")
    add("--iterations", type=int, metavar="N", help="reconstruction steps per unit")
    add("--batch-size", type=int, metavar="N", help="images per reconstruction step")
    add("--tries", type=int, default=1, metavar="N", help="runs, best on held-out images kept (1)")
    add("--calib-size", type=int, metavar="N", help="calibration images (all, 1024 at most)")
    add(
        "--calib-noise",
        action="store_true",
        help="each calibration image by a decoder, resizer and colour path drawn at random",
    )
    add("--keep-8bit", default="first,last", metavar="LAYERS", help="first,last or none")
    add("--backend", choices=get_args(BackendName), help="who runs it (by the widths)")
    add("--blocks", default="", metavar="A,B", help="modules to reconstruct; see roadworthy blocks")
    add("--memory", default="4GB", metavar="SIZE", help="for activation caches (4GB)")
    add("--max-drop", type=float, metavar="POINTS", help="raise layers until the drop is smaller")
    add("--sensitivity", action="store_true", help="measure what each layer costs by itself")
    add("--preprocess", metavar="SPEC", help=PREPROCESS)
    add("--skip-bad", action="store_true", help="leave unreadable images out and count them")
    add("--resume", action=argparse.BooleanOptionalAction, default=True, help="an interrupted run")


def _evaluate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL_OR_DIR", help=f"{MODEL}; onnx:FILE; a folder that quantize wrote")
    add("--data", required=True, metavar="SPEC", help=f"labelled images: {DATA}")
    add("--preprocess", metavar="SPEC", help=PREPROCESS)
    add("--batch-size", type=int, default=64, metavar="N", help="(64)")
    add("--limit", type=int, metavar="N", help="draw N images, the same number of each class")
    add("--skip-bad", action="store_true", help="leave unreadable images out and count them")
    add("--out", type=_place, metavar="DIR", help="where run.json goes")


def _noise(parser: argparse.ArgumentParser) -> None:
    _road(parser, "labelled images, or photos to compare answers on", "+")
    add = parser.add_argument
    add("--out", required=True, type=_place, metavar="DIR", help="where noise.json and run.json go")
    add("--stages", default=",".join(get_args(StageName)), metavar="A,B", help="(all of them)")
    add("--combine", choices=get_args(Combine), default="greedy", help="worst case (greedy)")
    add(
        *("--tolerance", "--tol"),
        type=float,
        default=0.0,
        metavar="LEVELS",
        help="of 255 by which images of one class may differ (0: not a byte)",
    )


def _attribute(parser: argparse.ArgumentParser) -> None:
    _road(parser, "labelled images, or photos to compare answers on")
    add = parser.add_argument
    system = "YAML or JSON of decode, resize, ..., and model, runtime, post"
    add("--train", type=Path, metavar="FILE", help=f"{system} (the model's own)")
    add("--deploy", type=Path, required=True, metavar="FILE", help=system)
    add("--out", type=_place, metavar="DIR", help="where run.json goes")


def _road(parser: argparse.ArgumentParser, images: str, models: str | None = None) -> None:
    add = parser.add_argument
    written = f"{MODEL}; onnx:FILE; a folder that quantize wrote"
    add("model", nargs=models, metavar="MODEL_OR_DIR", help=written)
    add("--data", required=True, metavar="SPEC", help=f"{images}: {DATA}")
    add("--preprocess", metavar="SPEC", help=f"of training: {PREPROCESS}")
    add("--batch-size", type=int, default=32, metavar="N", help="(32)")
    add("--workers", choices=get_args(Workers), default="none", help="who shares the images (none)")
    add("--limit", type=int, metavar="N", help="draw N images, the same number of each class")
    add("--skip-bad", action="store_true", help="leave unreadable images out and count them")


def _identify(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--image", required=True, type=Path, metavar="FILE", help="the photo")
    add("--tensor", required=True, type=Path, metavar="FILE.npy", help="what the model was fed")


def _blocks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument(
        "--image-size", type=_side, metavar="PIXELS", help="(the model's own, or 32)"
    )


def _side(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r} given; 1 to 4096 pixels are allowed")
    return int(text)


def _report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "dirs", nargs="+", type=Path, metavar="DIR", help="what quantize, noise ... wrote"
    )
    parser.add_argument("--out", type=_place, default=Path("report.html"), help="(report.html)")


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=_place, default=Path("demo-out"), help="(demo-out)")


def quantize_request(given: argparse.Namespace) -> QuantizeRequest:
    """The request that was typed; BadInput where a value is not allowed."""
    weight_bits, act_bits = parse_bits(given.bits)
    blocks = tuple(name.strip() for name in given.blocks.split(",") if name.strip())
    return QuantizeRequest(
        model=given.model,
        data=DataChoice(
            given.data,
            given.eval,
            given.calib_size,
            given.preprocess,
            given.skip_bad,
            given.calib_noise,
        ),
        out=given.out,
        scheme=Scheme(
            weight_bits, act_bits, parse_kept(given.keep_8bit), given.backend, given.max_drop
        ),
        solver=Solver(
            given.method,
            given.effort,
            given.iterations,
            given.batch_size,
            parse_memory(given.memory),
            blocks,
            given.tries,
        ),
        sensitivity=given.sensitivity,
        resume=given.resume,
        seed=given.seed,
        device=given.device,
    )


def evaluate_request(given: argparse.Namespace) -> EvaluateRequest:
    """The request that was typed; BadInput where a value is not allowed."""
    return EvaluateRequest(
        model=given.model,
        data=given.data,
        preprocess=given.preprocess,
        batch_size=given.batch_size,
        limit=given.limit,
        skip_bad=given.skip_bad,
        out=given.out,
        seed=given.seed,
        device=given.device,
    )


def noise_requests(given: argparse.Namespace) -> list[NoiseRequest]:
    """The requests that were typed, one for each model; BadInput where a value is not allowed."""
    stages = [name.strip() for name in given.stages.split(",") if name.strip()]
    one = NoiseRequest(
        given.model[0],
        _road_choice(given),
        given.out,
        parse_stages(stages),
        given.combine,
        given.tolerance,
    )
    if len(given.model) == 1:
        return [one]
    folders = zip(given.model, folder_names(given.model), strict=True)
    return [replace(one, model=model, out=given.out / name) for model, name in folders]


def attribute_request(given: argparse.Namespace) -> AttributeRequest:
    """The request that was typed."""
    return AttributeRequest(given.model, _road_choice(given), given.deploy, given.train, given.out)


def identify_request(given: argparse.Namespace) -> IdentifyRequest:
    """The request that was typed."""
    return IdentifyRequest(given.image, given.tensor)


def _road_choice(given: argparse.Namespace) -> RoadChoice:
    return RoadChoice(
        data=given.data,
        preprocess=given.preprocess,
        limit=given.limit,
        batch_size=given.batch_size,
        skip_bad=given.skip_bad,
        seed=given.seed,
        device=given.device,
        workers=given.workers,
    )
