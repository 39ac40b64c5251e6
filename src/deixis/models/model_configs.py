"""Configurations in model folders: read as values, without entries that lead to code, and checked for plausible sizes.

transformers and PEFT follow some entries of a JSON file to Python code: `auto_map` and `custom_generate` to a file in
the folder, `attn_implementation` to a kernel on the hub, PEFT's `megatron_core` to any importable module. None of these
is passed on. The rest describes shapes, which are compared with the weights in the files before memory is allocated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import CONFIG_MAPPING

from deixis.data.reading import reason
from deixis.errors import ModelError
from deixis.models.folders import read_object, weight_files

NAMES_CODE = re.compile(
    r"auto_map|custom_\w+|trust_remote_code|\w*attn_implementation\w*|\w*experts_implementation\w*|"
    r"\w*kernel_config|use_kernels|megatron_\w+"
)
"""Keys whose values lead to code."""

MAX_COUNT, MAX_SIZE = 1_000, 20_000_000
_COUNTS = re.compile(r"(^|_)(layers|depths?|blocks|heads|levels|points|groups|branches|stages?|per_stage)(_|$)")
_SIZES = re.compile(
    r"(^|_)(size|dim|width|channels?|length|positions?|embeddings?|queries|features|ffn|rank|tokens)(_|$)"
)


def config_values(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model folder, without entries that lead to code.

    Raises:
        ModelError: there is no JSON object, the model is quantised, or a number is implausible.
    """
    values = read_object(path)
    if values.get("quantization_config"):
        raise ModelError(f"{path}: the model is quantised, which is not supported; use the one in full precision")
    _require_plausible_numbers(values, path, "")
    cleaned: dict[str, Any] = without_code(values)
    return cleaned


def without_code(value: Any) -> Any:
    """A JSON value without the keys of `NAMES_CODE`, at any depth."""
    if isinstance(value, dict):
        return {key: without_code(item) for key, item in value.items() if not NAMES_CODE.fullmatch(key)}
    return [without_code(item) for item in value] if isinstance(value, list) else value


def read_transformers_config(path: Path, kinds: Mapping[str, Any] | None = None) -> Any:
    """A configuration of one of transformers' own classes, by its model_type; never a class in the folder.

    Args:
        path: the config.json.
        kinds: the expected classes by model_type; by default all of transformers.

    Raises:
        ModelError: it cannot be read, or is of another kind.
    """
    values = config_values(path)
    kind = values.get("model_type")
    known = CONFIG_MAPPING if kinds is None else kinds
    if not isinstance(kind, str) or kind not in known:
        expected = f"one of {sorted(kinds)}" if kinds else "a model in transformers; code in a folder is not run"
        raise ModelError(f"{path}: model_type is {str(kind)[:80]!r}, expected {expected}")
    try:
        return known[kind].from_dict(values)
    except Exception as error:  # transformers validates with several kinds of errors
        raise ModelError(f"{path}: cannot be used ({reason(error)}); download or write the model again") from error


def statistics(
    values: Mapping[str, Any], path: Path, of: str = "image"
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of the pixels, from a preprocessing file.

    Args:
        of: what their names begin with: `image_mean` and `image_std`.

    Raises:
        ModelError: they are not three finite numbers each, with deviations above zero.
        KeyError: one is missing.
    """
    triples = []
    # deviations divide the pixels
    for name, minimum, wanted in (
        (f"{of}_mean", -1e3, "from -1000 to 1000"),
        (f"{of}_std", 1e-6, "above 0 (from 1e-06 to 1000)"),
    ):
        given = values[name]
        fits = (
            isinstance(given, list | tuple) and len(given) == 3 and all(type(value) in (int, float) for value in given)
        )
        if not fits or not all(minimum <= value <= 1e3 for value in given):
            raise ModelError(
                f"{path}: {name} is {str(given)[:80]}, expected three numbers {wanted}; download the model again"
            )
        triples.append((float(given[0]), float(given[1]), float(given[2])))
    return triples[0], triples[1]


def require_same_scale(build: Callable[[], nn.Module], folder: Path) -> None:
    """Check a configuration against the weights in a folder before memory is allocated for it.

    Args:
        build: builds the model; called on the meta device, where tensors have shapes but no memory.

    Raises:
        ModelError: the model cannot be built, or has more than twice as many parameters as the files.
    """
    try:
        with torch.device("meta"):
            wanted = sum(parameter.numel() for parameter in build().parameters())
    except ModelError:
        raise
    except Exception as error:  # any value of a configuration can be wrong in its own way
        raise ModelError(f"{folder / 'config.json'}: describes no model ({reason(error)})") from error
    held = sum(map(_elements, weight_files(folder)))
    if wanted > 2 * held + 1_000_000:
        raise ModelError(
            f"{folder / 'config.json'}: describes {wanted:,} parameters, the weights have {held:,}; "
            "download or write the model again"
        )


def _elements(path: Path) -> int:
    try:
        with safe_open(path, "pt") as file:
            # shapes are in the file's header: no tensor is read
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); download or write the model again") from error


def _require_plausible_numbers(value: Any, path: Path, name: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _require_plausible_numbers(item, path, key)
    elif isinstance(value, list):
        for item in value:
            _require_plausible_numbers(item, path, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        # Sizes first: SAM 2's embed_dim_per_stage is one, 1,152 in the large model.
        maximum = MAX_SIZE if _SIZES.search(name) else MAX_COUNT if _COUNTS.search(name) else None
        finite = abs(value) < 1 << 63 if isinstance(value, int) else math.isfinite(value)
        if not finite or (maximum is not None and value > maximum):
            expected = "a finite number" if maximum is None else f"at most {maximum:,}"
            raise ModelError(f"{path}: {name} is {str(value)[:40]}, expected {expected}; download the model again")
