"""The grammar of `roadworthy adapt`, and how what was typed becomes a request."""

import argparse
from pathlib import Path
from typing import get_args

from roadworthy.learn.adapt.protocols import NAMES, Descent, protocol_of
from roadworthy.learn.machine import Machine
from roadworthy.learn_requests import AdaptRequest
from roadworthy.options_learn import BACKBONE, SPEC
from roadworthy.requests import LearnTask

PURPOSE = "a model of your task out of a backbone and a part of the labels"
EXAMPLE = [
    "roadworthy adapt metanet:mn_xs --task classification --data imagefolder:train \\",
    "    --test imagefolder:val --fraction 0.1 --protocol linear --out out/adapted",
]


def add_adapt(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("model", metavar="BACKBONE", help=BACKBONE)
    add("--data", required=True, metavar="SPEC", help=f"labelled images: {SPEC}")
    add("--task", required=True, choices=get_args(LearnTask))
    help = "what judges; it chooses nothing and adds no class"
    add("--test", default="", metavar="SPEC", help=help)
    add("--fraction", type=float, default=0.1, metavar="F", help="of --data, by class (0.1)")
    add_protocol(parser)
    add("--out", required=True, type=Path, metavar="DIR", help="where the model and run.json go")


def add_protocol(parser: argparse.ArgumentParser) -> None:
    """How a backbone is adapted, alike for every command that does it."""
    add = parser.add_argument
    help = "neighbours vote, a linear layer, a head, a head and low-rank changes, all, a head and "
    help += "then all (linear)"
    add("--protocol", choices=NAMES, default="linear", help=help)
    add("--steps", type=int, default=Descent.steps, metavar="N", help="of frozen ... staged (200)")
    add("--batch-size", type=int, default=Descent.batch, metavar="N", help="images of a step (32)")
    help = "learning rates to choose from on held-out labelled images (0.0005 0.002 0.008)"
    add("--rates", type=float, nargs="+", default=Descent.rates, metavar="R", help=help)
    add("--size", type=int, default=64, metavar="PIXELS", help="(64)")


def descent_of(given: argparse.Namespace) -> Descent:
    """How weights descend, as it was typed; BadInput where a value is not allowed."""
    return Descent(given.steps, given.batch_size, tuple(given.rates))


def adapt_request(given: argparse.Namespace) -> AdaptRequest:
    """The request that was typed; BadInput where a value is not allowed."""
    return AdaptRequest(
        model=given.model,
        data=given.data,
        task=given.task,
        out=given.out,
        protocol=protocol_of(given.protocol, descent_of(given)),
        test=given.test,
        fraction=given.fraction,
        size=given.size,
        seed=given.seed,
        machine=Machine(given.device),
    )
