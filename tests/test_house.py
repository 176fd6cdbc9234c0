"""The rules of the house: who may import whom, how long a file may be, what is public."""

import ast
from pathlib import Path

import pytest

import roadworthy

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "roadworthy"
STAGES = {"learn", "compress", "deploy", "noise"}
SHARED = {"core", "errors", "requests"}
FILES = sorted(
    path for folder in ("src", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)


def imported(code: str) -> set[str]:
    """Parts of roadworthy that a module imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom(module="roadworthy"):
                names |= {f"roadworthy.{alias.name}" for alias in node.names}
            case ast.ImportFrom(module=str() as module, level=0):
                names.add(module)
            case ast.ImportFrom():
                raise AssertionError("relative imports hide what is imported")
            case _:
                pass
    return {name.split(".")[1] for name in names if name.startswith("roadworthy.")}


def may_import(part: str) -> set[str]:
    if part in STAGES or part == "report":
        return SHARED | {part}
    return {"core", "errors"}


@pytest.mark.parametrize("part", ["core", "report", *sorted(STAGES)])
def test_a_stage_imports_the_core_and_never_another_stage(part: str) -> None:
    for path in (SOURCE / part).rglob("*.py"):
        strangers = imported(path.read_text()) - may_import(part)
        assert not strangers, f"{path.relative_to(ROOT)} imports {strangers}"


@pytest.mark.parametrize(
    "code",
    [
        "import roadworthy.deploy.export",
        "from roadworthy.deploy import export",
        "from roadworthy import deploy",
        "def f():\n    from roadworthy.deploy.export import export_onnx",
    ],
)
def test_the_law_sees_every_kind_of_import(code: str) -> None:
    assert imported(code) == {"deploy"}
    assert imported(code) - may_import("compress")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.name))
def test_no_hooks_outside_capture(path: Path) -> None:
    if path.name != "capture.py":
        assert "register_forward" not in path.read_text()


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.name))
def test_own_operators_are_imported_from_where_they_are_registered(path: Path) -> None:
    if path != SOURCE / "core" / "grid.py":
        assert "torch.ops.roadworthy" not in path.read_text()


@pytest.mark.parametrize("name", roadworthy.__all__)
def test_public_names_exist(name: str) -> None:
    assert getattr(roadworthy, name) is not None
    assert name in dir(roadworthy)


def test_other_names_do_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        _ = roadworthy.quantise


def test_the_pins_cover_what_the_package_needs() -> None:
    import re
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    lines = (ROOT / "constraints.txt").read_text().split()
    pinned = {line.partition("==")[0].lower() for line in lines}
    names = {re.split(r"[<>=\[; ]", want)[0].lower() for want in wanted}
    assert names <= pinned
    assert all("==" in line and "/" not in line for line in lines)
