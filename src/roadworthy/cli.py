"""One command per verb: parses, calls one function, prints. Nothing heavy is imported up here."""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

from roadworthy import options_adapt, options_benchmark, options_learn
from roadworthy.errors import BadInput, RoadworthyError
from roadworthy.options import (
    attribute_request,
    evaluate_request,
    identify_request,
    noise_requests,
    parse,
    quantize_request,
)
from roadworthy.wording import say


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 on success, 2 on bad input, 1 on failure."""
    given = parse(arguments)
    try:
        with _stdout_kept_clean(given.json), _warnings_in_one_line(given.command):
            result = _run(given)
        text = json.dumps(result) if given.json else say(given.command, result)
        if text and os.environ.get("RANK", "0") == "0":  # torchrun's processes all come here
            print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader is gone: so is the last flush
        return 1
    except Exception as error:
        if given.debug:
            raise
        print(f"roadworthy {given.command}: {_one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, BadInput) else 1
    except KeyboardInterrupt:
        print(f"roadworthy {given.command}: interrupted", file=sys.stderr)
        return 1
    return 0


def _run(given: argparse.Namespace) -> Any:
    """What the command found, in JSON's types."""
    match given.command:
        case "quantize":
            request = quantize_request(given)
            from roadworthy.journey import quantize_to_dir

            return {**_plain(quantize_to_dir(request)), "out": str(request.out)}
        case "evaluate":
            request = evaluate_request(given)
            from roadworthy.evaluate import evaluate

            return _plain(evaluate(request))
        case "noise":
            roads = noise_requests(given)
            from roadworthy.roadtests import noise_each

            runs = [
                {**_plain(record), "out": str(road.out)}
                for road, record in zip(roads, noise_each(roads, given.out), strict=True)
            ]
            return runs[0] if len(runs) == 1 else {"runs": runs, "out": str(given.out)}
        case "noise attribute":
            blame = attribute_request(given)
            from roadworthy.roadtest import attribute_run

            return _plain(attribute_run(blame))
        case "noise identify":
            clue = identify_request(given)
            from roadworthy.roadtest import identify_run

            return _plain(identify_run(clue))
        case "adapt":
            wish = options_adapt.adapt_request(given)
            from roadworthy.adapting import adapt_to_dir

            return {**_plain(adapt_to_dir(wish)), "out": str(wish.out)}
        case "learn probe":
            looked = options_learn.probe_request(given)
            from roadworthy.learning import probe

            return _plain(probe(looked))
        case "learn search":
            sought = options_learn.search_request(given)
            from roadworthy.searching import search_run

            return {**_plain(search_run(sought)), "out": str(sought.out)}
        case "learn catalog add" | "learn catalog show" | "learn catalog sql":
            asked = options_learn.catalog_request(given)
            from roadworthy.learning import catalog

            return _plain(catalog(asked))
        case "learn show":
            from roadworthy.learn.overview import overview

            return {"rows": overview(given.dir)}
        case "learn classifier":
            from roadworthy.learn.classifier import write_classifier

            spec, classes = write_classifier(given.dir, given.out)
            return {"out": str(given.out), "spec": spec, "classes": list(classes)}
        case "learn pack":
            packed = options_learn.pack_request(given)
            from roadworthy.learning import pack

            return _plain(pack(packed))
        case verb if verb.startswith("learn "):
            lesson = options_learn.learn_request(given)
            from roadworthy.learning import learn

            return {**_plain(learn(lesson)), "out": str(lesson.out)}
        case "benchmark" if given.list or given.download:
            from roadworthy.learn.gvb.entries import entry
            from roadworthy.learn.gvb.fetch import download, listing

            if given.list:
                return listing(given.root)
            return download(entry(given.download), given.root)
        case "benchmark":
            contest = options_benchmark.benchmark_request(given)
            from roadworthy.benchmarking import benchmark

            return {**_plain(benchmark(contest)), "out": str(contest.out)}
        case "blocks":
            from roadworthy.journey import list_blocks

            return _plain(list_blocks(given.model, given.image_size))
        case "report":
            from roadworthy.report import write_report

            return _plain({"report": write_report(given.dirs, given.out)})
        case _:
            from roadworthy.core.runs import RunRecord
            from roadworthy.demo import demo

            report = demo(given.out, given.seed, given.device)
            runs = sorted(path.parent for path in given.out.glob("*/run.json"))
            return _plain({"report": report, "runs": [RunRecord.load(d).to_dict() for d in runs]})


def _plain(result: Any) -> Any:
    from roadworthy.core.runs import RunRecord, plain

    return result.to_dict() if isinstance(result, RunRecord) else plain(result)


@contextmanager
def _stdout_kept_clean(wanted: bool) -> Generator[None]:
    """Send what libraries print, C code included, to stderr: stdout belongs to the result."""
    if not wanted:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def _warnings_in_one_line(command: str) -> Generator[None]:
    """A warning is for the user, who knows none of the source lines that Python would show."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"roadworthy {command}: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RoadworthyError):
        return text
    if isinstance(error, MemoryError) or "can't allocate memory" in text:  # the latter is torch's
        return "there is not enough memory; smaller images or batches, or fewer at once, need less"
    return f"{type(error).__name__}: {text} (--debug shows where)"
