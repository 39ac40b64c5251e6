"""Import detectors from, and export them to, the files of IDEA-Research and MMDetection."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deixis.atomic_files import file_aside
from deixis.errors import ModelError, OptionError
from deixis.models.grounding_dino import GroundingDino, GroundingDinoBundle
from deixis.models.grounding_dino.detector import has_learned_scale
from deixis.models.grounding_dino.weights.layouts import (
    IDEA,
    LAYOUTS,
    TABLES,
    UNTIED,
    gather,
    recognise_layout,
    scatter,
    table_of,
)
from deixis.models.grounding_dino.weights.logit_scale import fold_scales, without_scales
from deixis.models.grounding_dino.weights.recognise import Names, config_of
from deixis.models.grounding_dino.weights.transformers_layout import file_name, tensors_to_load, ties_of
from deixis.models.text import learned_names, load_tokenizer
from deixis.models.weight_files import read_tensors
from deixis.text import one_line

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
"""Endings of single-file checkpoints."""


class Checkpoint(NamedTuple):
    """Another project's checkpoint, recognised, with its tensors renamed.

    Attributes:
        layout: "idea" or "mmdetection".
        config: the recognised model, as a transformers configuration.
        tensors: by their names in transformers' files.
        left_out: tensors in the file that the detector does not use, and what they are.
    """

    layout: str
    config: Any
    tensors: dict[str, Tensor]
    left_out: dict[str, str]


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a Grounding DINO, MM-Grounding-DINO or LLMDet checkpoint in its own project's layout.

    Raises:
        ModelError: the file is missing, unreadable or of no known layout, or tensors are missing, unexpected or of a
            wrong shape; all of these are listed by their names in the file.
    """
    source = str(path)
    state = read_tensors(path)
    layout = recognise_layout(state, source)
    table = table_of(layout, state, source)
    config = config_of(Names(state, table, source))
    gathered = gather(state, wanted_tensors(config, source), layout, table=table, source=source)
    return Checkpoint(layout.name, config, gathered.tensors, gathered.left_out)


def wanted_tensors(config: Any, source: str) -> dict[str, Tensor]:
    """The detector's tensors by name, with shapes but without values.

    Raises:
        ModelError: no detector can be built from the configuration.
    """
    try:
        # shapes without memory, whatever sizes a file suggests
        with torch.device("meta"):
            return dict(GroundingDino(config).state_dict())
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        raise ModelError(f"{source}: its shapes fit no Grounding DINO ({one_line(error, 200)})") from error


def build_bundle(checkpoint: Checkpoint, tokenizer: str | Path, source: str) -> GroundingDinoBundle:
    """The detector, in evaluation mode, on the CPU, in single precision.

    Args:
        tokenizer: a folder or hub id, since these checkpoints have none. All released ones use bert-base-uncased.

    Raises:
        ModelError: the tokenizer cannot be read or does not fit the model.
    """
    model = GroundingDino(checkpoint.config)
    tensors = tensors_to_load(checkpoint.tensors, model.state_dict(), ties_of(checkpoint.config), source=source)
    model.load_state_dict(tensors)
    bundle = GroundingDinoBundle(model.eval(), load_tokenizer(tokenizer), source=source)
    _ = bundle.prompt_tokenizer  # raises here and not at the first prompt
    return bundle


def load_checkpoint(path: str | Path, tokenizer: str | Path) -> GroundingDinoBundle:
    """`read_checkpoint` and `build_bundle` in one."""
    return build_bundle(read_checkpoint(path), tokenizer, str(path))


def foreign_tensors(model: GroundingDino, layout: str) -> dict[str, Tensor]:
    """A detector's tensors by the names, and in the order, of another project.

    Raises:
        OptionError: an unknown layout.
        ModelError: the layout cannot hold this detector.
    """
    if layout not in LAYOUTS:
        raise OptionError(f"the layout must be one of {sorted(LAYOUTS)}, got {layout!r}")
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    # MMDetection's layout has a name for the scales, IDEA-Research's has none
    if layout == IDEA.name and has_learned_scale(model.config):
        state = without_scales(fold_scales({file_name(n, UNTIED): tensor for n, tensor in state.items()}, model.config))
    return scatter(state, TABLES[layout](model.config), f"as {layout}")


def save_checkpoint(bundle: GroundingDinoBundle, path: str | Path, layout: str) -> None:
    """Write a detector as another project's `.pth`. The file is written completely, then renamed.

    Args:
        layout: "idea" or "mmdetection".

    Raises:
        OptionError: an unknown layout.
        ModelError: the layout cannot hold this detector, or the file cannot be written.
    """
    path = Path(path)
    if learned := list(learned_names(bundle.tokenizer)):
        raise ModelError(
            f"{path}: the layout has no tokenizer, and this model has tokens of its own for {', '.join(learned[:4])}; "
            "keep its folder, which transformers loads"
        )
    if bundle.model.parallel:
        raise ModelError(f"{path}: the layout has no parallel decoder, and this model has one; keep its folder")
    tensors = {name: tensor.clone() for name, tensor in foreign_tensors(bundle.model, layout).items()}
    content: Mapping[str, Any] = {LAYOUTS[layout].top_key: tensors, "meta": {}}
    try:
        with file_aside(path) as draft:
            torch.save(content, draft)
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{path}: cannot be written ({error}); choose another place") from error
