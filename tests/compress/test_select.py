"""Held-out selection: the best try by images that none of them learned from."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from compress.small import graph, images, plan

from roadworthy.compress import select
from roadworthy.compress.engine import Run
from roadworthy.compress.methods import QDrop
from roadworthy.compress.quantize import Compressed, Plan, compress
from roadworthy.compress.resume import Finished
from roadworthy.compress.select import compress_best
from roadworthy.errors import BadInput


def three() -> Plan:
    return plan(QDrop(tries=3), 10)


def test_the_try_with_the_least_divergence_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[Compressed]()
    shown = list[torch.Tensor]()

    def kept(captured: object, seen: torch.Tensor, *rest: object) -> Compressed:
        shown.append(seen)
        made.append(compress(captured, seen, *rest))  # pyright: ignore[reportArgumentType]
        return made[-1]

    monkeypatch.setattr(select, "compress", kept)
    best = compress_best(graph(), images(), three(), Run(seed=5))
    rows = best.facts["tries"]
    assert [row["seed"] for row in rows] == [5, 6, 7]
    assert [row["keep_quantized"] for row in rows] == [0.5, 0.75, 0.25]
    assert best is made[min(range(3), key=lambda i: rows[i]["kl"])]
    held_out = images()[7::8]
    assert not any(torch.equal(a, b) for seen in shown for a in seen for b in held_out)


def test_one_try_learns_from_all_images() -> None:
    alone = compress_best(graph(), images(), plan(steps=10), Run()).module.state_dict()
    plain = compress(graph(), images(), plan(steps=10), Run()).module.state_dict()
    assert all(torch.equal(alone[name], plain[name]) for name in plain)


def test_tries_are_kept_apart_when_resumed(tmp_path: Path) -> None:
    def best() -> Compressed:
        run = Run(finished=Finished(tmp_path / "kept", {"run": 1}))
        return compress_best(graph(), images(), three(), run)

    first, again = best(), best()
    assert first.facts["tries"] == again.facts["tries"]
    assert len({row["kl"] for row in first.facts["tries"]}) == 3
    assert len(list((tmp_path / "kept").glob("*.safetensors"))) == 3 * 4


def test_no_try_is_refused() -> None:
    with pytest.raises(BadInput, match="0 tries"):
        replace(QDrop(), tries=0)
