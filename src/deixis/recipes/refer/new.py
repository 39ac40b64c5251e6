"""A small segmenter with random weights, to be trained from nothing: how the built-in one began."""

from __future__ import annotations

from pathlib import Path

import torch

from deixis.console import print_text
from deixis.data.refer.conversation import conversation_words
from deixis.data.scenes.images import scene_words
from deixis.data.scenes.phrases import PHRASE_WORDS, plural
from deixis.data.scenes.shapes import KNOWN_SHAPES, NEW_SHAPES
from deixis.errors import OptionError
from deixis.models.sa2va import save_sa2va
from deixis.models.sa2va.small import small_segmenter
from deixis.options.refer_new import ReferNewOptions


def new_segmenter(options: ReferNewOptions) -> Path:
    """Write the folder.

    Raises:
        OptionError: the folder exists.
    """
    if options.output.exists():
        raise OptionError(f"--output: {options.output} exists; name a folder that does not")
    torch.manual_seed(options.seed)
    bundle = small_segmenter((*known_words(), *options.words), memory=True)
    save_sa2va(bundle, options.output)
    count = sum(parameter.numel() for parameter in bundle.model.parameters())
    print_text(f"wrote {options.output}: {count:,} random parameters, {len(bundle.tokenizer):,} tokens")
    return options.output


def known_words() -> tuple[str, ...]:
    """Words of the generated phrases and of the conversations about them.

    The names of the demonstration's shapes are among them: their rows stay untrained until a run brings them.
    """
    new_words = [word for shape in NEW_SHAPES for word in (*shape.split(), *plural(shape).split())]
    plurals = [plural(shape) for shape in KNOWN_SHAPES]
    return (*scene_words(), *plurals, *PHRASE_WORDS, *conversation_words(), *new_words)
