"""LoRA adapters (arXiv 2106.09685) on the detector, in PEFT's own files.

The detector's modules have the names of transformers, so an adapter trained here loads there with
`PeftModel.from_pretrained(model, folder)`, and vice versa. PEFT 0.21 asks transformers 5 models with tied weights for
word embeddings, which Grounding DINO does not define; until that is fixed upstream, first set
`model.get_input_embeddings = model.model.text_backbone.get_input_embeddings`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES

from deixis.errors import ModelError, OptionError
from deixis.models.folders import read_object, require_file, staged_folder
from deixis.models.model_record import is_number
from deixis.text import one_line

_LAYERS = r"(query|key|value|\w+_proj|sampling_offsets|attention_weights|fc1|fc2)"
TARGETS = {
    "encoder": rf"model\.encoder\..*\.{_LAYERS}",
    "decoder": rf"model\.decoder\.layers\..*\.{_LAYERS}",
    "backbone": r"model\.backbone\..*\.(query|key|value|q_proj|k_proj|v_proj|o_proj|dense|fc1|fc2)",
    "text": r"model\.text_backbone\.encoder\..*\.(query|key|value|dense)",
}
"""For each part of the detector, its linear layers that get an adapter, as a regular expression on module names."""

# PEFT's own names. Its `PeftModel` holds the model as `base_model.model`, hence the prefix of every tensor.
CONFIG, WEIGHTS, PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
ADAPTER = "default"
MAX_RANK = 16_384


def _is_rank(value: Any) -> bool:
    # JSON's true is an `int` in Python
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_RANK


def _are_texts(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


FIELDS: dict[str, Callable[[Any], bool]] = {
    "r": _is_rank,
    "lora_alpha": is_number,
    "lora_dropout": lambda value: is_number(value) and 0 <= value < 1,
    "target_modules": _are_texts,
    "exclude_modules": _are_texts,
    "use_rslora": lambda value: isinstance(value, bool),
    "rank_pattern": lambda value: isinstance(value, dict) and all(map(_is_rank, value.values())),
    "alpha_pattern": lambda value: isinstance(value, dict) and all(map(is_number, value.values())),
}
"""The fields of an adapter's configuration that are read, and a check of their values."""

SPECIAL_FIELDS = (
    "modules_to_save",
    "use_dora",
    "fan_in_fan_out",
    "lora_bias",
    "layer_replication",
    "use_qalora",
    "trainable_token_indices",
    "target_parameters",
    "layers_to_transform",
    "megatron_config",
)
"""Fields with which an adapter is more than a low-rank matrix added to the weights."""


def add_lora(
    model: nn.Module,
    rank: int = 16,
    alpha: float = 32,
    *,
    dropout: float = 0.0,
    targets: Sequence[str] = ("encoder", "decoder"),
) -> None:
    """Add LoRA adapters to the model's linear layers, in place; then only they are trainable.

    At first they change nothing: each adds `alpha / rank * B A` to a weight, and B is zero.

    Args:
        targets: parts of the detector, keys of `TARGETS`.

    Raises:
        OptionError: a target is unknown, or the rank is below 1.
        ModelError: the model already has adapters.
    """
    if not targets or not set(targets) <= TARGETS.keys():
        raise OptionError(f"LoRA targets must be some of {list(TARGETS)}, got {list(targets)}")
    # PEFT matches a text against the whole name of a module, as one regular expression
    inject_lora(model, "|".join(f"(?:{TARGETS[target]})" for target in targets), rank, alpha=alpha, dropout=dropout)


def inject_lora(model: nn.Module, pattern: str, rank: int, *, alpha: float, dropout: float) -> None:
    """Add adapters to the linear layers whose full names match a regular expression; then only they are trainable.

    Raises:
        OptionError: the rank is below 1.
        ModelError: the model already has adapters.
    """
    if rank < 1:
        raise OptionError(f"the LoRA rank must be at least 1, got {rank}")
    _inject(model, LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=pattern, bias="none"))


def save_adapter(model: nn.Module, folder: str | Path, base: str = "") -> None:
    """Write only the adapters: `adapter_config.json` and `adapter_model.safetensors`.

    Args:
        base: the folder or hub id of their base model.

    Raises:
        ModelError: the model has none, or the folder cannot be written.
    """
    folder = Path(folder)
    if _config_of(model) is None:
        raise ModelError(f"{folder}: the model has no adapters to save; save the whole model instead")
    with staged_folder(folder) as draft:
        write_adapter(model, draft, base)


def write_adapter(model: nn.Module, draft: Path, base: str) -> None:
    """`save_adapter` of a model that has adapters, into the draft of a `staged_folder`."""
    config = _config_of(model)
    tensors = {PREFIX + _plain(name): tensor.cpu().contiguous() for name, tensor in _adapter_tensors(model).items()}
    config.base_model_name_or_path = base or None
    config.inference_mode = True  # as PEFT's own `save_pretrained` writes it
    config.auto_mapping = _auto_mapping(model)
    config.save_pretrained(draft)
    save_file(tensors, draft / WEIGHTS, metadata={"format": "pt"})


def load_adapter(model: nn.Module, folder: str | Path) -> None:
    """Add saved adapters to the model, in place; then only they are trainable. After an error it is as it was.

    Raises:
        ModelError: there is no adapter, it is for another model (every missing and unexpected tensor is listed), or
            the model already has adapters.
    """
    folder = Path(folder)
    try:
        require_file(folder / WEIGHTS)
        config = read_lora_config(folder / CONFIG)
        saved = load_file(folder / WEIGHTS)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{folder}: no LoRA adapter can be read ({one_line(error, 200)})") from error
    try:
        trained = _inject(model, config)
    except ModelError:
        raise
    except Exception as error:  # PEFT finds no module with the adapter's names, or a pattern is no regular expression
        raise ModelError(f"{folder}: an adapter for another model ({one_line(error, 200)})") from error
    own = {PREFIX + _plain(name): tensor for name, tensor in _adapter_tensors(model).items()}
    faults = [f"missing {name}" for name in sorted(own.keys() - saved.keys())]
    faults += [f"unexpected {name}" for name in sorted(saved.keys() - own.keys())]
    faults += [
        f"{name} has shape {tuple(saved[name].shape)}, the model expects {tuple(own[name].shape)}"
        for name in sorted(own.keys() & saved.keys())
        if own[name].shape != saved[name].shape
    ]
    if faults:
        _undo(model, trained)
        raise ModelError(f"{folder}: the adapter does not fit the model ({len(faults)} faults): {'; '.join(faults)}")
    for name, tensor in own.items():
        tensor.copy_(saved[name])  # `detach` shares memory: this fills the model's own parameters


def read_lora_config(path: Path) -> LoraConfig:
    """Read the `adapter_config.json` of a plain LoRA.

    Only the fields in `FIELDS` are read: other PEFT fields lead to code (`megatron_core` imports any module) or to
    adapters of another kind.

    Raises:
        ModelError: it cannot be read, is no plain LoRA, or a field has an invalid value.
    """
    values = read_object(path)
    if values.get("peft_type", "LORA") != "LORA":
        raise ModelError(f"{path}: peft_type is {str(values['peft_type'])[:40]!r}, expected 'LORA'")
    special = sorted(name for name in SPECIAL_FIELDS if values.get(name))
    if special:
        raise ModelError(f"{path}: {special[0]} is set, which is not supported; expected a plain LoRA adapter")
    given = {name: values[name] for name in FIELDS if values.get(name) is not None}
    for name, value in given.items():
        if not FIELDS[name](value):
            raise ModelError(f"{path}: {name} is {str(value)[:80]!r}, which no LoRA adapter has; write it again")
    return LoraConfig(**given, bias="none")


def base_of(folder: Path) -> str:
    """The base model named in an adapter's folder.

    Raises:
        ModelError: it names none.
    """
    path = folder / CONFIG
    base = read_object(path).get("base_model_name_or_path")
    if not base or not isinstance(base, str):
        raise ModelError(f"{path}: base_model_name_or_path names no model; write the base's folder or hub id there")
    return base


def merge(model: nn.Module, keep: bool = True) -> None:
    """Remove the adapters, in place, adding their changes to the weights (or, without `keep`, discarding them).

    Every weight is trainable afterwards. A model without adapters is not changed.
    """
    if _config_of(model) is None:
        return
    if keep:
        for module in model.modules():
            if isinstance(module, LoraLayer):
                module.merge()
    _remove(model)
    model.requires_grad_(True)


def _remove(model: nn.Module) -> None:
    """Put the layers below the adapters in their place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())
    model.__dict__.pop("peft_config", None)


def _undo(model: nn.Module, trained: Set[str]) -> None:
    """Take the adapters out of a model in which these parameters trained before."""
    _remove(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)


def _inject(model: nn.Module, config: Any) -> set[str]:
    """Add new adapters; the names of the parameters that trained before. After an error the model is as it was."""
    if _config_of(model) is not None:
        raise ModelError("the model already has adapters; merge them first")
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    # PEFT treats a model whose config has a model_type as a transformers class, and calls methods that this one lacks.
    model_config = model.__dict__.pop("config", None)
    try:
        inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    except Exception:
        _undo(model, trained)  # PEFT may have come to some of the layers
        raise
    finally:
        if model_config is not None:
            model.__dict__["config"] = model_config
    # the attribute in which PEFT's own models keep it
    model.__dict__["peft_config"] = {ADAPTER: config}
    return trained


def _config_of(model: nn.Module) -> Any:
    return model.__dict__.get("peft_config", {}).get(ADAPTER)


def _adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters() if ".lora_" in name}


def _auto_mapping(model: nn.Module) -> dict[str, str] | None:
    """For `AutoPeftModel`: the transformers class of the base model."""
    kind = getattr(getattr(model, "config", None), "model_type", None)
    architecture = MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES.get(str(kind))
    return {"base_model_class": architecture, "parent_library": "transformers"} if architecture else None


def _plain(name: str) -> str:
    return name.replace(f".{ADAPTER}.", ".")  # in a file PEFT leaves out the adapter's name, which its modules have
