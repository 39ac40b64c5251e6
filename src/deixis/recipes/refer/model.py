"""What a segmenter run starts from, how it learns, and what it writes."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from deixis.errors import OptionError
from deixis.losses.refer import ReferCriterion
from deixis.models.builtin import model_of_run
from deixis.models.model_card import write_card
from deixis.models.model_record import read_record, trained_record, write_record
from deixis.models.sa2va import (
    Sa2vaBundle,
    freeze,
    join_sa2va,
    load_sa2va,
    merge_adapters,
    new_token_ids,
    part_of,
    require_released_form,
    save_released,
    save_sa2va,
)
from deixis.models.sa2va.parts import LORA_PATTERN
from deixis.models.sa2va.pointing import points_first
from deixis.models.sa2va.quantized import quantize
from deixis.models.sa2va.weights.released import RELEASED_TYPE
from deixis.models.segmenter_adapter import save_segmenter_adapter
from deixis.options.groups import Lora
from deixis.options.refer_train import Behaviour, ReferLoss, ReferParts
from deixis.recipes.model.segmenter import layout_of
from deixis.training.checkpoint import replacing_folder

ADAPTER, TEACHER_ADAPTER = "adapter", "sa2va_lora"  # inside checkpoints/best, and beside teachers/sa2va

# A model that has not learnt to say "not here" gets no gradient there; see `ReferCriterion`.
UNTAUGHT = {"sa2va": ("iou_prediction_head", "pred_obj_score_head", "obj_score_token"), "deixis": ()}


def prepare_segmenter(
    parts: ReferParts, lora: Lora, behaviour: Behaviour, *, seed: int, gradient_checkpointing: bool = False
) -> Sa2vaBundle:
    """The segmenter that a run trains: read or joined, parts frozen, adapters added.

    Args:
        seed: of fresh adapters and projections: a resumed run needs the same.
    """
    # The run's own random numbers must not depend on how many adapters are made.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**64)  # torch takes 64 bits, --seed any number
        return _prepared(parts, lora, behaviour, seed, gradient_checkpointing)


def _prepared(
    parts: ReferParts, lora: Lora, behaviour: Behaviour, seed: int, gradient_checkpointing: bool
) -> Sa2vaBundle:
    if parts.sam_model is not None:
        bundle = join_sa2va(parts.model, parts.sam_model)
    else:
        bundle = load_sa2va(parts.model, tokenizer=parts.tokenizer)
    bundle = replace(bundle, behaviour=behaviour)
    points, outlines = points_first(bundle.model.sam), bundle.model.spatial_token is not None
    if behaviour == "sa2va" and (points or outlines):
        what = "prompts that point first" if points else "spatial tokens"
        raise OptionError(f"--behaviour sa2va: {parts.model} has {what}, which released models do not know")
    if parts.teacher_layout == "sa2va":
        require_released_form(bundle, f"--teacher-layout sa2va: {parts.model}")
    if parts.quantize:
        quantize(bundle.model, LORA_PATTERN, parts.quantize)
    freeze(
        bundle.model,
        {*parts.train, "embeddings", *(() if lora.lora else ("language",))} - {*parts.freeze},
        lora=has_adapters(parts, lora),
        rank=lora.lora_r,
        alpha=lora.lora_alpha,
        dropout=lora.lora_dropout,
        rows="all" if parts.train_embeddings else "new",
        new_token_ids=new_token_ids(bundle.tokenizer),
    )
    for name, parameter in bundle.model.named_parameters():
        if any(part in name for part in UNTAUGHT[behaviour]):
            parameter.requires_grad_(False)
    if gradient_checkpointing:
        checkpoint_activations(bundle)
    return bundle


def checkpoint_activations(bundle: Sa2vaBundle) -> None:
    """Let the backward pass compute activations again, of a layer of the language model or an object's mask a time."""
    # The reentrant kind gives no gradients where no input needs one, as with frozen embeddings.
    bundle.model.vlm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    bundle.model.objects_at_once = 1


def make_refer_criterion(loss: ReferLoss) -> ReferCriterion:
    """The criterion of the behaviour, with the user's own weights in place of its."""
    if loss.behaviour == "sa2va" and (loss.weight_iou or loss.weight_object):
        raise OptionError("--weight-iou and --weight-object belong to --behaviour deixis; sa2va has no such losses")
    return ReferCriterion(
        loss.behaviour,
        loss.weight_mask,
        loss.weight_dice,
        weight_iou=1.0 if loss.weight_iou is None else loss.weight_iou,
        weight_object=1.0 if loss.weight_object is None else loss.weight_object,
        weight_language=loss.weight_language,
        weight_point=loss.weight_point,
        points=loss.mask_points or None,
    )


def language_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The language model's parameters that train: its adapters, or its weights."""
    return [p for name, p in model.named_parameters() if p.requires_grad and part_of(name) == "language"]


def save_segmenter(bundle: Sa2vaBundle, folder: Path, *, adapter_of: str = "") -> None:
    """Write the model with adapters and new rows merged, all or nothing. Training continues with the unmerged one.

    Args:
        adapter_of: the model that its adapters are for; they are then also written by themselves, into `adapter/`.
    """
    merged = copy.deepcopy(bundle.model).to("cpu")  # merging cannot be undone exactly: a copy is merged
    merge_adapters(merged)
    with replacing_folder(folder) as fresh:
        save_sa2va(replace(bundle, model=merged), fresh)
        record = trained_record(bundle.record, "segmenter")
        write_record(fresh, replace(record, thresholds=bundle.record.thresholds))  # those that this run measures with
        write_card(fresh, folder.name)
        if adapter_of:
            save_segmenter_adapter(bundle, fresh / ADAPTER, adapter_of)
            write_record(fresh / ADAPTER, read_record(fresh))
            write_card(fresh / ADAPTER, TEACHER_ADAPTER)


def has_adapters(parts: ReferParts, lora: Lora) -> bool:
    """Whether the language model trains through adapters."""
    return lora.lora and "language" not in parts.freeze


def adapter_base(parts: ReferParts, lora: Lora) -> str:
    """What the adapters of a run are for; empty where there are none, or where the model was put together by options
    and is no single one."""
    return (
        str(model_of_run(parts.model)) if has_adapters(parts, lora) and not (parts.sam_model or parts.tokenizer) else ""
    )


def write_teacher(parts: ReferParts, best: Path, teacher: Path) -> None:
    """Write the best weights, a folder of `save_segmenter`, as the teacher, all or nothing, in `teacher_layout`.

    Their adapter, where there is one, is written beside it, as `sa2va_lora`.

    Raises:
        ModelError: it cannot be read or written.
    """
    if (best / ADAPTER).is_dir():
        with replacing_folder(teacher.with_name(TEACHER_ADAPTER)) as fresh:
            shutil.copytree(best / ADAPTER, fresh, dirs_exist_ok=True)
    with replacing_folder(teacher) as fresh:
        if parts.teacher_layout == "deixis":
            shutil.copytree(best, fresh, dirs_exist_ok=True, ignore=shutil.ignore_patterns(ADAPTER))
            return
        # Sa2VA's code has no other
        like = parts.model if layout_of(parts.model) == RELEASED_TYPE else None
        save_released(replace(load_sa2va(best), behaviour="sa2va"), fresh, like)
        write_card(fresh, teacher.name)
