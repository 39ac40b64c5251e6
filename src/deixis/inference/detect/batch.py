"""Any number of prompts asked of a batch of images: each image and each prompt is encoded once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from deixis.data.detect.collate import pad_images, pad_prompts
from deixis.inference.detect.postprocess import merge_detections, postprocess
from deixis.models.grounding_dino import GroundingDinoBundle
from deixis.records import Detections, Prompt, Sample


@torch.no_grad()  # not inference_mode: what a model caches here may be used in training
def detect_batch(
    bundle: GroundingDinoBundle,
    device: torch.device,
    samples: Sequence[Sample],
    prompts: Sequence[Sequence[Prompt]],
    max_detections: int,
) -> list[Detections]:
    """The best detections of each image over all of its prompts.

    The image backbone runs once. Encoder and decoder run on pairs of image and prompt, as many pairs at a time as there
    are images, so that a large vocabulary takes time and no more memory. The text encoder's results are remembered
    by the model from one batch to the next.

    Args:
        samples: decoded and resized.
        prompts: one or more an image; `Detections.names` are their names, one prompt after the other.
    """
    model = bundle.model
    most = max(len(asked) for asked in prompts)
    model.model.prompt_cache.make_room(most)
    pixels_u8, pixel_mask = (tensor.to(device) for tensor in pad_images(samples))
    pyramid = model.encode_image(bundle.normalise(pixels_u8, pixel_mask), pixel_mask)
    # All images' first prompts, then all their second ones: images mostly share prompts, so a pass holds one of them.
    pairs = [(image, turn) for turn in range(most) for image in range(len(samples)) if turn < len(prompts[image])]
    found: list[list[Detections]] = [[] for _ in samples]
    for start in range(0, len(pairs), len(samples)):
        now = pairs[start : start + len(samples)]
        images, asked = [image for image, _ in now], [prompts[image][turn] for image, turn in now]
        input_ids, attention_mask = (tensor.to(device) for tensor in pad_prompts(asked))
        outputs = model.ground(pyramid.select(images), model.encode_text(input_ids, attention_mask))
        sizes_hw, ids = [samples[i].original_size_hw for i in images], [samples[i].image_id for i in images]
        for image, detections in zip(images, postprocess(outputs, asked, sizes_hw, max_detections, ids), strict=True):
            found[image].append(detections)
    return [merge_detections(parts, max_detections) for parts in found]
