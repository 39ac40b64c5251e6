"""Try wordings of classes on annotated images: what each finds by itself, and what all of a class find together."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import zip_longest

from rich.table import Table

from deixis.atomic_files import write_atomic
from deixis.console import Console
from deixis.data.detect.wordings import Wordings, text_of, wordings_of_classes
from deixis.data.formats import read_dataset
from deixis.errors import OptionError
from deixis.inference.detect.detector import Detector, load_detector
from deixis.options.annotated_data import ClassTools
from deixis.options.detect_words import DetectWordsOptions
from deixis.progress_bar import ProgressBar
from deixis.recipes.data.chosen import chosen_alone
from deixis.recipes.run.devices import choose_device
from deixis.recipes.run.owned_output import writes_output
from deixis.records import Dataset


@dataclass(frozen=True)
class Found:
    """What a wording finds of its class.

    Attributes:
        wordings: one, or all of the class together.
        AP: average precision of the class, COCO's.
        F1: at IoU 0.5 and its best threshold.
        recall: share of the objects that are found at that threshold.
    """

    name: str
    wordings: tuple[str, ...]
    AP: float
    F1: float
    recall: float


@writes_output("words.json")
def try_words(options: DetectWordsOptions) -> dict[str, list[Found]]:
    """Print what each wording finds, and the `--names` to use; the findings of each class, best first.

    Raises:
        DeixisError: options, data or model cannot be used, or no class has several wordings.
    """
    console = Console(highlight=False, soft_wrap=True)
    dataset = read_dataset(options.data, options.images, options.format, masks=False)
    dataset = chosen_alone(dataset, options.group(ClassTools), partial(console.print, markup=False))
    wordings = wordings_of_classes(options.names, dataset.vocabulary.names, options.data)
    if not any(len(words) > 1 for words in wordings.values()):
        raise OptionError('--names: expected several wordings of a class, as in --names "car=car,automobile,sedan"')
    detector = load_detector(options.model, choose_device(options.device), options.prompt_names, **options.boxes)
    found = measure_words(detector, dataset, wordings, batch_size=options.batch_size, limit=options.max_images)
    print_words(console, found)
    if options.output is not None:
        plain = {name: [asdict(one) for one in ranked] for name, ranked in found.items()}
        write_atomic(options.output / "words.json", json.dumps(plain, indent=2) + "\n")
    return found


def measure_words(
    detector: Detector, dataset: Dataset, wordings: Wordings, *, batch_size: int, limit: int | None
) -> dict[str, list[Found]]:
    """What the wordings of each class find, best first.

    The data is measured once with the first wording of every class, once with the second, and so on, where classes
    with fewer keep their first; and once with all of them.
    """
    # One round per place in the lists: in each, every class is asked for by one wording.
    rounds = [
        {name: (word or wordings[name][0],) for name, word in zip(wordings, words, strict=True)}
        for words in zip_longest(*wordings.values())
    ]
    found: dict[str, list[Found]] = {name: [] for name in wordings}
    with ProgressBar("images") as progress:
        count = min(len(dataset), limit or len(dataset)) * (len(rounds) + 1)
        for number, asked in enumerate((*rounds, wordings)):
            metrics, _ = detector.reworded(asked).evaluate(dataset, batch_size, limit)
            progress((number + 1) * count // (len(rounds) + 1), count)
            for name, words in asked.items():
                is_new = number < len(wordings[name]) or len(words) > 1
                if name in metrics.per_class and is_new:
                    figures = (one[name] for one in (metrics.per_class, metrics.f1_per_class, metrics.recall_per_class))
                    found[name].append(Found(name, tuple(words), *figures))
    return {name: sorted(ranked, key=_rank, reverse=True) for name, ranked in found.items()}


def print_words(console: Console, found: Mapping[str, Sequence[Found]]) -> None:
    """A table of each class, best first, and the `--names` that find most."""
    for name, ranked in found.items():
        if not ranked:
            console.print(f"{name}: no object in these images", markup=False)
            continue
        table = Table(title=name)
        for heading in ("wording", "AP", "F1", "recall"):
            table.add_column(heading, justify="left" if heading == "wording" else "right")
        for one in ranked:
            label = one.wordings[0] if len(one.wordings) == 1 else f"all {len(one.wordings)} together"
            table.add_row(label, *(f"{100 * value:.1f}" for value in (one.AP, one.F1, one.recall)))
        console.print(table)
    best = [text_of(name, ranked[0].wordings) for name, ranked in found.items() if ranked]
    if best:
        console.print(f"finds most: --names {' '.join(map(shlex.quote, best))}", markup=False)


def _rank(found: Found) -> tuple[float, float]:
    """By AP, of equal ones the simpler; a class without a finding last."""
    return (-1.0 if math.isnan(found.AP) else found.AP, -len(found.wordings))
