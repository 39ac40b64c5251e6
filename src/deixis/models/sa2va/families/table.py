"""The families of vision-language models that can be made a segmenter, and the one place that tells them apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deixis.errors import ModelError
from deixis.models.folders import read_object
from deixis.models.sa2va.families.family import Family
from deixis.models.sa2va.families.internvl import INTERNVL
from deixis.models.sa2va.families.qwen2_5_vl import QWEN2_5_VL
from deixis.models.sa2va.families.qwen3_vl import QWEN3_VL

FAMILIES = {family.name: family for family in (INTERNVL, QWEN2_5_VL, QWEN3_VL)}
"""By model_type of transformers' configuration."""


def family_of(config: Any) -> Family:
    """The family that a configuration of transformers describes.

    Raises:
        ModelError: one that cannot be used here.
    """
    name = getattr(config, "model_type", None)
    if name not in FAMILIES:
        raise ModelError(f"model_type {name!r} cannot be made a segmenter; expected one of {sorted(FAMILIES)}")
    return FAMILIES[name]


def released_family(values: Mapping[str, Any], folder: Path) -> Family:
    """The family of a released Sa2VA folder.

    Args:
        values: its config.json.

    Raises:
        ModelError: a family that is not known here, or a segmenter built on SAM 3.
    """
    path = folder / "config.json"
    if _has_sam3(folder):
        raise ModelError(
            f"{path}: this Sa2VA is built on SAM 3, which is not supported yet; use one built on SAM 2, such as "
            "ByteDance/Sa2VA-Qwen3-VL-4B"
        )
    for family in FAMILIES.values():
        if family.released.recognises(values):
            return family
    raise ModelError(
        f"{path}: describes no Sa2VA of a known kind; expected llm_config and vision_config of InternVL, or the "
        f"text_config and vision_config of {' or '.join(sorted(FAMILIES.keys() - {INTERNVL.name}))}"
    )


def _has_sam3(folder: Path) -> bool:
    """By the code that belongs to the folder, or by its configuration, which names that code and SAM 3's own part."""
    if any(path.name.lower().startswith("sam3") for path in folder.iterdir()):
        return True
    # _name_or_path may hold any folder's name, also one with "sam3" in it.
    values = {name: value for name, value in read_object(folder / "config.json").items() if name != "_name_or_path"}
    return "sam3" in json.dumps(values).lower()
