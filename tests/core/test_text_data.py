from pathlib import Path

import pytest

from roadworthy.core.data import Dataset, load_data
from roadworthy.core.text_data import BETWEEN
from roadworthy.errors import BadData

ROWS = 'sentence\tlabel\tother\ngood film \t1\tit\'s "so"\ndull\t0\tñandú\n'


def opened(folder: Path, content: str | bytes, query: str) -> Dataset:
    path = folder / "rows.tsv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_data(f"text:{path}{query}")


def test_texts_and_labels_are_read(tmp_path: Path) -> None:
    found = opened(tmp_path, ROWS, "?text=sentence&label=label")
    assert (found.task, found.things, len(found)) == ("text", "texts", 2)
    assert found.content(0) == b"good film "
    assert [found.label(i) for i in range(2)] == [1, 0]
    assert found.name(1) == f"{tmp_path}/rows.tsv, line 3"
    assert found.classes == ("0", "1")
    assert not found.ranked


def test_pairs_are_joined_by_what_no_cell_can_hold(tmp_path: Path) -> None:
    found = opened(tmp_path, ROWS, "?text=sentence,other")
    assert found.content(0).decode().split(BETWEEN) == ["good film ", 'it\'s "so"']
    assert found.content(1).decode() == f"dull{BETWEEN}ñandú"
    assert found.label(0) is None
    assert found.classes == ()


def test_names_are_classes_in_order(tmp_path: Path) -> None:
    rows = "a\tb\nx\tyes\nx\tno\nx\t\nx\tyes\n"
    found = opened(tmp_path, rows, "?text=a&label=b")
    assert found.classes == ("no", "yes")
    assert [found.label(i) for i in range(4)] == [1, 0, None, 1]
    assert found.ranked
    assert len(found.labelled()) == 3


def test_minus_one_is_no_label(tmp_path: Path) -> None:
    found = opened(tmp_path, "a\tb\nx\t-1\ny\t2\n", "?text=a&label=b")
    assert [found.label(i) for i in range(2)] == [None, 2]


def test_other_lines_mean_another_hash_and_line_ends_do_not(tmp_path: Path) -> None:
    query = "?text=sentence&label=label"
    first = opened(tmp_path, ROWS, query).sha256
    marked = b"\xef\xbb\xbf" + ROWS.replace("\n", "\r\n").encode()
    assert opened(tmp_path, marked, query).sha256 == first
    assert opened(tmp_path, ROWS.replace("dull", "fine"), query).sha256 != first


@pytest.mark.parametrize(
    ("content", "query", "message"),
    [
        (ROWS, "?text=words", "has no column 'words'; it has sentence, label, other"),
        ("a,b\nx,1\n", "?text=a", "has no column 'a'; it has a,b; columns are parted by tabs"),
        (ROWS, "?text=sentence&label=class", "has no column 'class'; it has sentence"),
        (ROWS, "", r"text=COLUMN.*it has sentence, label, other"),
        (ROWS, "?text=sentence&colour=red", "text=COLUMN"),
        (ROWS, "?text=sentence,label,other", "text=A,B for pairs"),
        ("a\ta\nx\ty\n", "?text=a", "more than one column 'a'"),
        ("", "?text=a", "holds no texts"),
        ("a\tb\n", "?text=a", "holds no texts"),
        ("a\tb\nx\n", "?text=a", "line 2 has 1 cells and the first line 2 columns"),
        ("a\tb\nx\ty\tz\n", "?text=a", "line 2 has 3 cells"),
        ("a\tb\nx\t1\ny\tmany\n", "?text=a&label=b", "line 3: label 'many' given"),
        ("a\tb\nx\t-7\ny\tbad\n", "?text=a&label=b", "line 2: label '-7' given"),
        ("a\tb\nx\t9999999\n", "?text=a&label=b", "line 2: label '9999999' given"),
        (b"a\tb\nx\xff\t1\n", "?text=a", "cannot be read: 'utf-8' codec"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, content, query, message) -> None:
    with pytest.raises(BadData, match=message) as caught:
        opened(tmp_path, content, query)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="No such file"):
        load_data(f"text:{tmp_path}/nothing.tsv?text=a")


@pytest.mark.parametrize("query", ["?text=a", "?text=a,b"])
def test_an_empty_text_is_named_when_it_is_read(tmp_path: Path, query: str) -> None:
    found = opened(tmp_path, "a\tb\nx\ty\n \t\n", query)
    assert found.content(0)
    with pytest.raises(BadData, match=r"rows\.tsv, line 3 is empty"):
        found.content(1)


@pytest.mark.data
def test_glue_files(data: Path) -> None:
    sst2 = load_data(f"text:{data}/sst2/test.tsv?text=sentence&label=label")
    assert (len(sst2), sst2.classes) == (872, ("0", "1"))
    rte = load_data(f"text:{data}/rte/dev.tsv?text=sentence1,sentence2&label=label")
    assert (len(rte), rte.classes) == (277, ("entailment", "not_entailment"))
    assert rte.label(0) == 1
    assert rte.content(0).decode().count(BETWEEN) == 1
