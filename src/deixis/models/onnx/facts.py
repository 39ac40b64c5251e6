"""What an export needs beside its graph, as short texts that travel in the file itself.

ONNX keeps them in its metadata, OpenVINO in its `rt_info`, under `deixis.NAME`; each is JSON:

    names          what the file was exported for; empty where names are an input
    caption        those names as the prompt that is built in
    image_size     shorter and longest side in pixels to which images are resized
    image_mean, image_std   of RGB values in [0, 1]
    boxes          what the numbers of a box mean
    precision      fp32, fp16 or int8
    record         the model's `deixis.json`: thresholds, figures, what it knows
    tokenizer      where names are an input: the content of tokenizer.json
    max_text_len   the same: the largest number of tokens
    queries        the largest number of objects in an image
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deixis.batch_records import Prompt
from deixis.errors import ModelError
from deixis.models.grounding_dino import GroundingDinoBundle
from deixis.models.grounding_dino.bundle import IMAGENET_MEAN, IMAGENET_STD
from deixis.models.model_record import ModelRecord, record_of, record_values

START = "deixis."
OPENVINO_KEY = "deixis"
FACTS = (
    "names",
    "caption",
    "image_size",
    "image_mean",
    "image_std",
    "boxes",
    "precision",
    "record",
    "tokenizer",
    "max_text_len",
    "queries",
)
MAX_SIDE_PX = 20_000


@dataclass(frozen=True)
class Facts:
    """The content of a file's metadata; see the module."""

    names: tuple[str, ...] = ()
    image_size: tuple[int, int] = (800, 1333)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    precision: str = "fp32"
    record: ModelRecord = field(default_factory=ModelRecord)
    tokenizer: str = ""
    max_text_len: int = 256
    queries: int = 900


def facts_of(
    bundle: GroundingDinoBundle, names: Sequence[str], prompt: Prompt, *, precision: str = "fp32"
) -> dict[str, str]:
    """The texts for an export.

    Args:
        names: of the classes that are built in; empty where names are an input.
        prompt: that asks for them.
    """
    facts: dict[str, Any] = {
        "names": list(names),
        "caption": prompt.caption if names else "",
        "image_size": bundle.image_size,
        "image_mean": bundle.mean,
        "image_std": bundle.std,
        "boxes": "cxcywh over the image's width and height",
        "precision": precision,
        "record": record_values(bundle.record),
        "queries": bundle.model.queries,
    }
    if not names:
        facts |= {"tokenizer": bundle.tokenizer.backend_tokenizer.to_str(), "max_text_len": prompt_len(bundle)}
    return {START + name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()}


def prompt_len(bundle: GroundingDinoBundle) -> int:
    """Tokens that a prompt may have, beside the sinks."""
    return bundle.model.max_text_len - (0 if bundle.sinks is None else len(bundle.sinks))


def read_facts(texts: Mapping[str, str], path: object) -> Facts:
    """The facts of a file that deixis exported.

    Raises:
        ModelError: there are none, or one has an invalid value.
    """
    if START + "image_size" not in texts:
        raise ModelError(f"{path}: deixis did not export this file; write one with deixis model export")
    values = {name: _value(texts, name, path) for name in _CHECKS if START + name in texts}
    for name, value in values.items():
        if not _fits(_CHECKS[name], value):
            raise ModelError(f"{path}: {START}{name} is {str(value)[:80]!r}, which is invalid; export the file again")
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    # in the file they have transformers' names
    given |= {new: given.pop(old) for old, new in (("image_mean", "mean"), ("image_std", "std")) if old in given}
    if "record" in given:
        given["record"] = record_of(given["record"], path)
    return Facts(**given)


def _value(texts: Mapping[str, str], name: str, path: object) -> Any:
    try:
        return json.loads(texts[START + name])
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: {START}{name} cannot be read ({error}); export the file again") from error


def _fits(check: Callable[[Any], bool], value: Any) -> bool:
    try:
        return check(value)
    except (TypeError, ValueError):
        return False


def _are_sides(value: Any) -> bool:
    # by `type`: for `isinstance`, true and false are integers too
    whole = len(value) == 2 and all(type(side) is int for side in value)
    return isinstance(value, list) and whole and 0 < value[0] <= value[1] <= MAX_SIDE_PX


def _are_shares(value: Any) -> bool:
    # bounded as in `model_configs.statistics`; NaN fails the comparison
    numbers = isinstance(value, list) and len(value) == 3 and all(type(number) in (int, float) for number in value)
    return numbers and all(abs(number) <= 1e3 for number in value)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value) and len(set(value)) == len(value)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "names": _are_names,
    "image_size": _are_sides,
    "image_mean": _are_shares,
    "image_std": lambda value: _are_shares(value) and min(value) > 0,
    "precision": lambda value: isinstance(value, str),
    "record": lambda value: isinstance(value, dict),
    "tokenizer": lambda value: isinstance(value, str),
    # [CLS] and [SEP] alone are two
    "max_text_len": lambda value: type(value) is int and 2 < value <= 4096,
    "queries": lambda value: type(value) is int and 0 < value <= 100_000,
}
