"""Shards computed by Ray Data: actors that load a model once, and answers in the order of the items."""

from __future__ import annotations

import logging
import math
import os
import pickle
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from deixis.console import Console
from deixis.errors import DataError, DeixisError
from deixis.options.used_models import Engine
from deixis.progress_bar import ProgressBar
from deixis.recipes.engine.cluster import WorkersDiedError, cluster, ray_failures
from deixis.recipes.engine.items import Item, shards_of
from deixis.recipes.engine.nodes import usable_nodes
from deixis.recipes.engine.parts import Answer, Parts
from deixis.recipes.run.outputs import warn
from deixis.text import one_line

Work = Callable[[Sequence[Item], int], Sequence[Answer]]
"""Answers of items, in order, from batches of a size."""
MakeWork = Callable[[str], Work]
"""Loads the model onto a device. Workers get it by pickle: a function of a module, or `functools.partial` of one."""
Keep = Callable[[int, Answer], None]
RETRIES = 5
"""How often a shard is tried again whose worker dies."""
_IN_FLIGHT = 2  # shards per actor: the next one waits there already


def ray_answers(
    make: MakeWork,
    items: Sequence[Item],
    engine: Engine,
    *,
    output: Path,
    made_by: Mapping[str, Any],
    model: str,
    batch_size: int,
    together: int = 1,
    keep: Keep = lambda index, answer: None,
) -> Iterator[Answer]:
    """One answer per item, in order; shards that an earlier call finished are read.

    Args:
        output: folder for rows/ and errors.parquet.
        made_by: what determines answers.
        together: items that share a batch, and so a shard; 1 where each is computed by itself.
        keep: called with an item's place and its answer before its shard counts as done, to write what it drew.

    Raises:
        DeixisError: Ray cannot be used, a worker's model cannot, a shard fails again and again, or a disk is full.
    """
    shards = shards_of(items, engine.shard_rows, together)
    parts = Parts(output, made_by, model)
    left = {number for number, shard in enumerate(shards) if not parts.has(number, shard)}
    if done := sum(map(len, shards)) - sum(len(shards[number]) for number in left):
        Console(highlight=False).print(f"resuming: {done} of {len(items)} images are done", markup=False)
    computed = _persistent(make, {number: shards[number] for number in sorted(left)}, engine, batch_size=batch_size)
    first = [0]
    for shard in shards:
        first.append(first[-1] + len(shard))
    with closing(computed) as arriving, ProgressBar("images") as progress:
        for number in range(len(shards)):
            while number in left:
                arrived, answers = next(arriving)
                if arrived not in left:
                    continue  # a shard that was tried twice and arrived twice
                # Drawn pictures first: once the part is there, the shard counts as done and is not computed again.
                for index, answer in enumerate(answers, start=first[arrived]):
                    keep(index, answer)
                parts.write(arrived, shards[arrived], answers)
                left.discard(arrived)
                done += len(answers)
                progress(done, len(items))
            yield from parts.read(number)
    parts.finish(len(shards))


def _persistent(
    make: MakeWork, shards: Mapping[int, Sequence[Item]], engine: Engine, *, batch_size: int
) -> Generator[tuple[int, list[Answer]], None, None]:
    """The same as `_arriving`, begun anew on the nodes that are left where workers died more often than Ray bears.

    Raises:
        WorkersDiedError: a second time without a shard in between.
    """
    left, failed = dict(shards), False
    while left:
        try:
            with closing(_arriving(make, dict(left), engine, batch_size=batch_size)) as arriving:
                for number, answers in arriving:
                    left.pop(number, None)
                    failed = False
                    yield number, answers
        except WorkersDiedError as error:
            if failed:
                raise
            failed = True
            warn(f"beginning anew with the {len(left)} shards that are left: {error}")


def _arriving(
    make: MakeWork, shards: Mapping[int, Sequence[Item]], engine: Engine, *, batch_size: int
) -> Generator[tuple[int, list[Answer]], None, None]:
    """(number, answers) of shards as they are done."""
    if not shards:
        return
    with cluster(engine.address) as ray, ray_failures(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it raises is one line of ours
        resources, selector = usable_nodes(ray)
        actors, cpus, gpus = sizes(resources, engine)
        shown = f"{actors} actors with {cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
        Console(highlight=False).print(f"Ray: {shown} each, {len(shards)} shards", markup=False)
        # As bytes: Arrow, which carries the rows, has no type for items.
        rows = [{"shard": number, "items": pickle.dumps(list(shard))} for number, shard in shards.items()]
        # A block for each shard, so that an actor takes one at a time and the loss of one costs one.
        answers = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            RayActor,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                min_size=1, max_size=actors, initial_size=actors, max_tasks_in_flight_per_actor=_IN_FLIGHT
            ),
            fn_constructor_args=(pickle.dumps(make), "cuda" if gpus else "cpu", batch_size, str(Path.cwd())),
            num_cpus=cpus,
            num_gpus=gpus,
            ray_remote_args_fn=lambda: {
                # An actor is restarted without limit, a shard tried again only some times.
                "max_restarts": -1,
                "max_task_retries": RETRIES,
                **({"label_selector": selector} if selector else {}),
            },
        )
        for batch in answers.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
            for number, pickled in zip(batch["shard"], batch["answers"], strict=True):
                found = pickle.loads(pickled)  # noqa: S301 - of our own actors
                if isinstance(found, BaseException):
                    raise found
                yield int(number), found


def sizes(resources: Mapping[str, float], engine: Engine) -> tuple[int, float, float]:
    """(actors, CPUs per actor, GPUs per actor) for a cluster's resources.

    Raises:
        DataError: it has too few GPUs for one actor.

    >>> sizes({"CPU": 8}, Engine()), sizes({"CPU": 8, "GPU": 2}, Engine(gpus_per_actor=0.5))
    ((4, 2, 0), (4, 2, 0.5))
    """
    cpus, gpus = resources.get("CPU", 1), resources.get("GPU", 0)
    share = engine.gpus_per_actor if engine.gpus_per_actor is not None else min(gpus, 1)
    if share > gpus:
        raise DataError(f"--gpus-per-actor: got {share:g}, the cluster has {gpus:g} GPUs; give --gpus-per-actor 0")
    # The quotient may be a hair below a whole number.
    most = math.floor(gpus / share + 1e-9) if share else max(1, int(cpus) // 2)
    actors = engine.actors or most
    return actors, max(1, int(cpus) // actors), share


class RayActor:
    """What runs in a worker: a model, and shards in, answers out. Only the loss of the worker is left to Ray."""

    def __init__(self, make: bytes, device: str, batch_size: int, folder: str) -> None:
        with suppress(OSError):
            os.chdir(folder)  # where paths are relative to
        self.batch_size, self.version = batch_size, version("deixis")
        self.failed: Exception | None = None
        # Kept for the answer: Ray would start a worker that fails here again and again.
        try:
            self.work: Work = pickle.loads(make)(device)  # noqa: S301 - of the command that started this
        except Exception as error:
            self.failed = _portable(error)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch of one shard."""
        answers = [self._shard(pickle.loads(pickled)) for pickled in batch["items"]]  # noqa: S301
        return {"shard": batch["shard"], "answers": [pickle.dumps(one) for one in answers]}

    def _shard(self, items: Sequence[Item]) -> list[Answer] | Exception:
        """Answers, or what makes the run fail."""
        while self.failed is None:
            try:
                return [replace(answer, version=self.version) for answer in self.work(items, self.batch_size)]
            except torch.OutOfMemoryError as error:
                if self.batch_size == 1:
                    return error
                self.batch_size //= 2  # for the rest of this worker's life
                torch.cuda.empty_cache()
            except Exception as error:
                return _portable(error)
        return self.failed


def _portable(error: Exception) -> Exception:
    """What the command raises for it: the same where it says enough, else one with the worker's traceback."""
    if isinstance(error, DeixisError | OSError | MemoryError):
        return error
    return RuntimeError(f"in a worker: {traceback.format_exc()}")


def all_contents(answers: Iterable[Answer]) -> list[dict[str, Any]]:
    """What was found, for commands that need every picture.

    Raises:
        DataError: for the first one that cannot be read, once errors.parquet has all.
    """
    everything = list(answers)
    for answer in everything:
        if answer.error is not None:
            raise DataError(answer.error)
    return [answer.content or {} for answer in everything]


def each_answer(compute: Callable[[Sequence[Item]], list[Answer]], items: Sequence[Item]) -> list[Answer]:
    """Answers of all items at once; where one cannot be read, of each by itself, so that only it has an error."""
    try:
        return compute(items)
    except DataError as error:
        if len(items) == 1:
            return [Answer(None, one_line(error))]
        return [answer for item in items for answer in each_answer(compute, [item])]
