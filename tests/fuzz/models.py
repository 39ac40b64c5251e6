"""Builders for model folders: small random models, written once and copied for each input."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from shutil import copytree, rmtree

import torch
from released_segmenters import released_bundle, write_released
from small_segmenters import tiny_segmenter
from tiny_runs import write_tiny_model

from deixis.models.adapters import add_lora, save_adapter
from deixis.models.checkpoints import load_any_detector
from deixis.models.grounding_dino import load_grounding_dino
from deixis.models.sa2va import load_sa2va, save_sa2va
from deixis.models.weight_files import read_tensors

Builder = Callable[[Path, Random], Callable[[], object]]


@cache
def _originals() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-models-"))
    atexit.register(rmtree, folder, ignore_errors=True)
    return folder


@cache
def _detector() -> Path:
    return write_tiny_model(_originals() / "detector")


@cache
def _adapter() -> Path:
    bundle = load_grounding_dino(_detector())
    add_lora(bundle.model, rank=2)
    save_adapter(bundle.model, _originals() / "adapter", str(_detector()))
    return _originals() / "adapter"


@cache
def _segmenter() -> Path:
    save_sa2va(tiny_segmenter(), _originals() / "segmenter")
    return _originals() / "segmenter"


@cache
def _released() -> Path:
    write_released(released_bundle("Qwen2ForCausalLM"), "Qwen2ForCausalLM", _originals() / "released")
    return _originals() / "released"


def _copied(original: Callable[[], Path], load: Callable[[Path], object]) -> Builder:
    def build(folder: Path, random: Random) -> Callable[[], object]:
        copytree(original(), folder, dirs_exist_ok=True)
        return lambda: load(folder)

    return build


def _checkpoint(folder: Path, random: Random) -> Callable[[], object]:
    torch.save({"model": {"module.a": torch.ones(3, 4), "module.b": torch.ones(2)}, "epoch": 3}, folder / "model.pth")
    return lambda: read_tensors(folder / "model.pth")


BUILDERS: dict[str, Builder] = {
    "detector": _copied(_detector, load_any_detector),
    "adapter": _copied(_adapter, load_any_detector),
    "segmenter": _copied(_segmenter, load_sa2va),
    "released": _copied(_released, load_sa2va),
    "checkpoint": _checkpoint,
}
