"""A vision-language model and SAM 2 joined into a fresh segmenter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from deixis.data.refer.conversation import SEG
from deixis.errors import ModelError
from deixis.models.folders import model_folder, read_tokenizer, reads_model
from deixis.models.sa2va.bundle import IMAGENET_MEAN, IMAGENET_STD, Sa2vaBundle
from deixis.models.sa2va.language.templates import NEW_TOKENS, TEMPLATES, Template
from deixis.models.sa2va.model import Sa2va
from deixis.models.sa2va.weights.pretrained import HUB_FILES, read_sam, read_vlm
from deixis.models.sa2va.weights.released import pixel_statistics

ROW_NOISE = 0.02
"""Deviation of new rows from the mean of all others."""


@reads_model
def join_sa2va(vlm_source: str | Path, sam_source: str | Path, seed: int = 0) -> Sa2vaBundle:
    """A segmenter from its two halves, in evaluation mode, on the CPU.

    What joins them is random, by the seed; the tokens `NEW_TOKENS` are added where the tokenizer lacks them.

    Args:
        vlm_source: folder or hub id of a vision-language model of transformers, such as OpenGVLab/InternVL3-1B-hf.
        sam_source: folder or hub id of a SAM 2 of transformers, such as facebook/sam2.1-hiera-large.

    Raises:
        ModelError: either cannot be read, or no template fits.
    """
    vlm_folder = model_folder(vlm_source, HUB_FILES, "OpenGVLab/InternVL3-1B-hf")
    sam_folder = model_folder(sam_source, HUB_FILES, "facebook/sam2.1-hiera-large")
    tokenizer = read_tokenizer(vlm_folder)
    template = template_for(tokenizer, str(vlm_source))
    vlm, sam = read_vlm(vlm_folder), read_sam(sam_folder)
    # The caller's own stream of random numbers goes on as if nothing had been drawn.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**64)  # torch takes 64 bits, --seed any number
        add_new_tokens(vlm, tokenizer)
        model = Sa2va(vlm, sam, tokenizer.convert_tokens_to_ids(SEG))
    mean, std = pixel_statistics(vlm_folder, (IMAGENET_MEAN, IMAGENET_STD))
    source, blocks = f"{vlm_source} + {sam_source}", model.family.blocks(vlm.config)
    return Sa2vaBundle(model.eval(), tokenizer, template, "deixis", mean, std, source, blocks=blocks)


def add_new_tokens(vlm: Any, tokenizer: Any) -> tuple[int, ...]:
    """Give a model and its tokenizer the tokens of `NEW_TOKENS` that they lack, in place; these tokens' ids.

    Their rows begin at the mean of all others, a little apart. Spare rows of the model are used first.
    """
    known = tokenizer.get_vocab()
    added = [token for token in NEW_TOKENS if token not in known]
    if not added:
        return ()
    old = len(tokenizer)
    tokenizer.add_tokens(added, special_tokens=True)
    if len(tokenizer) > vlm.get_input_embeddings().weight.shape[0]:
        # Their values are set below; transformers' own way draws from the covariance of the whole table.
        vlm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    weights: list[nn.Parameter] = [vlm.get_input_embeddings().weight]
    if vlm.lm_head.weight is not weights[0]:  # otherwise tied: one table for both
        weights.append(vlm.lm_head.weight)
    ids = [tokenizer.convert_tokens_to_ids(token) for token in added]
    with torch.no_grad():
        for weight in weights:
            mean = weight[:old].float().mean(0)  # [hidden]; spare rows were never trained and do not count
            weight[ids] = (mean + ROW_NOISE * torch.randn(len(ids), len(mean))).to(weight.dtype)
    return tuple(ids)


def template_for(tokenizer: Any, source: str) -> Template:
    """The first template all of whose marks are tokens.

    Raises:
        ModelError: none is.
    """
    known = tokenizer.get_vocab()
    for template in TEMPLATES.values():
        marks = (template.end, template.image_start, template.image_token, template.image_end)
        if all(mark in known for mark in marks):
            return template
    raise ModelError(f"{source}: the tokenizer fits no template of {sorted(TEMPLATES)}")
