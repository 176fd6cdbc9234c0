"""A sweep's parts judged by Ray, on one machine or on many, with the results of a serial run."""

import logging
import os
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from roadworthy.errors import BadInput, RoadworthyError, brief
from roadworthy.noise.sweep import Bench, Findings, Spread, judge
from roadworthy.noise.systems import System


class Worker:
    """A model in all its forms and its images, opened once, when the first part arrives.

    Args:
        opened: makes the bench; what it raises is the answer to every part.
        folder: of the process that asks; entered where it exists, since paths may be relative.
    """

    def __init__(self, opened: Callable[[], Bench], folder: str) -> None:
        self._opened = opened
        with suppress(OSError):
            os.chdir(folder)

    @cached_property
    def _bench(self) -> Bench:
        return self._opened()

    def judge(self, base: System, systems: Sequence[System], part: range) -> tuple[range, Findings]:
        """What the systems do with the images of `part`."""
        return part, judge(self._bench, base, systems, part)


@contextmanager
def ray_workers(opened: Callable[[], Bench], gpu: bool) -> Generator[Spread]:
    """A way to judge parts by one worker for each free processor, or GPU, of a Ray cluster.

    The cluster is the open session, else the one that RAY_ADDRESS names, else this machine; what
    was started here ends with the block.

    Args:
        opened: makes the bench of a worker; it is sent there, so what it holds must pickle.
        gpu: a worker takes a GPU, not a processor.

    Raises:
        BadInput: Ray is not installed, or RAY_ADDRESS leads nowhere.
        RoadworthyError: a worker died.
    """
    with session() as ray:
        kind = "GPU" if gpu else "CPU"
        free = max(1, int(ray.available_resources().get(kind, 0)))
        actor = ray.remote(**{f"num_{kind.lower()}s": 1})(Worker)
        sent, folder = ray.put(opened), str(Path.cwd())
        workers: list[Any] = []

        def spread(
            base: System, systems: Sequence[System], parts: Sequence[range]
        ) -> Iterator[tuple[range, Findings]]:
            while len(workers) < min(free, len(parts)):
                workers.append(actor.remote(sent, folder))
            pool: Any = import_module("ray.util.actor_pool").ActorPool(workers)
            try:
                yield from pool.map_unordered(
                    lambda worker, part: worker.judge.remote(base, systems, part), parts
                )
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayActorError as error:
                raise RoadworthyError(
                    "a worker of Ray died, perhaps for want of memory; the same command goes on "
                    "with what is finished"
                ) from error

        try:
            yield spread
        finally:  # not when the last reference goes: a session that stays has its processors back
            for each in workers:
                ray.kill(each)


def mapped(
    function: Callable[[Any], Any], items: Sequence[Any], gpu: bool
) -> Iterator[tuple[int, Any]]:
    """What `function` makes of each item, by the workers of Ray, in the order they finish.

    A task computes with as many threads as this process, since sums depend on them, and takes as
    many processors.

    Args:
        function: of a module that workers can import.
        gpu: a task takes a GPU, not processors.

    Raises:
        BadInput: Ray is not installed, or RAY_ADDRESS leads nowhere.
        RoadworthyError: a task died; what a task raises itself is raised here.
    """
    with session() as ray:
        threads = torch.get_num_threads()
        task = ray.remote(**({"num_gpus": 1} if gpu else {"num_cpus": threads}))(_as_here)
        _check_room(ray, 0 if gpu else threads)
        folder = str(Path.cwd())
        waiting = {task.remote(function, each, folder, threads): i for i, each in enumerate(items)}
        try:
            while waiting:
                (done,), _ = ray.wait(list(waiting), num_returns=1)
                yield waiting.pop(done), ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise RoadworthyError(
                "a task of Ray died, perhaps for want of memory; the same command goes on with "
                "what is finished"
            ) from error
        finally:
            for each in waiting:  # after a fault: none goes on in a session that stays
                ray.cancel(each, force=True)


def _check_room(ray: Any, threads: int) -> None:
    """BadInput where no machine has so many processors; a warning where it would be one by one."""
    machines = [int(each["Resources"].get("CPU", 0)) for each in ray.nodes() if each["Alive"]]
    few = "set OMP_NUM_THREADS to fewer, e.g. 1: results are those of as many threads here"
    if threads > max(machines):
        raise BadInput(
            f"{threads} threads a row and machines of {max(machines)} processors given; {few}"
        )
    if threads > 1 and sum(each // threads for each in machines) == 1:
        warnings.warn(
            f"a row takes all {threads} processors, one after the other; {few}", stacklevel=3
        )


def _as_here(function: Callable[[Any], Any], item: Any, folder: str, threads: int) -> Any:
    with suppress(OSError):
        os.chdir(folder)
    torch.set_num_threads(threads)
    return function(item)


@contextmanager
def session() -> Generator[Any]:
    """Ray, connected; left as it was found.

    Raises:
        BadInput: Ray is not installed, or RAY_ADDRESS leads nowhere.
    """
    if find_spec("ray") is None:
        raise BadInput("--workers ray needs Ray; pip install 'roadworthy[cluster]'")
    ray: Any = import_module("ray")
    if ray.is_initialized():
        yield ray
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    except (OSError, RuntimeError, ValueError) as error:
        address, reason = os.environ.get("RAY_ADDRESS"), brief(error)
        where = f"RAY_ADDRESS {address} is not to be reached" if address else "Ray does not start"
        raise BadInput(f"{where}: {reason}; see ray status") from error
    try:
        yield ray
    finally:
        ray.shutdown()
