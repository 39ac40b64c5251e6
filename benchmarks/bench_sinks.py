"""Attention sinks on generated scenes: three kinds, several numbers, and sinks that are trained with all else frozen.

python benchmarks/bench_sinks.py [--images 48] [--steps 40] [--seeds 3] [--write]
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch
from harness import write_result
from torch import Tensor

from deixis.data.detect.collate import collate
from deixis.data.detect.prompts import build_prompt
from deixis.data.detect.transforms import eval_transform
from deixis.data.formats import read_dataset
from deixis.data.pixels.images import load
from deixis.inference.detect.detector import Detector, load_detector
from deixis.losses.detection import PRESETS, build_criterion
from deixis.models.checkpoints import make_sinks, with_sinks
from deixis.records import Dataset

SEEDS = {"unseen_pairs": 3, "demo_val": 2}
SETS = {"seen_pairs": "unseen_pairs", "demo_train": "demo_val"}
KINDS = ("brackets", "mean", "random")
RATE = 3e-2


def trained(detector: Detector, dataset: Dataset, start: Tensor, *, steps: int, seed: int) -> Tensor:
    """Sinks after some steps of four images on the usual loss, in which their tokens are of no class."""
    bundle, rng = detector.bundle, np.random.default_rng(seed)
    model = bundle.model.requires_grad_(False)
    flavour = model.config.model_type.replace("-", "_")
    criterion = build_criterion(PRESETS[flavour], "token", model.config.decoder_layers)
    transform = eval_transform(*bundle.image_size)
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(seed))
    sinks = (start + 0.01 * noise).requires_grad_(True)  # equal sinks would stay equal
    optimiser = torch.optim.AdamW([sinks], lr=RATE, weight_decay=0)
    for _ in range(steps):
        chosen = rng.choice(len(dataset), 4, replace=False)
        samples = [transform(load(dataset[int(i)]), rng) for i in chosen]
        batch = collate(samples, [build_prompt(s.vocabulary.names, bundle.prompt_tokenizer) for s in samples])
        with torch.no_grad():
            pyramid = model.encode_image(bundle.normalise(batch.pixels_u8, batch.pixel_mask), batch.pixel_mask)
            context = model.encode_text(batch.input_ids, batch.attention_mask)
        pad = (0, len(sinks))
        targets = [replace(t, positive_map=torch.nn.functional.pad(t.positive_map, pad)) for t in batch.targets]
        boxes = torch.tensor(float(max(1, sum(len(t.class_ids) for t in targets))))
        loss = criterion.total(criterion(model.ground(pyramid, with_sinks(context, sinks)), targets, boxes))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return sinks.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("images", 48), ("steps", 40), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    rows = ["| scenes | sinks | AP | FPR_bg | AP at FPR_bg 0.05 | F1 |", "|---|---|---|---|---|---|"]

    def measure(dataset: Dataset, what: str, sinks: Tensor | None) -> None:
        detector.use_sinks(sinks)
        found, _ = detector.evaluate(dataset, 8)
        figures = (found.AP, found.FPR_bg, found.AP_at_FPR_bg, found.F1)
        name = str(getattr(dataset, "name", "")).partition("split=")[2].partition(",")[0]
        rows.append(f"| {name} | {what} | " + " | ".join(f"{100 * value:.1f}" for value in figures) + " |")
        print(rows[-1], flush=True)

    detector = load_detector("builtin", "cpu")
    for train, test in SETS.items():
        training = read_dataset(f"scenes:split={train},count=64,seed=1")
        testing = read_dataset(f"scenes:split={test},count={asked.images},seed={SEEDS[test]}")
        names = testing.vocabulary.names
        measure(testing, "none", None)
        for kind in KINDS:
            for count in (8, 16):
                measure(testing, f"{count} {kind}", make_sinks(detector.bundle, count, kind, names))
        for kind in KINDS[:2]:
            start = make_sinks(detector.bundle, 8, kind, names)
            for seed in range(asked.seeds):
                sinks = trained(detector, training, start, steps=asked.steps, seed=seed)
                measure(testing, f"8 {kind}, trained for {asked.steps} steps, seed {seed}", sinks)
    if asked.write:
        write_result("sinks", "Attention sinks on generated scenes, in percent", "\n".join(rows))


if __name__ == "__main__":
    main()
