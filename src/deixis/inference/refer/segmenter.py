"""Segmentation by phrases: images and phrases in, masks out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deixis.batch_records import Grids
from deixis.data.pixels.tiles import squashed
from deixis.data.refer.conversation import question_for, single_turn
from deixis.data.refer.loading import pictured
from deixis.errors import DataError, OptionError, PromptError
from deixis.evaluation.refer_iou import ReferMetrics, evaluate_segmentations
from deixis.inference.device import best_device
from deixis.inference.eval_mode import evaluating
from deixis.inference.images import ImageInput, Picture, each_picture
from deixis.inference.prefetch import read_ahead
from deixis.inference.refer.pictures import Prepared, grouped, middle_px, segmentation_of
from deixis.models.sa2va import ConversationTokens, Sa2vaBundle, SamLevels, answer, load_sa2va, segment, select_mask
from deixis.models.sa2va.language.answers import Answer
from deixis.refer_records import Expression, ReferDataset, ReferSample, Segmentation
from deixis.results.segmentations import Segmentations

Progress = Callable[[int, int], None]


class Segmenter:
    """A segmenter on a device, ready to predict.

    Args:
        max_tiles: the vision-language model sees an image in at most this many tiles.
        threshold: a mask is left empty where the probability that the object is visible is below this; by default the
            model's own. Only models of behaviour `deixis` predict that probability.
        generate: let the model write its answer. By default it is given the standard answer, which takes one forward
            pass and always contains the `[SEG]`.
    """

    def __init__(
        self,
        bundle: Sa2vaBundle,
        device: str | torch.device = "cpu",
        max_tiles: int = 12,
        *,
        threshold: float | None = None,
        generate: bool = False,
    ) -> None:
        threshold = bundle.presence_threshold if threshold is None else threshold
        if not 0 <= threshold <= 1:
            raise OptionError(f"threshold must be between 0 and 1, got {threshold}")
        self.bundle = bundle
        self.device = torch.device(device)
        self.max_tiles = max_tiles
        self.threshold = threshold
        self.generate = generate
        self.tokens = ConversationTokens.of(bundle)
        bundle.model.to(self.device)

    def segment(
        self, images: ImageInput, phrases: Sequence[str], batch_size: int = 8, *, progress: Progress | None = None
    ) -> list[Segmentations]:
        """The mask of each phrase in each image.

        Args:
            images: one or many of path, folder, pattern, URL, PIL image, array, tensor, bytes, video; see
                `deixis.data.inputs.pictures`.
            batch_size: phrases per forward pass.

        Returns:
            For each image one record per phrase, in order; masks in the size of the image.

        Raises:
            DataError: an image cannot be read.
            PromptError: `phrases` is not a list, or a phrase is blank or contains a special token.
        """
        pictures = list(each_picture(images))
        found = []
        for segmentations in self.stream(pictures, phrases, batch_size):
            found.append(segmentations)
            if progress is not None:
                progress(len(found), len(pictures))
        return found

    def stream(self, images: ImageInput, phrases: Sequence[str], batch_size: int = 8) -> Iterator[Segmentations]:
        """The same, image by image, for folders, videos and generators that do not fit in memory.

        Images with fewer phrases than `batch_size` share a pass: for a camera it is the number of phrases.
        """
        if isinstance(phrases, str):
            raise PromptError(f"phrases must be a list, got the string {phrases!r}; write [{phrases!r}]")
        if not phrases or any(not phrase.strip() for phrase in phrases):
            raise PromptError(f"phrases are required and must not be blank, got {list(phrases)}")
        if batch_size < 1:
            raise OptionError(f"batch_size must be at least 1, got {batch_size}")
        asked = tuple(Expression((phrase,), ()) for phrase in phrases)
        waiting: deque[Picture] = deque()  # those that are read, and not yet answered

        def prepare(numbered: tuple[int, Picture]) -> Prepared:
            pixels = numbered[1].load()
            return self._prepare(ReferSample(pixels, (pixels.shape[0], pixels.shape[1]), asked, image_id=numbered[0]))

        def pictures() -> Iterator[tuple[int, Picture]]:
            for number, picture in enumerate(each_picture(images)):
                waiting.append(picture)
                yield number, picture

        def answered() -> Iterator[Segmentations]:
            with evaluating(self.bundle.model):
                for sample, found in self._answers(read_ahead(prepare, pictures()), batch_size):
                    yield Segmentations(tuple(found), waiting.popleft(), sample.size_hw)

        return answered()

    def evaluate(
        self, dataset: ReferDataset, batch_size: int = 8, *, limit: int | None = None, progress: Progress | None = None
    ) -> tuple[ReferMetrics, list[tuple[ReferSample, list[Segmentation]]]]:
        """Metrics on a data set, in which every sentence of every expression counts separately, and the predictions.

        Args:
            limit: only the first `limit` images.

        Raises:
            DataError: an image cannot be read, or no image has a phrase.
        """
        indices = range(len(dataset) if limit is None else min(limit, len(dataset)))
        answers = list(self.run(dataset, batch_size, indices, progress=progress))
        if not any(segmentations for _, segmentations in answers):
            raise DataError(f"{len(indices)} images without a phrase, so there is nothing to measure; use other data")
        truth, found = [sample for sample, _ in answers], [segmentations for _, segmentations in answers]
        return evaluate_segmentations(truth, found), answers

    def run(
        self,
        dataset: ReferDataset,
        batch_size: int = 8,
        indices: Sequence[int] | None = None,
        *,
        progress: Progress | None = None,
    ) -> Iterator[tuple[ReferSample, list[Segmentation]]]:
        """Each image's annotations (without its pixels) and one record per sentence, in order of expressions."""
        if batch_size < 1:
            raise OptionError(f"batch_size must be at least 1, got {batch_size}")
        chosen = range(len(dataset)) if indices is None else indices
        done = 0
        with evaluating(self.bundle.model):
            prepared = read_ahead(lambda index: self._prepare(pictured(dataset[index])), chosen)
            for answer in self._answers(prepared, batch_size):
                yield answer
                done += 1
                if progress is not None:
                    progress(done, len(chosen))

    def _answers(
        self, prepared: Iterable[Prepared], batch_size: int
    ) -> Iterator[tuple[ReferSample, list[Segmentation]]]:
        for group in grouped(prepared, batch_size):
            yield from zip((item.sample for item in group), self._answer(group, batch_size), strict=True)

    def _prepare(self, sample: ReferSample) -> Prepared:
        """An image with its pixels, resized for the model."""
        assert isinstance(sample.image, np.ndarray)
        side = self.bundle.sam_px
        return Prepared(
            sample.evolve(image=Path()),  # pixels are not kept, only annotations are handed on
            tuple(text for expression in sample.expressions for text in expression.texts),
            self.bundle.cutter.cut(sample.image, self.max_tiles),
            # [3, side, side]: SAM 2's square
            torch.from_numpy(squashed(sample.image, (side, side)).transpose(2, 0, 1).copy()),
        )

    @torch.no_grad()
    def _answer(self, group: Sequence[Prepared], batch_size: int) -> list[list[Segmentation]]:
        """Both encoders run once per image; then all phrases in batches."""
        model, bundle = self.bundle.model, self.bundle
        counts = [len(item.cut.squares) for item in group]
        # [all tiles of the group, 3, tile, tile]
        tiles = torch.from_numpy(np.concatenate([item.cut.squares for item in group])).to(self.device)
        grids = tuple(grid for item in group for grid in item.grids)
        # [tiles, tile_tokens, channels] for each image
        vision = torch.split(model.vision_features(bundle.normalise_tiles(tiles), grids), counts)
        # three levels of [images, channels, h, w]
        levels = model.sam_features(
            bundle.normalise_sam(torch.stack([item.sam_pixels for item in group]).to(self.device))
        )
        # a row per phrase: images with few phrases share a batch with others
        rows = [(image, text) for image, item in enumerate(group) for text in item.texts]
        answers: list[list[Segmentation]] = [[] for _ in group]
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            images = sorted({image for image, _ in part})  # only these are handed on
            # one row per phrase, images repeated
            pyramid = (levels[0][images], levels[1][images], levels[2][images])  # [images of this batch, c, h, w] each
            asked = [(images.index(image), text) for image, text in part]  # numbered within the batch
            find = self._generated if self.generate else self._given
            seen = [vision[image] for image in images]
            masks = find(asked, seen, tuple(group[image].grids for image in images), pyramid)
            for (image, text), (logits, iou, present, said) in zip(part, masks, strict=True):
                record = self._record(group[image].sample, text, logits, iou=iou, present=present, answer=said)
                answers[image].append(record)
        return answers

    def _given(
        self, asked: Sequence[tuple[int, str]], vision: Sequence[Tensor], grids: Grids, levels: SamLevels
    ) -> list[tuple[Float[Tensor, "side side"] | None, float, float, str]]:
        """For each (index into `vision`, phrase): logits, predicted IoU, probability of presence, standard answer."""
        counts = tuple(len(tiles) for tiles in vision)
        # the standard answer is given, so one forward pass has the state at `[SEG]`
        turns = [single_turn(text, self.bundle.behaviour) for _, text in asked]
        given = [self.tokens([turn], counts[image])[0] for (image, _), turn in zip(asked, turns, strict=True)]
        input_ids, attention_mask = self.tokens.padded(given, self.device)  # [phrases, tokens]
        images = tuple(image for image, _ in asked)
        outputs = segment(
            self.bundle.model, input_ids, attention_mask, images, counts, torch.cat(tuple(vision)), levels, grids=grids
        )
        chosen = select_mask(outputs, self.bundle.behaviour)
        scores = zip(chosen.logits, chosen.ious.tolist(), chosen.present.tolist(), strict=True)
        return [(*found, turn.answer) for found, turn in zip(scores, turns, strict=True)]

    def _generated(
        self, asked: Sequence[tuple[int, str]], vision: Sequence[Tensor], grids: Grids, levels: SamLevels
    ) -> list[tuple[Float[Tensor, "side side"] | None, float, float, str]]:
        """As `_given`, with the answer that the model writes. The language model reads the image once per phrase."""
        bundle = self.bundle
        images = [image for image, _ in asked]
        counts = tuple(len(vision[image]) for image in images)
        questions = [
            self.tokens.question(question_for(text, bundle.behaviour), count)
            for (_, text), count in zip(asked, counts, strict=True)
        ]
        input_ids, attention_mask = self.tokens.padded(questions, self.device)  # [phrases, tokens]
        # [tiles of all rows, tile tokens, C]: an image again for each of its phrases
        seen = torch.cat([vision[image] for image in images])
        pyramid = (levels[0][images], levels[1][images], levels[2][images])
        placed = tuple(grids[image] for image in images)
        answers = answer(bundle, input_ids, attention_mask, counts, seen, pyramid, grids=placed)
        return [self._joined(answered) for answered in answers]

    def _joined(self, answered: Answer) -> tuple[Float[Tensor, "side side"] | None, float, float, str]:
        """One mask per generated answer: None without a `[SEG]`; of several the union of those that are present."""
        if not len(answered.masks.logits):
            return None, 0.0, 0.0, answered.text
        outputs = {
            "pred_masks": answered.masks.logits,
            "pred_ious": answered.masks.ious,
            "object_scores": answered.masks.object_scores,
        }
        chosen = select_mask(outputs, self.bundle.behaviour)
        there = chosen.present >= self.threshold  # [answers with a mask]
        if not there.any():
            return None, float(chosen.ious.max()), float(chosen.present.max()), answered.text
        logits = chosen.logits[there].amax(0)  # [side, side]: the union of masks is the maximum of their logits
        return logits, float(chosen.ious[there].mean()), float(chosen.present.max()), answered.text

    def _record(
        self, sample: ReferSample, text: str, logits: Tensor | None, *, iou: float, present: float, answer: str
    ) -> Segmentation:
        # below the threshold the mask is empty; its score stays, for curves over thresholds
        shown = None if present < self.threshold else logits
        return segmentation_of(
            shown,
            sample.size_hw,
            text,
            iou=iou,
            present=present,
            answer=answer,
            image_id=sample.image_id,
            via_px=middle_px(self.bundle),
        )


def load_segmenter(
    source: str | Path,
    device: str | torch.device | None = None,
    max_tiles: int = 12,
    *,
    generate: bool = False,
    threshold: float | None = None,
) -> Segmenter:
    """The segmenter of a folder or hub id, ready to predict.

    Args:
        device: by default the first GPU, or the CPU if there is none.
        max_tiles, generate, threshold: see `Segmenter`.

    Raises:
        ModelError: it cannot be read.
    """
    return Segmenter(load_sa2va(source), best_device(device), max_tiles, threshold=threshold, generate=generate)
