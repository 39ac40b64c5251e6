"""Captions of held-out generated scenes, and what filtering them by cycle IoU does to their accuracy.

    python benchmarks/loop_segmenter.py --write
    python benchmarks/loop_segmenter.py --model runs/segmenter/teachers/sa2va --images 50

Every thing of each scene is described, and what was said is looked for with the same model. Which colour, shape,
texture and size a caption names, and whether rightly, is known from what is drawn. *Exact*: it is one of the sentences
that mean this thing and nothing else, true and unambiguous; of things that have such a sentence. *Nothing wrong*: it
names some attribute, and all that it names are right. *Direct IoU*: of the mask that the thing's own first sentence
gives. The other filter keeps as many captions, those that the model thinks likeliest (log-probability).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import RESULTS, hardware, table, write_result

from deixis.data.scenes.refer_scenes import ReferScenes, SceneThings
from deixis.evaluation.captions import is_exact, named_attributes
from deixis.inference.refer.cycle import Cycle
from deixis.models.sa2va import load_sa2va
from deixis.progress_bar import ProgressBar

SEED = 77  # no training or validation scene has it
SPLITS = "refer_seen", "refer_unseen"
ATTRIBUTES = "colour", "shape", "size", "texture"
THRESHOLDS = 0.0, 0.3, 0.5, 0.7, 0.9


@dataclass(frozen=True)
class Described:
    """A thing and what was said of it.

    Attributes:
        direct_iou: None where no sentence means the thing alone; `exact` is then None too.
        attributes: whether each is named rightly; None where it is not named.
    """

    caption: str
    score: float
    cycle_iou: float
    direct_iou: float | None
    exact: bool | None
    attributes: dict[str, bool | None]

    @property
    def nothing_wrong(self) -> bool:
        named = [right for right in self.attributes.values() if right is not None]
        return bool(named) and all(named)


def described(model: str, split: str, images: int, batch_size: int = 16) -> list[Described]:
    """Every thing of the split's scenes."""
    scenes = ReferScenes(split, images, SEED)
    cycle, found = Cycle(load_sa2va(model), max_tiles=1, direct=True), []
    with ProgressBar(split) as progress:
        for index, (_, cycled) in enumerate(cycle.run(SceneThings(scenes), batch_size)):
            for thing, said in zip(scenes.scene(index)[0].things, cycled, strict=True):
                text = said.caption.text
                exact = is_exact(text, said.texts) if said.texts else None
                attributes = named_attributes(text, said.texts, thing)
                found.append(Described(text, said.caption.score, said.iou, said.direct_iou, exact, attributes))
            progress(index + 1, images)
    return found


def share(values: Iterable[bool | None]) -> float | None:
    """Of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.3f}" if values else "-"


def kept_at(found: Sequence[Described], threshold: float) -> tuple[list[Described], list[Described]]:
    """The captions found again, and as many that the model thinks likeliest."""
    kept = [each for each in found if each.caption.strip() and each.cycle_iou >= threshold]
    return kept, sorted(found, key=lambda each: -each.score)[: len(kept)]


def section(split: str, found: Sequence[Described]) -> str:
    """Attributes, IoUs, and a line a threshold."""
    named = [[each.attributes[name] for each in found] for name in ATTRIBUTES]
    attributes = [
        [name, percent(share(right is not None for right in rights)), percent(share(rights))]
        for name, rights in zip(ATTRIBUTES, named, strict=True)
    ]
    rows = []
    for threshold in THRESHOLDS:
        kept, likeliest = kept_at(found, threshold)
        rights = [percent(share(each.attributes[name] for each in kept)) for name in ATTRIBUTES]
        exact = [percent(share(each.exact for each in these)) for these in (kept, likeliest)]
        wrong = [percent(share(each.nothing_wrong for each in these)) for these in (kept, likeliest)]
        rows.append([f"{threshold:g}", percent(len(kept) / len(found)), *exact, *wrong, *rights])
    head = ["cycle IoU at least", "kept %", "exact %", "exact %, as many likeliest"]
    head += ["nothing wrong %", "nothing wrong %, as many likeliest", *(f"{name} right %" for name in ATTRIBUTES)]
    both = [each for each in found if each.direct_iou is not None]
    direct = [each.direct_iou for each in both if each.direct_iou is not None]
    return (
        f"## {split}: {len(found)} things\n\n{table(['', 'named %', 'of these right %'], attributes)}\n\n"
        f"Cycle IoU {mean([each.cycle_iou for each in found])}. Of the {len(both)} things that a sentence means alone: "
        f"cycle IoU {mean([each.cycle_iou for each in both])}, direct IoU {mean(direct)}.\n\n{table(head, rows)}"
    )


def plot(measured: dict[str, list[Described]]) -> Path:
    """Accuracy among the kept, and their share, against the threshold."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, (split, found) in zip(figure.subplots(1, len(measured), sharey=True), measured.items(), strict=True):
        kept = [kept_at(found, threshold)[0] for threshold in THRESHOLDS]
        lines = {
            "exact": [share(each.exact for each in these) for these in kept],
            "nothing wrong": [share(each.nothing_wrong for each in these) for these in kept],
        }
        for label, shares in lines.items():
            axes.plot(THRESHOLDS, [float("nan") if s is None else 100 * s for s in shares], "o-", label=label)
        axes.plot(THRESHOLDS, [100 * len(these) / len(found) for these in kept], "--", color="grey", label="kept")
        axes.set(title=split, xlabel="least cycle IoU", ylim=(0, 100))
    axes.legend()
    figure.axes[0].set_ylabel("% of captions")
    path = RESULTS / f"loop_segmenter_{hardware()}.png"
    figure.savefig(path, dpi=110)
    return path


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--images", type=int, default=150, help="of each split")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results")
    arguments = parser.parse_args()
    started = time.perf_counter()
    measured = {split: described(arguments.model, split, arguments.images) for split in SPLITS}
    minutes = (time.perf_counter() - started) / 60
    assert __doc__ is not None
    explained = __doc__.strip().split("\n\n")[-1].replace("\n", " ")
    body = "\n\n".join([explained, *(section(split, found) for split, found in measured.items())])
    body += f"\n\n{arguments.images} scenes of each split, seed {SEED}; {minutes:.1f} minutes."
    print(body)
    if arguments.write:
        body += f"\n\n![accuracy of the captions kept, against the threshold]({plot(measured).name})"
        title = f"Captions and the loop of the segmenter `{arguments.model}` on held-out scenes"
        print(f"wrote {write_result('loop_segmenter', title, body)}")


if __name__ == "__main__":
    main()
