"""Questions whose answers are passages of a text, out of RTE: names and numbers blanked.

    python recipes/cloze_spans.py --rte rte --out out/cloze

Of a pair whose second sentence follows from the first, every capitalised phrase or number of the
second that the first has word for word becomes a blank: the second sentence asks, the first is the
context, the phrase is the answer (cloze questions, Hermann et al. 2015, arXiv 1506.03340). It
writes train.tsv, val.tsv and dev.tsv with columns question, context, answer.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from roadworthy.core.runs import write_atomically
from roadworthy.core.text_data import BETWEEN
from roadworthy.errors import BadData, BadInput

PARTS = ("train", "val", "dev")
COLUMNS = ("question", "context", "answer")
_NAME = r"[A-Z][\w'&-]*(?:\.[A-Z]\.?)*"
_PHRASE = re.compile(rf"{_NAME}(?: (?:(?:of|the|de|and) )?{_NAME})*|\d(?:[\d.,]*\d)?")


def entailed(path: Path) -> list[tuple[str, str]]:
    """Premise and hypothesis of the pairs where the one says the other; columns are index, first
    and second sentence, label (a first line that names them is no pair, and val.tsv has none)."""
    try:
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise BadData(f"{path} cannot be read: {error}; give the folder of RTE's TSVs") from error
    found = [(row[1], row[2]) for row in rows if row[3:] == ["entailment"]]
    if not found:
        raise BadData(f"{path} has no entailed pairs; index, two sentences and label are needed")
    return found


def questions(premise: str, hypothesis: str, blank: str) -> Iterator[tuple[str, str, str]]:
    """A question, its context and its answer for each phrase that both sentences have.

    >>> next(questions("The Nile is in Egypt.", "Egypt has a river.", "_"))
    ('_ has a river.', 'The Nile is in Egypt.', 'Egypt')
    """
    for found in _PHRASE.finditer(hypothesis):
        phrase = found.group()
        if re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", premise):
            start, stop = found.span()
            yield hypothesis[:start] + blank + hypothesis[stop:], premise, phrase


def main() -> None:
    """Write the three parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rte", type=Path, required=True, help="folder of train, val, dev.tsv")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--blank", default="[MASK]", help="what stands for the phrase ([MASK])")
    given = parser.parse_args()
    for part in PARTS:
        pairs = entailed(given.rte / f"{part}.tsv")
        rows = [row for pair in pairs for row in questions(*pair, given.blank)]
        with write_atomically(given.out / f"{part}.tsv") as temporary:
            lines = map(BETWEEN.join, [COLUMNS, *rows])
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{part}: {len(rows)} questions of {len(pairs)} entailed pairs")


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        sys.exit(f"cloze_spans: {error}")
