"""`deixis.json`, next to a model's `config.json`: what the model was trained for, and values chosen on validation data.

    {
      "version": 1,
      "deixis": "0.1.0",                       the version that wrote it
      "task": "detector",                      or "segmenter"
      "domain": "generated",                   "generated": only generated scenes; "photographs"; "unknown"
      "names": ["raccoon"],                    class names of the fine-tuning data
      "wordings": {"raccoon": ["raccoon", "racoon"]},   what a class is asked for as, where not by its name alone
      "thresholds": {"presence": 0.8},         chosen on validation data, used unless an option overrides them
      "calibration": {"temperature": 0.8, "shift": 0.6},   of a detector's scores: sigmoid(logit / temperature + shift)
      "sinks": {"count": 8, "kind": "brackets"},   attention sinks (sinks.safetensors), and what they did
      "class_thresholds": {"raccoon": 0.42},   the same for single classes of a detector, in place of its "score"
      "metrics": {"validation": {"AP": 0.61}}, metrics by the data they were measured on
      "metrics_before": {"test": {"AP": 0.3}}, the same before fine-tuning
      "base": "IDEA-Research/grounding-dino-tiny",  what the fine-tuning started from; of a folder, its name
      "base_license": "apache-2.0",            where it is known
      "training": {"images": 144, "epochs": 20, "data": ["labels.json"]}   facts of the fine-tuning
    }

The file is optional: every field has an empty default. Fields that this version does not know are kept when the record
is written back.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, get_args

from deixis.atomic_files import file_aside
from deixis.errors import ModelError

RECORD_FILE = "deixis.json"
RECORD_VERSION = 1
Task = Literal["", "detector", "segmenter"]
Domain = Literal["generated", "photographs", "unknown"]


@dataclass(frozen=True)
class ModelRecord:
    """The content of a model folder's `deixis.json`; see the module.

    Attributes:
        task: what the model does; empty if unknown.
        domain: the kind of images it was trained on.
        names: class names it was fine-tuned on; empty for segmenters.
        wordings: of classes that are not asked for by their name alone.
        thresholds: by purpose: "presence" for absent phrases, "score" for detections.
        class_thresholds: scores of detections, by class name, for the classes that have their own.
        metrics: by part of the data, then by name.
        sinks: how many attention sinks a detector has, their kind, and the figures that decided; empty if never tried.
        calibration: of a detector's scores, which its thresholds already know; empty for none.
        extra: fields in the file that this version does not know.
        base, base_license: what the fine-tuning started from, and the hub's name of its licence; empty if unknown.
        metrics_before: as `metrics`, of the base.
        training: facts of the fine-tuning: images, epochs, names of the data's files.
    """

    task: Task = ""
    domain: Domain = "unknown"
    names: tuple[str, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    class_thresholds: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    wordings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    calibration: Mapping[str, float] = field(default_factory=dict)
    sinks: Mapping[str, Any] = field(default_factory=dict)
    base: str = ""
    base_license: str = ""
    metrics_before: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


def read_record(folder: str | Path) -> ModelRecord:
    """The record of a model folder; an empty one if it has none.

    Raises:
        ModelError: the file cannot be read, or a field has an invalid value.
    """
    path = Path(folder) / RECORD_FILE
    try:
        if not path.is_file():
            return ModelRecord()
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); remove it, or write the model again") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path}: contains a {type(values).__name__}, expected an object; remove it")
    return record_of(values, path)


def record_values(record: ModelRecord) -> dict[str, Any]:
    """The content of the file for a record."""
    known = {f.name: getattr(record, f.name) for f in fields(record) if f.name != "extra"}
    return {**record.extra, "version": RECORD_VERSION, "deixis": _own_version(), **known}


def record_of(values: Mapping[str, Any], path: object) -> ModelRecord:
    """The record of a file's content.

    Args:
        path: where it comes from, for errors.

    Raises:
        ModelError: a newer version wrote it, or a field has an invalid value.
    """
    stored = values.get("version")
    if not _is_count(stored) or not stored:
        raise ModelError(f"{path}: version is {str(stored)[:80]!r}, expected 1 or more; correct or remove the file")
    if stored > RECORD_VERSION:
        raise ModelError(f"{path}: version is {stored}, this deixis reads up to {RECORD_VERSION}; update deixis")
    known = {f.name for f in fields(ModelRecord)} - {"extra"}
    given = {name: values[name] for name in known & values.keys()}
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "task": (lambda value: value in get_args(Task), f"one of {get_args(Task)}"),
        "domain": (lambda value: value in get_args(Domain), f"one of {get_args(Domain)}"),
        "names": (_are_names, "a list of strings"),
        **dict.fromkeys(("thresholds", "class_thresholds"), (_are_scores, "an object of numbers from 0 to 1")),
        **dict.fromkeys(("metrics", "metrics_before"), (lambda value: isinstance(value, dict), "an object")),
        "training": (_has_counts("images", "epochs"), "an object; of it images and epochs whole numbers of 0 or more"),
        "sinks": (_has_counts("count"), "an object; of it count a whole number of 0 or more"),
        **dict.fromkeys(("base", "base_license"), (lambda value: isinstance(value, str), "text")),
        "wordings": (_are_wordings, "an object of lists of strings"),
        "calibration": (_is_calibration, "a temperature above 0 and a shift"),
    }
    for name, value in given.items():
        fits, expected = checks[name]
        try:
            good = fits(value)
        except TypeError:  # an unhashable value
            good = False
        if not good and fits is _are_scores and isinstance(value, dict):  # named, as there may be hundreds
            key, value = next((key, one) for key, one in value.items() if not _are_scores({key: one}))
            name, expected = f"{name}.{key}", "a number from 0 to 1"
        if not good:
            raise ModelError(f"{path}: {name} is {str(value)[:80]!r}, expected {expected}; correct or remove the file")
    if "names" in given:
        given["names"] = tuple(given["names"])
    extra = {name: value for name, value in values.items() if name not in known | {"version", "deixis"}}
    return ModelRecord(**given, extra=extra)


def write_record(folder: str | Path, record: ModelRecord) -> None:
    """Write the record into a model folder, all or nothing.

    Raises:
        ModelError: the file cannot be written.
    """
    path = Path(folder) / RECORD_FILE
    try:
        with file_aside(path) as draft:
            draft.write_text(json.dumps(record_values(record), indent=2) + "\n", encoding="utf-8")
    except (OSError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: cannot be written ({error})") from error


def update_record(folder: str | Path, **changes: Any) -> ModelRecord:
    """Replace some fields of a folder's record and write it; thresholds and metrics are merged key by key.

    Raises:
        ModelError: the record cannot be read or written.
    """
    record = read_record(folder)
    for name in ("thresholds", "metrics"):
        if name in changes:
            changes[name] = {**getattr(record, name), **changes[name]}
    record = replace(record, **changes)
    write_record(folder, record)
    return record


def trained_record(base: ModelRecord, task: Task, names: Sequence[str] = ()) -> ModelRecord:
    """The record of a model that was fine-tuned from another, with nothing that holds for the base alone.

    Wordings stay those of the record, of the classes that are trained.
    """
    wordings = {name: words for name, words in base.wordings.items() if name in names}
    return ModelRecord(task=task, domain=base.domain, names=tuple(names), extra=base.extra, wordings=wordings)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number: true is none, nor is an integer that no float can hold."""
    # by comparison: with NaN nothing compares, and integers of any size do
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _has_counts(*names: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(_is_count(value[name]) for name in names if name in value)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _are_wordings(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_are_names, value.values())) and all(value.values())


def _is_calibration(value: Any) -> bool:
    fits = _are_numbers(value) and value.keys() in (set(), {"temperature", "shift"})
    return fits and value.get("temperature", 1) > 0


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_number, value.values()))


def _are_scores(value: Any) -> bool:
    return _are_numbers(value) and all(0 <= number <= 1 for number in value.values())


def _own_version() -> str:
    try:
        return version("deixis")
    except PackageNotFoundError:
        return "unknown"
