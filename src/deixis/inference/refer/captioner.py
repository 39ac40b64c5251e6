"""Captions of masks: images and masks in, text out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from pycocotools import mask as coco_mask
from torch import Tensor

from deixis.batch_records import Regions
from deixis.data.pixels.regions import RegionViews, region_views
from deixis.data.pixels.tiles import tiles_of, union_mask
from deixis.data.refer.conversation import caption_turn, has_pixels
from deixis.data.refer.loading import pictured
from deixis.data.scenes.refer_scenes import ReferScenes, SceneThings
from deixis.errors import DataError, OptionError
from deixis.evaluation.captions import CaptionMetrics, evaluate_captions
from deixis.geometry.rle import bitmap_rle
from deixis.inference.device import best_device
from deixis.inference.eval_mode import evaluating
from deixis.inference.images import ImageInput, as_pixels, each_picture
from deixis.inference.prefetch import read_ahead
from deixis.models.sa2va import REGION_START, ConversationTokens, Sa2vaBundle, describe, load_sa2va, sampler
from deixis.records import Rle
from deixis.refer_records import Caption, Expression, ReferDataset, ReferSample, Segmentation

Progress = Callable[[int, int], None]
MaskInput = Bool[np.ndarray, "h w"] | Rle | Segmentation


@dataclass(frozen=True)
class _Prepared:
    """One image and its regions, resized for the model."""

    sample: ReferSample
    index: int
    masks: tuple[Rle, ...]
    tiles: Tensor
    views: tuple[RegionViews, ...]


class Captioner:
    """A segmenter on a device, ready to describe masks. Each region is asked about separately, so that its caption
    does not depend on the other regions.

    Args:
        max_tiles: the vision-language model sees an image in at most this many tiles.
        max_new_tokens: maximum length of a caption.
        temperature: 0 always takes the most probable token; above 0, tokens are sampled.
        top_p: see `sampler`.
        seed: of sampling, together with the region's position in the data.
    """

    def __init__(
        self,
        bundle: Sa2vaBundle,
        device: str | torch.device = "cpu",
        max_tiles: int = 12,
        *,
        max_new_tokens: int = 40,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> None:
        if temperature < 0 or not 0 < top_p <= 1 or max_new_tokens < 1 or seed < 0:
            raise OptionError(
                f"expected temperature >= 0, 0 < top_p <= 1, max_new_tokens >= 1 and seed >= 0; "
                f"got {temperature}, {top_p}, {max_new_tokens} and {seed}"
            )
        bundle.require_regions()
        self.bundle = bundle
        self.device = torch.device(device)
        self.max_tiles, self.max_new_tokens = max_tiles, max_new_tokens
        self.temperature, self.top_p, self.seed = temperature, top_p, seed
        self.tokens = ConversationTokens.of(bundle)
        self.region_start_id = int(bundle.tokenizer.convert_tokens_to_ids(REGION_START))
        bundle.model.to(self.device)

    def caption(
        self,
        images: ImageInput,
        masks: Iterable[Sequence[MaskInput]],
        batch_size: int = 8,
        *,
        progress: Progress | None = None,
    ) -> list[list[Caption]]:
        """Captions of masks.

        Args:
            images: one or many of path, folder, pattern, URL, PIL image, array, tensor, bytes, video; see
                `deixis.data.inputs.pictures`.
            masks: for each image any number of them, as boolean arrays of the image's size, as COCO RLE, or as
                a segmenter gives them.
            batch_size: regions per forward pass.

        Returns:
            For each image one caption per mask, in order.

        Raises:
            DataError: an image cannot be read, a mask is empty or of another size, or the two lists differ in length.
        """
        pictures, regions = list(each_picture(images)), [[_rle(mask) for mask in of_image] for of_image in masks]
        if len(pictures) != len(regions):
            raise DataError(
                f"got masks for {len(regions)} images, expected {len(pictures)}; give one list of masks per image"
            )
        return [found for _, found in self.run(_Masked(pictures, regions), batch_size, progress=progress)]

    def run(
        self,
        dataset: ReferDataset,
        batch_size: int = 8,
        indices: Sequence[int] | None = None,
        *,
        progress: Progress | None = None,
    ) -> Iterator[tuple[ReferSample, list[Caption]]]:
        """Each image's annotations (without its pixels) and one caption per expression with a visible mask, in order.

        Raises:
            DataError: an image cannot be read.
        """
        if batch_size < 1:
            raise OptionError(f"batch_size must be at least 1, got {batch_size}")
        chosen = range(len(dataset)) if indices is None else indices
        done = 0
        with evaluating(self.bundle.model):
            for item in read_ahead(lambda index: self._prepared(dataset, index), chosen):
                yield item.sample, self._describe(item, batch_size)
                done += 1
                if progress is not None:
                    progress(done, len(chosen))

    def evaluate(
        self, dataset: ReferDataset, batch_size: int = 8, *, limit: int | None = None, progress: Progress | None = None
    ) -> tuple[CaptionMetrics, list[tuple[ReferSample, list[Caption]]]]:
        """Metrics on a data set, and the captions. The masks of an expression are a region, its sentences the
        references. In generated scenes each object is a region, and its attributes are measured too.

        Args:
            limit: only the first `limit` images.

        Raises:
            DataError: an image cannot be read, or no mask has a sentence.
        """
        indices = range(len(dataset) if limit is None else min(limit, len(dataset)))
        scenes = dataset if isinstance(dataset, ReferScenes) else None
        answers = list(self.run(SceneThings(scenes) if scenes else dataset, batch_size, indices, progress=progress))
        return measured_captions(dataset, answers), answers

    def _prepared(self, dataset: ReferDataset, index: int) -> _Prepared:
        sample = pictured(dataset[index])
        assert isinstance(sample.image, np.ndarray)
        # [tiles, 3, tile, tile]; the last shows the whole image
        tiles = tiles_of(sample.image, self.bundle.tile_px, self.max_tiles)
        # a tile's tokens form a square of this side
        side, released = round(self.bundle.tokens_per_tile**0.5), self.bundle.behaviour == "sa2va"
        outlined = self.bundle.model.spatial_token is not None
        regions = [expression.masks_rle for expression in sample.expressions if has_pixels(expression)]
        # Each region has a conversation of its own, and so views of its own: its cells are numbered as if it were
        # alone.
        views = tuple(
            region_views(sample.image, [mask], len(tiles), self.bundle.tile_px, side, released, outlined)
            for mask in (union_mask(masks, sample.size_hw) for masks in regions)
        )
        # one region per expression
        joined = tuple(masks[0] if len(masks) == 1 else coco_mask.merge(list(masks)) for masks in regions)
        return _Prepared(sample.evolve(image=Path()), index, joined, torch.from_numpy(tiles), views)

    @torch.no_grad()
    def _describe(self, item: _Prepared, batch_size: int) -> list[Caption]:
        """The vision encoder runs once per image, the language model once per batch of regions."""
        if not item.views:
            return []
        bundle = self.bundle
        # [tiles, tile_tokens, channels]
        whole = bundle.model.vision_features(bundle.normalise_tiles(item.tiles.to(self.device)))
        said = []
        # the image's own tokens are repeated for each region; its vision features were computed once
        for start in range(0, len(item.views), batch_size):
            part = item.views[start : start + batch_size]
            focal = torch.from_numpy(np.concatenate([views.focal for views in part])).to(self.device)
            # [all close views of the batch, tile_tokens, channels]
            close = bundle.model.vision_features(bundle.normalise_tiles(focal)) if len(focal) else whole[:0]
            # [views, tile_tokens, channels] for each region
            seen = torch.split(close, [len(views.focal) for views in part])
            asked = [
                self.tokens.question(caption_turn().question, len(whole), [len(cells) for cells in views.cells])
                for views in part
            ]
            said += describe(
                bundle,
                *self.tokens.padded(asked, self.device),
                tuple(len(whole) + len(views.focal) for views in part),
                # Every row has the whole image, then its own region's close view.
                torch.cat([tokens for views in seen for tokens in (whole, views)]),
                self._regions(part),
                self.max_new_tokens,
                self._choose(item.index, range(start, start + len(part))),
                # image and words before the region are the same in all rows
                shared_tokens=asked[0].index(self.region_start_id),
            )
        return [
            Caption(found.text, found.score, mask, item.sample.image_id)
            for found, mask in zip(said, item.masks, strict=True)
        ]

    def _regions(self, part: Sequence[RegionViews]) -> Regions:
        """One region per row of the batch."""
        outlined = self.bundle.model.spatial_token is not None
        outlines = tuple(torch.from_numpy(views.outlines).to(self.device) for views in part) if outlined else ()
        return Regions(tuple(len(views.focal) for views in part), tuple(views.cells[0] for views in part), outlines)

    def _choose(self, index: int, regions: Iterable[int]) -> Any:
        """A sampler that draws the same tokens for a region in every batch; None takes the most probable tokens."""
        if not self.temperature:
            return None
        # by place in the data, not by place in the batch: captions do not depend on the batch size
        seeds = [int(np.random.SeedSequence([self.seed, index, region]).generate_state(1)[0]) for region in regions]
        return sampler(seeds, self.temperature, self.top_p)


def measured_captions(
    dataset: ReferDataset, answers: Sequence[tuple[ReferSample, Sequence[Caption]]]
) -> CaptionMetrics:
    """Metrics of the captions of a data set's first images.

    Raises:
        DataError: no mask has a sentence.
    """
    truth, captions = [sample for sample, _ in answers], [found for _, found in answers]
    things = [dataset.scene(n)[0].things for n in range(len(answers))] if isinstance(dataset, ReferScenes) else None
    return evaluate_captions(truth, captions, things)


class _Masked:
    """Images with masks as a data set; each image is read on access."""

    name = "pictures"

    def __init__(self, images: Sequence[ImageInput], masks: Sequence[Sequence[Rle]]) -> None:
        self.images = images
        self.masks = masks

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int, /) -> ReferSample:
        pixels = as_pixels(self.images[index])
        expressions = tuple(Expression((), (mask,)) for mask in self.masks[index])
        source = f"image {index}"
        for number, expression in enumerate(expressions, start=1):
            if not has_pixels(expression):
                raise DataError(f"{source}: mask {number} is empty, so there is nothing to describe")
        return ReferSample(pixels, (pixels.shape[0], pixels.shape[1]), expressions, image_id=index, source=source)


def load_captioner(source: str | Path, device: str | torch.device | None = None, **options: Any) -> Captioner:
    """The captioner of a segmenter's folder or hub id, by default on the first GPU; options are those of `Captioner`.

    Raises:
        ModelError: it cannot be read.
    """
    return Captioner(load_sa2va(source), best_device(device), **options)


def _rle(mask: MaskInput) -> Rle:
    if isinstance(mask, Segmentation):
        return mask.mask_rle
    return mask if isinstance(mask, Mapping) else bitmap_rle(mask)
