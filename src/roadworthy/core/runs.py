"""RunRecord: what was run, on what, with what, and the numbers that came out -> run.json."""

import json
import math
import os
import platform
import resource
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from roadworthy.errors import BadData, BadInput, RoadworthyError

_PACKAGES = (
    "roadworthy",
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "numpy",
    "onnx",
    "onnxruntime",
    "openvino",
    "pillow",
)
# Those that decide how fast, and on old processors how exactly, 8-bit integers are multiplied.
_INSTRUCTIONS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
)


def versions() -> dict[str, str]:
    """Python and the installed packages that can change a number."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def host() -> dict[str, Any]:
    """Processor, instruction sets, threads, memory, operating system and GPU."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "instruction_sets": [name for name in _INSTRUCTIONS if name in flags],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "platform": platform.platform(),
        "gpu": gpu,
    }


def peak_memory_mb() -> float:
    """Most memory that this process has held so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@contextmanager
def write_atomically(path: Path) -> Generator[Path]:
    """Lend a temporary path beside `path` and put it in place only once the block succeeds.

    A kill or a full disk leaves the old file, or none, never half of one. The temporary name keeps
    the suffix, for writers that choose a format by it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with write_atomically(Path(folder) / "a.txt") as temporary:
    ...         _ = temporary.write_text("whole")
    ...     [p.name for p in Path(folder).iterdir()]
    ['a.txt']
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise RoadworthyError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def output_folder(out: Path, command: str | None = None) -> Path:
    """`out`, made where it is missing.

    Raises:
        BadInput: nothing can be written into it, or it holds the run.json of another command.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise BadInput(f"--out {out} cannot be made: {reason}; choose another folder") from error
    if not os.access(out, os.W_OK):
        raise BadInput(f"--out {out} cannot be written to; choose another folder")
    if command is not None and (out / "run.json").is_file():
        held = RunRecord.load(out).command
        if held != command:
            raise BadInput(f"--out {out} holds the run.json of {held}; give a folder of its own")
    return out


@contextmanager
def output_room(out: Path, command: str) -> Generator[Path]:
    """`output_folder`, gone again where the block fails, with the parents made for it: those of
    them that are empty.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "out" / "text"
    >>> with suppress(BadInput), output_room(folder, "quantize"):
    ...     raise BadInput("no")
    >>> folder.parent.exists()
    False
    """
    missing = [each for each in (out, *out.parents) if not each.is_dir()]
    try:
        yield output_folder(out, command)
    except BaseException:
        for each in missing:
            with suppress(OSError):  # it is not empty: what a next run goes on with
                each.rmdir()
        raise


@dataclass(frozen=True)
class RunRecord:
    """One run, complete enough to be repeated and compared.

    Args:
        command: the verb, e.g. ``quantize``.
        config: what was asked for.
        seed: of every random choice.
        data: name -> spec, sha256 and n of each set of images.
        numbers: what came out; its keys stand beside the others in run.json.
    """

    command: str
    config: Mapping[str, Any]
    seed: int
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    numbers: Mapping[str, Any] = field(default_factory=dict[str, Any])
    versions: Mapping[str, str] = field(default_factory=versions)
    host: Mapping[str, Any] = field(default_factory=host)

    def __post_init__(self) -> None:
        taken = {f.name for f in fields(self)} & set(self.numbers)
        if taken:
            raise ValueError(f"numbers {sorted(taken)} would hide fields of the record")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, numbers beside the rest; what is not finite becomes None."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "numbers"}
        return plain({**own, **self.numbers})

    def save(self, path: Path) -> None:
        """Write JSON to `path`, whole or not at all."""
        with write_atomically(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> "RunRecord":
        """A record out of run.json or out of the folder that holds it."""
        file = path / "run.json" if path.is_dir() else path
        try:
            values = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise BadData(
                f"{file} is no readable run record: {error}; run what wrote it again, or remove it"
            ) from error
        own = {f.name for f in fields(cls)} - {"numbers"}
        if not isinstance(values, dict) or not own <= set(values):
            raise BadData(
                f"{file} is no run record; its fields {', '.join(sorted(own))} are needed"
            )
        numbers = {k: v for k, v in values.items() if k not in own}
        return cls(**{k: values[k] for k in own}, numbers=numbers)


def plain(value: Any) -> Any:
    """`value` in JSON's types: dataclasses, tensors, arrays and paths unwrapped, NaN as None.

    >>> plain({"a": torch.tensor([1.0, float("nan")]), "b": (Path("x"), np.int64(3))})
    {'a': [1.0, None], 'b': ['x', 3]}
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Tensor() | np.ndarray() | np.generic():
            return plain(value.tolist())
        case Mapping():
            return {str(k): plain(v) for k, v in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(v) for v in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return plain(asdict(value))
        case _:
            return str(value)


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    pairs = (line.partition(":") for line in reversed(lines))
    return {name.strip(): value.strip() for name, _, value in pairs}
