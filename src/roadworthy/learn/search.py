"""The best network of a space within a budget: by evolution, or at random, at the same cost.

Any function that scores a network judges; each network is judged once. Every trial is written down
at once, so that an interrupted search goes on where it stopped and finds the same.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, assert_never

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from roadworthy.core.metanet import MetaNetConfig
from roadworthy.core.progress import track
from roadworthy.core.runs import plain, write_atomically
from roadworthy.errors import BadInput
from roadworthy.learn.space import FREE, Space, cost_of

Score = Callable[[MetaNetConfig], float]
"""How good a network is; more is better."""
_DRAWS = 1000
_RIDGE = 10.0


@dataclass(frozen=True)
class Random:
    """Networks within the budget, each as likely as the others."""


@dataclass(frozen=True)
class Evolution:
    """Children of the best networks so far, after a few at random (arXiv 1904.00420, section 3.4).

    Of several children the one is judged of which a ridge regression, of scores on choices, fitted
    to all trials so far, expects most (as in arXiv 2003.12857, with a network for the regression).

    Args:
        first: networks at random, the ones that `Random` of the same seed begins with.
        parents: how many of the best have children; two of them cross, stage by stage.
        mutation: chance that a child's choice is drawn anew.
        children: how many, for each that is judged.
    """

    first: int = 12
    parents: int = 6
    mutation: float = 0.1
    children: int = 30

    def __post_init__(self) -> None:
        if not 2 <= self.parents <= self.first or not 0 < self.mutation <= 1 or self.children < 1:
            raise BadInput(
                f"first {self.first}, parents {self.parents}, mutation {self.mutation}, children "
                f"{self.children} given; two or more parents, no more than the first, a mutation "
                "in (0, 1] and a child or more are needed"
            )


Method = Random | Evolution


@dataclass(frozen=True)
class Goal:
    """What is searched for.

    Args:
        budget: most multiply-accumulates for one image.
        evaluations: how many networks are judged.
        size: pixels a side of an image.
    """

    budget: int
    evaluations: int
    size: int
    classes: int

    def __post_init__(self) -> None:
        for name in ("budget", "evaluations", "size", "classes"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} {getattr(self, name)} given; 1 or more is allowed")


@dataclass(frozen=True)
class Trial:
    """A network, what it costs and how good it is."""

    network: MetaNetConfig
    macs: int
    score: float


def best(trials: Sequence[Trial], count: int = 1) -> list[Trial]:
    """The `count` best, the earlier of equal ones first."""
    return sorted(trials, key=lambda each: -each.score)[:count]


def search(
    space: Space,
    goal: Goal,
    score: Score,
    method: Method,
    seed: int,
    journal: Path | None = None,
) -> list[Trial]:
    """Judge as many networks of `space` as the goal says, none twice; all of them, in order.

    Args:
        journal: a JSON-lines file of trials; the same call goes on from it.

    Raises:
        BadInput: too few networks within the budget, or a journal of another search.
    """
    random = np.random.default_rng(seed)
    said = {"space": space, "goal": goal, "method": repr(method), "seed": seed}
    book = _Book(journal, plain({name: _dict(each) for name, each in said.items()}))
    trials: list[Trial] = []
    for number in track(range(goal.evaluations), type(method).__name__, goal.evaluations):
        network, macs = _next(space, goal, method, trials, random)
        trials.append(Trial(network, macs, book.score(number, network, macs, score)))
    return trials


def _next(
    space: Space,
    goal: Goal,
    method: Method,
    trials: Sequence[Trial],
    random: np.random.Generator,
) -> tuple[MetaNetConfig, int]:
    """What a method would like to judge after `trials`, and its cost."""
    match method:
        case Random():
            return _fitting(space, goal, trials, lambda: space.draw(random), random)
        case Evolution():
            if len(trials) < method.first:
                return _next(space, goal, Random(), trials, random)
            return _bred(space, goal, method, trials, random)
        case _:
            assert_never(method)


def _bred(
    space: Space,
    goal: Goal,
    method: Evolution,
    trials: Sequence[Trial],
    random: np.random.Generator,
) -> tuple[MetaNetConfig, int]:
    """The most promising of several children, and its cost."""
    parents = [each.network for each in best(trials, method.parents)]

    def draw() -> MetaNetConfig:
        return _child(space, method, parents, random)

    born = [_fitting(space, goal, trials, draw, random) for _ in range(method.children)]
    hopes = expected(trials, [network for network, _ in born])
    return born[int(hopes.argmax())]


def _child(
    space: Space,
    method: Evolution,
    parents: Sequence[MetaNetConfig],
    random: np.random.Generator,
) -> MetaNetConfig:
    one, other = (parents[int(i)] for i in random.permutation(len(parents))[:2])
    return space.mutated(space.crossed(one, other, random), method.mutation, random)


def expected(
    trials: Sequence[Trial], networks: Sequence[MetaNetConfig]
) -> Float[NDArray[np.float64], " n"]:
    """What a ridge regression of the trials' scores on their choices says of `networks`."""
    known = [_choices(each.network) for each in trials]
    names = {name: number for number, name in enumerate(dict.fromkeys(chain(*known)))}
    seen = _one_hot(known, names)
    scores = np.array([each.score for each in trials])
    weights = np.linalg.solve(
        seen.T @ seen + _RIDGE * np.eye(len(names)), seen.T @ (scores - scores.mean())
    )
    return scores.mean() + _one_hot(map(_choices, networks), names) @ weights


def _choices(network: MetaNetConfig) -> list[tuple[int, str, Any]]:
    return [
        (number, name, getattr(stage, name))
        for number, stage in enumerate(network.stages)
        for name in FREE
    ]


def _one_hot(
    rows: Iterable[list[tuple[int, str, Any]]], names: Mapping[tuple[int, str, Any], int]
) -> Float[NDArray[np.float64], "n k"]:
    """1 for each choice; choices that no trial has had are left out."""
    eye = np.vstack([np.eye(len(names)), np.zeros(len(names))])
    return np.stack([eye[[names.get(each, -1) for each in row]].sum(0) for row in rows])


def _fitting(
    space: Space,
    goal: Goal,
    trials: Sequence[Trial],
    draw: Callable[[], MetaNetConfig],
    random: np.random.Generator,
) -> tuple[MetaNetConfig, int]:
    """A network within the budget that was not judged before, and its cost."""
    seen = {each.network for each in trials}
    costs: list[int] = []
    for number in range(_DRAWS):
        # where all children of the parents were there, strangers go on
        network = draw() if number < _DRAWS // 2 else space.draw(random)
        costs.append(cost_of(network, goal.size, goal.classes).macs)
        if costs[-1] <= goal.budget and network not in seen:
            return network, costs[-1]
    if min(costs) > goal.budget:
        raise BadInput(
            f"a budget of {goal.budget} multiply-accumulates given; the cheapest of {_DRAWS} "
            f"networks drawn from the space takes {min(costs)}: give more than that"
        )
    raise BadInput(
        f"{goal.evaluations} evaluations asked for; {len(seen)} networks within the budget of "
        f"{goal.budget} were found: ask for no more, or give a larger budget"
    )


def _dict(each: Any) -> Any:
    return asdict(each) if isinstance(each, Space | Goal) else each


class _Book:
    """The trials of a search as a file; what a kill left of a row is dropped."""

    def __init__(self, path: Path | None, said: Any) -> None:
        self._path, self._rows = path, [said]
        if path is None or not path.is_file():
            self._write()
            return
        found = [row for line in path.read_text().splitlines() if (row := _row(line)) is not None]
        if found and found[0] != said:
            other = [name for name in said if found[0].get(name) != said[name]]
            raise BadInput(
                f"{path} holds another search ({', '.join(other)} differ); give another file, or "
                "remove it"
            )
        self._rows = found or self._rows

    def score(self, number: int, network: MetaNetConfig, macs: int, judge: Score) -> float:
        """Of trial `number`: as written down, else as judged."""
        said = plain({"network": asdict(network), "macs": macs})
        if number + 1 < len(self._rows):
            row = self._rows[number + 1]
            # the first is judged again: the scores of another supernet would go on unseen
            if {**said, "score": row["score"]} != row or (
                number == 0 and not np.isclose(judge(network), row["score"], rtol=1e-3)
            ):
                raise BadInput(
                    f"trial {number} of {self._path} is of another search; remove the file"
                )
            return row["score"]
        value = float(judge(network))
        self._rows.append({**said, "score": value})
        self._write()
        return value

    def _write(self) -> None:
        if self._path is None:
            return
        with write_atomically(self._path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in self._rows))


def _row(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None
