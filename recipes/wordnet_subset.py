"""Writes the part of WordNet 3.0 that `roadworthy.learn.concepts` reads: what has a physical form.

    python recipes/wordnet_subset.py /usr/share/wordnet   (Debian's wordnet-base; seconds)

Nouns below "physical entity", their names and hypernyms; one line each: offset, names, offsets of
hypernyms. A name that has several senses carries its rank in WordNet's order behind a ``#``.
"""

import gzip
import sys
from pathlib import Path

TARGET = Path(__file__).parents[1] / "src" / "roadworthy" / "learn" / "wordnet.tsv.gz"
TOP = "00001930"


def synsets(folder: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Names and hypernyms of each noun synset, by its offset."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for line in (folder / "data.noun").read_text().splitlines():
        if line.startswith(" "):
            continue
        fields = line.partition("|")[0].split()
        words = int(fields[3], 16)
        names = [word.replace("_", " ") for word in fields[4 : 4 + 2 * words : 2]]
        links = fields[5 + 2 * words :]
        found[fields[0]] = (
            names,
            [links[i + 1] for i in range(0, len(links) - 3, 4) if links[i] in ("@", "@i")],
        )
    return found


def ranks(folder: Path) -> dict[tuple[str, str], int]:
    """The rank of a synset among the senses of a name, from 1."""
    found: dict[tuple[str, str], int] = {}
    for line in (folder / "index.noun").read_text().splitlines():
        if not line.startswith(" "):
            fields = line.split()
            for rank, offset in enumerate(fields[-int(fields[2]) :], 1):
                found[fields[0].replace("_", " "), offset] = rank
    return found


def below(top: str, all_of: dict[str, tuple[list[str], list[str]]]) -> set[str]:
    """Offsets of `top` and everything beneath it."""
    children: dict[str, list[str]] = {}
    for offset, (_, parents) in all_of.items():
        for parent in parents:
            children.setdefault(parent, []).append(offset)
    kept, left = {top}, [top]
    while left:
        new = [each for each in children.get(left.pop(), []) if each not in kept]
        kept.update(new)
        left += new
    return kept


def main(folder: Path) -> None:
    """Write the file."""
    held, rank = synsets(folder), ranks(folder)
    kept = below(TOP, held)
    lines: list[str] = []
    for offset in sorted(kept):
        names, parents = held[offset]
        ranked = [(name, rank.get((name.lower(), offset), 1)) for name in names]
        said = "|".join(name if n == 1 else f"{name}#{n}" for name, n in ranked)
        lines.append(f"{offset}\t{said}\t{' '.join(each for each in parents if each in kept)}")
    TARGET.write_bytes(gzip.compress("\n".join(lines).encode(), 9, mtime=0))
    print(f"{len(lines)} synsets, {TARGET.stat().st_size} bytes: {TARGET}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
