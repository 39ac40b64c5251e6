"""What of the segmenter trains, and that adapters and new rows fold into the weights."""

from __future__ import annotations

import pytest
import torch
from small_segmenters import TURNS, batch_of, tiny_segmenter
from small_trackers import tiny_tracker

from deixis.errors import OptionError
from deixis.models.sa2va.parts import (
    MEMORY,
    PARTS,
    TRAINED,
    freeze,
    merge_adapters,
    new_token_ids,
    parameter_table,
    part_of,
)

TILES = (1, 2, 1)


def backward(bundle, batch):
    outputs = bundle.model(*batch)
    loss = torch.nn.functional.cross_entropy(outputs["label_logits"], outputs["label_ids"])
    loss = loss + sum(outputs[name].square().mean() for name in ("pred_masks", "pred_ious", "object_scores"))
    loss.backward()


@pytest.mark.parametrize("tied", [True, False])
def test_gradients_reach_what_trains_and_nothing_else(tied: bool) -> None:
    bundle = tiny_segmenter(tied=tied)
    freeze(bundle.model, rank=4, alpha=8, new_token_ids=new_token_ids(bundle.tokenizer))
    backward(bundle, batch_of(bundle, TURNS, TILES))
    trained = {part_of(name) for name, p in bundle.model.named_parameters() if p.requires_grad}
    assert trained == {*TRAINED, "language"}
    for name, parameter in bundle.model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if part_of(name) == "language":
            assert parameter.requires_grad == (".lora_" in name)
        if part_of(name) == "embeddings":
            assert parameter.requires_grad == name.startswith("token_rows.")
    layers = bundle.model.vlm.config.text_config.num_hidden_layers
    assert sum(".lora_A." in name for name, _ in bundle.model.named_parameters()) == 7 * layers


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_merged_equals_unmerged(tied: bool) -> None:
    bundle = tiny_segmenter(tied=tied)
    batch = batch_of(bundle, TURNS, TILES)
    names = [name for name, _ in bundle.model.named_parameters()]
    before = bundle.model(*batch)
    freeze(bundle.model, rank=4, alpha=8, new_token_ids=new_token_ids(bundle.tokenizer))
    fresh = bundle.model(*batch)
    for parameter in bundle.model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter) * 0.05)
    trained = bundle.model(*batch)
    merge_adapters(bundle.model)
    merged = bundle.model(*batch)
    assert [name for name, _ in bundle.model.named_parameters()] == names
    for name in ("pred_masks", "pred_ious", "label_logits"):
        torch.testing.assert_close(fresh[name], before[name], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(merged[name], trained[name], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(trained[name], before[name], atol=1e-3)


@pytest.mark.parametrize("tied", [True, False])
def test_only_new_rows_move(tied: bool) -> None:
    """All others stay bit for bit in a step with weight decay; with masked gradients of a table they would not."""
    bundle = tiny_segmenter(tied=tied)
    embedding, head = bundle.model.vlm.get_input_embeddings().weight, bundle.model.vlm.lm_head.weight
    before = embedding.detach().clone(), head.detach().clone()
    ids = new_token_ids(bundle.tokenizer)
    freeze(bundle.model, rank=4, alpha=8, new_token_ids=ids)
    step(bundle)
    merge_adapters(bundle.model)
    for weight, old in zip((embedding, head), before, strict=True):
        moved = (weight.detach() != old).any(1).nonzero()[:, 0].tolist()
        assert moved == sorted(ids)

    whole = tiny_segmenter(tied=tied)
    freeze(whole.model, rank=4, alpha=8, rows="all")
    table = whole.model.vlm.get_input_embeddings().weight
    others = [i for i in range(len(table)) if i not in ids]
    table.register_hook(lambda gradient: gradient.index_fill(0, torch.tensor(others), 0.0))
    step(whole)
    assert (table.detach()[others] != before[0][others]).any(), "the faulty form"


def step(bundle) -> None:
    """One of AdamW, with weight decay."""
    trained = [parameter for parameter in bundle.model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=0.1, weight_decay=0.5)
    backward(bundle, batch_of(bundle, TURNS, TILES))
    optimiser.step()


def test_frozen_encoders_make_no_graph() -> None:
    bundle = tiny_segmenter()
    batch = batch_of(bundle, TURNS, TILES)
    assert bundle.model.vision_features(batch.tiles).requires_grad
    assert all(level.requires_grad for level in bundle.model.sam_features(batch.sam_pixels))
    freeze(bundle.model, rank=4, alpha=8)
    assert not bundle.model.vision_features(batch.tiles).requires_grad
    assert not any(level.requires_grad for level in bundle.model.sam_features(batch.sam_pixels))


def test_without_adapters_the_language_model_trains_whole() -> None:
    bundle = tiny_segmenter()
    freeze(bundle.model, PARTS, lora=False, rows="all")
    assert all(row.trainable == row.total for row in parameter_table(bundle.model))
    assert sum(row.total for row in parameter_table(bundle.model)) == sum(
        parameter.numel() for parameter in bundle.model.parameters()
    )


def test_impossible_choices() -> None:
    bundle = tiny_segmenter()
    with pytest.raises(OptionError, match="has no part"):
        freeze(bundle.model, ["head"])
    with pytest.raises(OptionError, match="choose one"):
        freeze(bundle.model, ["language"])
    with pytest.raises(OptionError, match="rank"):
        freeze(bundle.model, rank=0)


def test_the_memory_is_a_part_that_trains_alone() -> None:
    bundle = tiny_tracker()
    freeze(bundle.model, ("memory",), lora=False)
    trained = {name for name, parameter in bundle.model.named_parameters() if parameter.requires_grad}
    assert trained == {
        name for name, _ in bundle.model.named_parameters() if name.startswith(tuple(f"sam.{m}" for m in MEMORY))
    }
    assert {part_of(name) for name in trained} == {"memory"}
    freeze(bundle.model, lora=False)
    assert not any(part_of(name) == "memory" for name, p in bundle.model.named_parameters() if p.requires_grad)
