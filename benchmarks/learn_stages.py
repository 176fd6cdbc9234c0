"""What stages of several seeds have reached: the tables of `roadworthy learn show` as one.

    for seed in 0 1 2; do runs/tiny.sh out/tiny-$seed $seed; done
    python benchmarks/learn_stages.py out/tiny-0 out/tiny-1 out/tiny-2

A cell is the mean over the folders, with the standard deviation behind it.
"""

import statistics
import sys
from pathlib import Path

from roadworthy.learn.overview import Row, overview, table


def joined(rows: list[Row]) -> Row:
    """One backbone's rows, of each folder one."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: cell([row[name] for row in rows if name in row]) for name in names}


def cell(values: list[str | float]) -> str:
    """A name, or mean and deviation.

    >>> cell([0.5, 0.7])
    '0.600 ±0.141'
    """
    numbers = [each for each in values if isinstance(each, float)]
    if not numbers:
        return Path(str(values[0])).name
    spread = f" ±{statistics.stdev(numbers):.3f}" if len(numbers) > 1 else ""
    return f"{statistics.mean(numbers):.3f}{spread}"


def main() -> None:
    if not sys.argv[1:]:
        sys.exit(__doc__)
    found: dict[str, list[Row]] = {}
    for folder in sys.argv[1:]:
        for row in overview(Path(folder)):
            found.setdefault(Path(str(row["backbone"])).name, []).append(row)
    print(table([joined(rows) for rows in found.values()]))


if __name__ == "__main__":
    main()
