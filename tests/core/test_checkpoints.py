import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from roadworthy.core.checkpoints import load_strictly, read_weights
from roadworthy.core.specs import (
    Checkpoint,
    HfSpec,
    Pretrained,
    PySpec,
    Random,
    onnx_file,
    parse_model_spec,
)
from roadworthy.errors import BadModel


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model."])
@pytest.mark.parametrize("nest", ["", "state_dict", "model", "net"])
def test_wrappings_come_off(tmp_path: Path, prefix: str, nest: str) -> None:
    state = {prefix + k: v for k, v in net().state_dict().items()}
    torch.save({nest: state, "epoch": 3} if nest else state, tmp_path / "w.pth")
    torch.manual_seed(2)
    other = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    load_strictly(other, read_weights(tmp_path / "w.pth"), "w.pth")
    assert torch.equal(other[0].weight, net()[0].weight)


def test_safetensors(tmp_path: Path) -> None:
    save_file(net().state_dict(), tmp_path / "w.safetensors")
    assert set(read_weights(tmp_path / "w.safetensors")) == set(net().state_dict())


def test_a_module_named_model_keeps_its_prefix() -> None:
    outer = nn.ModuleDict({"model": nn.Linear(2, 2)})
    load_strictly(outer, outer.state_dict(), "itself")


def test_every_mismatch_is_listed() -> None:
    state = net().state_dict()
    state["0.weight"] = torch.zeros(5, 3, 1, 1)
    state["extra"] = torch.zeros(1)
    del state["1.bias"]
    module = net()
    with pytest.raises(BadModel, match=r"1 missing: 1\.bias; 1 unknown: extra; 1 of another shape"):
        load_strictly(module, state, "w.pth")
    assert torch.equal(module[0].weight, net()[0].weight)


def test_long_lists_are_cut() -> None:
    with pytest.raises(BadModel, match=r"20 unknown: .* and 12 more"):
        load_strictly(nn.ReLU(), {f"k{i}": torch.zeros(1) for i in range(20)}, "w.pth")


def test_batch_counters_may_be_absent() -> None:
    state = {k: v for k, v in net().state_dict().items() if "num_batches" not in k}
    load_strictly(net(), state, "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x02}q\x00."])
def test_files_that_are_no_weights(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadModel, match=name):
        read_weights(tmp_path / name)


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"state_dict": Trap()}, tmp_path / "w.pth")
    with pytest.raises(BadModel, match="cannot be read"):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "sprung").exists()


def refusal(path: Path) -> str:
    with pytest.raises(BadModel) as found:
        read_weights(path)
    return str(found.value)


@pytest.mark.parametrize("text", ["some text", "eeeee"])
def test_a_text_is_no_checkpoint(tmp_path: Path, text: str) -> None:
    path = tmp_path / "w.pth"
    path.write_text(text)
    assert refusal(path) == (
        f"weights {path} cannot be read: it is no torch checkpoint; save with "
        "torch.save(model.state_dict(), path)"
    )


def test_a_pickled_module_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(nn.Linear(2, 2), path)
    assert refusal(path) == (
        f"weights {path} cannot be read: it holds a Python object "
        "(torch.nn.modules.linear.Linear), not tensors alone; save with "
        "torch.save(model.state_dict(), path)"
    )


@pytest.mark.parametrize("kind", ["cut", "pickle", "script", "safetensors"])
@pytest.mark.filterwarnings("error::UserWarning")
def test_other_files_are_refused_in_one_clean_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    match kind:
        case "cut":
            torch.save(net().state_dict(), path)
            path.write_bytes(path.read_bytes()[:300])
        case "pickle":
            path.write_bytes(pickle.dumps({"a": [1]}, protocol=4))
        case "script":
            torch.jit.script(nn.ReLU()).save(str(path))
        case _:
            path.write_text("some text")
    assert refusal(path).endswith("(model.state_dict(), path)")
    assert refusal(path).isprintable()
    assert len(refusal(path)) < 160 + len(str(path))


@pytest.mark.parametrize(
    ("rest", "path", "weights"),
    [
        ("net.py:build", "net.py", Pretrained()),
        ("a@b/net.py:build", "a@b/net.py", Pretrained()),
        ("a@b/net.py:build@random", "a@b/net.py", Random()),
        ("a@b/net.py:build@c@d/w.pth", "a@b/net.py", Checkpoint(Path("c@d/w.pth"))),
        ("a:b/net.py:build@w", "a:b/net.py", Checkpoint(Path("w"))),
    ],
)
def test_paths_of_py_models_may_hold_an_at_sign(rest: str, path: str, weights) -> None:
    assert parse_model_spec(f"py:{rest}") == PySpec(Path(path), "build", weights)


@pytest.mark.parametrize("name", ["org/name", "me@work/net"])
def test_folders_of_hf_models_may_hold_an_at_sign(tmp_path: Path, name: str) -> None:
    weights = tmp_path / "w@1"
    weights.touch()
    assert parse_model_spec(f"hf:{name}") == HfSpec(name, Pretrained())
    assert parse_model_spec(f"hf:{name}@random") == HfSpec(name, Random())
    assert parse_model_spec(f"hf:{name}@w.pth") == HfSpec(name, Checkpoint(Path("w.pth")))
    if "@" not in name:
        assert parse_model_spec(f"hf:{name}@{weights}") == HfSpec(name, Checkpoint(weights))


def test_a_hugging_face_folder_needs_its_kind(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    for read in (parse_model_spec, onnx_file):
        with pytest.raises(BadModel, match=f"say hf:{tmp_path}"):
            read(str(tmp_path))
