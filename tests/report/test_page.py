"""Laws of the page: it says what run.json says, whatever is missing, and never more."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from sample_adapt import sample_adapt, sample_depth, sample_search
from sample_bench import sample_bench
from sample_report import Run, sample_run
from sample_road import sample_blame, sample_road
from sample_stage import sample_amateur, sample_probes, sample_stage

from roadworthy.errors import BadInput
from roadworthy.report import write_report

WriteRun = Callable[..., Path]
SAMPLES: dict[str, Callable[[], Run]] = {
    "quantize": sample_run,
    "noise": sample_road,
    "noise attribute": sample_blame,
    "learn generalist": sample_stage,
    "learn amateur": sample_amateur,
    "learn probe": sample_probes,
    "learn search": sample_search,
    "adapt": sample_adapt,
    "adapt to depth": sample_depth,
    "benchmark": sample_bench,
}
KEYS = [(kind, key) for kind, make in SAMPLES.items() for key in make()]
JUNK = (..., -3, "text", float("nan"), [None], [{}, {"a": 1}], {"a": [{}]})
HEADLINE = {
    "float": "91.6",
    "simulated": "91.2",
    "deployed": "91.1",
    "change": "(−1.3 to +0.3)",
    "parity": "99.9 %",
    "latency": "3.1×",
    "files": "0.27×",
    "kernels": "19 of 21",
    "seconds": "2 min 23 s",
    "peak_memory_mb": "1180 MB",
}


def page(*folders: Path, out: Path) -> str:
    return write_report(list(folders), out).read_text()


def visible(html: str) -> str:
    body = re.sub(r"<(style|script|title)\b.*?</\1>", " ", html, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


@pytest.mark.parametrize("key", HEADLINE)
def test_each_headline_number_is_shown(key: str, run_json: Run, write_run: WriteRun) -> None:
    folder = write_run(run_json)
    assert HEADLINE[key] in visible(page(folder, out=folder))


@pytest.mark.parametrize("key", HEADLINE)
def test_no_headline_number_is_invented(key: str, run_json: Run, write_run: WriteRun) -> None:
    shown = HEADLINE[key]
    del run_json[key]
    if key == "deployed":  # its value must not come back from anywhere else
        run_json["float"]["value"] = 0.93
    folder = write_run(run_json)
    assert shown not in visible(page(folder, out=folder))


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize(("kind", "key"), KEYS)
def test_any_key_may_be_missing_or_hold_junk(
    kind: str, key: str, junk: object, write_run: WriteRun
) -> None:
    run = SAMPLES[kind]()
    del run[key]
    folder = write_run(run if junk is ... else {**run, key: junk})
    lines = ("[]", "3", '{"step": "x"}', '{"step": 1}', '{"score": 1}')
    said = json.dumps(junk, default=str)
    for name in ("log.jsonl", "trials.jsonl"):
        (folder / name).write_text("\n".join([*lines, said, f'{{"macs": {said}}}']))
    (folder / "manifest.json").write_text(f'{{"files": {said}, "compute": {said}}}')
    assert not {"nan", "none", "inf"} & set(visible(page(folder, out=folder)).lower().split())


def test_an_empty_run_is_a_page(write_run: WriteRun) -> None:
    folder = write_run({})
    assert "nothing was measured" in visible(page(folder, out=folder))


def test_a_hostile_model_name_is_text(run_json: Run, write_run: WriteRun) -> None:
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>\" onload='x'"
    run_json["config"]["model"] = hostile
    run_json["layers"][3]["name"] = hostile
    run_json["units"][0]["name"] = hostile
    run_json["weight_histograms"][0]["layer"] = hostile
    run_json["float_ops"] = [hostile]
    folder = write_run(run_json)
    other = write_run(sample_run(), "other")
    html = page(folder, other, out=folder)
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_only_data_pictures_enter(run_json: Run, write_run: WriteRun) -> None:
    folder = write_run(run_json)
    rows = [{"image": "https://example.org/a.png", "label": "beacon"}]
    (folder / "samples.json").write_text(json.dumps({"samples": rows}))
    assert "beacon" not in page(folder, out=folder)


def test_the_page_fetches_nothing(run_json: Run, write_run: WriteRun) -> None:
    folder = write_run(run_json, samples=True)
    html = page(folder, out=folder)
    assert not re.search(r"""(?:src|href|url\()\s*=?\s*["']?(?:https?:)?//""", html)
    assert not re.search(r"<(?:link|script)[^>]+(?:href|src)=\"(?!data:)", html)


def test_layers_and_units_are_all_drawn(run_json: Run, write_run: WriteRun) -> None:
    folder = write_run(run_json)
    html = page(folder, out=folder)
    drawn = re.findall(r"<title>(.*?)</title>", html)
    for layer in run_json["layers"]:
        assert any(tip.startswith(f"{layer['name']}: ") for tip in drawn)
    for unit in run_json["units"]:
        assert any(tip.startswith(f"{unit['name']}: ") and "→" in tip for tip in drawn)


def test_a_missed_gate_and_a_lost_point_are_marked(run_json: Run, write_run: WriteRun) -> None:
    good = page(write_run(run_json, "good"), out=write_run({}, "a"))
    lossy = copy.deepcopy(run_json)
    lossy["deployed"]["value"] = 0.80
    run_json["parity"]["agreement"] = 0.98
    bad = page(write_run(run_json, "bad"), out=write_run({}, "b"))
    assert 'class="mark-pass"' in good
    assert 'class="mark-fail"' in bad
    assert "missed" in visible(bad)
    assert 'class="mark-warn"' in page(write_run(lossy, "lossy"), out=write_run({}, "c"))


def test_a_slower_file_is_called_slower(run_json: Run, write_run: WriteRun) -> None:
    run_json["latency"] = {"float_ms": 1.0, "quantized_ms": 1.25}
    folder = write_run(run_json)
    assert "0.80× as fast as float (slower)" in visible(page(folder, out=folder))


def test_several_runs_are_compared_first(write_run: WriteRun, tmp_path: Path) -> None:
    worse = sample_run(1)
    worse["config"]["bits"] = "w2a2"
    worse["deployed"]["value"] = 0.7404
    html = page(write_run(sample_run(), "four"), write_run(worse, "two"), out=tmp_path / "x.html")
    text = visible(html)
    assert text.index("2 runs compared") < text.index("W4A4 keeps")
    row = re.search(r"<tr><td[^>]*><a href=\"#run-2\">two</a>.*?</tr>", html, re.S)
    assert row is not None
    assert all(shown in visible(row[0]) for shown in ("W2A2", "91.6", "74.0", "−17.6", "99.9 %"))
    assert 'id="run-2"' in html


def test_points_and_fractions_read_alike(run_json: Run, write_run: WriteRun) -> None:
    folder = write_run(run_json, "fractions")
    for form in ("float", "simulated", "deployed"):
        run_json[form]["value"] *= 100
    run_json["simulated"]["ci"] = [89.4, 92.9]
    other = write_run(run_json, "points")
    tiles = r'<div class="tiles">.*?</section>'
    first, second = (re.search(tiles, page(f, out=f), re.S) for f in (folder, other))
    assert first is not None
    assert second is not None
    assert first[0] == second[0]


def test_the_command_is_put_together_where_only_its_verb_is_recorded(
    run_json: Run, write_run: WriteRun
) -> None:
    run_json["command"] = "quantize"
    run_json["config"] = {
        "model": "timm:net@a file.pth",
        "data": {"calibration": "imagefolder:photos", "evaluation": None},
        "scheme": {"weight_bits": 3, "act_bits": 8, "backend": "academic"},
        "solver": {"method": "brecq", "effort": "quick", "iterations": None},
        "settings": {"tries": 3},
        "out": "out",
    }
    folder = write_run(run_json)
    text = visible(page(folder, out=folder))
    assert "W3A8 keeps" in text
    assert (
        "roadworthy quantize &#39;timm:net@a file.pth&#39; --data imagefolder:photos --bits w3a8 "
        "--method brecq --effort quick --backend academic --tries 3 --seed 7 --out out"
    ) in text


@pytest.mark.parametrize("make", [sample_adapt, sample_search, sample_stage, sample_bench])
def test_the_command_names_the_device_that_was_asked_for(
    make: Callable[[], Run], write_run: WriteRun
) -> None:
    run = make()
    folder = write_run(run, "anywhere")
    assert "--device" not in visible(page(folder, out=folder))
    run["config"].get("terms", run["config"])["machine"]["device"] = "cuda"
    folder = write_run(run, "elsewhere")
    assert "--device cuda --out out/" in visible(page(folder, out=folder))


def test_an_evaluation_is_a_page(write_run: WriteRun) -> None:
    found = {"metric": "top1", "value": 0.9164, "ci_low": 0.898, "ci_high": 0.931, "n": 1017}
    folder = write_run({"command": "evaluate", "config": {"model": "timm:net"}, **found})
    html = page(folder, out=folder)
    assert "91.6 top-1 accuracy" in visible(html)
    assert "91.64 (89.80–93.10)" in html


def test_an_error_is_in_metres_wherever_it_stands(run_json: Run, write_run: WriteRun) -> None:
    for form, value in (("float", 0.331), ("simulated", 0.3402), ("deployed", 0.3434)):
        run_json[form] = {"metric": "rmse", "value": value, "ci": [value - 0.02, value + 0.02]}
    run_json["change"] = {"delta": 0.0124, "low": -0.0031, "high": 0.028}
    folder = write_run(run_json)
    html = page(folder, write_run(run_json, "other"), out=folder)
    text = visible(html)
    assert "0.343 m RMSE float 0.331 m, +0.012 m" in text
    assert "W4A4 errs by 0.343 m, float by 0.331 m" in text
    assert "Change on the same images: +0.012 m (−0.003 m to +0.028 m)." in text
    row = re.search(r'<tr><td[^>]*><a href="#run-1">.*?</tr>', html, re.S)
    assert row is not None
    assert "W4A4 0.343 m +0.012 m 0.331 m" in visible(row[0])
    assert re.findall(r'class="value".*?>(.*?)<', html)[:2] == ["0.343 m", "0.343 m"]
    assert not re.search(r"\b3[34]\.\d", text)


def test_a_folder_gets_report_html(run_json: Run, write_run: WriteRun) -> None:
    folder = write_run(run_json)
    assert write_report([folder], folder) == folder / "report.html"
    assert sorted(p.name for p in folder.iterdir()) == ["report.html", "run.json"]


def test_bad_input_names_the_file(write_run: WriteRun, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no run.json in .*nothing"):
        write_report([tmp_path / "nothing"], tmp_path)
    folder = write_run({})
    (folder / "run.json").write_text('{"float": ')
    with pytest.raises(BadInput, match=r"run\.json is not JSON"):
        write_report([folder], tmp_path)
    (folder / "run.json").write_text("[1]")
    with pytest.raises(BadInput, match="holds list"):
        write_report([folder], tmp_path)
    with pytest.raises(BadInput, match="at least one"):
        write_report([], tmp_path)


def test_outliers_and_clipping_ratios_are_shown_where_they_were_recorded(tmp_path: Path) -> None:
    told = {"low": -3.0, "high": 28.5, "ratio": 8.0, "channel": 99, "names": ["[CLS]"]}
    norms = [{"norm": "layer.0.norm", "before": told, "after": {**told, "ratio": 4.0}}]
    ratios = [{"ratio": 1.0, "loss": 0.7}, {"ratio": 0.99, "loss": None}]
    ratios.append({"ratio": 0.98, "loss": 0.25})
    found = {"norms": norms, "clipping": ratios, "clip_ratio": 0.98}
    run = {"config": {"data": "text:a.tsv?text=a"}, "suppression": found, "parity": {"n": 5}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    page = write_report([tmp_path], tmp_path / "report.html").read_text()
    assert "layer.0.norm, channel 99, 8.0× the median token (carried by [CLS])" in page
    assert "ratio 0.98: 0.25" in page
    assert "ratio 0.99" not in page


def test_thresholds_are_shown_beside_what_no_cut_costs(tmp_path: Path) -> None:
    losses = [{"threshold": t, "loss": e} for t, e in ((8.0, 4.0), (2.0, 1.0), (0.5, 40.0))]
    row = {"gamma": "layer.0.norm.weight", "threshold": 2.0, "losses": losses}
    uncut = {**row, "gamma": "layer.1.norm.weight", "threshold": 8.0, "scale": [1.0, 1.0]}
    run = {"suppression": {"searched": [{**row, "scale": [1.0, 4.0]}, uncut]}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    page = write_report([tmp_path], tmp_path / "report.html").read_text()
    assert "layer.0.norm, where one channel is cut down to 2, 0.25× the error" in page
    assert "layer.0.norm: threshold 0.5, 10× the error" in page
    run["suppression"]["searched"] = [uncut]
    (tmp_path / "run.json").write_text(json.dumps(run))
    page = write_report([tmp_path], tmp_path / "report.html").read_text()
    assert "Nothing gained by cutting" in page


def test_fine_tuning_shows_its_judgements_and_its_own_command(tmp_path: Path) -> None:
    judged = [{"step": s, "loss": e, "right": 0.9} for s, e in ((0, 0.4), (50, 0.2), (100, 0.3))]
    tuned = {"settings": {"steps": 100, "weight_lr": 0.004}, "judged": judged}
    config = {"model": "hf:a", "data": "text:b", "bits": "w4a4", "method": "smoothquant"}
    run = {"command": "quantize", "config": config, "fine_tuning": tuned}
    (tmp_path / "run.json").write_text(json.dumps(run))
    page = write_report([tmp_path], tmp_path / "report.html").read_text()
    assert "Before: loss 0.4, 90.0 % right. Kept: step 50, loss 0.2, 90.0 % right." in page
    assert "python recipes/qat_text.py --model hf:a --data text:b --bits w4a4" in page
    assert "--keep-8bit none --steps 100 --weight-lr 0.004" in page
