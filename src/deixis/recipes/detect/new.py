"""A small detector with random weights, to be trained from nothing: how the built-in one began."""

from __future__ import annotations

from pathlib import Path

import torch

from deixis.console import print_text
from deixis.data.scenes.images import scene_words
from deixis.errors import OptionError
from deixis.models.grounding_dino import init_bundle, save_grounding_dino
from deixis.models.grounding_dino.small import IMAGE_SIZE, small_config, small_tokenizer
from deixis.options.detect_new import DetectNewOptions


def new_detector(options: DetectNewOptions) -> Path:
    """Write the folder.

    Raises:
        OptionError: the folder exists.
    """
    if options.output.exists():
        raise OptionError(f"--output: {options.output} exists; name a folder that does not")
    torch.manual_seed(options.seed)
    tokenizer = small_tokenizer((*scene_words(), *options.words))
    bundle = init_bundle(small_config(len(tokenizer)), tokenizer, image_size=IMAGE_SIZE)
    save_grounding_dino(bundle, options.output)
    count = sum(parameter.numel() for parameter in bundle.model.parameters())
    print_text(f"wrote {options.output}: {count:,} random parameters, {len(tokenizer):,} tokens")
    return options.output
