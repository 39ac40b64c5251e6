"""Steps of conversations: language is learnt, masks are not, and no part goes without a gradient."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from small_segmenters import tiny_segmenter

from deixis.batch_records import ReferBatch
from deixis.data.refer.collate import Question, Views, collate_questions
from deixis.data.refer.loading import QuestionDataset
from deixis.data.scenes.refer_scenes import refer_scenes
from deixis.errors import DataError
from deixis.losses.refer import ReferCriterion
from deixis.models.sa2va import ConversationTokens, Sa2vaBundle, freeze, new_token_ids, part_of
from deixis.refer_records import NO_IMAGE, Exchange, Expression, Grounded, ReferList, ReferSample
from deixis.training.loop import require_gradients
from deixis.training.tasks.segmenter import MASK_PARTS, SIGHT_PARTS, SegmenterTask, refer_losses

TALK = ReferSample(
    NO_IMAGE, (0, 0), (), 1, "talk", (Exchange(("Who is there?",), "A red square."), Exchange(("And?",), "A circle."))
)


@pytest.fixture(scope="module")
def bundle() -> Sa2vaBundle:
    made = tiny_segmenter()
    freeze(made.model, rank=4, alpha=8, new_token_ids=new_token_ids(made.tokenizer))
    return made


def grounded_caption() -> ReferSample:
    """A scene with two of its expressions in a caption."""
    scene = next(s for s in map(refer_scenes("refer_train", 8, 3).__getitem__, range(8)) if len(s.expressions) > 1)
    answer = "A red square and a circle."
    return scene.evolve(chat=(Exchange(("Describe it.",), answer, (Grounded(0, 12, 1), Grounded(17, 25, 0))),))


def batch(bundle: Sa2vaBundle, *samples: ReferSample, max_tokens: int = 2000) -> ReferBatch:
    shown = QuestionDataset(ReferList(samples), max_masks=2, seed=0)
    tokens = ConversationTokens.of(bundle)
    views = Views(bundle.tile_px, 1, bundle.sam_px, bundle.mask_px, round(bundle.tokens_per_tile**0.5))
    collate = partial(collate_questions, encode=tokens, views=views, pad_token_id=tokens.pad_token_id)
    questions: list[Question] = [shown[0, index] for index in range(len(samples))]
    return collate(questions, max_tokens=max_tokens)


def losses(bundle: Sa2vaBundle, of: ReferBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    ones = torch.ones(2)
    criterion = ReferCriterion(points=None)  # points would be drawn by a row's own seed
    return refer_losses(
        bundle.model, bundle.normalise_tiles, bundle.normalise_sam, criterion=criterion, batch=of, normaliser=ones
    )


def test_text_alone_has_no_tile_no_frame_and_no_mask(bundle: Sa2vaBundle) -> None:
    made = batch(bundle, TALK, grounded_caption())
    assert made.tiles_per_image == (0, 1)
    assert made.frames_per_image == (0, 1)
    assert [len(target.masks) for target in made.targets] == [0, 2]
    written = bundle.tokenizer.decode(made.input_ids[1][made.attention_mask[1]]).replace(" ", "")
    assert "<p>aredsquare</p>[SEG]anda<p>circle.</p>" in written or "<p>aredsquare</p>[SEG]" in written
    assert (made.input_ids[0] == bundle.model.image_token_id).sum() == 0


def test_the_masks_of_a_caption_are_those_of_its_phrases_in_order(bundle: Sa2vaBundle) -> None:
    sample = grounded_caption()
    first, second = batch(bundle, sample).targets[0].masks
    plain = (
        sample.evolve(chat=(), expressions=(sample.expressions[1],)),
        sample.evolve(chat=(), expressions=(sample.expressions[0],)),
    )
    np.testing.assert_array_equal(first, batch(bundle, plain[0]).targets[0].masks[0])
    np.testing.assert_array_equal(second, batch(bundle, plain[1]).targets[0].masks[0])


def test_a_step_of_text_alone_trains_language_and_touches_every_part(bundle: Sa2vaBundle) -> None:
    made = batch(bundle, TALK, TALK)
    bundle.model.zero_grad()
    total, found = losses(bundle, made)
    assert found["loss_language"] > 0
    assert all(found[name] == 0 for name in found if name != "loss_language")
    total.backward()
    require_gradients(bundle.model)
    trained = {part_of(n) for n, w in bundle.model.named_parameters() if w.grad is not None and w.grad.any()}
    assert "language" in trained
    assert not trained & {"mask_decoder", "text_hidden_fcs", "projector", "vision"}
    assert set(SegmenterTask.unsupervised_parts(None, [made])) == {*MASK_PARTS, *SIGHT_PARTS}  # type: ignore[arg-type]


def test_text_beside_an_image_changes_nothing_of_its_masks(bundle: Sa2vaBundle) -> None:
    caption = grounded_caption()
    torch.manual_seed(0)
    _, alone = losses(bundle, batch(bundle, caption))
    torch.manual_seed(0)
    _, beside = losses(bundle, batch(bundle, TALK, caption))
    for name in ("loss_mask", "loss_dice", "loss_iou", "loss_object"):
        torch.testing.assert_close(beside[name], alone[name], rtol=1e-4, atol=1e-5)
    assert beside["loss_language"] > alone["loss_language"], "a sum here: both are learnt"


def test_a_long_chat_loses_exchanges_and_a_grounded_one_is_an_error(bundle: Sa2vaBundle) -> None:
    whole = batch(bundle, TALK)
    first = batch(bundle, TALK.evolve(chat=TALK.chat[:1]))
    cut = batch(bundle, TALK, max_tokens=whole.input_ids.shape[1] - 1)
    assert torch.equal(cut.input_ids, first.input_ids)
    with pytest.raises(DataError, match="the conversation has"):
        batch(bundle, TALK, max_tokens=first.input_ids.shape[1] - 1)
    with pytest.raises(DataError, match="the conversation has"):
        batch(bundle, grounded_caption(), max_tokens=20)


def test_a_conversation_names_expressions_that_are_there() -> None:
    mask = grounded_caption().expressions[0].masks_rle
    with pytest.raises(DataError, match=r"names expressions \[2\], there are 1"):
        ReferSample(np.zeros((128, 128, 3), np.uint8), (128, 128), (Expression((), mask),), regions=(2,))
