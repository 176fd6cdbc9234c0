"""The walk over the units: ranges, passes, and the hand-over of inputs from unit to unit."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from torch import Tensor, fx

from roadworthy.compress.cache import Cache
from roadworthy.compress.calibrate import set_act_ranges, set_enabled, set_weight_ranges
from roadworthy.compress.learn import Outcome, Samples, reconstruct
from roadworthy.compress.methods import Method, Pass
from roadworthy.compress.place import Quantizers, Widths, place
from roadworthy.compress.resume import Finished
from roadworthy.core.backends import Backend
from roadworthy.core.extract import Part, extract, whole
from roadworthy.core.memory import keep_freed_memory
from roadworthy.core.padding import DECODED, ENCODED, shortened, text_mask
from roadworthy.core.predict import Inputs
from roadworthy.core.units import Unit, data_nodes, decoder_nodes, partition
from roadworthy.errors import BadModel


@dataclass(frozen=True)
class Task:
    """A captured model, its quantizers and its units."""

    graph: fx.GraphModule
    quantizers: Quantizers
    units: tuple[Unit, ...]


def prepare(
    graph: fx.GraphModule, backend: Backend, widths: Widths, blocks: Sequence[str] = ()
) -> Task:
    """Place the quantizers of `graph` and cut it into units; BadModel where it has no layer."""
    quantizers = place(graph, backend, widths)
    if not quantizers.layers or whole(graph).exit not in data_nodes(graph):
        raise BadModel(
            "the model has no convolution, linear or matrix product between its input and output; "
            "there is nothing to quantize"
        )
    units = partition(graph, quantizers.placement.activations, blocks)
    return Task(graph, quantizers, tuple(units))


def part_of(task: Task, part: Part) -> fx.GraphModule:
    """The quantized module of a part of the model."""
    return extract(task.graph, part, task.quantizers.modules, task.quantizers.placement)


def calibrate(task: Task, images: Inputs, method: Method, backend: Backend) -> None:
    """Set all ranges from the float network (QDrop: on the first 256 images)."""
    set_weight_ranges(task.quantizers.modules.values(), method, backend.pair_limit)
    cache = Cache(memory=2**62)  # `range_images` are few: nothing goes to disk
    x = tokens = shortened(images[: method.range_images])
    for unit in task.units:
        part = Part(unit.nodes, unit.entry, unit.exit)
        module = part_of(task, part).eval()
        given = (x, *asked(part, tokens))
        set_act_ranges(module, zip(*(each.split(64) for each in given), strict=True), method)
        set_enabled(module, False)
        x = cache.collect(module, *given)
        set_enabled(module, True)


def asked(part: Part, inputs: Inputs) -> tuple[Tensor, ...]:
    """What the module of a part takes besides its input: of texts the tokens, but at the start."""
    text = not inputs.is_floating_point() and part.entry.op != "placeholder"
    return (inputs,) if text else ()


@dataclass(frozen=True)
class Step:
    """Where a run stands: `step` of `steps` of `unit` are done, `share` (0 to 1) of the pass."""

    unit: str
    step: int
    steps: int
    loss: float
    number: int
    share: float


Progress = Callable[[Step], None]
"""Told now and then where the run stands."""


@dataclass(frozen=True)
class Run:
    """What every pass of one run shares; `memory` bounds the caches, in bytes. `attempt` tells
    apart what is kept of several runs in one folder."""

    seed: int = 0
    finished: Finished = field(default_factory=lambda: Finished(None, {}))
    progress: Progress | None = None
    memory: int = 4 * 2**30
    attempt: str = ""


def run_pass(
    task: Task, images: Inputs, settings: Pass, run: Run, number: int = 0
) -> dict[str, Outcome]:
    """Reconstruct unit after unit; outputs travel on, floating point and quantized.

    A unit's randomness depends on the seed and its place alone, so a resumed run ends with the
    same bits as an uninterrupted one.
    """
    keep_freed_memory()
    outcomes: dict[str, Outcome] = {}
    cache = Cache(run.memory, run.finished.folder)
    fp = quantized = images = shortened(images)
    parts, decoded = _parts(task, settings), decoder_nodes(task.graph)
    learning = [index for index, (_, _, learns) in enumerate(parts) if learns]
    for index, (name, part, learns) in enumerate(parts):
        module = part_of(task, part).eval()
        set_enabled(module, False)
        row = DECODED if part.exit in decoded else ENCODED
        besides = asked(part, images)
        target = cache.collect(module, fp, *besides)
        set_enabled(module, True)
        if learns:
            key = f"{run.attempt}{number}-{index}"
            known = run.finished.load(key, module)
            if known is None:
                place = learning.index(index), len(learning)
                report = _reporter(run.progress, name, settings.iterations, number, place)
                seed = run.seed * 1_000_003 + number * 1009 + index
                samples = Samples(fp, quantized, target, besides, text_mask(images, row))
                outcomes[name] = reconstruct(module, samples, settings, seed, report)
                run.finished.save(key, module, asdict(outcomes[name]))
            else:
                outcomes[name] = Outcome(**known)
        quantized = cache.collect(module, quantized, *besides)
        fp = target
    return outcomes


def _reporter(
    progress: Progress | None, name: str, steps: int, number: int, place: tuple[int, int]
) -> Callable[[int, float], None] | None:
    if progress is None:
        return None
    before, units = place

    def report(step: int, loss: float) -> None:
        share = (before + step / steps) / units
        progress(Step(name, step, steps, loss, number, share))

    return report


def _parts(task: Task, settings: Pass) -> list[tuple[str, Part, bool]]:
    if settings.scope == "network":
        return [("network", whole(task.graph), True)]
    units = task.units
    if settings.scope == "pair":
        units = _merge_pairs(units)
    return [(u.name, Part(u.nodes, u.entry, u.exit), bool(u.layers)) for u in units]


def _merge_pairs(units: Sequence[Unit]) -> tuple[Unit, ...]:
    """Neighbouring blocks two by two; single layers stay alone."""
    merged: list[Unit] = []
    for unit in units:
        last = merged[-1] if merged else None
        fits = last is not None and len(unit.layers) > 1 and len(last.layers) > 1
        if last is not None and fits and "+" not in last.name:
            merged[-1] = Unit(
                f"{last.name}+{unit.name}",
                last.nodes + unit.nodes,
                last.entry,
                unit.exit,
                last.layers + unit.layers,
            )
        else:
            merged.append(unit)
    return tuple(merged)


def whole_model(task: Task) -> fx.GraphModule:
    """The quantized model, quantizers as modules."""
    return part_of(task, whole(task.graph)).eval()
