"""Where a road test's numbers come from: machine, libraries, runtimes, command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from shlex import quote
from typing import cast, get_args

from roadworthy.report.tree import Tree
from roadworthy.requests import StageName

Pairs = tuple[tuple[str, str], ...]
HINT = "INFERENCE_PRECISION_HINT"
"""OpenVINO's own word for the precision that it took."""


@dataclass(frozen=True)
class Runtime:
    """A way in which the model was run: what was asked for, who ran it, and how precisely."""

    name: str
    engine: str
    precision: str
    settings: Pairs


@dataclass(frozen=True)
class Origin:
    """The fingerprint of a road test, and how to get it again."""

    machine: Pairs
    libraries: Pairs
    runtimes: tuple[Runtime, ...]
    command: str
    groups: tuple[tuple[str, Pairs], ...]


def origin(tree: Tree) -> Origin:
    """The fingerprint of a record; what it lacks is left out."""
    found = tree.get("fingerprint")
    names = {
        "CPU": found.text("cpu") or tree.text("host.cpu"),
        "kernels": found.text("instructions"),
        "instruction sets": ", ".join(found.texts("flags")),
        "threads": found.text("threads") or tree.text("host.threads"),
        "cores": found.text("cores") or tree.text("host.cores"),
        "platform": tree.text("host.platform"),
        "GPU": tree.text("host.gpu"),
        "JPEG in Pillow": _jpeg(found),
        "PyTorch": found.text("torch"),
    }
    return Origin(
        machine=tuple((name, value) for name, value in names.items() if value),
        libraries=tuple(found.leaves("libraries")),
        runtimes=_runtimes(found),
        command=command_line(tree),
        groups=_groups(tree),
    )


def command_line(tree: Tree) -> str:
    """What to type to get the run again, out of the settings that differ from the defaults."""
    verb, model = tree.text("command"), tree.text("config.model")
    if verb is None or model is None:
        return ""
    road, config = tree.get("config.road"), tree.get("config")
    options = {
        "--data": road.text("data"),
        **{f"--{key}": config.text(key) for key in ("train", "deploy")},
        "--preprocess": road.text("preprocess"),
        "--limit": road.text("limit"),
        "--stages": unless(",".join(config.texts("stages")), ",".join(get_args(StageName))),
        "--combine": unless(config.text("combine"), "greedy"),
        "--tolerance": unless(config.text("tolerance"), "0.0"),
        "--seed": road.text("seed") or tree.text("seed"),
        "--device": unless(road.text("device"), "auto"),
        "--out": config.text("out"),
    }
    typed = [f"{name} {quote(value)}" for name, value in options.items() if value]
    bad = ["--skip-bad"] if road.get("skip_bad").value is True else []
    return " ".join(["roadworthy", verb, quote(model), *typed, *bad])


def unless(value: str | None, default: str) -> str | None:
    """A setting, None where it is the default."""
    return None if value == default else value


def _jpeg(found: Tree) -> str | None:
    turbo, jpeg = found.text("libjpeg_turbo"), found.text("jpeg")
    return f"libjpeg-turbo {turbo}" if turbo else jpeg and f"libjpeg {jpeg}"


def _runtimes(found: Tree) -> tuple[Runtime, ...]:
    entries = found.get("runtimes").value
    known = cast("Mapping[str, object]", entries) if isinstance(entries, Mapping) else {}
    return tuple(_runtime(name, Tree(settings)) for name, settings in known.items())


def _runtime(name: str, settings: Tree) -> Runtime:
    rest = [(k, v) for k, v in settings.leaves("") if k not in ("runtime", "precision", HINT)]
    precision = settings.first(HINT, "precision") or ""
    shown = name.removeprefix("as-trained ").removesuffix(" as-trained")
    return Runtime(shown, settings.text("runtime") or "", precision, tuple(rest))


def _groups(tree: Tree) -> tuple[tuple[str, Pairs], ...]:
    seed = [("seed", s)] if (s := tree.text("seed")) else []
    groups = (
        ("Settings", [*tree.leaves("config"), *seed]),
        ("Data", tree.leaves("data")),
        ("Versions", tree.leaves("versions")),
    )
    return tuple((name, tuple(rows)) for name, rows in groups if rows)
