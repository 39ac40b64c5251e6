"""The losses and gradients of a first step, plain and by the layers that `--compile` makes, compared, as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from deixis.data.detect.collate import collate
from deixis.data.detect.prompts import build_prompt
from deixis.data.scenes.images import scenes
from deixis.losses.detection import build_criterion
from deixis.models.grounding_dino import load_grounding_dino
from deixis.models.grounding_dino.compiling import BUCKET_PX, compile_layers
from deixis.training.tasks.detector import detection_losses


def main() -> None:
    plain, compiled = (load_grounding_dino(Path(sys.argv[1])) for _ in range(2))
    compile_layers(compiled.model, torch.device("cpu"))
    samples = [scenes("demo_train", 2, 1)[index] for index in range(2)]
    prompts = [build_prompt(sample.vocabulary.names, plain.prompt_tokenizer, 256) for sample in samples]
    batch = collate(samples, prompts, BUCKET_PX)
    criterion = build_criterion("mm_grounding_dino", decoder_layers=2)
    totals = []
    for bundle in (plain, compiled):
        total, _ = detection_losses(
            bundle.model.train(), bundle.normalise, criterion, batch=batch, normaliser=torch.tensor(4.0)
        )
        total.backward()
        totals.append(total.item())
    worst = 0.0
    for mine, theirs in zip(compiled.model.parameters(), plain.model.parameters(), strict=True):
        if theirs.grad is not None and mine.grad is not None:
            difference = (mine.grad - theirs.grad).abs().max() / (theirs.grad.abs().max() + 1e-3)
            worst = max(worst, float(difference))
    layers = (*compiled.model.model.encoder.layers, *compiled.model.model.decoder.layers)
    found = {
        "same names": list(compiled.model.state_dict()) == list(plain.model.state_dict()),
        "compiled layers": sum(layer._compiled_call_impl is not None for layer in layers),
        "losses": totals,
        "worst gradient": worst,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
