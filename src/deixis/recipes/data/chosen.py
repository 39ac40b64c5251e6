"""The classes, objects and images that a command uses of its data, as the options of `ClassTools` say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from deixis.data.findings import Findings
from deixis.data.sets.class_names import settle_names
from deixis.data.sets.classes import with_classes
from deixis.data.sets.embedded import records
from deixis.data.sets.split import sampled
from deixis.errors import OptionError
from deixis.options.annotated_data import ClassTools
from deixis.records import Dataset

Say = Callable[[str], object]
EVERYTHING = ClassTools()


def used_names(datasets: Sequence[Dataset], tools: ClassTools) -> dict[str, str] | None:
    """The names of the classes that are used to their new names, from all data sets of a run; None for all as they are.

    Raises:
        OptionError: an option names no class of any of the data sets.
    """
    if not (tools.classes or tools.drop or tools.rename or tools.merge):
        return None
    names = list(dict.fromkeys(name for dataset in datasets for name in dataset.vocabulary.names))
    return settle_names(
        names,
        keep=tools.classes,
        drop=tools.drop,
        rename=tools.rename,
        merge=tools.merge,
        where=" + ".join(dict.fromkeys(str(getattr(dataset, "name", "data")) for dataset in datasets)),
    )


def chosen(
    dataset: Dataset,
    tools: ClassTools,
    used: dict[str, str] | None,
    say: Say,
    findings: Findings | None = None,
    sample: bool = True,
    threshold: float | None = None,
) -> Dataset:
    """The data set with the classes that are used, its objects of some size or score, and the images drawn.

    Args:
        used: from `used_names`.
        say: prints what was left out.
        findings: read with the data set.
        sample: whether --sample draws from this data set.
        threshold: least score of detections.

    Raises:
        DataError: the data set has none of the classes.
        OptionError: a threshold for objects without scores.
    """
    if threshold is not None and all(one.instances.scores is None for one in records(dataset)):
        raise OptionError("--threshold: the objects of the data have no scores; leave the option out")
    if used is not None or tools.min_area > 0 or threshold is not None:
        dataset, lines = with_classes(dataset, used, min_area_px=tools.min_area, min_score=threshold, findings=findings)
        for line in lines:
            say(line)
    if sample and tools.sample is not None:
        whole, dataset = dataset, sampled(dataset, tools.sample)
        say(f"drew {len(dataset)} of {len(whole)} images")
    return dataset


def chosen_alone(dataset: Dataset, tools: ClassTools, say: Say, threshold: float | None = None) -> Dataset:
    """The same of a command's only data set.

    Raises:
        DataError, OptionError: see `used_names` and `chosen`.
    """
    return chosen(dataset, tools, used_names([dataset], tools), say, threshold=threshold)


def image_folders(images: Sequence[Path], count: int) -> Sequence[Path | None]:
    """The folder of images of each of several data sets: its own, the one for all, or none."""
    return [*images] * (count // len(images)) if images else [None] * count
