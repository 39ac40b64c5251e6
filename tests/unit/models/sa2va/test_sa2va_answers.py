"""Generation: cached, batched, with masks of what was said."""

from __future__ import annotations

import torch
from small_segmenters import batch_of, tiny_segmenter

from deixis.models.sa2va import Sa2vaBundle, answer, generate, select_mask

QUESTIONS = ["Please segment the red circle.", "Where?", "Segment the blue square in this image, and the red one."]
ANSWERS = ["Sure, [SEG].", "It is [SEG] and [SEG]", "No."]


def prompts(bundle: Sa2vaBundle) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [
        bundle.tokenizer.encode(
            bundle.template.question(bundle.template.image(bundle.tokens_per_tile) + question, first=True),
            add_special_tokens=False,
        )
        for question in QUESTIONS
    ]
    longest = max(map(len, rows))
    pad = bundle.tokenizer.pad_token_id
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    return ids, torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows])


@torch.no_grad()
def test_what_is_said_word_by_word_gives_the_masks_of_the_whole() -> None:
    bundle = tiny_segmenter()
    model = bundle.model
    whole = batch_of(bundle, [[(q, a)] for q, a in zip(QUESTIONS, ANSWERS, strict=True)], (1, 1, 1))
    said = [bundle.tokenizer.encode(text, add_special_tokens=False) for text in ANSWERS]
    script = [ids + [bundle.end_token_id] * 20 for ids in said]
    steps = iter(torch.tensor([[row[i] for row in script] for i in range(20)]))
    ids = torch.nn.utils.rnn.pad_sequence(
        [row[mask][: -len(text) - 1] for row, mask, text in zip(whole[3], whole[4], said, strict=True)],
        batch_first=True,
        padding_value=bundle.tokenizer.pad_token_id,
    )
    mask = ids != bundle.tokenizer.pad_token_id
    vision, sam = model.vision_features(whole.tiles), model.sam_features(whole.sam_pixels)
    answers = answer(bundle, ids, mask, (1, 1, 1), vision, sam, choose=lambda logits: next(steps))
    wanted = model(*whole)
    assert [found.token_ids for found in answers] == said
    assert [len(found.masks.logits) for found in answers] == [1, 2, 0]
    assert answers[0].text == "sure, [SEG]."
    for field, name in (("logits", "pred_masks"), ("ious", "pred_ious"), ("object_scores", "object_scores")):
        torch.testing.assert_close(
            torch.cat([getattr(found.masks, field) for found in answers]), wanted[name], rtol=1e-4, atol=1e-5
        )


@torch.no_grad()
def test_greedy_is_transformers_greedy_row_by_row() -> None:
    bundle = tiny_segmenter(seed=3)
    model = bundle.model
    ids, mask = prompts(bundle)
    tiles = torch.randn(3, 3, bundle.tile_px, bundle.tile_px)
    embeddings = model.embed(ids, model.project(model.vision_features(tiles)), (1, 1, 1))
    ours = generate(model, embeddings, mask, bundle.end_token_id, max_new_tokens=12).token_ids
    for row in range(3):
        theirs = model.vlm.generate(
            input_ids=ids[row : row + 1, mask[row]],
            pixel_values=tiles[row : row + 1],
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=bundle.end_token_id,
            pad_token_id=bundle.tokenizer.pad_token_id,
        )[0, int(mask[row].sum()) :].tolist()
        assert ours[row] == [token for token in theirs if token != bundle.end_token_id]
    assert len({tuple(row) for row in ours}) > 1


@torch.no_grad()
def test_a_seg_as_the_last_word_allowed_still_gets_its_mask() -> None:
    bundle = tiny_segmenter()
    model = bundle.model
    ids, mask = prompts(bundle)
    embeddings = model.embed(ids, model.project(model.vision_features(torch.randn(3, 3, 64, 64))), (1, 1, 1))
    segs = torch.full((3,), bundle.seg_token_id)
    found = generate(model, embeddings, mask, bundle.end_token_id, max_new_tokens=2, choose=lambda logits: segs)
    assert found.token_ids == [[bundle.seg_token_id] * 2] * 3
    assert found.row_of_object.tolist() == [0, 0, 1, 1, 2, 2]


@torch.no_grad()
def test_an_answer_that_ends_at_once_is_empty() -> None:
    bundle = tiny_segmenter()
    ids, mask = prompts(bundle)
    vision = bundle.model.vision_features(torch.randn(3, 3, 64, 64))
    sam = bundle.model.sam_features(torch.randn(3, 3, 64, 64))
    ends = torch.full((3,), bundle.end_token_id)
    answers = answer(bundle, ids, mask, (1, 1, 1), vision, sam, choose=lambda logits: ends)
    assert [(found.text, len(found.masks.ious)) for found in answers] == [("", 0)] * 3


def test_the_mask_of_highest_predicted_iou_is_taken() -> None:
    masks = torch.randn(2, 3, 4, 4)
    outputs = {
        "pred_masks": masks,
        "pred_ious": torch.tensor([[0.1, 0.9, 0.3], [0.5, 0.2, 0.4]]),
        "object_scores": torch.tensor([-2.0, 0.0]),
    }
    chosen = select_mask(outputs, "deixis")
    assert torch.equal(chosen.logits, torch.stack([masks[0, 1], masks[1, 0]]))
    assert chosen.ious.tolist() == torch.tensor([0.9, 0.5]).tolist()
    assert chosen.present[0] < 0.5 == chosen.present[1]
    assert select_mask(outputs, "sa2va").present.tolist() == [1, 1]
