"""What `bench_learning.py` trains and measures on: generated scenes, photographs, scenes that lost half their boxes."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from harness import fewer

import deixis
from deixis.records import SampleList

NEW_SCENES = "scenes:split=demo_val,count=60,seed=2"
OLD_SCENES = "scenes:split=unseen_pairs,count=60,seed=3"
DATA = Path(os.environ.get("DEIXIS_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


@dataclass(frozen=True)
class Ground:
    """Where a run learns and is measured.

    Attributes:
        training: the pictures of a run.
        new: its names on held-out pictures.
        chosen_on: some pictures for the run's one evaluation, at its end: nothing is chosen on them.
        old: names that the built-in detector knows.
    """

    training: str
    new: str
    chosen_on: str
    old: str = OLD_SCENES


def ground(name: str, pictures: int, seed: int, folder: Path, *, most: int | None = None) -> Ground:
    """The ground of one run; subsets of photographs and scenes that lose boxes are written into `folder`.

    Args:
        most: new names are measured on so many pictures; on all if not given.
    """
    if name == "scenes":
        training = f"scenes:split=demo_train,count={pictures},seed={100 + seed}"
        return Ground(training, fewer(NEW_SCENES, most), "scenes:split=demo_val,count=4,seed=7")
    if name in ("known", "halved"):
        known = f"scenes:split=seen_pairs,count={pictures},seed={100 + seed}"
        held_out = "scenes:split=seen_pairs,count=60,seed=2"
        training = known if name == "known" else str(_halved(known, seed, folder / "halved"))
        return Ground(training, fewer(held_out, most), "scenes:split=seen_pairs,count=4,seed=7")
    everything, test = _photographs(name)
    chosen = np.random.default_rng([seed, pictures]).permutation(len(everything))[: pictures or None]
    training = everything[chosen.tolist()].save(folder / "training", images="link")
    new, chosen_on = test[:most].save(folder / "new", images="link"), test[:4].save(folder / "chosen", images="link")
    return Ground(str(training), str(new), str(chosen_on))


def _photographs(name: str) -> tuple[deixis.OpenedDataset, deixis.OpenedDataset]:
    """Those to train on and those that are held out, the same for all runs."""
    if name == "cards":
        train, test = (deixis.read_dataset(DATA / "playing_cards_voc" / part) for part in ("train", "test"))
        return train, test
    train, test = deixis.read_dataset(DATA / "raccoon_voc").split(val=0.3)
    return train, test


def _halved(known: str, seed: int, folder: Path) -> Path:
    """Scenes of which every second box, drawn over all of them, is not annotated."""
    data = deixis.read_dataset(known)
    draw = np.random.default_rng(seed)
    samples = []
    for sample in data:
        kept = draw.random(len(sample.instances)) < 0.5
        samples.append(replace(sample, instances=sample.instances.select(kept)))
    return deixis.data.opened.opened(SampleList(tuple(samples), data.vocabulary, known)).save(folder)
