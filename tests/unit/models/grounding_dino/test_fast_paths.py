"""All fast paths together, against none: the losses of 50 steps, and what the checkpoints hold.

In 64 bits, criterion included. In 32 bits rounding decides now and then which of two equally good queries answers for
an object, and two runs part there that both are right. Without dropout: the fast one draws other random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.optimize import linear_sum_assignment
from small_detectors import perturb
from tiny_runs import write_tiny_model
from torch import Tensor, nn
from torch.nn import functional as F

from deixis.batch_records import Target
from deixis.data.detect.collate import SampleDataset, collate_pairs
from deixis.data.detect.denoising import DenoisingQueries
from deixis.data.detect.transforms import resize_to
from deixis.data.scenes.images import scenes
from deixis.geometry.boxes import cxcywh_to_xyxy, generalized_box_iou
from deixis.losses.detection import DetectionCriterion, build_criterion
from deixis.losses.focal import sigmoid_focal_loss
from deixis.models.freezing import freeze, part_of
from deixis.models.grounding_dino import (
    GroundingDinoBundle,
    bundle,
    decoder,
    encoder,
    load_grounding_dino,
    save_grounding_dino,
    trunk,
)
from deixis.models.grounding_dino.heads import UPDATE_EPSILON, refine_boxes
from deixis.models.grounding_dino.layers import attention, feed_forward, fusion
from deixis.models.grounding_dino.layers.feed_forward import ReluFeedForward
from deixis.models.grounding_dino.layers.fusion import FusionAttention
from deixis.models.grounding_dino.layers.positions import proposal_boxes
from deixis.recipes.detect.data.prompts import TrainingPrompts
from deixis.training.checkpoint import Identity, Progress, load_checkpoint, save_checkpoint
from deixis.training.feed import Feed
from deixis.training.loop import accumulate_gradients
from deixis.training.optim import build_adamw, parameter_groups
from deixis.training.processes import make_accelerator, mean_figures
from deixis.training.tasks.detector import DetectorTask

STEPS = 50


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0
) -> Tensor:
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    return F.dropout(scores.softmax(-1), dropout_p) @ value


def plain_feed_forward(tokens: Tensor, fc1: Any, fc2: Any, activation: Any, activation_dropout: float = 0.0) -> Tensor:
    out: Tensor = fc2(F.dropout(activation(fc1(tokens)), activation_dropout))
    return out


def plain_proposals(self: trunk.Trunk, memory: Tensor, pyramid: Any, text: Tensor, text_mask: Tensor) -> Any:
    """Every cell with a graph; the best are picked at the end."""
    boxes, allowed = proposal_boxes(pyramid.shapes_hw, pyramid.valid_wh, pyramid.mask)
    features = self.enc_output_norm(self.enc_output(memory.masked_fill(~allowed[..., None], 0.0)))
    logits = self.encoder_output_class_embed(features, text)
    start = boxes.where(allowed[..., None], 0.5)
    moved = refine_boxes(self.encoder_output_bbox_embed(features), start, UPDATE_EPSILON).where(allowed[..., None], 1.0)
    best = logits.masked_fill(~text_mask[:, None], -torch.inf).amax(-1)
    chosen = best.topk(min(self.query_position_embeddings.num_embeddings, best.shape[1]), dim=1).indices
    rows = [logits[image, cells] for image, cells in enumerate(chosen)]
    return trunk.Proposals(torch.stack(rows), torch.stack([moved[image, cells] for image, cells in enumerate(chosen)]))


def plain_losses(
    criterion: DetectionCriterion,
    outputs: Mapping[str, Any],
    targets: Sequence[Target],
    num_boxes: Tensor,
    denoising: DenoisingQueries | None = None,
) -> dict[str, Tensor]:
    """Layer by layer and image by image, each matched by itself."""
    layers = {"": outputs, "_enc": outputs["enc_outputs"]}
    layers |= {f"_{index}": layer for index, layer in enumerate(outputs["aux_outputs"])}
    losses = dict.fromkeys(criterion.weight_dict, num_boxes * 0)
    for suffix, layer in layers.items():
        for image, target in enumerate(targets):
            valid = outputs["text_token_mask"][image]
            logits, boxes = layer["pred_logits"][image][:, valid], layer["pred_boxes"][image]
            positive = target.positive_map[target.class_ids][:, : logits.shape[1]] > 0
            wanted = target.boxes_cxcywh_norm.double()
            giou = generalized_box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(wanted))
            l1 = (boxes[:, None] - wanted).abs().sum(-1)
            yes = logits.sigmoid()
            as_positive = -0.25 * (1 - yes) ** 2 * (yes + 1e-8).log()
            as_negative = -0.75 * yes**2 * (1 - yes + 1e-8).log()
            by_class = torch.stack([torch.where(p, as_positive, as_negative).sum(-1) for p in positive], 1)
            matcher = criterion.matcher
            cost = matcher.cost_class * by_class + matcher.cost_l1 * l1 - matcher.cost_giou * giou
            queries, objects = map(torch.from_numpy, linear_sum_assignment(cost.detach().numpy()))
            is_positive = torch.zeros_like(logits, dtype=torch.bool)
            is_positive[queries] = positive[objects]
            losses["loss_ce" + suffix] = (
                losses["loss_ce" + suffix] + sigmoid_focal_loss(logits, is_positive).sum() / num_boxes
            )
            losses["loss_bbox" + suffix] = losses["loss_bbox" + suffix] + l1[queries, objects].sum() / num_boxes
            losses["loss_giou" + suffix] = losses["loss_giou" + suffix] + (1 - giou[queries, objects]).sum() / num_boxes
    return losses


def plain_normalise(pixels_u8: Tensor, pixel_mask: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return pixels_u8.to(torch.float32).mul_(scale).sub_(shift).masked_fill_(~pixel_mask[:, None], 0)


def switch_off(patch: pytest.MonkeyPatch) -> None:
    """Replace every fast path by its plain form."""
    patch.setattr(attention.DeformableAttention, "implementation", "reference")
    for module in (attention, fusion):
        patch.setattr(module, "scaled_dot_product_attention", plain_attention)
    patch.setattr(fusion, "weight_and_bias", lambda layer: None)
    for module in (encoder, decoder):
        patch.setattr(module, "feed_forward", plain_feed_forward)
    patch.setattr(trunk, "no_grad_if", lambda frozen: torch.enable_grad())
    patch.setattr(trunk, "_may_be_padded", lambda mask: True)
    patch.setattr(trunk.Trunk, "propose", plain_proposals)
    patch.setattr(trunk.PromptCache, "encode", lambda self, *given: trunk.encode_tokens(*given))
    patch.setattr(bundle, "_normalise_on_cpu", plain_normalise)
    patch.setattr(DetectionCriterion, "__call__", plain_losses)
    make = torch.optim.AdamW.__init__
    # the class stays what it is: it stands in signatures, which are checked
    patch.setattr(
        torch.optim.AdamW, "__init__", lambda self, groups, fused: make(self, groups, foreach=False, fused=False)
    )


def several_stretches(patch: pytest.MonkeyPatch) -> None:
    """All fast paths, on so small a model too: its feed-forward layers would be done in one stretch."""
    patch.setattr(feed_forward, "CHUNK_NUMBERS", 256 * 20)


def count_calls(patch: pytest.MonkeyPatch, owner: Any, name: str) -> list[int]:
    """The number of calls of a function from now on, in a list of one."""
    calls, whole = [0], getattr(owner, name)

    def counted(*given: Any, **more: Any) -> Any:
        calls[0] += 1
        return whole(*given, **more)

    patch.setattr(owner, name, counted)
    return calls


def train(folder: Path, out: Path) -> tuple[np.ndarray, GroundingDinoBundle, torch.optim.Optimizer]:
    """Train with frozen backbones and write a checkpoint and a model; loss and gradient norm of each step."""
    accelerator = make_accelerator(cpu=True)
    loaded = load_grounding_dino(folder)
    model = loaded.model.double().train()
    perturb(model)  # else samples lie on the cells' very centres, where bilinear interpolation has no one derivative
    freeze(model, ["backbone", "text"])
    dataset = SampleDataset(
        scenes("demo_train", 12, 1),
        lambda sample, generator: resize_to(sample, (64, 80) if generator.random() < 0.5 else (48, 64)),
        TrainingPrompts(loaded.prompt_tokenizer, 256, shuffle=True),
        seed=0,
    )
    task = DetectorTask(
        accelerator.prepare_model(model),
        lambda pixels, mask: loaded.normalise(pixels, mask).double(),
        build_criterion("mm_grounding_dino", decoder_layers=2),
        feed=Feed(dataset=dataset, collate=collate_pairs, batch_size=2),
        accelerator=accelerator,
        evaluate=dict,
        save_model=lambda path: save_grounding_dino(loaded, path),
    )
    rates = dict.fromkeys(("encoder", "decoder", "heads"), 1e-3)
    optimizer = build_adamw(parameter_groups(model.named_parameters(), part_of, rates, weight_decay=1e-4))
    curve: list[list[float]] = []
    for epoch in range(STEPS):
        for group in task.groups(epoch, 0):
            losses = accumulate_gradients(task, accelerator, group, normaliser=task.normaliser(group))
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            figures = mean_figures(accelerator, {"loss": losses["loss"], "norm": norm})
            optimizer.step()
            optimizer.zero_grad()
            curve.append(list(figures.values()))
        if len(curve) >= STEPS:
            break
    save_checkpoint(out / "last", model, optimizer, average=None, progress=Progress(), identity=Identity({}))
    task.save_model(out / "best")
    return np.array(curve[:STEPS]), loaded, optimizer


Trained = tuple[np.ndarray, GroundingDinoBundle, torch.optim.Optimizer, Path]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """The same run with every fast path and with none, in 64 bits throughout."""
    root = tmp_path_factory.mktemp("fast")
    model = write_tiny_model(root / "model", dropout=0.0, inner=256)
    found: dict[str, Trained] = {}
    for side, prepare in {"plain": switch_off, "fast": several_stretches}.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "float", torch.Tensor.double)  # what is always 32 bits otherwise
            torch.set_default_dtype(torch.float64)
            taken = {
                "folded fusion": count_calls(patch, FusionAttention, "_folded"),
                "feed-forward in stretches": count_calls(patch, ReluFeedForward, "apply"),
            }
            try:
                prepare(patch)
                found[side] = (*train(model, root / side), root / side)
            finally:
                torch.set_default_dtype(torch.float32)
            for name, calls in taken.items():
                assert bool(calls[0]) == (side == "fast"), name
        assert bool(len(found[side][1].model.model.prompt_cache)) == (side == "fast")
    return found


@pytest.mark.slow
def test_the_losses_of_fifty_steps_are_the_same(runs: dict[str, Trained]) -> None:
    plain, fast = runs["plain"][0], runs["fast"][0]
    assert len(plain) == STEPS
    assert plain[-10:, 0].mean() < 0.8 * plain[:3, 0].mean()  # it learned: errors have had time to grow
    np.testing.assert_allclose(fast, plain, rtol=1e-9)


def test_checkpoints_hold_the_same(runs: dict[str, Trained]) -> None:
    for name in ("last/model.safetensors", "best/model.safetensors"):
        plain, fast = (load_file(runs[side][3] / name) for side in ("plain", "fast"))
        assert list(fast) == list(plain)
        for key, tensor in plain.items():
            assert (fast[key].dtype, fast[key].shape) == (tensor.dtype, tensor.shape), key
            torch.testing.assert_close(fast[key], tensor, rtol=1e-6, atol=1e-9, msg=key)
    states = [torch.load(runs[side][3] / "last/training.pt", weights_only=True) for side in ("plain", "fast")]
    plain, fast = ({k: list(v) for k, v in state["optimizer"]["state"].items()} for state in states)
    assert fast == plain


@pytest.mark.slow
@pytest.mark.parametrize(("written", "read"), [("plain", "fast"), ("fast", "plain")])
def test_each_goes_on_from_the_others_checkpoint(runs: dict[str, Trained], written: str, read: str) -> None:
    _, _, _, folder = runs[written]
    _, loaded, optimizer, _ = runs[read]
    load_checkpoint(folder / "last", loaded.model, optimizer, average=None, identity=Identity({}))
    for name, tensor in load_file(folder / "last/model.safetensors").items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name
