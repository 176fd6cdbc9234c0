"""Text classifiers through the road test, on a tiny random BERT with a vocabulary of its own."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_texts import SPECIAL, WORDS, write_model, write_texts
from transformers import BertConfig, BertTokenizer

from roadworthy.cli import main
from roadworthy.core.models import load_model
from roadworthy.core.texts import TextInput
from roadworthy.errors import BadModel

STAGES = "casing,tokenizer,truncation,length,padding"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    write_model(folder / "bert")
    write_texts(folder / "texts.tsv")
    return folder


def asked(place: Path, *more: str) -> list[str]:
    return [
        f"hf:{place}/bert",
        "--data",
        f"text:{place}/texts.tsv?text=sentence&label=label",
        *more,
    ]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_a_text_classifier_says_how_it_is_fed(place: Path) -> None:
    loaded = load_model(f"hf:{place}/bert")
    assert loaded.texts == TextInput(f"{place}/bert", length=16)
    assert loaded.preprocess is None
    tokens = torch.stack([loaded.texts(("a good film",)), loaded.texts(("bad",))])
    inner = loaded.module.model
    wanted = inner(input_ids=tokens[:, 0], attention_mask=tokens[:, 1], token_type_ids=tokens[:, 2])
    assert torch.equal(loaded.module(tokens), wanted.logits)


def test_it_is_evaluated(place: Path, capsys) -> None:
    found = run(capsys, "evaluate", *asked(place))
    assert (found["metric"], found["n"]) == ("top1", 24)
    assert 0 < found["value"] < 1


def test_the_stages_of_texts_are_swept(place: Path, capsys) -> None:
    found = run(capsys, "noise", *asked(place, "--out", str(place / "road"), "--stages", STAGES))
    rows = {(row["stage"], row["option"]): row for row in found["rows"]}
    same = {option for (_, option), row in rows.items() if row["class"] == "training system"}
    assert same == {"slow", "lower", "upper", "capital", "cased", "longest"}
    assert rows["padding", "left"]["class"] == "left"
    assert rows["padding", "left"]["flip_rate"] > 0
    assert rows["truncation", "left"]["distance"] > 0
    assert [option for stage, option in rows if stage == "length"] == ["8", "4"]
    assert found["things"] == "texts"
    assert "24 texts" in found["advice"] or "make the very tokens" in found["advice"]
    assert found["flips"][0]["text"].split()[0] in WORDS
    page = (place / "road" / "report.html").read_text()
    assert found["flips"][0]["text"] in page


def test_the_sweep_answers_what_evaluate_answers(place: Path, capsys) -> None:
    alone = run(capsys, "evaluate", *asked(place))
    found = run(capsys, "noise", *asked(place, "--out", str(place / "one"), "--stages", "length"))
    assert found["value"] == pytest.approx(alone["value"])
    (place / "short.yaml").write_text("length: 4\n")
    short = run(capsys, "evaluate", *asked(place, "--preprocess", str(place / "short.yaml")))
    row = next(row for row in found["rows"] if row["option"] == "4")
    assert row["delta"] == pytest.approx(100 * (alone["value"] - short["value"]))


def test_runtimes_and_precisions_take_tokens(place: Path, capsys) -> None:
    out = str(place / "runtimes")
    found = run(capsys, "noise", *asked(place, "--out", out, "--stages", "length,runtime"))
    rows = {row["option"]: row for row in found["rows"]}
    for name in ("torch-bf16", "torch-fp16", "onnxruntime-all", "int8"):
        assert rows[name]["missing"] is None, rows[name]["missing"]
    assert rows["onnxruntime-all"]["flip_rate"] == 0
    assert rows["mnn-f32"]["missing"]


def test_attribution_of_a_deployment(place: Path, capsys) -> None:
    (place / "deploy.yaml").write_text(
        "padding: left\ntokenizer: slow\nlength: 8\nruntime: onnxruntime-all\n"
    )
    arguments = asked(place, "--deploy", str(place / "deploy.yaml"))
    found = run(capsys, "noise", "attribute", *arguments)
    assert list(found["shares"]) == ["tokenizer", "length", "padding", "runtime"]
    assert found["shares"]["tokenizer"] == found["shares"]["runtime"] == 0
    assert sum(found["shares"].values()) == pytest.approx(found["total"]["value"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("padding: middle", "padding 'middle' given; right, left, longest are allowed"),
        ("lenght: 8", "stage 'lenght' given (did you mean length?)"),
        ("length: 2", "length 2 given; 4 to 8192"),
        ("files: /nowhere", "the tokenizer of /nowhere cannot be loaded"),
    ],
)
def test_what_a_deployment_file_may_not_say(place: Path, capsys, line, message) -> None:
    (place / "bad.yaml").write_text(line + "\n")
    arguments = asked(place, "--deploy", str(place / "bad.yaml"))
    assert main(["noise", "attribute", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_stages_of_images_are_refused(place: Path, capsys) -> None:
    out = ["--out", str(place / "wrong"), "--stages", "decode,resize"]
    assert main(["noise", *asked(place, *out)]) == 2
    assert "this system has casing, tokenizer" in capsys.readouterr().err


def test_a_tokenizer_of_another_model_is_told(place: Path, tmp_path: Path, capsys) -> None:
    strange = {word: i for i, word in enumerate([*SPECIAL, *(f"w{i}" for i in range(90)), *WORDS])}
    BertTokenizer(vocab=strange).save_pretrained(tmp_path / "other")
    (tmp_path / "other.yaml").write_text(f"files: {tmp_path / 'other'}\n")
    assert main(["evaluate", *asked(place, "--preprocess", str(tmp_path / "other.yaml"))]) == 2
    assert "give the tokenizer that belongs to the model" in capsys.readouterr().err


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    BertConfig(architectures=["BertModel"]).save_pretrained(tmp_path)
    with pytest.raises(BadModel, match="cannot be loaded as a model of images or texts"):
        load_model(f"hf:{tmp_path}")


def test_images_and_texts_are_not_mixed_up(place: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    out = ["--out", str(tmp_path / "out")]
    model, *data = asked(place)
    assert main(["noise", model, "--data", f"imagefolder:{tmp_path}", *out]) == 2
    assert "holds images and the model reads texts" in capsys.readouterr().err
    (tmp_path / "net.py").write_text(
        "from torch import nn\nPREPROCESS = {'colour': 'bgr'}\nbuild = nn.Flatten\n"
    )
    assert main(["noise", f"py:{tmp_path}/net.py:build", *data, *out]) == 2
    assert "holds texts and the model reads images" in capsys.readouterr().err


@pytest.mark.parametrize("changed", [{"num_hidden_layers": 3}, {"vocab_size": 7}])
def test_weights_that_do_not_belong_to_the_configuration_are_refused(
    place: Path, tmp_path: Path, capsys, changed: dict
) -> None:
    folder = shutil.copytree(place / "bert", tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))
    assert main(["evaluate", f"hf:{folder}", *asked(place)[1:]]) == 2
    err = capsys.readouterr().err.strip()
    assert "that its config.json asks for" in err
    assert "\n" not in err


def test_damaged_weights_are_told(place: Path, tmp_path: Path, capsys) -> None:
    folder = shutil.copytree(place / "bert", tmp_path / "bert")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:3000])
    assert main(["evaluate", f"hf:{folder}", *asked(place)[1:]]) == 2
    assert "cannot be loaded as a model" in capsys.readouterr().err


def test_names_of_more_classes_than_the_model_has(place: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "three.tsv").write_text("label\tsentence\na\tgood\nb\tbad\nc\tdull\n")
    spec = f"text:{tmp_path}/three.tsv?text=sentence&label=label"
    assert main(["evaluate", asked(place)[0], "--data", spec]) == 2
    assert "3 class names and the model 2 outputs" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_no_matter_of_the_hub_alone() -> None:
    with pytest.raises(BadModel, match="hf:out/nowhere is no folder here; as an id of the hub"):
        load_model("hf:out/nowhere")


@pytest.mark.parametrize("command", [["evaluate"], ["noise"], ["noise", "attribute"]])
def test_a_refused_run_leaves_no_folder(place: Path, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "bad.tsv").write_text("label\tsentence\n1\t \n0\tgood\n")
    (tmp_path / "left.yaml").write_text("padding: left\n")
    spec = f"text:{tmp_path}/bad.tsv?text=sentence&label=label"
    more = ["--deploy", str(tmp_path / "left.yaml")] if command[-1] == "attribute" else []
    out = ["--out", str(tmp_path / "out")]
    assert main([*command, asked(place)[0], "--data", spec, *more, *out]) == 2
    assert not (tmp_path / "out").exists()
