"""Training and evaluation as one call each, for either kind of model: `deixis.train` and `deixis.evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args

from deixis.data.formats import read_dataset
from deixis.errors import ModelError, OptionError
from deixis.inference.detect.detector import Detector, load_detector
from deixis.inference.refer.segmenter import Segmenter, load_segmenter
from deixis.models.builtin import BUILTIN, model_of_run
from deixis.models.folders import is_hub_id, model_folder, read_json
from deixis.models.model_record import RECORD_FILE, read_record
from deixis.models.onnx.runtimes import is_export
from deixis.options.checks import A_DETECTOR
from deixis.options.detect_train import DetectTrainOptions
from deixis.options.refer_train import ReferTrainOptions
from deixis.options.yaml_files import options_from
from deixis.recipes.refer.data.sources import read_refer_sources
from deixis.recipes.run.repeat import repeat_run

Task = Literal["detector", "segmenter"]
Source = str | Path


def train(data: Source | Sequence[Source], model: Source = "", *, task: Task | None = None, **options: Any) -> Any:
    """Fine-tune a detector or a segmenter: what `deixis detect train` and `deixis refer train` do.

    Args:
        data: annotations in any format, or generated scenes; several are mixed.
        model: "builtin", a folder or a hub id; may be left out for generated scenes.
        task: what to train; by default what the model is.
        options: those of the command, by their names: `epochs=20, lora=True, output="runs", experiment_name="cats"`.

    Returns:
        The run's result: its folder, the teacher's folder, metrics before and after; of several seeds, their table.

    Raises:
        DeixisError: an option, the data or the model cannot be used; or the run cannot continue.

    >>> deixis.train("labels.json", "IDEA-Research/grounding-dino-tiny", epochs=20).teacher  # doctest: +SKIP
    PosixPath('runs/detector/teachers/grounding_dino')
    """
    chosen = task_of(model, data, task)
    sources = [str(one) for one in ([data] if isinstance(data, str | Path) else data)]
    values: dict[str, Any] = {"data": sources, "model": str(model), **_plain(options)}
    if (values.get("gpus") or 0) > 1:
        command = "detect" if chosen == "detector" else "refer"
        raise OptionError(f"gpus: got {values['gpus']}; from Python run deixis {command} train --gpus, or torchrun")
    if chosen == "detector":
        from deixis.recipes.detect.learning.seeds import keep_of_seeds
        from deixis.recipes.detect.train import finetune

        detector = options_from(DetectTrainOptions, values, "train")
        if detector.seeds > 1:
            return repeat_run(detector, finetune, ("AP", "AP50"), keep_of_seeds)
        return finetune(detector)
    from deixis.recipes.refer.train import finetune_segmenter

    segmenter = options_from(ReferTrainOptions, values, "train")
    return (
        repeat_run(segmenter, finetune_segmenter, ("gIoU", "cIoU"))
        if segmenter.seeds > 1
        else finetune_segmenter(segmenter)
    )


def evaluate(
    model: Detector | Segmenter | Source,
    data: Any,
    *,
    images: Source | None = None,
    format: str | None = None,
    batch_size: int | None = None,
    max_images: int | None = None,
    device: str | None = None,
    task: Task | None = None,
) -> Any:
    """Metrics of a model on annotated data; prints and writes nothing.

    Args:
        model: a loaded detector or segmenter, "builtin", a folder, a hub id, or a file of `deixis model export`.
        data: annotations in any format, generated scenes, or a data set that was read.
        images: folder of the images, if the annotations do not name it.
        format: of the annotations; recognised if not given.
        batch_size: images per batch of a detector, phrases of a segmenter; 4 and 8 if not given.
        max_images: measure only the first N images.
        device: by default the first GPU, or the CPU if there is none.
        task: what the model is, where its folder does not say so.

    Returns:
        `DetectionMetrics` or `ReferMetrics`; `as_dict()` gives plain values.

    Raises:
        DeixisError: the data or the model cannot be used.

    >>> deixis.evaluate("builtin", "scenes:split=demo_val,count=20,seed=2").as_dict()["AP"]  # doctest: +SKIP
    0.41
    """
    if isinstance(model, Detector | Segmenter):
        loaded = model
    elif task_of(model, data, task) == "detector":
        loaded = load_detector(model, device)
    else:
        loaded = load_segmenter(model, device)
    folder = None if images is None else Path(images)
    named = isinstance(data, str | Path)
    if isinstance(loaded, Detector):
        dataset = read_dataset(data, folder, format, masks=False) if named else data
        return loaded.evaluate(dataset, batch_size or 4, max_images)[0]
    phrases = read_refer_sources((str(data),), folder, format) if named else data
    return loaded.evaluate(phrases, batch_size or 8, limit=max_images)[0]


def task_of(model: Any, data: Any, task: str | None = None) -> str:
    """ "detector" or "segmenter": as given, as the model's files say, as the generated scenes are; else a detector.

    Of a hub id only the files that say it are downloaded; where that fails, its name decides.

    Raises:
        OptionError: another task.
        ModelError: the model's folder cannot be read.
    """
    if task is not None:
        if task not in get_args(Task):
            raise OptionError(f"task: expected one of {', '.join(get_args(Task))}, got {task!r}")
        return task
    if str(model) in ("", BUILTIN):
        first = data if isinstance(data, str | Path) or not isinstance(data, Sequence) or not data else data[0]
        return "segmenter" if str(first).startswith(("scenes:split=refer", "clips:")) else "detector"
    if is_export(model):
        return "detector"
    folder = Path(model_of_run(model))
    if isinstance(model, str) and is_hub_id(model):
        with suppress(ModelError):  # which the loader will raise again
            folder = model_folder(model, ("config.json", RECORD_FILE), A_DETECTOR)
    if folder.is_dir():
        if stored := read_record(folder).task:
            return stored
        if (folder / "config.json").is_file():
            return (
                "detector"
                if "grounding-dino" in str(read_json(folder / "config.json").get("model_type"))
                else "segmenter"
            )
    return "segmenter" if "sa2va" in str(model).lower() else "detector"


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Options as the files of a run hold them: a tuple is a list."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
