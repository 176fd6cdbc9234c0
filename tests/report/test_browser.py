"""The report in a real browser: nothing fails, nothing is missing, nothing runs off the side."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from sample_adapt import sample_adapt, sample_search, write_manifest, write_trials
from sample_bench import MODELS, OWN, SETS, sample_bench
from sample_report import Run, sample_run
from sample_road import ROWS, sample_blame, sample_pictures, sample_road
from sample_stage import sample_amateur, sample_probes, sample_stage, write_beside

from roadworthy.report import write_report

IMAGE_STAGES = ["decode", "resize", "geometry", "colour", "normalise", "model", "runtime", "post"]
NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), "")
pytestmark = pytest.mark.skipif(not BROWSER, reason="no chromium or google-chrome on the PATH")

QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-extensions", "--disable-default-apps", "--mute-audio", "--disable-dev-shm-usage"),
)
SCHEMES = {"light": "1", "dark": "0"}

# A headless window is never narrower than 500 pixels, an iframe is: the page is judged inside one.
FRAME = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe id="page" src="report.html" style="border:0;width:%dpx;height:900px"></iframe>"""
PROBE = """<script>
const errors = [];
addEventListener("error", (event) => errors.push(String(event.message || event.target)), true);
addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)));
for (const name of ["error", "warn"]) console[name] = (...words) => errors.push(words.join(" "));
addEventListener("load", () => {
  const shown = (node) => node.getClientRects().length > 0;
  for (const details of document.querySelectorAll("details")) details.open = true;
  const scrolls = (node) => node.closest(".scroll") !== null;
  const outside = [...document.body.querySelectorAll("*")].filter((node) => shown(node)
    && !scrolls(node) && node.getBoundingClientRect().right > innerWidth + 0.5);
  const texts = [...document.querySelectorAll("p, span, b, dt, dd, td, svg text")].filter(shown);
  const found = {
    errors,
    width: innerWidth,
    overflow: document.documentElement.scrollWidth - innerWidth,
    outside: outside.map((node) => node.outerHTML.slice(0, 80)),
    images: [...document.images].map((image) => image.naturalWidth),
    charts: [...document.querySelectorAll("svg")].map((chart) => {
      const box = chart.getBBox();
      return Math.min(box.width, box.height);
    }),
    smallest: Math.min(...texts.map((node) => parseFloat(getComputedStyle(node).fontSize))),
    colours: ["body", ".verdict p", ".note", "svg text", ".tile small"].map((selector) => {
      const node = document.querySelector(selector);
      const style = getComputedStyle(node);
      const sheet = getComputedStyle(node.closest(".sheet") ?? document.body);
      return [node.tagName === "text" ? style.fill : style.color, sheet.backgroundColor];
    }),
    cells: [...document.querySelectorAll(".cell")].map((node) => {
      const { color, backgroundColor } = getComputedStyle(node);
      const clear = backgroundColor === "rgba(0, 0, 0, 0)";
      const sheet = getComputedStyle(node.closest(".sheet")).backgroundColor;
      return [color, clear ? sheet : backgroundColor];
    }),
    clipped: [...document.querySelectorAll("svg.radar text")].filter((node) => {
      const [text, drawing] = [node, node.closest("svg")].map((one) => one.getBoundingClientRect());
      return text.left < drawing.left || text.right > drawing.right || text.top < drawing.top
        || text.bottom > drawing.bottom;
    }).map((node) => node.textContent),
    lines: [...document.querySelectorAll(".series")].map((node) =>
      [getComputedStyle(node).color, getComputedStyle(node.closest(".sheet")).backgroundColor]),
    sorted: [...document.querySelectorAll("table.sortable")].map((table) => sortBy(table, 1)),
    scrolling: [...document.querySelectorAll(".options")].map(tooWide),
    boards: [...document.querySelectorAll(".compared")].map(tooWide),
  };
  top.postMessage(JSON.stringify(found), "*");
});
function tooWide(table) {
  return table.scrollWidth - table.closest(".scroll").clientWidth;
}
function sortBy(table, column) {
  table.tHead.rows[0].cells[column].querySelector("button").click();
  return [...table.tBodies[0].rows].map((row) => row.cells[column].textContent.trim());
}
</script>"""
LISTEN = """<pre id="found">nothing</pre><script>
addEventListener("message", (event) => {
  document.getElementById("found").textContent = event.data;
});
</script>"""


def look(page: Path, folder: Path, width: int, scheme: str) -> dict[str, Any]:
    """What a probe inside the page sees in a browser window of that width."""
    html = page.read_text()
    folder.mkdir()
    (folder / "report.html").write_text(html.replace("<head>", f"<head>{PROBE}", 1))
    (folder / "frame.html").write_text(LISTEN + FRAME % width)
    command = [
        *(BROWSER, *QUIET, f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000"),
        *("--enable-logging=stderr", f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"),
        *("--virtual-time-budget=4000", "--dump-dom", (folder / "frame.html").as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.S)
    assert found is not None, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(unescape(found[1]))
    result["console"] = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return result


def contrast(first: str, second: str) -> float:
    """WCAG contrast ratio of two CSS rgb() colours."""
    lighter, darker = sorted(map(luminance, (first, second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    shares = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.fixture
def report(write_run: Callable[..., Path], tmp_path: Path) -> Path:
    second = sample_run(1)
    second["config"]["bits"] = "w2a2"
    long_name: Run = sample_run(2)
    long_name["config"]["model"] = "timm:" + "averylongnamewithoutanybreak" * 4
    long_name["layers"][3]["name"] = "backbone." * 20
    folders = [
        write_run(sample_run(), samples=True),
        write_run(second, "resnet20-w2a2"),
        write_run(long_name, "long" * 12),
    ]
    return write_report(folders, tmp_path / "report.html")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [1280, 400])
def test_report_in_a_browser(report: Path, tmp_path: Path, width: int, scheme: str) -> None:
    seen = look(report, tmp_path / "browser", width, scheme)
    assert seen["errors"] == []
    assert seen["console"] == []
    assert seen["width"] == width
    assert seen["overflow"] <= 0
    assert seen["outside"] == []
    assert len(seen["images"]) == 3
    assert min(seen["images"]) > 0
    assert len(seen["charts"]) >= 3 * 6
    assert min(seen["charts"]) > 0
    assert seen["smallest"] >= 12
    assert seen["sorted"][0] == ["W2A2", "W4A4", "W4A4"]
    assert (luminance(seen["colours"][0][1]) < 0.1) == (scheme == "dark")
    assert min(contrast(*pair) for pair in seen["colours"]) >= 4.5


@pytest.fixture
def mixed(write_run: Callable[..., Path], tmp_path: Path) -> Path:
    long_name = sample_road(0.7)
    long_name["config"]["model"] = "timm:" + "averylongnamewithoutanybreak" * 4
    long_name["rows"][2]["option"] = "a-very-long-name-of-an-option" * 4
    road = write_run(sample_road(), "road")
    (road / "pictures.json").write_text(json.dumps(sample_pictures()))
    folders = [
        road,
        write_run(long_name, "long" * 12),
        write_run(sample_blame(), "blame"),
        write_run(sample_run(), samples=True),
    ]
    return write_report(folders, tmp_path / "report.html")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [1280, 400])
def test_road_tests_in_a_browser(mixed: Path, tmp_path: Path, width: int, scheme: str) -> None:
    seen = look(mixed, tmp_path / "browser", width, scheme)
    assert seen["errors"] == []
    assert seen["console"] == []
    assert seen["overflow"] <= 0
    assert seen["outside"] == []
    assert len(seen["images"]) == 2 + 4 + 2 + 3
    assert min(seen["images"]) > 0
    assert min(seen["charts"]) > 0
    assert seen["smallest"] >= 12
    assert len(seen["cells"]) == 2 * 11
    assert min(contrast(*pair) for pair in seen["colours"] + seen["cells"]) >= 4.5
    assert len({background for _, background in seen["cells"]}) >= 7
    assert max(seen["scrolling"]) <= 0
    assert seen["sorted"][1] == ["73.3", "74.0"]
    assert seen["sorted"][2] == ["11.33"]
    assert len(seen["sorted"][3]) == len(ROWS)


@pytest.mark.parametrize("width", [1280, 400])
def test_stages_in_a_browser(write_run: Callable[..., Path], tmp_path: Path, width: int) -> None:
    far = sample_stage(0.05)
    far["held_out"][0]["judged_on"] = "averylongnamewithoutanybreak" * 3
    made = [sample_amateur(), sample_stage(), far, sample_probes()]
    folders = [write_run(run, f"{n}-{'long' * n}") for n, run in enumerate(made)]
    for folder in folders[:3]:
        write_beside(folder)
    page = write_report(folders, tmp_path / "report.html")
    seen = look(page, tmp_path / "browser", width, "light")
    assert seen["errors"] == []
    assert seen["console"] == []
    assert seen["overflow"] <= 0
    assert seen["outside"] == []
    assert min(seen["charts"]) > 0
    assert len(seen["charts"]) == 4 + 2 + 1 + 3 * (2 + 2 + 1) * 2  # a curve is two drawings
    assert seen["smallest"] >= 12
    assert min(contrast(*pair) for pair in seen["colours"]) >= 4.5
    if width > 1000:
        assert seen["boards"] == [0]


@pytest.fixture
def learned(write_run: Callable[..., Path], tmp_path: Path) -> Path:
    """A benchmark of all, one of few, an adaptation and a search, with long names."""
    long = "out/" + "averylongnamewithoutanybreak" * 4
    adapted, search = sample_adapt(), sample_search()
    adapted["config"]["model"] = adapted["data"]["test"]["spec"] = long
    search["config"]["model"] = long
    wide = ("cifar10", "citypersons", "caltech101", "flowers102", "kinetics700", long)
    folders = [
        write_run(sample_bench((*SETS, OWN, long), (*MODELS, long)), "all"),
        write_run(sample_bench(wide, MODELS[:2]), "wide"),
        write_run(sample_bench(("cifar10", long), (*MODELS, long)), "few"),
        write_run(adapted, "adapted"),
        write_run(search, "search"),
    ]
    write_manifest(folders[3])
    write_trials(folders[4])
    return write_report(folders, tmp_path / "report.html")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [1280, 400])
def test_learned_models_in_a_browser(
    learned: Path, tmp_path: Path, width: int, scheme: str
) -> None:
    seen = look(learned, tmp_path / "browser", width, scheme)
    assert seen["errors"] == []
    assert seen["console"] == []
    assert seen["overflow"] <= 0
    assert seen["outside"] == []
    assert min(seen["charts"]) > 0
    drawn, legend = 2, (4 + 3) + (2 + 3)
    assert len(seen["charts"]) == 5 + drawn + legend + 2 + 6  # marks, two dot plots, a search's
    assert seen["clipped"] == []
    assert seen["smallest"] >= 12
    assert min(contrast(*pair) for pair in seen["colours"] + seen["lines"]) >= 3
    assert min(contrast(*pair) for pair in seen["colours"]) >= 4.5
    assert len({colour for colour, _ in seen["lines"]}) >= len(MODELS) + 2


def test_a_leaderboard_of_eight_stages_fits(write_run: Callable[..., Path], tmp_path: Path) -> None:
    made = [sample_road(), sample_road(0.7)]
    made[1]["config"]["model"] = "timm:efficientnet_lite0.a_long_name_of_its_weights_in1k"
    for road in made:
        some = next(row for row in road["rows"] if row["stage"] == "resize" and row["delta"])
        road["rows"] = [{**some, "stage": stage, "delta": 12.34} for stage in IMAGE_STAGES]
    folders = [write_run(run, f"run-{n}") for n, run in enumerate((*made, sample_run()))]
    page = write_report(folders, tmp_path / "report.html")
    seen = look(page, tmp_path / "browser", 1280, "light")
    assert "Network" in page.read_text()
    assert seen["boards"] == [0, 0]


@pytest.mark.parametrize(
    ("damage", "symptom"),
    [
        ("<img src='data:image/png;base64,AAAA'>", "images"),
        ("<svg></svg>", "charts"),
        ("<p style='width:2000px'>wide</p>", "outside"),
        ("<script>throw new Error('broken')</script>", "errors"),
        ("<script>console.error('said')</script>", "errors"),
    ],
)
def test_the_probe_sees_damage(report: Path, tmp_path: Path, damage: str, symptom: str) -> None:
    report.write_text(report.read_text().replace("<main>", f"<main>{damage}", 1))
    seen = look(report, tmp_path / "browser", 1280, "light")
    match symptom:
        case "images" | "charts":
            assert min(seen[symptom]) == 0
        case _:
            assert seen[symptom]
