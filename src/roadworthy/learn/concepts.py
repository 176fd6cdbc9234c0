"""One label system for all sources: class names as concepts of one graph.

The graph is WordNet 3.0 below "physical entity" (its licence lies beside it in wordnet.LICENSE) and
the reviewed names of extras.tsv. A thing labelled "car" is a vehicle too, may be a taxi and is no
person: positive, unknown, negative.
"""

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from graphlib import CycleError, TopologicalSorter
from itertools import combinations
from pathlib import Path
from typing import Protocol, runtime_checkable

from roadworthy.core.sources import reason
from roadworthy.errors import BadData

_HERE = Path(__file__).parent
_PERSON = "00007846"


@dataclass(frozen=True, eq=False)
class Concepts:
    """Names, concepts, and what is a kind of what.

    Args:
        named: concept of a name in lower case, or of ``source/name``.
        parents: hypernyms of each concept, no cycles.
        children: hyponyms of each concept that has any.
        synonyms: names of each concept, the usual one first.
    """

    named: dict[str, str]
    parents: dict[str, tuple[str, ...]]
    children: dict[str, tuple[str, ...]]
    synonyms: dict[str, tuple[str, ...]]

    def find(self, name: str, source: str = "") -> str | None:
        """The concept that `source` means by `name`, None if there is none; ImageNet's ids too.

        >>> load().find("Traffic_lights"), load().find("car") == load().find("n02958343")
        ('traffic light', True)
        """
        plain = " ".join(name.lower().replace("_", " ").split())
        if plain[:1] == "n" and plain[1:] in self.parents:
            return plain[1:]
        wanted = [f"{source}/{plain}", plain]
        wanted += [plain[: -len(end)] for end in ("s", "es") if plain.endswith(end)]
        return next((self.named[each] for each in wanted if each in self.named), None)

    def unmapped(self, names: Iterable[str], source: str = "") -> list[str]:
        """Those of `names` that no concept has, in their order."""
        return [each for each in dict.fromkeys(names) if self.find(each, source) is None]

    def above(self, concept: str) -> frozenset[str]:
        """`concept` and all of its hypernyms."""
        return _reached(concept, self.parents)

    def below(self, concept: str) -> frozenset[str]:
        """`concept` and all of its hyponyms."""
        return _below(self, concept)

    def positives(self, label: str, vocabulary: Sequence[str], source: str = "") -> list[str]:
        """What of `vocabulary` a thing labelled `label` certainly is.

        >>> load().positives("car", ["vehicle", "person", "taxi"])
        ['vehicle']
        """
        own = self.find(label, source)
        above = frozenset[str]() if own is None else self.above(own)
        return [each for each in vocabulary if self.find(each, source) in above]

    def negatives(self, label: str, vocabulary: Sequence[str], source: str = "") -> list[str]:
        """What of `vocabulary` a thing labelled `label` certainly is not: nothing is both.

        Names without a concept are neither positive nor negative.

        >>> load().negatives("car", ["vehicle", "person", "taxi"])
        ['person']
        """
        own = self.find(label, source)
        if own is None:
            return []
        others = [(each, self.find(each, source)) for each in vocabulary]
        return [each for each, other in others if other and self.exclude(own, other)]

    def exclude(self, one: str, other: str) -> bool:
        """No concept is a kind of both, nor are both kinds of people: those are roles."""
        if _PERSON in self.above(one) & self.above(other):
            return False
        return self.below(one).isdisjoint(self.below(other))


@lru_cache(4096)
def _below(concepts: Concepts, concept: str) -> frozenset[str]:
    return _reached(concept, concepts.children)


def _reached(start: str, links: dict[str, tuple[str, ...]]) -> frozenset[str]:
    found, left = {start}, [start]
    while left:
        new = [each for each in links.get(left.pop(), ()) if each not in found]
        found.update(new)
        left += new
    return frozenset(found)


@cache
def load(extras: Path | None = None) -> Concepts:
    """The graph, with the rows of `extras`, a file headed ``name<TAB>concept<TAB>parents``.

    A concept is one of WordNet by its offset, of extras.tsv by its name, or a new one, which needs
    parents (several are separated by commas). A name may be ``source/name``.

    Raises:
        BadData: rows that are none, parents that are not there, kinds that are kinds of themselves.
    """
    known, kinds, names = _wordnet()
    named, parents, synonyms = dict(known), dict(kinds), dict(names)
    for path in (_HERE / "extras.tsv", *([extras] if extras else [])):
        _extend(path, named, parents, synonyms)
    children: dict[str, list[str]] = defaultdict(list)
    for concept, above in parents.items():
        for each in above:
            children[each].append(concept)
    return Concepts(named, parents, {k: tuple(v) for k, v in children.items()}, synonyms)


@cache
def _wordnet() -> tuple[dict[str, str], dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Concept of each name in its first sense, hypernyms and names of each concept."""
    ranked: dict[str, tuple[int, str]] = {}
    parents: dict[str, tuple[str, ...]] = {}
    synonyms: dict[str, tuple[str, ...]] = {}
    text = gzip.decompress((_HERE / "wordnet.tsv.gz").read_bytes()).decode()
    for line in text.splitlines():
        concept, said, above = line.split("\t")
        parents[concept] = tuple(above.split())
        names = [each.partition("#") for each in said.split("|")]
        synonyms[concept] = tuple(name for name, _, _ in names)
        for name, _, rank in names:
            sense = (int(rank or 1), concept)
            ranked[name.lower()] = min(ranked.get(name.lower(), sense), sense)
    named = {name: concept for name, (_, concept) in ranked.items()}
    return named, parents, synonyms


def _extend(
    path: Path,
    named: dict[str, str],
    parents: dict[str, tuple[str, ...]],
    synonyms: dict[str, tuple[str, ...]],
) -> None:
    for number, name, concept, above in _rows(path):
        if not above and concept not in parents:
            raise BadData(
                f"{path}, line {number}: concept {concept!r} is new and has no parents; name them"
            )
        parents[concept] = tuple(dict.fromkeys((*parents.get(concept, ()), *above)))
        synonyms[concept] = tuple(dict.fromkeys((*synonyms.get(concept, ()), name)))
        named[name.lower()] = concept
    strangers = sorted({each for above in parents.values() for each in above} - set(parents))
    if strangers:
        raise BadData(
            f"{path} names the parents {', '.join(strangers[:5])}, which are no concepts; offsets "
            "of WordNet and concepts of the file are allowed"
        )
    try:
        TopologicalSorter(parents).prepare()
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise BadData(f"{path} makes a cycle: {circle}; remove one of its parents") from error


def _rows(path: Path) -> list[tuple[int, str, str, tuple[str, ...]]]:
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadData(f"label map {path} cannot be read: {reason(error)}") from error
    if rows[:1] != [["name", "concept", "parents"]]:
        raise BadData(
            f"label map {path} begins with {rows[:1]}; name<TAB>concept<TAB>parents is needed"
        )
    found: list[tuple[int, str, str, tuple[str, ...]]] = []
    for number, row in enumerate(rows[1:], 2):
        if len(row) != 3 or not row[0].strip() or not row[1].strip():
            raise BadData(
                f"{path}, line {number}: {row} given; name, concept and parents are needed"
            )
        above = tuple(each.strip() for each in row[2].split(",") if each.strip())
        found.append((number, row[0].strip(), row[1].strip(), above))
    return found


@dataclass(frozen=True)
class Disagreement:
    """Two sources say of one image what cannot both be true."""

    sha256: str
    first: str
    """``source: labels``"""
    second: str


@runtime_checkable
class Labelled(Protocol):
    """What is needed to compare sources: a sample, or a row of a catalog."""

    @property
    def sha256(self) -> str:
        """Hash of the image file."""
        ...

    @property
    def source(self) -> str:
        """Who says so."""
        ...

    @property
    def labels(self) -> Sequence[str]:
        """What is said."""
        ...


def disagreements(samples: Iterable[Labelled], concepts: Concepts) -> list[Disagreement]:
    """Images that two samples label so that no label of one may be true of the other's."""
    same: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)
    for each in samples:
        found = [concepts.find(label, each.source) for label in each.labels]
        known = [label for label in found if label]
        if known:
            said = (f"{each.source}: {', '.join(each.labels)}", known)
            same[each.sha256].append(said)
    return [
        Disagreement(sha256, first[0], second[0])
        for sha256, said in same.items()
        for first, second in combinations(said, 2)
        if all(concepts.exclude(one, other) for one in first[1] for other in second[1])
    ]
