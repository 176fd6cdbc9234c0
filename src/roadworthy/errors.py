"""The error tree.

::

    RoadworthyError          anything this library raises on purpose; the command line exits 1
    ├── BadInput             the user can fix it: what was given, what is allowed; exits 2
    │   ├── BadModel         model spec, checkpoint keys, a model that cannot be captured
    │   ├── BadData          missing, empty or corrupt images, wrong folder layout
    │   └── BadPreprocess    unknown or inconsistent preprocessing
    └── ParityError          the deployed file does not behave as simulated; nothing was written
"""


class RoadworthyError(Exception):
    """Root of everything this library raises on purpose."""


class BadInput(RoadworthyError, ValueError):  # noqa: N818 - reads as a sentence where it is raised
    """Input that the user can put right; the message says how, in one line."""


class BadModel(BadInput):
    """A model that cannot be found, loaded or captured."""


class BadData(BadInput):
    """Data that cannot be found or read."""


class BadPreprocess(BadInput):
    """An unknown or inconsistent preprocessing."""


class ParityError(RoadworthyError):
    """The deployed model disagrees with the simulated one."""


def brief(error: object, most: int = 200) -> str:
    """What an error says, in one line, cut between words behind about `most` characters.

    >>> brief(ValueError("one   two three"), most=9)
    'one two ...'
    """
    text = " ".join(str(error).split())
    return text if len(text) <= most else f"{text[:most].rpartition(' ')[0] or text[:most]} ..."
