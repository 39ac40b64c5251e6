"""Detecting with any number of prompts per image: each image and each prompt is encoded once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from deixis.batch_records import Prompt
from deixis.data.detect.collate import pad_images, pad_prompts
from deixis.inference.detect.postprocess import merge_detections, postprocess
from deixis.models.checkpoints import UsableDetector, with_sinks
from deixis.records import Sample
from deixis.results.detections import Detections


@torch.no_grad()  # not inference_mode: what a model caches here may be used in training
def detect_batch(
    bundle: UsableDetector,
    device: torch.device,
    samples: Sequence[Sample],
    *,
    prompts: Sequence[Sequence[Prompt]],
    max_detections: int,
    sinks: Float[Tensor, "sinks channels"] | None = None,
) -> list[Detections]:
    """The best detections of each image over all of its prompts.

    The image backbone runs once per image. Encoder and decoder run on pairs of image and prompt, as many pairs at a
    time as there are images, so a large vocabulary takes more time but no more memory. The model caches the text
    encoder's results from one batch to the next.

    Images of one size go together, so that nothing is padded: the backbone's windows, group norm and the positions of
    queries all see padding, and scores would depend on what else is in the batch (by up to 0.17 with the built-in
    model on mixed portrait and landscape pictures).

    Args:
        samples: decoded and resized.
        prompts: one or more per image; `Detections.names` are their names, one prompt after the other.
        sinks: tokens behind each prompt whose detections do not count.

    Returns:
        One record per image, best first.
    """
    by_size: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for place, sample in enumerate(samples):
        by_size[sample.size_hw].append(place)
    found: dict[int, Detections] = {}
    for places in by_size.values():
        alike, asked = [samples[place] for place in places], [prompts[place] for place in places]
        parts = _of_one_size(bundle, device, alike, prompts=asked, max_detections=max_detections, sinks=sinks)
        found |= zip(places, parts, strict=True)
    return [found[place] for place in range(len(samples))]


def _of_one_size(
    bundle: UsableDetector,
    device: torch.device,
    samples: Sequence[Sample],
    *,
    prompts: Sequence[Sequence[Prompt]],
    max_detections: int,
    sinks: Float[Tensor, "sinks channels"] | None,
) -> list[Detections]:
    """`detect_batch` for images that need no padding."""
    model: Any = bundle.model  # a network or an exported file: each takes what its own methods give
    turns = max(len(asked) for asked in prompts)
    # The cache forgets the oldest prompt: with one place too few, prompts asked in turn would never be found in it.
    model.make_room(turns)
    # [images, 3, h, w] and [images, h, w]; of one size, so the mask is true everywhere
    pixels_u8, pixel_mask = (tensor.to(device) for tensor in pad_images(samples))
    pyramid = model.encode_image(bundle.normalise(pixels_u8, pixel_mask), pixel_mask)
    # First the first prompt of every image, then the second: images mostly share prompts, so a pass has one prompt.
    pairs = [(image, turn) for turn in range(turns) for image in range(len(samples)) if turn < len(prompts[image])]
    found: list[list[Detections]] = [[] for _ in samples]
    for start in range(0, len(pairs), len(samples)):
        now = pairs[start : start + len(samples)]
        images, asked = [image for image, _ in now], [prompts[image][turn] for image, turn in now]
        input_ids, attention_mask = (tensor.to(device) for tensor in pad_prompts(asked))
        # [pairs, queries, ...], one prompt per pair
        context = model.encode_text(input_ids, attention_mask)
        context = context if sinks is None else with_sinks(context, sinks)
        # the features of each pair's image: an image occurs once per prompt in this pass
        outputs = model.ground(pyramid.select(images), context)
        sizes_hw, ids = [samples[i].original_size_hw for i in images], [samples[i].image_id for i in images]
        for image, detections in zip(
            images, postprocess(outputs, asked, sizes_hw, max_detections=max_detections, image_ids=ids), strict=True
        ):
            found[image].append(detections)
    return [merge_detections(parts, max_detections) for parts in found]
