"""Prompts made from the words before `[SEG]`, while a segmenter from nothing learns to carry them."""

from __future__ import annotations

import torch
from small_segmenters import Batch, batch_of, tiny_segmenter

from deixis.models.sa2va import Sa2vaBundle
from deixis.models.sa2va.model import _spread

ANSWERS = [
    [
        ("Please segment the red circle.", "Sure, red circle [SEG]."),
        ("And the square?", "blue square [SEG], red [SEG]."),
    ],
    [("What is this?", "A square.")],
    [("Segment it.", "[SEG].")],
]


def batch(bundle: Sa2vaBundle) -> Batch:
    return batch_of(bundle, ANSWERS, (1, 1, 1))


def by_hand(bundle: Sa2vaBundle, batch: Batch) -> torch.Tensor:
    """Backwards from each [SEG] to the last token that is no word of its answer."""
    table = bundle.model.vlm.get_input_embeddings().weight
    states = []
    for ids, labels in zip(batch.input_ids, batch.labels, strict=True):
        for place in (ids == bundle.seg_token_id).nonzero()[:, 0].tolist():
            words, at = [], place - 1
            while labels[at] != -100 and ids[at] != bundle.seg_token_id:
                words.append(table[ids[at]])
                at -= 1
            states.append(torch.stack(words).mean(0) if words else torch.zeros(table.shape[1]))
    normalised: torch.Tensor = bundle.model.vlm.model.language_model.norm(torch.stack(states))
    return normalised


def test_the_words_are_those_between_one_mask_and_the_next() -> None:
    bundle = tiny_segmenter()
    inputs = batch(bundle)
    embeddings = bundle.model.embed_tokens(inputs.input_ids)
    states = bundle.model.word_states(embeddings, inputs.input_ids, inputs.labels)
    found = states[inputs.input_ids == bundle.seg_token_id]
    assert len(found) == 4
    torch.testing.assert_close(found, by_hand(bundle, inputs))
    assert not found[3].any()  # a [SEG] without words


def test_every_prompt_can_be_made_from_words() -> None:
    bundle = tiny_segmenter()
    inputs = batch(bundle)
    outputs = bundle.model(*inputs, words_share=1.0)
    words = by_hand(bundle, inputs)
    sam = bundle.model.sam_features(inputs.sam_pixels)
    wanted = bundle.model.masks(words, sam, outputs["object_image"])
    torch.testing.assert_close(outputs["pred_masks"], wanted.logits)
    torch.testing.assert_close(outputs["object_scores"], wanted.object_scores)
    assert outputs["word_gaps"].shape == (4,)


def test_without_a_share_nothing_is_other_than_before() -> None:
    bundle = tiny_segmenter()
    inputs = batch(bundle)
    outputs = bundle.model(*inputs)
    assert "word_gaps" not in outputs
    small = bundle.model(*inputs, words_share=1e-9)  # none of four objects is in so small a share
    assert torch.equal(outputs["pred_masks"], small["pred_masks"])


def test_gaps_pull_the_state_to_the_words_and_not_the_words_to_the_state() -> None:
    bundle = tiny_segmenter()
    inputs = batch(bundle)
    model = bundle.model.requires_grad_(True)
    model(*inputs, words_share=1.0)["word_gaps"].sum().backward()
    projections = [p for n, p in model.named_parameters() if "language_model.layers.0.self_attn.v_proj" in n]
    assert all(p.grad is not None and bool(p.grad.any()) for p in projections)
    assert model.text_hidden_fcs[0].weight.grad is None


def test_a_share_is_spread_evenly() -> None:
    cpu = torch.device("cpu")
    assert _spread(1000, 1.0, cpu).all()
    assert not _spread(1000, 0.0, cpu).any()
    chosen = _spread(1000, 0.3, cpu)
    assert 295 <= int(chosen.sum()) <= 305
    assert all(2 <= int(part.sum()) <= 4 for part in chosen.split(10))
