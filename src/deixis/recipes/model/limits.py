"""What bounds the objects that a detector can find, read from its configuration alone."""

from __future__ import annotations

from pathlib import Path

from deixis.data.checks.limits import ModelLimits
from deixis.errors import ModelError
from deixis.models.builtin import resolve_model
from deixis.models.folders import read_json


def model_limits(model: str) -> ModelLimits:
    """Queries and image size of a model's folder; those of the released models where none is named or it says none."""
    folder = Path(resolve_model(model)) if model else Path()
    if not model or not (folder / "config.json").is_file():
        return ModelLimits()
    try:
        queries = read_json(folder / "config.json")["num_queries"]
        size = read_json(folder / "preprocessor_config.json")["size"]
        image_size = (int(size["shortest_edge"]), int(size["longest_edge"]))
        return ModelLimits(int(queries), image_size=image_size, whose=model)
    except (ModelError, KeyError, TypeError, ValueError, OverflowError):  # a tokenizer alone, for instance
        return ModelLimits()
