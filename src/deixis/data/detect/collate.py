"""Samples and prompts of different sizes to one padded batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.utils.data import get_worker_info

from deixis.batch_records import Batch, Prompt, Target
from deixis.data.batching.epochs import SEEDS, EpochDataset, Key
from deixis.data.detect.augment import Augmentation, mix, without_masks
from deixis.data.detect.transforms import Transform
from deixis.data.pixels.images import load
from deixis.errors import DataError
from deixis.geometry.pixel_boxes import normalise_boxes
from deixis.records import Dataset, Sample

PAD_TOKEN_ID = 0


def collate(samples: Sequence[Sample], prompts: Sequence[Prompt], divisor: int = 1, shared: bool = False) -> Batch:
    """One batch of samples, each with its own prompt.

    Images are in the top left corner, zeros fill the rest. Boxes are divided by the *unpadded* size, so an image's
    targets are the same in every batch. Crowd regions are not targets. Class ids are rows of the prompt's positive
    map, found by name, so a prompt may order names as it likes and ask for more than the sample's vocabulary. A box of
    several classes or phrases is one object (`join_phrases`).

    Args:
        samples: decoded samples.
        prompts: one per sample.
        divisor: padded height and width are rounded up to a multiple of it.
        shared: pixels are put together in shared memory, from where another process takes them without a copy.

    Raises:
        DataError: an object's class is not among the names of its prompt.
    """
    assert samples, "a batch needs at least one sample"
    assert len(samples) == len(prompts), f"{len(samples)} samples need as many prompts, got {len(prompts)}"
    pixels, pixel_mask = pad_images(samples, divisor, shared)
    input_ids, attention_mask = pad_prompts(prompts)
    length = input_ids.shape[1]
    targets = tuple(_target(sample, prompt, length) for sample, prompt in zip(samples, prompts, strict=True))
    return Batch(pixels, pixel_mask, input_ids, attention_mask, targets)


def collate_pairs(pairs: Sequence[tuple[Sample, Prompt]], divisor: int = 1) -> Batch:
    """One batch of samples with their prompts; a loading worker puts the pixels into shared memory."""
    samples, prompts = zip(*pairs, strict=True)
    return collate(samples, prompts, divisor, shared=get_worker_info() is not None)


def pad_images(
    samples: Sequence[Sample], divisor: int = 1, shared: bool = False
) -> tuple[UInt8[Tensor, "batch 3 h w"], Bool[Tensor, "batch h w"]]:
    """(pixels, mask) of decoded samples: see `Batch.pixels_u8` and `Batch.pixel_mask`."""
    # rounded up
    height, width = (-(-max(sample.size_hw[axis] for sample in samples) // divisor) * divisor for axis in (0, 1))
    pixels = _black((len(samples), 3, height, width), shared)  # [batch, 3, h, w]
    pixel_mask = torch.zeros((len(samples), height, width), dtype=torch.bool)
    for row, sample in enumerate(samples):
        h, w = sample.size_hw
        _write_channels(sample, pixels[row, :, :h, :w])
        pixel_mask[row, :h, :w] = True
    return pixels, pixel_mask


def pad_prompts(prompts: Sequence[Prompt]) -> tuple[Int[Tensor, "batch tokens"], Bool[Tensor, "batch tokens"]]:
    """(token ids, mask) of prompts: see `Batch.input_ids` and `Batch.attention_mask`."""
    length = max(len(prompt.input_ids) for prompt in prompts)
    input_ids = torch.full((len(prompts), length), PAD_TOKEN_ID, dtype=torch.int64)
    attention_mask = torch.zeros((len(prompts), length), dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        input_ids[row, : len(prompt.input_ids)] = torch.tensor(prompt.input_ids)
        attention_mask[row, : len(prompt.input_ids)] = True
    return input_ids, attention_mask


def _black(shape: tuple[int, ...], shared: bool) -> UInt8[Tensor, "batch 3 h w"]:
    if not shared:
        return torch.from_numpy(np.zeros(shape, np.uint8))  # NumPy's large arrays lie in huge pages: cheap to fill
    storage = torch.UntypedStorage._new_shared(math.prod(shape))  # type: ignore[no-untyped-call]
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, torch.Size(shape), strides)  # as torch's own collation


def _write_channels(sample: Sample, out: UInt8[Tensor, "3 h w"]) -> None:
    """Channels last to channels first; OpenCV splits several times faster than a strided copy."""
    assert isinstance(sample.image, np.ndarray), "decode the sample first: deixis.data.pixels.images.load"
    cv2.split(sample.image, list(out.numpy()))


def _target(sample: Sample, prompt: Prompt, length: int) -> Target:
    instances = sample.instances.select(~sample.instances.is_crowd)
    positive_map = torch.zeros((len(prompt.names), length), dtype=torch.float32)
    # [classes, tokens of this prompt] into [classes, tokens of the batch's longest]
    positive_map[:, : prompt.positive_map.shape[1]] = torch.from_numpy(np.asarray(prompt.positive_map, np.float32))
    boxes = normalise_boxes(instances.boxes_xyxy_px, sample.size_hw)
    # rows of `positive_map`
    class_ids = torch.tensor(_prompt_rows(sample, prompt, instances.class_ids.tolist()), dtype=torch.int64)
    boxes, class_ids, positive_map = join_phrases(boxes, class_ids, positive_map)
    return Target(
        boxes_cxcywh_norm=torch.from_numpy(boxes.astype(np.float32)),
        class_ids=class_ids,
        positive_map=positive_map,
        size_hw=sample.size_hw,
        original_size_hw=sample.original_size_hw,
        image_id=sample.image_id,
        source=sample.source,
        unjudged_class_ids=_unjudged_rows(sample, prompt),
        seed=sample.seed,
    )


def _unjudged_rows(sample: Sample, prompt: Prompt) -> tuple[int, ...]:
    """The names asked for of which the image may show objects that nobody annotated."""
    if sample.absent_class_ids is None and not sample.not_exhaustive_class_ids:
        return ()
    class_ids = {name: i for i, name in enumerate(sample.vocabulary.names)}
    return tuple(row for row, name in enumerate(prompt.names) if not sample.judges(class_ids.get(name, -1)))


def join_phrases(
    boxes: Float[np.ndarray, "n 4"], rows: Int[Tensor, " n"], positive_map: Float[Tensor, "phrases tokens"]
) -> tuple[Float[np.ndarray, "m 4"], Int[Tensor, " m"], Float[Tensor, "rows tokens"]]:
    """One object for each box of several phrases, or classes.

    As an object for each phrase it would need as many queries, each of them negative on the tokens of the other
    phrases. As one, it is positive on the tokens of them all, in a row behind those of the phrases that sums to 1.
    Boxes that are repeated for one phrase stay.
    """
    # By exact coordinates: files repeat an object's box for each of its phrases.
    phrases_of: dict[tuple[float, ...], set[int]] = {}
    keys = [tuple(box) for box in boxes.tolist()]
    for key, row in zip(keys, rows.tolist(), strict=True):
        phrases_of.setdefault(key, set()).add(row)
    if len(phrases_of) == len(keys):
        return boxes, rows, positive_map
    joined: dict[frozenset[int], int] = {}
    kept, ids = [], []
    for place, (key, row) in enumerate(zip(keys, rows.tolist(), strict=True)):
        phrases = frozenset(phrases_of[key])
        if len(phrases) == 1:
            kept.append(place)
            ids.append(row)
        elif keys.index(key) == place:  # at the first of its repeats; the others go
            kept.append(place)
            ids.append(joined.setdefault(phrases, len(positive_map) + len(joined)))
    tokens = [(positive_map[sorted(phrases)] > 0).any(0).to(positive_map.dtype) for phrases in joined]
    more = [row / row.sum() for row in tokens]
    return boxes[kept], rows.new_tensor(ids), torch.cat((positive_map, torch.stack(more))) if more else positive_map


def _prompt_rows(sample: Sample, prompt: Prompt, class_ids: Sequence[int]) -> list[int]:
    names = sample.vocabulary.names
    if names == prompt.names:
        return list(class_ids)
    rows = {name: row for row, name in enumerate(prompt.names)}
    absent = sorted({names[i] for i in class_ids} - rows.keys())
    if absent:
        raise DataError(
            f"{sample.source}: objects of classes {absent} are not among the names of their prompt {list(prompt.names)}"
        )
    return [rows[names[i]] for i in class_ids]


PromptFor = Callable[[Sample, np.random.Generator], Prompt]


class SampleDataset(EpochDataset):
    """Decoded, transformed samples with their prompts, by (epoch, index).

    Args:
        dataset: where samples come from.
        transform: draws what is random from the generator it is handed.
        prompt_for: the prompt of a transformed sample; may draw too (negative names, order).
        seed: not negative.
        decode_short_px: lets JPEGs be decoded smaller, down to this short side; see `images.load_image`. Give the
            largest short side of the transform, divided by the smallest share of a crop.
        mixed: with which other samples are mixed into one before the transform. Only this needs masks: a detector's
            batch has none, and their resizing costs time.
    """

    def __init__(
        self,
        dataset: Dataset,
        transform: Transform,
        prompt_for: PromptFor,
        seed: int,
        decode_short_px: int | None = None,
        mixed: Augmentation | None = None,
    ) -> None:
        super().__init__(dataset, seed)
        self.transform = transform
        self.prompt_for = prompt_for
        self.decode_short_px = decode_short_px
        self.mixed = mixed

    def __getitem__(self, key: Key) -> tuple[Sample, Prompt]:
        """The sample of an epoch.

        Raises:
            DataError: its image cannot be read; the message names the file.
        """
        sample, generator = self.drawn(key)
        sample = self._decoded(sample)
        if self.mixed is not None and (self.mixed.paste or self.mixed.mosaic or self.mixed.mixup):
            sample = mix(sample, self.mixed, generator, partial(self._other, key[0], generator))
        sample = self.transform(sample, generator)
        prompt = self.prompt_for(sample, generator)
        # for what the step draws for this image on the device, such as denoising queries
        return sample.evolve(seed=int(generator.integers(SEEDS))), prompt

    def _other(self, epoch: int, generator: np.random.Generator) -> Sample:
        """Any sample of an epoch, decoded."""
        sample, _ = self.drawn((epoch, int(generator.integers(len(self)))))
        return self._decoded(sample)

    def _decoded(self, sample: Sample) -> Sample:
        wanted = self.mixed is not None and self.mixed.paste > 0
        return load(sample if wanted else without_masks(sample), self.decode_short_px)
