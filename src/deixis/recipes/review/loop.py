"""Label a little, train, predict the rest, queue what is most worth a look; again. Every step can be interrupted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deixis.atomic_files import write_atomic
from deixis.console import print_text
from deixis.data.formats.review.read import DONE
from deixis.data.sets.embedded import record_of
from deixis.errors import DataError, OptionError
from deixis.inference.detect.detector import load_detector
from deixis.options.detect_train import DetectTrainOptions
from deixis.options.review.loop import LoopOptions
from deixis.options.yaml_files import options_from, plain_values, read_options
from deixis.recipes.detect.train import finetune
from deixis.recipes.review.data import predicted, read_to_review
from deixis.recipes.run.devices import choose_device
from deixis.recipes.run.lock import run_lock
from deixis.records import Dataset, Instances, SampleList
from deixis.review.build import build_review
from deixis.review.predicted import add_predictions, open_images, order_queue
from deixis.review.simulated import answer_image
from deixis.review.store import Store
from deixis.review.views import effort

STATE = "loop.json"
FIXED = ("data", "model", "order", "per_round", "simulate", "seed", "val_data")
"""Options that may not change between the steps of a loop."""


def run_loop(options: LoopOptions) -> list[dict[str, Any]]:
    """Go on until people have to review, or all rounds are done; the finished rounds.

    Raises:
        DeixisError: options, data or the model cannot be used, or the folder is another loop's.
    """
    options.output.mkdir(parents=True, exist_ok=True)
    with run_lock(options.output, True):
        state = _state(options)
        with _review(options) as store:
            while len(state["rounds"]) < options.rounds:
                if not _step(options, store, state):
                    return list(state["rounds"])
    print_text(f"all {options.rounds} rounds are done; the last model is {state['rounds'][-1]['model']}")
    return list(state["rounds"])


def _step(options: LoopOptions, store: Store, state: dict[str, Any]) -> bool:
    """One round, from review to queue; False where people have to review first, or nothing is left."""
    number = len(state["rounds"]) + 1
    left = store.rows(f"SELECT id FROM images i WHERE NOT {DONE} ORDER BY worth DESC, id")
    total = len(store.rows("SELECT id FROM images"))
    wanted = min(number * options.per_round, total) - (total - len(left))
    if wanted > 0 and not options.simulate:
        print_text(
            f"round {number}: review {wanted} more images with deixis review serve {store.file}, then the same command"
        )
        return False
    if wanted > 0:
        truth, _ = read_to_review(options.data, options.images, options.format)
        for row in left[:wanted]:
            # Images of a review are numbered from 1.
            answer_image(store, row["id"], record_of(truth, row["id"] - 1))
    elif total < (number - 1) * options.per_round:
        print_text(f"all {total} images are reviewed; nothing is left for round {number}")
        return False
    metrics, teacher = _trained(options, store, number)
    _queue(options, store, str(teacher))
    done, counts = effort(store), len(store.rows(f"SELECT id FROM images i WHERE {DONE}"))
    boxes = done.get("add", 0) + done.get("move", 0)
    found = {"images": counts, "boxes_drawn": boxes, "actions": done, **metrics}
    state["rounds"].append({"round": number, **found, "model": str(teacher)})
    # Written last: an interrupted round begins again, and its training resumes.
    _keep(options, state)
    print_text(f"round {number}: {json.dumps(state['rounds'][-1])}")
    return True


def _trained(options: LoopOptions, store: Store, number: int) -> tuple[dict[str, float], Path]:
    """Train on what is reviewed; figures on validation data, and the weights."""
    given: dict[str, Any] = {}
    if options.train_config is not None:
        given = plain_values(read_options(DetectTrainOptions, options.train_config))
    values = {
        **given,
        "data": [str(store.file)],
        "model": options.model,
        "output": str(options.output / "rounds"),
        "experiment_name": f"{number}",
        "auto_resume": True,
        "seed": options.seed,
        "val_data": options.val_data or given.get("val_data", ""),
        "val_images": None if options.val_images is None else str(options.val_images),
    }
    result = finetune(options_from(DetectTrainOptions, values, "loop"))
    assert result.teacher is not None
    assert result.after is not None
    metrics = result.after.as_dict()
    return {name: metrics[name] for name in ("AP", "AP50") if name in metrics}, result.teacher


def _queue(options: LoopOptions, store: Store, model: str) -> None:
    """Predict what nobody reviewed, and order it."""
    ids, dataset = open_images(store)
    if not ids:
        return
    detector = load_detector(model, choose_device(options.device))
    found = predicted(detector, dataset, model, options.threshold, batch_size=options.batch_size)
    with store.changing():
        add_predictions(store, ids, found)
        order_queue(store, options.order, options.seed)


def _review(options: LoopOptions) -> Store:
    """The loop's review, made from the data and the first model's predictions where there is none."""
    file = options.output / "review.db"
    if file.exists():
        return Store(file)
    detector = load_detector(options.model, choose_device(options.device))
    dataset, labelled = read_to_review(
        options.data, options.images, options.format, names=options.names or detector.names
    )
    if options.simulate:
        dataset, labelled = _hidden(dataset), False
    found = predicted(detector, dataset, options.model, options.threshold, batch_size=options.batch_size)
    store = build_review(file, dataset, source=options.data, labelled=labelled, predictions=found)
    with store.changing():
        order_queue(store, options.order, options.seed)
    return store


def _hidden(dataset: Dataset) -> Dataset:
    """The images of a data set without their labels."""
    samples = [
        dataset[index].evolve(
            instances=Instances.none(), absent_class_ids=None, not_exhaustive_class_ids=frozenset(), model_version=""
        )
        for index in range(len(dataset))
    ]
    return SampleList(tuple(samples), dataset.vocabulary, str(getattr(dataset, "name", "data")))


def _state(options: LoopOptions) -> dict[str, Any]:
    """What `loop.json` says, checked against the options.

    Raises:
        DataError: it cannot be read.
        OptionError: it is of another loop.
    """
    file = options.output / STATE
    now = {name: plain_values(options)[name] for name in FIXED}
    if not file.exists():
        state: dict[str, Any] = {"options": now, "rounds": []}
        _keep(options, state)
        return state
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        earlier, state["rounds"] = dict(state["options"]), [dict(one) for one in state["rounds"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read as a loop's state ({error}); choose another --output") from error
    for name in FIXED:
        if earlier.get(name) != now[name]:
            raise OptionError(
                f"--{name.replace('_', '-')}: got {now[name]!r}, but the loop in {options.output} has "
                f"{earlier.get(name)!r}; choose another --output"
            )
    return state


def _keep(options: LoopOptions, state: Mapping[str, Any]) -> None:
    write_atomic(options.output / STATE, json.dumps(state, indent=2, ensure_ascii=False) + "\n")
