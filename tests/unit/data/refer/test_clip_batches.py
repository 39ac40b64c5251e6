"""Clips in training: which frames are shown, their masks, and one `[SEG]` in all of them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from clip_miniatures import box, moving_bar
from pycocotools import mask as coco_mask
from refer_batches import SEG_ID, encode
from small_segmenters import tiny_segmenter

from deixis.batch_records import ReferBatch
from deixis.data.batching.epochs import epoch_batches
from deixis.data.batching.loading import load_batches
from deixis.data.pixels.frames import ArrayFrames
from deixis.data.pixels.tiles import squashed_mask, union_mask
from deixis.data.refer.collate import Views, collate_questions
from deixis.data.refer.loading import QuestionDataset, clip_question, sample_frames
from deixis.data.scenes.clip_scenes import clip_scenes
from deixis.data.scenes.refer_scenes import refer_scenes
from deixis.errors import DataError
from deixis.losses.refer import ReferCriterion
from deixis.models.sa2va import ConversationTokens
from deixis.models.sa2va.regions import in_every_frame
from deixis.training.tasks.segmenter import one_question
from deixis.video_records import Clip, ClipExpression, Masklet

VIEWS = Views(tile_px=32, max_tiles=4, sam_px=64, mask_px=16, tile_side=2)


def clip(*seen: str, labelled: tuple[int, ...] | None = None) -> Clip:
    """Objects by a text each, `.x..` is to be seen in label 1 alone, 6 px further right for every object."""
    masklets, expressions = [], []
    for number, text in enumerate(seen):
        mask = coco_mask.encode(np.asfortranarray(box(6 * number)))
        masklets.append(Masklet(tuple(mask if char == "x" else None for char in text), number))
        expressions.append(ClipExpression((f"object {number}",), (number,)))
    labels = tuple(range(len(seen[0]))) if labelled is None else labelled
    return Clip(ArrayFrames(moving_bar(labels[-1] + 1)), labels, tuple(masklets), tuple(expressions), source="a clip")


class TestSampling:
    def test_one_from_each_part_anew_each_time(self) -> None:
        it = clip("x" * 20)
        drawn = [sample_frames(it, 4, np.random.default_rng(seed)) for seed in range(200)]
        for labels in drawn:
            assert [label // 5 for label in labels] == [0, 1, 2, 3]
        assert {labels[1] for labels in drawn} == {5, 6, 7, 8, 9}
        assert sample_frames(it, 4, np.random.default_rng(3)) == drawn[3]

    def test_all_where_there_are_not_more(self) -> None:
        assert sample_frames(clip("xxx"), 5, np.random.default_rng(0)) == [0, 1, 2]

    def test_parts_of_unequal_length_cover_everything(self) -> None:
        drawn = [sample_frames(clip("x" * 7), 3, np.random.default_rng(seed)) for seed in range(200)]
        assert {label for labels in drawn for label in labels} == set(range(7))
        assert all(labels == sorted(set(labels)) for labels in drawn)

    def test_what_is_asked_is_seen_in_one_of_them(self) -> None:
        it = clip("." * 13 + "x" + "." * 16, "x" + "." * 29)
        for seed in range(50):
            rng = np.random.default_rng(seed)
            labels = sample_frames(it, 3, rng, it.expressions)
            assert 13 in labels
            assert 0 in labels
            assert [label // 10 for label in labels] == [0, 1, 2]
        assert any(13 not in sample_frames(it, 3, np.random.default_rng(seed)) for seed in range(9)), "unless not asked"

    def test_two_in_one_part_do_not_push_each_other_out_if_there_is_another_frame(self) -> None:
        it = clip(".x........", "..x......x")
        for seed in range(30):
            labels = sample_frames(it, 2, np.random.default_rng(seed), it.expressions)
            assert labels == [1, 9] or (labels[0] == 1 and 9 in labels)

    def test_nothing_of_the_kind_asks_for_no_frame(self) -> None:
        it = clip("xxxx")
        nothing = ClipExpression(("a dog",), ())
        assert len(sample_frames(it, 2, np.random.default_rng(0), [nothing])) == 2
        hidden = clip("....")
        assert len(sample_frames(hidden, 2, np.random.default_rng(0), hidden.expressions)) == 2

    def test_without_labels(self) -> None:
        with pytest.raises(DataError, match="b: has no labelled frames to train on"):
            sample_frames(Clip(ArrayFrames(moving_bar(2)), source="b"), 2, np.random.default_rng(0))


class TestQuestions:
    def test_frames_and_masks_belong_together(self) -> None:
        it = clip("xx.x", ".xxx", labelled=(0, 4, 8, 12))
        question = clip_question(it, 3, 2, np.random.default_rng(1))
        assert len(question.frames) == 3
        for frame in question.frames:
            np.testing.assert_array_equal(np.asarray(frame.image), moving_bar(13)[frame.image_id])
            label = it.labelled.index(frame.image_id)
            for (position, text), place in zip(question.asked, (0, 1), strict=True):
                number = int(text[-1])
                assert position == place
                assert frame.expressions[position].masks_rle == it.masks_at(it.expressions[number], label)

    def test_masks_alone_cannot_be_asked_about(self) -> None:
        it = clip("xx").evolve(expressions=(ClipExpression((), (0,)),))
        with pytest.raises(DataError, match="a clip: has no sentences to ask about"):
            clip_question(it, 2, 2, np.random.default_rng(0))


def loader(workers: int) -> list[ReferBatch]:
    data = QuestionDataset(clip_scenes("clip_train", 6, 3), max_masks=3, seed=11, clip_frames=4)
    collate = partial(collate_questions, encode=encode, views=VIEWS, pad_token_id=0, max_tokens=400)
    return list(load_batches(data, epoch_batches(6, 2, epoch=1, seed=11), collate, workers))


class TestBatches:
    def test_every_seg_has_a_mask_in_every_frame(self) -> None:
        for batch in loader(0):
            assert batch.frames_per_image == batch.tiles_per_image == (4, 4)
            assert batch.tiles_u8.shape == (8, 3, 32, 32), "one tile a frame"
            assert batch.sam_pixels_u8.shape == (8, 3, 64, 64)
            for row, target in zip(batch.input_ids, batch.targets, strict=True):
                assert 4 * int((row == SEG_ID).sum()) == len(target.masks) == len(target.texts) > 0
                assert int((row == 9).sum()) == 4 * 4

    def test_masks_go_object_by_object_through_the_frames(self) -> None:
        question = clip_question(clip_scenes("clip_train", 1, 0)[0], 3, 2, np.random.default_rng(0))
        (target,) = collate_questions([question], encode, VIEWS, 0, 400).targets
        wanted = [
            squashed_mask(union_mask(frame.expressions[position].masks_rle, frame.size_hw), 16)
            for position, _ in question.asked
            for frame in question.frames
        ]
        assert len({mask.tobytes() for mask in wanted}) > 1, "they must differ"
        np.testing.assert_array_equal(target.masks.numpy(), np.stack(wanted))
        assert target.texts == tuple(text for _, text in question.asked for _ in range(3))

    def test_they_do_not_depend_on_workers_and_change_with_the_epoch(self) -> None:
        for one, other in zip(loader(0), loader(1), strict=True):
            assert torch.equal(one.tiles_u8, other.tiles_u8)
            assert torch.equal(one.input_ids, other.input_ids)
        data = QuestionDataset(clip_scenes("clip_train", 1, 3), 3, seed=11, clip_frames=3)
        shown = {tuple(f.image_id for f in data[epoch, 0].frames) for epoch in range(8)}  # type: ignore[union-attr]
        assert len(shown) > 4

    def test_images_and_clips_in_one_batch(self) -> None:
        images = QuestionDataset(refer_scenes("refer_train", 1, 3), 2, seed=1)
        clips = QuestionDataset(clip_scenes("clip_train", 1, 3), 2, seed=1, clip_frames=3)
        batch = collate_questions([images[0, 0], clips[0, 0]], encode, VIEWS, 0, 400)  # type: ignore[list-item]
        assert batch.frames_per_image == (1, 3)
        assert batch.tiles_per_image[1] == 3
        assert len(batch.sam_pixels_u8) == 4
        image = one_question(batch, 0)
        clip_alone = one_question(batch, 1)
        assert (len(image.sam_pixels_u8), image.frames_per_image) == (1, (1,))
        assert torch.equal(clip_alone.sam_pixels_u8, batch.sam_pixels_u8[1:])
        assert len(collate_questions([images[0, 0]], encode, VIEWS, 0, 400).frames_per_image) == 0  # type: ignore


def test_every_seg_stands_in_every_frame() -> None:
    segs, images = in_every_frame(torch.tensor([0, 0, 2, 3]), (2, 1, 3, 1))
    assert segs.tolist() == [0, 0, 1, 1, 2, 2, 2, 3]
    assert images.tolist() == [0, 1, 0, 1, 3, 4, 5, 6]
    segs, images = in_every_frame(torch.tensor([0, 0, 1, 2]), ())
    assert (segs.tolist(), images.tolist()) == ([0, 1, 2, 3], [0, 0, 1, 2])
    assert [len(found) for found in in_every_frame(torch.zeros(0, dtype=torch.long), (2, 1))] == [0, 0]


class TestModel:
    bundle = tiny_segmenter()

    def batch(self) -> ReferBatch:
        tokens = ConversationTokens.of(self.bundle)
        views = Views(self.bundle.tile_px, 1, self.bundle.sam_px, self.bundle.mask_px, 4)
        images = QuestionDataset(refer_scenes("refer_train", 1, 3), 2, seed=1)
        clips = QuestionDataset(clip_scenes("clip_train", 2, 3), 2, seed=1, clip_frames=3)
        questions = [clips[0, 0], images[0, 0], clips[0, 1]]
        return collate_questions(questions, tokens, views, tokens.pad_token_id, 2000)  # type: ignore[arg-type]

    def run(self, batch: ReferBatch) -> dict[str, torch.Tensor]:
        return self.bundle.model(
            self.bundle.normalise_tiles(batch.tiles_u8),
            batch.tiles_per_image,
            self.bundle.normalise_sam(batch.sam_pixels_u8),
            batch.input_ids,
            batch.attention_mask,
            batch.labels,
            frames_per_image=batch.frames_per_image,
        )

    def test_a_seg_is_decoded_in_each_frame_by_itself(self) -> None:
        batch, model = self.batch(), self.bundle.model
        with torch.no_grad():
            outputs = self.run(batch)
            vision = model.vision_features(self.bundle.normalise_tiles(batch.tiles_u8))
            embeddings = model.embed(batch.input_ids, model.project(vision), batch.tiles_per_image)
            hidden = model.hidden_states(embeddings, batch.attention_mask)
            expected, first = [], 0
            for row, frames in enumerate(batch.frames_per_image):
                states = hidden[row][(batch.input_ids[row] == model.seg_token_id) & batch.attention_mask[row]]
                for state in states:
                    for frame in range(first, first + frames):
                        sam = model.sam_features(self.bundle.normalise_sam(batch.sam_pixels_u8[frame : frame + 1]))
                        expected.append(model.masks(state[None], sam, torch.tensor([0])).logits[0])
                first += frames
        assert len(expected) == sum(len(target.masks) for target in batch.targets) > 6
        torch.testing.assert_close(outputs["pred_masks"], torch.stack(expected), atol=1e-4, rtol=1e-4)

    def test_one_of_a_batch_equals_it_in_the_batch(self) -> None:
        batch = self.batch()
        with torch.no_grad():
            whole = self.run(batch)["pred_masks"]
            alone = torch.cat([self.run(one_question(batch, i))["pred_masks"] for i in range(len(batch))])
        torch.testing.assert_close(whole, alone, atol=1e-4, rtol=1e-4)

    def test_every_frame_moves_the_language_model(self) -> None:
        batch = one_question(self.batch(), 0)
        weight = next(p for n, p in self.bundle.model.named_parameters() if "q_proj" in n and "language" in n)
        masks = torch.cat([target.masks for target in batch.targets])
        gradients = []
        for frame in range(3):
            outputs = self.run(batch)
            chosen = torch.arange(frame, len(masks), 3)
            picked = {
                k: v[chosen] if k in ("pred_masks", "pred_ious", "object_scores") else v for k, v in outputs.items()
            }
            criterion = ReferCriterion(points=None, weight_language=0.0)
            losses = criterion(picked, masks[chosen])
            (gradient,) = torch.autograd.grad(criterion.total(losses), weight)
            gradients.append(gradient)
        assert all(bool((g != 0).any()) for g in gradients)
        assert not torch.equal(gradients[0], gradients[1])
