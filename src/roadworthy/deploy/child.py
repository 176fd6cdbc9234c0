"""Native code in a Python process of its own: what crashes it is an error here, not the end."""

import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import IO, Any

_TELLING = re.compile(r"(?i)error|fail|unsupport|not (exist|support|found|regist)|invalid|cannot")


class Child:
    """A process that opens something and then answers requests about it, one after the other.

    Args:
        opener: ``module:function`` that the process calls first; it gives what answers requests,
            and facts about it.
        arguments: of that function, by name.

    Raises:
        RuntimeError: the function raised; its words and the telling line of what was printed.
        ChildProcessError: the process crashed; the next request starts it anew.

    >>> from importlib.util import find_spec
    >>> child = Child("roadworthy.deploy.child:echo", greeting="hello")
    >>> child.facts, child(5)
    ('hello', [5])
    """

    def __init__(self, opener: str, **arguments: Any) -> None:
        self._first = opener, arguments
        self._process: subprocess.Popen[bytes] | None = None
        self.facts: Any = self._start()

    def __call__(self, request: Any) -> Any:
        """The answer to anything that can be pickled."""
        if self._process is None:
            self._start()
        return self._ask(request)

    def _start(self) -> Any:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        weakref.finalize(self, _end, self._process)
        return self._ask(self._first)

    def _ask(self, request: Any) -> Any:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump(request, process.stdin, protocol=5)
            process.stdin.flush()
            worked, reply = pickle.load(process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            self._process = None
            ending = _ending(_end(process, patience=5))
            raise ChildProcessError(f"it crashed ({ending}){self._told()}") from error
        except BaseException:
            # An interrupt: the late reply must not answer the next request.
            self._process = None
            _end(process)
            raise
        if not worked:
            raise RuntimeError(f"{reply}{self._told()}")
        return reply

    def printed(self) -> list[str]:
        """The lines that the process has printed so far."""
        self._log.seek(0)
        text = self._log.read().decode(errors="replace")
        return [" ".join(line.split()) for line in text.splitlines() if line.strip()]

    def _told(self) -> str:
        """The last telling line of what was printed, led by a colon."""
        lines = self.printed()
        telling = [line for line in lines if _TELLING.search(line)] or lines
        return f": {telling[-1][:200]}" if telling else ""


def _ending(code: int) -> str:
    with suppress(ValueError):
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"signal {-code}"


def _end(process: subprocess.Popen[bytes], patience: float = 0) -> int:
    """The exit code of `process`, which is killed where it does not end by itself in time."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    process.kill()
    with suppress(OSError):
        process.communicate()
    return process.wait()


def serve() -> None:
    """Open what the first request names, then answer the others, until stdin ends."""
    # Native code prints on stdout.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answer: Callable[[Any], Any] | None = None
    with suppress(EOFError):
        while True:
            request = pickle.load(sys.stdin.buffer)
            try:
                if answer is None:
                    (place, name), arguments = request[0].split(":"), request[1]
                    answer, reply = getattr(import_module(place), name)(**arguments)
                else:
                    reply = answer(request)
                message = True, reply
            except Exception as error:
                message = False, " ".join(f"{type(error).__name__}: {error}".split())[:300]
            sys.stdout.flush()
            pickle.dump(message, replies, protocol=5)
            replies.flush()


def echo(greeting: str) -> tuple[Callable[[Any], Any], str]:
    """An opener for tests: what answers with its request in a list, and `greeting` as facts."""
    return lambda request: [request], greeting
