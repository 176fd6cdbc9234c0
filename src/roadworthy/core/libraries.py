"""Libraries that an option may need: which version is here, what to install, how to load them."""

import ctypes
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, TypeVar, runtime_checkable

from roadworthy.errors import BadPreprocess


@runtime_checkable
class Named(Protocol):
    """An option that users choose by its name."""

    @property
    def name(self) -> str:
        """What users write."""
        ...


@dataclass(frozen=True)
class Implementation:
    """What some library does, under a name of ours; its kinds add the call.

    Args:
        name: what users write.
        library: distribution whose code runs and whose version is recorded.
        flags: how it is used, in the words of its kind.
        extra: extra of roadworthy that brings the library, None where it is always there.
    """

    name: str
    library: str
    flags: tuple[str, ...] = ()
    extra: str | None = None

    def version(self) -> str | None:
        """Version of the library, None where it is missing."""
        return installed_version(self.library)

    def missing(self) -> str | None:
        """None where it can be used, else what to install, in one line."""
        return None if self.version() else hint(self.library, self.extra)


Option = TypeVar("Option", bound=Named)
_STDOUT = Lock()


@cache
def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, None where it is missing.

    >>> installed_version("no-such-library") is None
    True
    """
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def hint(library: str, extra: str | None) -> str:
    """One line that says how to get a missing library, alone or by an extra of roadworthy.

    >>> hint("ncnn", "ncnn")
    "ncnn is not installed; pip install 'roadworthy[ncnn]'"
    """
    wanted = f"'roadworthy[{extra}]'" if extra else library
    return f"{library} is not installed; pip install {wanted}"


def find(kind: str, name: str, options: Sequence[Option]) -> Option:
    """The option of that name.

    Raises:
        BadPreprocess: there is none; says which come near it and which are allowed.
    """
    names = [option.name for option in options]
    if name in names:
        return options[names.index(name)]
    near = " or ".join(get_close_matches(name, names))
    meant = f" (did you mean {near}?)" if near else ""
    raise BadPreprocess(f"{kind} {name!r} given{meant}; {', '.join(names)} are allowed")


@cache
def load(module: str) -> Any:
    """An untyped module, imported at its first use.

    Raises:
        BadPreprocess: it is installed and cannot be imported, as without a system library it needs.

    >>> load("colorsys").rgb_to_hsv(1.0, 1.0, 1.0)
    (0.0, 0.0, 1.0)
    """
    # MNN greets on stdout with what its CPU lacks; what goes wrong comes as an exception.
    with _stdout_hushed():
        try:
            return import_module(module)
        except (ImportError, OSError) as error:
            reason = " ".join(str(error).split())
            raise BadPreprocess(
                f"{module} cannot be imported: {reason}; install it anew"
            ) from error


@contextmanager
def _stdout_hushed() -> Generator[None]:
    """What native code prints goes nowhere; C keeps it in a buffer of its own until flushed."""
    with _STDOUT, Path(os.devnull).open("wb") as nowhere:
        sys.stdout.flush()
        kept = os.dup(1)
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            ctypes.CDLL(None if os.name == "posix" else "ucrtbase").fflush(None)
            os.dup2(kept, 1)
            os.close(kept)
