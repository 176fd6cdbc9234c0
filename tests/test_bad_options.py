"""Options and places that are refused: exit 2 and one line."""

from pathlib import Path

import pytest

from roadworthy.cli import main


@pytest.mark.parametrize(
    "arguments",
    [
        ["blocks", "py:x.py:f", "--seed", "-5"],
        ["blocks", "py:x.py:f", "--seed", "9" * 30],
        ["blocks", "py:x.py:f", "--image-size", "0"],
        ["quantize", "py:x.py:f", "--data", "imagefolder:x", "--out", "o", "--max-drop", "nan"],
        ["quantize", "py:x.py:f", "--data", "imagefolder:x", "--out", "o", "--memory", "9" * 330],
    ],
)
def test_numbers_out_of_range(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(arguments)
    except SystemExit as stop:  # argparse's own way out
        code = stop.code
    assert code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_model_file_that_ends_the_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "script.py").write_text("import sys\nsys.exit(0)\n")
    assert main(["blocks", f"py:{tmp_path}/script.py:f"]) == 2
    assert "__name__" in capsys.readouterr().err


def test_an_output_folder_that_is_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    arguments = ["quantize", "py:x.py:f", "--data", "imagefolder:x", "--out", f"{tmp_path}/file"]
    assert main(arguments) == 2
    assert "it is a file" in capsys.readouterr().err
