"""A detector that is exported in seconds, and its export."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from pathlib import Path

import jaxtyping
import pytest
import torch
from small_detectors import bert_tokenizer, perturb, small_config
from transformers import SwinConfig

from deixis.data.detect.prompts import build_prompt
from deixis.models.checkpoints import make_sinks, save_detector, with_learned_names
from deixis.models.edits.closed_form import layer_task
from deixis.models.edits.files import Task, first_weights, write_edits
from deixis.models.grounding_dino import GroundingDinoBundle, init_bundle
from deixis.models.grounding_dino.layers.positions import encoder_reference_points
from deixis.models.text import learned_names
from deixis.options.model_export import ModelExportOptions
from deixis.recipes.model.export import export_model

NAMES = ("red square", "blue circle", "cat")


def bundle_of(flavour: str) -> GroundingDinoBundle:
    torch.manual_seed(0)
    bundle = init_bundle(small_config(flavour, num_queries=15), bert_tokenizer(), (96, 160))
    perturb(bundle.model.eval())
    return bundle


def tiny_folder(folder: Path, flavour: str = "mm-grounding-dino", additions: bool = False) -> Path:
    """A detector that is exported in seconds: two Swin stages with shifted windows, two levels, 1 + 2 layers.

    Args:
        additions: "red square" has a token of its own, a task is edited in, and there are attention sinks.
    """
    swin = SwinConfig(embed_dim=16, depths=[2, 2], num_heads=[1, 2], window_size=4, out_features=["stage2"])
    config = small_config(
        flavour,
        backbone_config=swin,
        num_feature_levels=2,
        d_model=32,
        encoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=15,
    )
    torch.manual_seed(0)
    bundle = init_bundle(config, bert_tokenizer(), (96, 160))
    perturb(bundle.model)
    if additions:
        bundle = with_additions(bundle, folder)
    let_empty_cells_win(bundle)
    save_detector(bundle, folder)
    return folder


def with_additions(bundle: GroundingDinoBundle, folder: Path) -> GroundingDinoBundle:
    """The detector with a token, an edit, whose files are written into its folder, and sinks."""
    bundle = with_learned_names(bundle, NAMES[:1])
    weight = bundle.model.model.text_backbone.get_input_embeddings().weight
    with torch.no_grad():
        weight[list(learned_names(bundle.tokenizer).values())] += 1.0
    first = first_weights(bundle)
    tuned = {name: layer + 0.1 * torch.randn(layer.shape) for name, layer in first.items()}
    task = {name: layer_task(torch.eye(layer.shape[1]), layer, tuned[name]) for name, layer in first.items()}
    write_edits(bundle, folder, first, {"mine": Task(task)})
    return replace(bundle, sinks=make_sinks(bundle, 3, "random", NAMES[1:]))


def let_empty_cells_win(bundle: GroundingDinoBundle) -> None:
    """Cells that may not be proposed are zeros, and so this bias alone: here the text itself, which scores best."""
    model, ids = bundle.model.eval(), torch.tensor([build_prompt(NAMES, bundle.prompt_tokenizer).input_ids])
    with torch.no_grad():
        text = model.encode_text(ids, ids > 0)
        pyramid = model.encode_image(torch.zeros(1, 3, 64, 64), torch.ones(1, 64, 64, dtype=torch.bool))
        reference = encoder_reference_points(pyramid.shapes_hw, pyramid.valid_wh)
        _, fused = model.model.encoder(pyramid, text, reference)
        model.model.enc_output.bias.copy_(fused[0, 1])


def export_by_command(options: ModelExportOptions) -> list[str]:
    """The lines that the command printed."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        # The exporter runs the code with symbols for sizes, which are no `int`.
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        export_model(options)
    return printed.getvalue().splitlines()
