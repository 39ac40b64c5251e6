"""What a fine-tuning started from, as others may read it: a name without the user's own folders, and its licence."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import yaml
from huggingface_hub import try_to_load_from_cache

from deixis.errors import ModelError
from deixis.models.builtin import BUILTIN, model_of_run
from deixis.models.folders import is_hub_id

LICENCES = {"IDEA-Research/grounding-dino-": "apache-2.0", "openmmlab-community/mm_grounding_dino_": "apache-2.0"}
"""Of released models, by how their names begin, in the hub's words."""
_HEAD = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)


def base_name(model: str) -> str:
    """A model's name as it may be published: hub ids and "builtin" as they are, of a folder its last part.

    >>> base_name("IDEA-Research/grounding-dino-tiny"), base_name("/home/me/raccoons/")
    ('IDEA-Research/grounding-dino-tiny', 'raccoons')
    """
    if model == BUILTIN or is_hub_id(model):
        return model
    return Path(model).resolve().name


def licence_of(model: str) -> str:
    """A model's licence, from the card in its folder, in its run's or in the hub's cache, or known by name; empty if
    unknown."""
    if model == BUILTIN:
        return "apache-2.0"
    card: object = None
    if is_hub_id(model):
        card = try_to_load_from_cache(model, "README.md")
    else:
        with suppress(ModelError):  # a run with no one model
            card = Path(model_of_run(model)) / "README.md"
    written = str(card_head(Path(card)).get("license", "")) if isinstance(card, str | Path) else ""
    return written or next((name for start, name in LICENCES.items() if model.startswith(start)), "")


def card_head(card: Path) -> dict[str, object]:
    """The metadata at the top of a model card; empty where there is none, or it cannot be read."""
    try:
        found = _HEAD.search(card.read_text(encoding="utf-8"))
        values = yaml.safe_load(found[1]) if found else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
