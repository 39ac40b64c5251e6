"""The segmenter's forward pass against one written by hand from transformers' own whole models."""

from __future__ import annotations

import pytest
import torch
from small_segmenters import TURNS, Batch, batch_of, tiny_segmenter
from torch import Tensor

from deixis.errors import ModelError
from deixis.models.sa2va import Sa2vaBundle

TILES = (1, 2, 1)


def reference(bundle: Sa2vaBundle, batch: Batch) -> dict[str, Tensor]:
    """Row by row, object by object: whole logits, SAM 2 asked through its own prompt encoder by an absent point."""
    model, sam = bundle.model, bundle.model.sam
    masks, ious, scores, logits, ids = [], [], [], [], []
    starts = torch.tensor([0, *batch.tiles_per_image]).cumsum(0)
    for row, length in enumerate(batch.attention_mask.sum(1).tolist()):
        tokens = batch.input_ids[row : row + 1, :length]
        said = model.vlm(
            input_ids=tokens,
            pixel_values=batch.tiles[starts[row] : starts[row + 1]],
            output_hidden_states=True,
        )
        hidden = said.hidden_states[-1][0]
        labels = batch.labels[row, :length]
        for position in range(length - 1):
            if labels[position + 1] != -100:
                logits.append(said.logits[0, position])
                ids.append(labels[position + 1])
        levels = sam.get_image_embeddings(batch.sam_pixels[row : row + 1])
        nowhere, absent = torch.zeros(1, 1, 1, 2), -torch.ones(1, 1, 1, dtype=torch.int32)
        sparse, dense = sam.prompt_encoder(nowhere, absent, None, None)
        first, _, second, _ = model.text_hidden_fcs
        for position in (tokens[0] == bundle.seg_token_id).nonzero()[:, 0]:
            prompt = second(first(hidden[position]).clamp(min=0))
            mask, iou, _, score = sam.mask_decoder(
                image_embeddings=levels[-1],
                image_positional_embeddings=sam.get_image_wide_positional_embeddings(),
                sparse_prompt_embeddings=torch.cat([sparse, prompt[None, None, None]], 2),
                dense_prompt_embeddings=dense,
                multimask_output=True,
                high_resolution_features=levels[:-1],
            )
            masks.append(mask[0, 0])
            ious.append(iou[0, 0])
            scores.append(score[0, 0, 0])
    return {
        "pred_masks": torch.stack(masks),
        "pred_ious": torch.stack(ious),
        "object_scores": torch.stack(scores),
        "label_logits": torch.stack(logits),
        "label_ids": torch.stack(ids),
    }


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_equals_a_forward_written_by_hand(tied: bool) -> None:
    bundle = tiny_segmenter(tied=tied)
    batch = batch_of(bundle, TURNS, TILES)
    outputs = bundle.model(*batch)
    wanted = reference(bundle, batch)
    assert outputs["object_image"].tolist() == [0, 0, 0, 2]
    assert outputs["pred_masks"].shape == (4, 3, bundle.mask_px, bundle.mask_px)
    for name, tensor in wanted.items():
        torch.testing.assert_close(outputs[name], tensor, rtol=1e-4, atol=1e-5)
    assert wanted["pred_masks"].std() > 0.01


@torch.no_grad()
def test_the_state_before_seg_gives_other_masks() -> None:
    """LISA's shift by one would be caught by the comparison above."""
    bundle = tiny_segmenter()
    batch = batch_of(bundle, TURNS, TILES)
    model = bundle.model
    vision = model.vision_features(batch.tiles)
    hidden = model.hidden_states(
        model.embed(batch.input_ids, model.project(vision), batch.tiles_per_image), batch.attention_mask
    )
    rows, columns = torch.where(batch.input_ids == bundle.seg_token_id)
    shifted = model.masks(hidden[rows, columns - 1], model.sam_features(batch.sam_pixels), rows)
    assert not torch.allclose(shifted.logits, model(*batch)["pred_masks"], atol=1e-2)


@torch.no_grad()
def test_a_batch_equals_its_images_one_by_one() -> None:
    bundle = tiny_segmenter()
    batch = batch_of(bundle, TURNS, TILES)
    together = bundle.model(*batch)
    starts = [0, 1, 3, 4]
    masks, logits = [], []
    for row, length in enumerate(batch.attention_mask.sum(1).tolist()):
        alone = bundle.model(
            batch.tiles[starts[row] : starts[row + 1]],
            (TILES[row],),
            batch.sam_pixels[row : row + 1],
            batch.input_ids[row : row + 1, :length],
            batch.attention_mask[row : row + 1, :length],
            batch.labels[row : row + 1, :length],
        )
        masks.append(alone["pred_masks"])
        logits.append(alone["label_logits"])
    torch.testing.assert_close(together["pred_masks"], torch.cat(masks), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together["label_logits"], torch.cat(logits), rtol=1e-4, atol=1e-5)


def test_no_objects_at_all() -> None:
    bundle = tiny_segmenter()
    batch = batch_of(bundle, [TURNS[1]], (1,))
    outputs = bundle.model(*batch)
    assert outputs["pred_masks"].shape == (0, 3, bundle.mask_px, bundle.mask_px)
    assert outputs["pred_ious"].shape == (0, 3)
    assert outputs["object_scores"].shape == outputs["object_image"].shape == (0,)
    (outputs["pred_masks"].sum() + outputs["label_logits"].sum()).backward()
    gradient = bundle.model.text_hidden_fcs[0].weight.grad
    assert gradient is not None
    assert not gradient.any()


def test_a_seg_in_the_padding_is_no_object() -> None:
    bundle = tiny_segmenter()
    batch = batch_of(bundle, TURNS, TILES)
    ids = batch.input_ids.masked_fill(~batch.attention_mask, bundle.seg_token_id)
    assert len(bundle.model(*batch._replace(input_ids=ids))["object_image"]) == 4


@torch.no_grad()
def test_cached_features_change_nothing() -> None:
    bundle = tiny_segmenter()
    batch = batch_of(bundle, TURNS, TILES)
    vision, sam = bundle.model.vision_features(batch.tiles), bundle.model.sam_features(batch.sam_pixels)
    cached = bundle.model(
        None, TILES, None, batch.input_ids, batch.attention_mask, batch.labels, vision=vision, sam=sam
    )
    for name, tensor in bundle.model(*batch).items():
        assert torch.equal(cached[name], tensor)


def test_image_tokens_must_agree_with_tiles() -> None:
    bundle = tiny_segmenter()
    batch = batch_of(bundle, TURNS, TILES)
    with pytest.raises(ModelError, match=r"image tokens, their tiles and regions \[32, 16, 16\]"):
        bundle.model(*batch._replace(tiles_per_image=(2, 1, 1)))
    with pytest.raises(ModelError, match="neither tiles nor vision"):
        bundle.model(None, *batch[1:])


def test_decoding_few_objects_at_once_changes_nothing_and_keeps_less() -> None:
    """Masks and all gradients, while the graph of the decoder holds fewer numbers."""
    bundle = tiny_segmenter()
    model, batch = bundle.model.train(), batch_of(bundle, TURNS, TILES)
    outputs, gradients, kept = {}, {}, {}
    for at_once in (None, 3):
        model.objects_at_once, sizes = at_once, {}

        def keep(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        hidden = torch.randn(9, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        sam = model.sam_features(batch.sam_pixels)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            masks = model.masks(hidden, sam, torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2]))
        model.zero_grad()
        sum(each.square().sum() for each in masks[:3]).backward()
        named = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        outputs[at_once], gradients[at_once], kept[at_once] = (
            masks,
            named | {"hidden": hidden.grad},
            sum(sizes.values()),
        )
    for one, other in zip(outputs[None][:3], outputs[3][:3], strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)
    assert "sam.mask_decoder.conv_s0.weight" in gradients[None]
    assert gradients[3].keys() == gradients[None].keys()
    for name, gradient in gradients[None].items():
        torch.testing.assert_close(gradients[3][name], gradient, atol=1e-5, rtol=1e-3, msg=name)
    assert kept[3] < 0.3 * kept[None]
