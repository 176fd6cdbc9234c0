"""A text model that answers one number: read, compressed, deployed, judged by correlation."""

import json
from pathlib import Path

import pytest
from tiny_texts import write_model, write_texts
from transformers import BertForSequenceClassification

from roadworthy.cli import main
from roadworthy.core.data import load_data
from roadworthy.errors import BadData


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("regression")
    write_model(folder / "classes")
    write_model(folder / "bert")
    model = BertForSequenceClassification.from_pretrained(
        folder / "bert", num_labels=1, ignore_mismatched_sizes=True
    )
    assert model.bert.pooler is not None
    model.classifier.weight.data.copy_(model.bert.pooler.dense.weight.data[:1])
    model.save_pretrained(folder / "bert")
    header, *rows = write_texts(folder / "ids.tsv", rows=32).read_text().splitlines()
    numbered = [f"{i / 4}{row[1:]}" for i, row in enumerate(rows)]
    (folder / "texts.tsv").write_text("\n".join([header, *numbered]) + "\n")
    return folder


def spec(place: Path, name: str = "texts") -> str:
    return f"text:{place}/{name}.tsv?text=sentence&label=label"


def test_numbers_are_read_and_an_untold_one_is_none(place: Path, tmp_path: Path) -> None:
    data = load_data(spec(place))
    assert [data.told(i) for i in (0, 1, 5)] == [0.0, 0.25, 1.25]
    assert data.classes == ()
    (tmp_path / "a.tsv").write_text("label\tsentence\n-2.5\ta\n\tb\n-1\tc\n1e-3\td\n")
    few = load_data(f"text:{tmp_path}/a.tsv?text=sentence&label=label")
    assert [few.told(i) for i in range(4)] == [-2.5, None, None, 0.001]
    assert len(few.labelled()) == 2
    (tmp_path / "b.tsv").write_text("label\tsentence\n2.5\ta\nbad\tb\n")
    with pytest.raises(BadData, match=r"line 2: label '2\.5'"):
        load_data(f"text:{tmp_path}/b.tsv?text=sentence&label=label")


def test_another_number_is_other_data(place: Path, tmp_path: Path) -> None:
    text = (place / "texts.tsv").read_text()
    (tmp_path / "texts.tsv").write_text(text.replace("0.25\t", "0.26\t"))
    assert load_data(spec(place)).sha256 != load_data(spec(tmp_path)).sha256


@pytest.mark.parametrize(
    ("command", "model", "data", "said"),
    [
        ("evaluate", "classes", "texts", "numbers such as 0.0"),
        ("noise", "bert", "texts", "answers one number"),
        ("quantize", "bert", "texts", "--max-drop"),
    ],
)
def test_numbers_and_classes_do_not_mix(
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    model: str,
    data: str,
    said: str,
) -> None:
    asked = [command, f"hf:{place}/{model}", "--data", spec(place, data)]
    more = {"noise": [], "quantize": ["--max-drop", "1", "--bits", "w8a8", "--method", "minmax"]}
    if command in more:
        asked += [*more[command], "--out", str(tmp_path / "out")]
    assert main(asked) == 2
    found = capsys.readouterr().err.strip()
    assert said in found
    assert len(found.splitlines()) == 1


def test_a_number_is_quantized_deployed_and_judged_by_correlation(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", f"hf:{place}/bert", "--data", spec(place), "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["metric"] == "pearson"
    assert alone["ci_low"] < alone["value"] < alone["ci_high"]
    asked = ["quantize", f"hf:{place}/bert", "--data", spec(place), "--eval", spec(place)]
    out = place / "out"
    assert main([*asked, "--bits", "w8a8", "--method", "minmax", "--out", str(out)]) == 0
    metrics = json.loads((out / "run.json").read_text())
    assert metrics["float"]["value"] == pytest.approx(alone["value"], abs=1e-5)
    assert metrics["float"]["spearman"] == pytest.approx(alone["also"]["spearman"], abs=0.01)
    assert metrics["parity"]["agreement"] >= 0.995
    assert metrics["parity"]["measure"] == "explained"
    assert 0.9 < metrics["against_float"]["correlation"] < 1
    assert metrics["deployed"]["value"] == pytest.approx(metrics["simulated"]["value"], abs=0.02)
    assert "Spearman correlation" in (out / "report.html").read_text()
    capsys.readouterr()
    assert main(["evaluate", str(out), "--data", spec(place), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["value"] == pytest.approx(metrics["deployed"]["value"], abs=1e-5)
