"""The detector network: what it returns, what it trains, and the edges of its inputs."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_detectors import FLAVOURS, IDS, all_outputs, images, perturb, prompts, small_config, small_detector, total
from torch import Tensor, nn
from transformers import BertConfig, ResNetConfig

from deixis.errors import ModelError
from deixis.models.freezing import freeze
from deixis.models.grounding_dino import GroundingDino
from deixis.models.grounding_dino.text import PromptCache, encode_tokens

BATCH = images((96, 64), (64, 128)) | prompts(*IDS)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


# What comes out


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_outputs_have_detr_names_and_shapes(flavour: str) -> None:
    outputs = small_detector(flavour)(**BATCH)
    assert outputs.keys() == {"pred_logits", "pred_boxes", "text_token_mask", "aux_outputs", "enc_outputs"}
    assert len(outputs["aux_outputs"]) == 1  # two decoder layers, the last of which is at the top
    for layer in all_outputs(outputs):
        assert layer["pred_logits"].shape == (2, 20, 256)
        assert layer["pred_boxes"].shape == (2, 20, 4)
        assert layer["pred_boxes"].min() >= 0
        assert layer["pred_boxes"].max() <= 1
    assert outputs["text_token_mask"].sum(1).tolist() == [len(row) for row in IDS]


def test_minus_infinity_stands_exactly_on_padding() -> None:
    outputs = small_detector()(**BATCH)
    real = outputs["text_token_mask"][:, None].expand(2, 20, 256)
    for layer in all_outputs(outputs):
        assert torch.equal(layer["pred_logits"].isfinite(), real)
        assert (layer["pred_logits"][~real] == -torch.inf).all()


def test_encoder_scores_are_against_the_fused_text() -> None:
    """Field note C: scores against the text before the encoder would not see its last layer change."""
    model = small_detector()
    base = model(**BATCH)["enc_outputs"]["pred_logits"][0, :, : len(IDS[0])]
    with torch.no_grad():
        model.model.encoder.layers[-1].fusion_layer.text_param.add_(1.0)
    changed = model(**BATCH)["enc_outputs"]["pred_logits"][0, :, : len(IDS[0])]
    assert (base - changed).abs().max() > 0.1


def test_gradient_checkpointing_changes_nothing() -> None:
    model = small_detector("mm-grounding-dino").train()
    torch.manual_seed(5)
    total(model(**BATCH)).backward()
    wanted = gradients(model)
    model.zero_grad()
    model.gradient_checkpointing = True
    assert model.gradient_checkpointing
    torch.manual_seed(5)
    total(model(**BATCH)).backward()
    got = gradients(model)
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_gradient_checkpointing_keeps_fewer_activations() -> None:
    model = small_detector().train()

    def kept_bytes() -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = model(**BATCH)
        del outputs
        return sum(sizes.values())

    plain = kept_bytes()
    model.gradient_checkpointing = True
    assert kept_bytes() < 0.7 * plain
    model.gradient_checkpointing = False
    assert kept_bytes() > 0.9 * plain


# What trains


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_parameter_is_trained(flavour: str, shared: bool) -> None:
    model = small_detector(flavour, decoder_bbox_embed_share=shared)  # evaluation mode: no path is dropped
    total(model(**BATCH)).backward()
    untouched = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A key's bias shifts all scores of a query alike: softmax does not see it.
    assert [name for name in untouched if not name.endswith(("key.bias", "k_proj.bias"))] == []


def test_encoder_heads_are_trained_by_the_encoder_outputs_alone() -> None:
    """Fault C: with detached or pre-fusion outputs these parameters stay as they were."""
    model = small_detector("mm-grounding-dino")
    encoder = model(**BATCH)["enc_outputs"]
    (encoder["pred_boxes"].square().sum() + encoder["pred_logits"][:, :, 0].square().sum()).backward()
    for name in ("enc_output.weight", "enc_output_norm.weight", "encoder_output_bbox_embed.layers.0.weight"):
        assert model.model.get_parameter(name).grad.abs().sum() > 0, name
    assert model.model.encoder_output_class_embed.bias.grad.abs() > 0


def test_boxes_look_forward_twice() -> None:
    """Fault G: a layer's boxes train the box head of the layer before, through the reference, and no further."""
    model = small_detector(decoder_layers=3, decoder_bbox_embed_share=False)
    model(**BATCH)["pred_boxes"].square().sum().backward()
    reached = [head.layers[0].weight.grad is not None for head in model.bbox_embed]
    assert reached == [False, True, True]


def test_proposals_are_not_trained_by_the_decoder() -> None:
    model = small_detector()
    model(**BATCH)["pred_boxes"].square().sum().backward()
    assert model.model.encoder_output_bbox_embed.layers[0].weight.grad is None


def test_frozen_parts_leave_no_graph_and_stay_still() -> None:
    model = small_detector(
        text_config=BertConfig(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, hidden_dropout_prob=0.5
        )
    ).train()
    freeze(model, ["backbone", "text"])
    seen: dict[str, Any] = {}
    model.model.backbone.register_forward_hook(lambda *args: seen.update(maps=args[2]))
    first = model(**BATCH)
    assert not any(level.requires_grad for level in seen["maps"])
    assert not model.model.backbone.training
    assert not model.model.text_backbone.training
    total(first).backward()
    prefixes = ("model.backbone.", "model.text_backbone.")
    assert not any(name.startswith(prefixes) for name in gradients(model))
    maps = [level.clone() for level in seen["maps"]]
    model(**BATCH)
    assert all(torch.equal(a, b) for a, b in zip(maps, seen["maps"], strict=True))  # no drop path
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model(**BATCH)
    assert model.model.backbone.training
    assert model.model.text_backbone.training


# Padding


def test_padded_prompt_equals_unpadded() -> None:
    model = small_detector()
    image = images((96, 64))
    for row in ([101, 2417, 2675, 1012, 4937, 1012, 102], [101, 2417, 2675, 1012, 4937, 3608, 102]):
        tight, loose = model(**image, **prompts(row)), model(**image, **prompts(row, width=30))
        torch.testing.assert_close(loose["pred_logits"], tight["pred_logits"], atol=1e-4, rtol=0)
        torch.testing.assert_close(loose["pred_boxes"], tight["pred_boxes"], atol=1e-5, rtol=0)


class PatchBackbone(nn.Module):
    """Two maps whose cells see nothing but their own pixels, so that padding cannot reach them."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 64, 8, stride=8)
        self.coarse = nn.Conv2d(3, 128, 16, stride=16)

    def forward(self, pixels: Tensor) -> SimpleNamespace:
        return SimpleNamespace(feature_maps=(self.fine(pixels), self.coarse(pixels)))


def test_mixed_sizes_equal_single_images() -> None:
    """Fault F: what is found in an image does not depend on the images beside it.

    Three places see padding in every implementation and in the released weights' training, and are switched off here:
    the backbone's windows, group norm, and the queries' positions, which are fractions of the padded image.
    """
    model = small_detector()
    torch.manual_seed(0)
    model.model.backbone.conv_encoder["model"] = PatchBackbone()
    for projection in model.model.input_proj_vision:
        projection[1] = nn.Identity()
    nn.init.zeros_(model.model.decoder.reference_points_head.layers[-1].weight)
    sizes = [(96, 64), (64, 160)]
    together = model(**images(*sizes), **prompts(*IDS))
    for index, (size, row) in enumerate(zip(sizes, IDS, strict=True)):
        alone = model(**images(size), **prompts(row))
        for many, one in zip(all_outputs(together), all_outputs(alone), strict=True):
            torch.testing.assert_close(many["pred_boxes"][index], one["pred_boxes"][0], atol=1e-5, rtol=0)
            torch.testing.assert_close(many["pred_logits"][index], one["pred_logits"][0], atol=1e-4, rtol=0)


# Edges


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_one_query_one_token_tiny_image(flavour: str) -> None:
    model = small_detector(flavour, num_queries=1).train()
    outputs = model(**images((10, 40)), **prompts([101, 4937, 1012, 102]))
    assert outputs["pred_boxes"].shape == (1, 1, 4)
    total(outputs).backward()
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())


def test_fewer_cells_than_queries() -> None:
    outputs = small_detector()(**images((10, 40)), **prompts(IDS[0]))
    cells = 2 * 5 + 1 * 3 + 1 * 2  # strides 8, 16 and 32, rounded up
    assert all(layer["pred_boxes"].shape == (1, cells, 4) for layer in all_outputs(outputs))
    assert all(layer["pred_boxes"].isfinite().all() for layer in all_outputs(outputs))


def test_cells_at_the_border_give_finite_gradients() -> None:
    """Cells that may not be proposed are chosen when there are no others: their box is fixed, their gradient finite."""
    model = small_detector(num_queries=15).train()
    total(model(**images((10, 40)), **prompts(IDS[0]))).backward()
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())


def test_bfloat16_autocast_returns_single_precision() -> None:
    model = small_detector().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(**BATCH)
    for layer in all_outputs(outputs):
        assert layer["pred_logits"].dtype == layer["pred_boxes"].dtype == torch.float32
    total(outputs).backward()
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())


def test_prompt_longer_than_the_model_reads() -> None:
    model = small_detector(max_text_len=8)
    with pytest.raises(ModelError, match="11 tokens, this model reads 8"):
        model(**images((64, 64)), **prompts(IDS[0]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"two_stage": False}, "two_stage is False"),
        ({"embedding_init_target": False}, "embedding_init_target is False"),
        ({"position_embedding_type": "learned"}, "position_embedding_type is 'learned'"),
        ({"num_feature_levels": 1}, "2 feature maps, num_feature_levels is only 1"),
        ({"d_model": 48}, "d_model is 48"),
        ({"backbone_config": ResNetConfig(out_features=["stage4"])}, "batch norm"),
        ({"max_text_len": 1024}, "max_text_len is 1024"),
    ],
)
def test_unsupported_configurations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        GroundingDino(small_config(**changes))


def test_configuration_of_another_model() -> None:
    with pytest.raises(ModelError, match="model_type is 'bert'"):
        GroundingDino(BertConfig())


# Before training


def test_starting_point_of_training_from_scratch() -> None:
    torch.manual_seed(0)
    model = GroundingDino(small_config("mm-grounding-dino", decoder_layers=3)).eval()
    outputs = model(**BATCH)
    boxes = outputs["enc_outputs"]["pred_boxes"]
    for layer in all_outputs(outputs):  # box heads move nothing yet
        torch.testing.assert_close(layer["pred_boxes"], boxes, atol=1e-4, rtol=0)
    real = outputs["text_token_mask"][:, None].expand_as(outputs["pred_logits"])
    assert 0.003 < outputs["pred_logits"][real].sigmoid().mean() < 0.05  # most queries see nothing
    offsets = model.model.encoder.layers[0].deformable_layer.self_attn.sampling_offsets
    assert offsets.weight.abs().sum() == 0
    directions = offsets.bias.view(4, 3, 4, 2)  # heads, levels, points, xy
    assert torch.equal(directions[:, 0, 1], 2 * directions[:, 0, 0])
    torch.testing.assert_close(directions[:, 0, 0], torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]))


# Remembered prompts


def test_frozen_prompts_are_remembered_and_right() -> None:
    model = small_detector().train()
    freeze(model, ["text"])
    inputs = prompts(*IDS)
    first = model.model.encode_text(input_ids=inputs["input_ids"], token_mask=inputs["attention_mask"])
    assert len(model.model.prompt_cache) == 2
    again = model.model.encode_text(inputs["input_ids"], inputs["attention_mask"])
    assert torch.equal(first.tokens, again.tokens)
    direct = encode_tokens(model.model.text_backbone, inputs["input_ids"], inputs["attention_mask"])
    real = inputs["attention_mask"]
    wanted = model.model.text_projection(direct)[real]
    torch.testing.assert_close(first.tokens[real], wanted, atol=1e-5, rtol=0)
    assert first.tokens.requires_grad  # the projection trains


def test_remembered_prompts_are_forgotten_with_the_weights() -> None:
    model = small_detector()
    inputs = images((64, 64)) | prompts(IDS[1])
    with torch.no_grad():
        before = model(**inputs)["pred_logits"]
        perturb(model.model.text_backbone, seed=1)
        after = model(**inputs)["pred_logits"]
    assert not torch.equal(before, after)


def test_remembered_prompts_survive_inference_mode() -> None:
    model = small_detector()
    freeze(model, ["text"])
    with torch.inference_mode():
        model(**BATCH)
    total(model.train()(**BATCH)).backward()
    assert model.model.text_projection.weight.grad is not None


def test_prompt_cache_is_bounded_and_not_copied() -> None:
    encoder = small_detector().model.text_backbone
    cache = PromptCache(2)
    for last in (2417, 2630, 4937):
        inputs = prompts([101, last, 1012, 102])
        cache.encode(encoder, inputs["input_ids"], inputs["attention_mask"])
    assert len(cache) == 2
    assert len(copy.deepcopy(cache)) == 0


def test_padding_never_enters_a_remembered_prompt() -> None:
    """Bit for bit the same features, whatever batch the prompt first came in: a resumed run is exact."""
    encoder = small_detector().model.text_backbone
    first, second = PromptCache(8), PromptCache(8)
    short = prompts(IDS[1])
    wide = prompts(*IDS)
    wanted = first.encode(encoder, short["input_ids"], short["attention_mask"])[0]
    got = second.encode(encoder, wide["input_ids"], wide["attention_mask"])[1, : len(IDS[1])]
    assert torch.equal(wanted, got)


def test_nothing_padded_needs_no_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture, or several of one size: the masks are left out, and nothing else changes."""
    model, batch = small_detector(), images((96, 64)) | prompts(IDS[0])
    seen: list[bool] = []
    encode = model.model.encoder.forward
    monkeypatch.setattr(model.model.encoder, "forward", lambda *args: seen.append(args[0].padded) or encode(*args))
    got = model(**batch)
    monkeypatch.setattr("deixis.models.grounding_dino.trunk._may_be_padded", lambda mask: True)
    wanted = model(**batch)
    model(**BATCH)
    assert seen == [False, True, True]
    torch.testing.assert_close(got["pred_boxes"], wanted["pred_boxes"])
