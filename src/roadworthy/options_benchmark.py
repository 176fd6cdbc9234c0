"""The grammar of `roadworthy benchmark`, and how what was typed becomes a request."""

import argparse
from pathlib import Path
from typing import get_args

from roadworthy.errors import BadInput
from roadworthy.learn.gvb.terms import Terms
from roadworthy.learn.machine import Machine
from roadworthy.learn_requests import BenchmarkRequest, parse_source
from roadworthy.options_adapt import add_protocol, descent_of
from roadworthy.options_learn import BACKBONE, SPEC
from roadworthy.requests import Workers

PURPOSE = "what backbones are worth to 26 data sets of four tasks, or to yours, with few labels"
EXAMPLES = [
    "roadworthy benchmark metanet:mn_xs timm:resnet18 --root data --out out/benchmark",
    "roadworthy benchmark metanet:mn_xs --data depth=depth:indoor/train \\",
    "    --test depth=depth:indoor/test --protocol frozen --out out/indoor",
    "roadworthy benchmark --list --root data",
    "roadworthy benchmark --download dtd --root data",
]


def add_benchmark(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("models", nargs="*", metavar="BACKBONE", help=f"the first is compared with: {BACKBONE}")
    add("--list", action="store_true", help="what each data set is, and whether it is there")
    add("--download", metavar="NAME", help="a data set whose terms and server allow it")
    help = "that the data sets lie below (data)"
    add("--root", type=Path, default=Path("data"), metavar="DIR", help=help)
    help = "of the 26 (all that are there, if no --data is given either)"
    add("--datasets", nargs="+", default=[], metavar="NAME", help=help)
    form = "TASK=SPEC"
    add("--data", action="append", default=[], metavar=form, help=f"(repeatable) your own: {SPEC}")
    help = "(repeatable) what judges: one for each --data, in the same order"
    add("--test", action="append", default=[], metavar=form, help=help)
    add("--fraction", type=float, default=0.1, metavar="F", help="of the training images (0.1)")
    add("--seeds", type=int, default=3, metavar="N", help="how many, from --seed on (3)")
    add_protocol(parser)
    add("--workers", choices=get_args(Workers), default="none", help="who shares the work (none)")
    add("--out", type=Path, metavar="DIR", help="where rows, features and run.json go")


def benchmark_request(given: argparse.Namespace) -> BenchmarkRequest:
    """The request that was typed.

    Raises:
        BadInput: no backbone or no folder; data to learn from and to judge by that do not pair.
    """
    if not given.models or given.out is None:
        raise BadInput(
            f"{'no --out' if given.models else 'no backbone'} given; roadworthy benchmark BACKBONE "
            "--out DIR is needed, or --list, or --download NAME"
        )
    data, tests = (tuple(map(parse_source, each)) for each in (given.data, given.test))
    if [task for task, _ in data] != [task for task, _ in tests]:
        raise BadInput(
            f"--data of {_tasks(data)} and --test of {_tasks(tests)} given; one --test for each "
            "--data, of the same task and in the same order, is needed"
        )
    descent, machine = descent_of(given), Machine(given.device)
    return BenchmarkRequest(
        models=tuple(given.models),
        out=given.out,
        terms=Terms(given.fraction, given.protocol, descent, given.size, machine),
        root=given.root,
        datasets=tuple(given.datasets),
        pairs=tuple((task, a, b) for (task, a), (_, b) in zip(data, tests, strict=True)),
        seeds=given.seeds,
        seed=given.seed,
        workers=given.workers,
    )


def _tasks(pairs: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(task for task, _ in pairs) or "nothing"
