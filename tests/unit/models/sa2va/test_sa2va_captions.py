"""Regions among the tokens, and words for them: cached, batched, drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_segmenters import tiny_segmenter
from test_sa2va_qwen import qwen_segmenter

from deixis.batch_records import Regions
from deixis.data.pixels.regions import region_views
from deixis.data.pixels.tiles import tiles_of
from deixis.data.refer.conversation import caption_turn
from deixis.errors import ModelError, OptionError
from deixis.models.sa2va import ConversationTokens, Sa2vaBundle, describe, generate, sampler
from deixis.models.sa2va.regions import shown_tiles

SIZE_HW = (90, 120)


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros(SIZE_HW, bool)
    mask[top : top + side, left : left + side] = True
    return mask


SMALL, LARGE, DOT = square(10, 10, 14), square(20, 40, 60), square(80, 110, 1)


class Asked:
    """Rows of questions about regions of one random picture, and what the model needs to answer them."""

    def __init__(self, bundle: Sa2vaBundle, rows: list[list[np.ndarray]], answers: list[str] | None = None) -> None:
        tokens = ConversationTokens.of(bundle)
        image = np.random.default_rng(4).integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8)
        shown = tiles_of(image, bundle.tile_px, 1 if bundle.tokens_per_tile > 16 else 2)
        side = round(bundle.tokens_per_tile**0.5)
        outlined = bundle.model.spatial_token is not None
        views = [region_views(image, masks, len(shown), bundle.tile_px, side, outlined=outlined) for masks in rows]
        ids, labels = [], []
        for row, view in enumerate(views):
            counts = [len(cells) for cells in view.cells]
            turn = caption_turn(text=answers[row] if answers else "")
            whole = (
                tokens([turn], len(shown), counts)
                if answers
                else (tokens.question(turn.question, len(shown), counts), [])
            )
            ids.append(whole[0])
            labels.append(whole[1])
        self.input_ids, self.attention_mask = tokens.padded(ids, torch.device("cpu"))
        width = self.input_ids.shape[1]
        self.labels = torch.tensor([row + [-100] * (width - len(row)) for row in labels])
        tiles = np.concatenate([np.concatenate([shown, view.focal]) for view in views])
        self.tiles = bundle.normalise_tiles(torch.from_numpy(tiles))
        self.tiles_per_image = tuple(len(shown) + len(view.focal) for view in views)
        self.regions = Regions(
            tuple(len(view.focal) for view in views),
            tuple(tuple(cell for region in view.cells for cell in region) for view in views),
            tuple(torch.from_numpy(view.outlines) for view in views) if outlined else (),
        )

    def embedded(self, bundle: Sa2vaBundle) -> torch.Tensor:
        vision = bundle.model.project(bundle.model.vision_features(self.tiles))
        return bundle.model.embed(self.input_ids, vision, self.tiles_per_image, self.regions)

    def described(self, bundle: Sa2vaBundle, **more) -> list:
        vision = bundle.model.vision_features(self.tiles)
        return describe(
            bundle, self.input_ids, self.attention_mask, self.tiles_per_image, vision, self.regions, 8, **more
        )


@torch.no_grad()
def test_regions_are_the_cells_own_tokens_between_their_marks() -> None:
    bundle = tiny_segmenter()
    asked = Asked(bundle, [[LARGE, SMALL]])
    embeddings = asked.embedded(bundle)[0]
    ids = asked.input_ids[0].tolist()
    start, end = (bundle.tokenizer.convert_tokens_to_ids(mark) for mark in ("<vp>", "</vp>"))
    starts = [i for i, token in enumerate(ids) if token == start]
    ends = [i for i, token in enumerate(ids) if token == end]
    runs = [(first + 1, last) for first, last in zip(starts, ends, strict=True)]
    vision = bundle.model.project(bundle.model.vision_features(asked.tiles)).flatten(0, 1)
    cells = iter(asked.regions.cells[0])
    for first, last in runs:
        assert last > first
        for place in range(first, last):
            assert ids[place] == bundle.model.image_token_id
            assert torch.equal(embeddings[place], vision[next(cells)])
    assert next(cells, None) is None
    decoded = bundle.tokenizer.decode(ids)
    assert "there are 2 part regions in the picture : region1 <vp>" in decoded.replace("<vp>", " <vp>").replace(
        "  ", " "
    )
    assert asked.regions.focal_per_image == (2,) or asked.regions.focal_per_image == (1,)


@torch.no_grad()
def test_swapped_masks_swap_tokens_and_captions_exactly() -> None:
    bundle = tiny_segmenter(seed=3)
    pair, swapped = Asked(bundle, [[SMALL], [LARGE]]), Asked(bundle, [[LARGE], [SMALL]])
    one, other = pair.embedded(bundle), swapped.embedded(bundle)
    assert torch.equal(one.flip(0), other)
    assert not torch.equal(one[0], one[1])
    said, said_swapped = pair.described(bundle), swapped.described(bundle)
    assert [found.text for found in said] == [found.text for found in reversed(said_swapped)]
    assert said[0].text != said[1].text


@torch.no_grad()
def test_a_moved_mask_changes_the_logits_and_so_does_the_picture_under_it() -> None:
    bundle = tiny_segmenter()
    here, there = Asked(bundle, [[SMALL]]), Asked(bundle, [[square(60, 90, 14)]])
    logits = [
        bundle.model.hidden_states(asked.embedded(bundle), asked.attention_mask)[0, -1] for asked in (here, there)
    ]
    assert (logits[0] - logits[1]).abs().max() > 1e-2
    brighter = Asked(bundle, [[SMALL]])
    brighter.tiles[-1] += 1  # the focal view alone
    changed = bundle.model.hidden_states(brighter.embedded(bundle), brighter.attention_mask)[0, -1]
    assert (logits[0] - changed).abs().max() > 1e-2


@pytest.mark.parametrize("qwen", [False, True])
@torch.no_grad()
def test_cached_and_batched_equals_uncached_one_by_one(qwen: bool) -> None:
    """Token by token the whole conversation anew, without padding: the same words."""
    bundle = qwen_segmenter() if qwen else tiny_segmenter(seed=3)
    model = bundle.model
    rows = [[DOT], [LARGE, SMALL, DOT], [LARGE]]
    asked = Asked(bundle, rows)
    shown = shown_tiles(asked.tiles_per_image, asked.regions)
    embeddings = asked.embedded(bundle)
    positions = model.positions(asked.input_ids, shown)
    generated, shared = (
        generate(model, embeddings, asked.attention_mask, bundle.end_token_id, 6, None, positions, shared_tokens=tokens)
        for tokens in (0, asked.input_ids[0].tolist().index(model.image_token_id) + bundle.tokens_per_tile)
    )
    assert generated.token_ids == shared.token_ids  # where the image is read once for all rows
    for mine, theirs in zip(generated.log_probs, shared.log_probs, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)
    assert len(set(map(tuple, generated.token_ids))) > 1
    for row, masks in enumerate(rows):
        alone = Asked(bundle, [masks])
        ids, vectors = alone.input_ids, alone.embedded(bundle)
        for token, log_prob in zip(generated.token_ids[row], generated.log_probs[row], strict=False):
            positions = model.positions(ids, shown[row : row + 1])
            hidden = model.hidden_states(vectors, torch.ones_like(ids, dtype=torch.bool), positions)
            logits = model.token_logits(hidden[:, -1])
            assert int(logits.argmax()) == token
            assert float(logits.log_softmax(-1)[0, token]) == pytest.approx(log_prob, abs=1e-4)
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
            vectors = torch.cat([vectors, model.embed_tokens(torch.tensor([[token]]))], dim=1)


@torch.no_grad()
def test_every_region_is_answered_in_plain_words() -> None:
    for seed in range(4):
        bundle = tiny_segmenter(seed)
        for found in Asked(bundle, [[DOT], [LARGE], [SMALL, DOT]]).described(bundle):
            assert found.text
            assert found.score < 0
            assert not any(mark in found.text for mark in ("[SEG]", "<vp>", "<IMG_CONTEXT>", "<pad>", "<unk>"))


@torch.no_grad()
def test_the_score_is_the_likelihood_that_training_sees() -> None:
    """Minus the mean language loss of the caption, its end included, when nothing is forbidden."""
    bundle = tiny_segmenter(seed=1)
    text = "red circle"
    given = Asked(bundle, [[SMALL]], [text])
    sam = bundle.model.sam_features(torch.zeros(1, 3, 64, 64))
    outputs = bundle.model(
        given.tiles, given.tiles_per_image, None, given.input_ids, given.attention_mask, given.labels,
        sam=sam, regions=given.regions,
    )  # fmt: skip
    assert len(outputs["pred_masks"]) == 0
    loss = torch.nn.functional.cross_entropy(outputs["label_logits"], outputs["label_ids"])
    words = [*bundle.tokenizer.encode(text, add_special_tokens=False), bundle.end_token_id]
    steps = iter(words)
    asked = Asked(bundle, [[SMALL]])
    generated = generate(
        bundle.model, asked.embedded(bundle), asked.attention_mask, bundle.end_token_id,
        choose=lambda logits: torch.tensor([next(steps)]),
    )  # fmt: skip
    assert sum(generated.log_probs[0]) / len(words) == pytest.approx(-float(loss), abs=1e-4)


def test_regions_that_do_not_fit_are_refused() -> None:
    bundle = tiny_segmenter()
    asked = Asked(bundle, [[SMALL]])
    tokens = bundle.model.project(bundle.model.vision_features(asked.tiles))
    count = asked.tiles_per_image[0]
    cells = asked.regions.cells[0]
    for regions, said in (
        (None, "image tokens"),
        (Regions((1,), (cells[:-1],)), "image tokens"),
        (Regions((1,), ((*cells[:-1], 16 * count),)), "a region has token"),
        (Regions((count,), (cells,)), "focal views"),
        (Regions((1, 0), (cells, ())), "one entry per image"),
    ):
        with pytest.raises(ModelError, match=said):
            bundle.model.embed(asked.input_ids, tokens, asked.tiles_per_image, regions)


def test_cells_are_where_the_pixels_are() -> None:
    """Row by row: InternVL joins patches without turning the grid."""
    bundle = tiny_segmenter()
    numbers = torch.arange(64.0).reshape(1, 8, 8, 1).repeat(1, 1, 1, 4)
    joined = bundle.model.vlm.model.pixel_shuffle(numbers, scale_factor=0.5).flatten(1, 2)[0]
    for cell, values in enumerate(joined):
        row, column = divmod(cell, 4)
        patches = {(2 * row + y) * 8 + 2 * column + x for y in (0, 1) for x in (0, 1)}
        assert set(values.int().tolist()) == patches


def test_drawn_words_follow_their_probabilities_and_their_own_seed() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2, 0.0]]).log().expand(3000, 4)
    drawn = sampler(range(3000))(logits)
    assert (drawn != 3).all()
    shares = torch.bincount(drawn, minlength=4) / 3000
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.2, 0.0]), atol=0.03)
    assert set(sampler(range(500), top_p=0.79)(logits[:500]).tolist()) == {0, 1}
    assert set(sampler(range(500), temperature=0.01)(logits[:500]).tolist()) == {0}
    alone = torch.cat([sampler([seed])(logits[:1]) for seed in range(50)])
    assert torch.equal(alone, drawn[:50])
    for wrong in ({"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.1}):
        with pytest.raises(OptionError, match="temperature"):
            sampler([0], **wrong)
