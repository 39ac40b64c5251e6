"""Tiles, masks on the grid, conversations and their batches."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from refer_batches import SEG_ID, encode
from small_segmenters import tiny_segmenter

from deixis.batch_records import ReferBatch
from deixis.data.batching.epochs import epoch_batches
from deixis.data.batching.loading import load_batches
from deixis.data.pixels.tiles import grid_for, squashed_mask, tiles_of, union_mask
from deixis.data.refer.collate import Question, Views, collate_questions
from deixis.data.refer.conversation import (
    ANSWERS,
    QUESTIONS,
    SEG,
    Turn,
    conversation_words,
    plain_phrase,
    training_turns,
)
from deixis.data.refer.loading import QuestionDataset
from deixis.data.scenes.refer_scenes import refer_scenes
from deixis.errors import DataError
from deixis.models.sa2va import ConversationTokens
from deixis.refer_records import Expression, ReferList, ReferSample
from deixis.training.tasks.segmenter import one_question

VIEWS = Views(tile_px=32, max_tiles=1, sam_px=64, mask_px=16, tile_side=2)


def loader(workers: int, count: int = 6) -> list[ReferBatch]:
    data = QuestionDataset(refer_scenes("refer_train", count, 3), max_masks=3, seed=11)
    batches = epoch_batches(count, 2, epoch=1, seed=11)
    collate = partial(collate_questions, encode=encode, views=VIEWS, pad_token_id=0, max_tokens=200)
    return list(load_batches(data, batches, collate, workers))


def test_every_seg_has_its_mask() -> None:
    for batch in loader(0):
        for row, target in zip(batch.input_ids, batch.targets, strict=True):
            assert int((row == SEG_ID).sum()) == len(target.masks) == len(target.texts) > 0
        assert (batch.labels[~batch.attention_mask] == -100).all()
        assert batch.tiles_u8.shape == (2, 3, 32, 32)
        assert batch.sam_pixels_u8.shape == (2, 3, 64, 64)


def test_batches_do_not_depend_on_the_number_of_workers() -> None:
    for one, other in zip(loader(0), loader(2), strict=True):
        assert torch.equal(one.input_ids, other.input_ids)
        assert torch.equal(one.tiles_u8, other.tiles_u8)
        assert all(torch.equal(a.masks, b.masks) for a, b in zip(one.targets, other.targets, strict=True))


def test_each_sample_has_a_seed_of_its_own_in_each_epoch() -> None:
    dataset = QuestionDataset(refer_scenes("refer_train", 6, 3), 5, seed=3)
    seeds = [dataset[key].seed for key in ((0, 0), (0, 1), (1, 0))]
    assert len(set(seeds)) == 3
    assert dataset[0, 1].seed == seeds[1]


def test_sentences_are_drawn_anew_each_epoch() -> None:
    sample = ReferSample(np.zeros((8, 8, 3), np.uint8), (8, 8), (Expression(("one", "two", "three"), (), ("absent",)),))
    data = QuestionDataset(ReferList((sample,)), 1, seed=0)
    said = {data[epoch, 0].asked[0][1] for epoch in range(20)}  # type: ignore[union-attr]
    assert said == {"one", "two", "three"}


def test_a_conversation_asks_together_or_one_by_one_and_keeps_the_order() -> None:
    expressions = [Expression((f"phrase {i}",), ()) for i in range(4)]
    seen_together = False
    for seed in range(30):
        turns, asked = training_turns(expressions, 3, np.random.default_rng(seed))
        assert len(asked) == 3
        assert sum(turn.answer.count(SEG) for turn in turns) == 3
        assert [i for turn in turns for i in turn.expressions] == [0, 1, 2]
        if len(turns) == 1:
            seen_together = True
            places = [turns[0].answer.index(text) for _, text in asked]
            assert places == sorted(places)
    assert seen_together


@pytest.mark.parametrize("clip", [False, True])
def test_a_question_trains_alone_and_unchanged_with_behaviour_sa2va(clip: bool) -> None:
    texts = ("Which car WINS the race?", "The man. 3.5 m away.", "?", "A dog..")
    expressions = [Expression((text,), ()) for text in texts]
    wanted = {False: ("the man. 3.5 m away", "a dog"), True: ("the man 35 m away", "a dog")}[clip]
    for seed in range(40):
        turns, asked = training_turns(expressions, 4, np.random.default_rng(seed), "sa2va", clip=clip)
        assert [turn.expressions for turn in turns] == [(i,) for i in range(4)]  # none is asked beside a question
        for turn, (position, text) in zip(turns, asked, strict=True):
            if "?" in text:
                assert turn.question == text
            else:
                assert turn.question in {q.format(phrase=wanted[position // 2]) for q in QUESTIONS}
            assert turn.answer in ANSWERS["sa2va"]


def test_phrases_of_a_clip_asked_together_lose_their_full_stops_with_behaviour_sa2va() -> None:
    expressions = [Expression((text,), ()) for text in ("The man. 3.5 m away.", "A dog..")]
    joined = {}
    for behaviour in ("sa2va", "deixis"):
        for clip in (False, True):
            drawn = (
                training_turns(expressions, 2, np.random.default_rng(s), behaviour, clip=clip)[0] for s in range(40)
            )
            questions = {turns[0].question for turns in drawn if len(turns) == 1}
            joined[behaviour, clip] = {"35" in q for q in questions}, {"3.5" in q for q in questions}
    assert joined.pop(("sa2va", True)) == ({True}, {False})
    assert set(map(str, joined.values())) == {str(({False}, {True}))}


def test_behaviour_deixis_trains_questions_as_before() -> None:
    expressions = [Expression((text,), ()) for text in ("Which car WINS?", "The man.")]
    for seed in range(20):
        turns, asked = training_turns(expressions, 2, np.random.default_rng(seed), clip=True)
        phrases = [plain_phrase(text) for _, text in asked]
        if len(turns) == 1:
            assert turns[0].question in {q.format(phrase=" and ".join(phrases)) for q in QUESTIONS}
        else:
            for turn, phrase in zip(turns, phrases, strict=True):
                assert turn.question in {q.format(phrase=phrase) for q in QUESTIONS}


def test_masks_without_a_sentence_are_not_asked_for() -> None:
    mask = {"size": [8, 8], "counts": b"04P2"}
    turns, asked = training_turns([Expression((), (mask,))], 3, np.random.default_rng(0))
    assert (turns, asked) == ([], [])


def test_an_overlong_conversation_is_refused_not_cut() -> None:
    sample = ReferSample(np.zeros((8, 8, 3), np.uint8), (8, 8), (Expression(("a " * 50,), ()),), source="x.json: 3")
    question = Question(sample, (Turn("a " * 50, ANSWERS["sa2va"][0], (0,)),), ((0, "a"),))
    with pytest.raises(DataError, match=r"x.json: 3.*--max-tokens"):
        collate_questions([question], encode, VIEWS, 0, 40)


def test_an_image_of_another_size_than_annotated_is_named(tmp_path: object) -> None:
    from pathlib import Path

    from PIL import Image

    path = Path(str(tmp_path)) / "a.png"
    Image.new("RGB", (8, 6)).save(path)
    data = QuestionDataset(ReferList((ReferSample(path, (8, 8), (), source="labels: 1"),)), 1, 0)
    with pytest.raises(DataError, match=r"a\.png"):
        data[0, 0]


def test_small_masks_stay_and_empty_ones_stay_empty() -> None:
    mask = np.zeros((640, 480), bool)
    assert not squashed_mask(mask, 16).any()
    mask[300:303, 200] = True
    assert squashed_mask(mask, 16).sum() == 1
    mask[:320] = True
    assert squashed_mask(mask, 16)[:8].all()
    assert not squashed_mask(mask, 16)[8:].any()


def test_overlapping_masks_are_joined_not_summed() -> None:
    from pycocotools import mask as coco_mask

    one = np.zeros((6, 6), np.uint8)
    one[:4] = 1
    two = np.zeros((6, 6), np.uint8)
    two[2:] = 1
    rles = tuple(coco_mask.encode(np.asfortranarray(m)) for m in (one, two))
    assert union_mask(rles, (6, 6)).all()
    assert union_mask(rles, (6, 6)).dtype == bool


def test_tiles_keep_their_places_and_end_with_the_whole() -> None:
    image = np.zeros((32, 64, 3), np.uint8)
    image[:, 32:] = 200
    tiles = tiles_of(image, 32, 12)
    assert tiles.shape == (3, 3, 32, 32)
    assert tiles[0].max() == 0
    assert tiles[1].min() == 200
    assert 0 < tiles[2].mean() < 200


@pytest.mark.parametrize(
    ("size_hw", "grid"), [((448, 448), (1, 1)), ((2000, 2000), (3, 3)), ((100, 1200), (12, 1)), ((900, 1350), (3, 2))]
)
def test_grids_follow_shape_and_size(size_hw: tuple[int, int], grid: tuple[int, int]) -> None:
    assert grid_for(size_hw, 448, 12) == grid


def test_phrases_and_words() -> None:
    assert plain_phrase("The Man.") == "the man"
    assert {"segment", "sure", "and"} <= set(conversation_words())


def test_sam_sees_only_images_in_which_a_mask_is_asked_for() -> None:
    """The outputs are those of a batch in which it sees them all."""
    bundle = tiny_segmenter()
    tokens = ConversationTokens.of(bundle)
    views = Views(bundle.tile_px, 1, bundle.sam_px, bundle.mask_px, 4)
    asking = QuestionDataset(refer_scenes("refer_train", 4, 3), 2, seed=1)
    telling = QuestionDataset(refer_scenes("refer_train", 4, 3), 2, seed=1, caption_share=1.0)
    questions = [telling[0, 0], asking[0, 1], telling[0, 2], asking[0, 3]]

    def run(batch: ReferBatch, pixels: torch.Tensor, frames: tuple[int, ...]) -> dict[str, torch.Tensor]:
        return bundle.model(
            bundle.normalise_tiles(batch.tiles_u8),
            batch.tiles_per_image,
            bundle.normalise_sam(pixels),
            batch.input_ids,
            batch.attention_mask,
            batch.labels,
            regions=batch.regions,
            frames_per_image=frames,
        )

    batch = collate_questions(questions, tokens, views, tokens.pad_token_id, 2000)
    assert batch.frames_per_image == (0, 1, 0, 1)
    assert len(batch.sam_pixels_u8) == 2
    blank = torch.zeros_like(batch.sam_pixels_u8[:1])
    everything = torch.cat([blank, batch.sam_pixels_u8[:1], blank, batch.sam_pixels_u8[1:]])
    few, all_ = run(batch, batch.sam_pixels_u8, batch.frames_per_image), run(batch, everything, ())
    assert len(few["pred_masks"]) == sum(len(target.masks) for target in batch.targets) > 2
    for name in ("pred_masks", "pred_ious", "object_scores", "label_logits"):
        torch.testing.assert_close(few[name], all_[name], atol=1e-5, rtol=1e-5)
    alone = torch.cat([run(one, one.sam_pixels_u8, one.frames_per_image)["pred_masks"] for one in map_one(batch)])
    torch.testing.assert_close(alone, few["pred_masks"], atol=1e-4, rtol=1e-4)

    words = collate_questions(questions[::2], tokens, views, tokens.pad_token_id, 2000)
    outputs = run(words, words.sam_pixels_u8, words.frames_per_image)
    assert len(words.sam_pixels_u8) == len(outputs["pred_masks"]) == 0
    assert outputs["pred_masks"].requires_grad


def map_one(batch: ReferBatch) -> list[ReferBatch]:
    return [one_question(batch, index) for index in range(len(batch))]
