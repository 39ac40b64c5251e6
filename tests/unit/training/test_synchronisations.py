"""How often a training step waits for the device, and what it keeps of parts that do not train.

There is no device here: what a CPU alone does without harm is switched to the form that accelerators take, and every
operation that would have to wait for one is counted, by the function of deixis that asked for it.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from small_detectors import IDS, images, prompts, small_detector, total
from tiny_runs import write_tiny_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from deixis.data.detect.collate import SampleDataset, collate_pairs
from deixis.data.scenes.images import scenes
from deixis.losses import matcher
from deixis.losses.detection import build_criterion
from deixis.models.freezing import freeze, part_of
from deixis.models.grounding_dino import load_grounding_dino, trunk
from deixis.models.grounding_dino.detector import GroundingDino
from deixis.models.grounding_dino.layers import attention, feed_forward
from deixis.recipes.detect.data.prompts import TrainingPrompts
from deixis.training.feed import Feed
from deixis.training.loop import accumulate_gradients
from deixis.training.optim import build_adamw, parameter_groups
from deixis.training.processes import make_accelerator, mean_figures
from deixis.training.tasks.detector import DetectorTask

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "repeat_interleave"}


def caller() -> str:
    """The innermost function of deixis that is running."""
    frame = sys._getframe(1)
    while frame is not None and "/deixis/" not in frame.f_code.co_filename:
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere" if frame is None else f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"


class Waits(TorchDispatchMode):
    """Counts operations whose result the host must see before it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        places = args[1] if name in ("index", "index_put", "index_put_") else ()
        by_mask = any(isinstance(place, Tensor) and place.dtype == torch.bool for place in places)
        if name in WAITING or by_mask:
            self.found[caller()] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> Waits:
    """Take the paths of an accelerator; copies of whole tensors to the host are counted too."""
    waits = Waits()
    monkeypatch.setattr(attention.DeformableAttention, "implementation", "reference")
    monkeypatch.setattr(feed_forward, "_computed_elsewhere", lambda tokens: True)
    monkeypatch.setattr(trunk, "_may_be_padded", lambda mask: True)
    monkeypatch.setattr(matcher, "_only_class_tokens", lambda logits, maps: (logits, maps))
    for name in ("tolist", "cpu"):
        whole = getattr(Tensor, name)

        def counted(self: Tensor, *given: Any, whole: Any = whole) -> Any:
            waits.found[caller()] += self.numel() > 1  # of a single number, tolist is seen below
            return whole(self, *given)

        monkeypatch.setattr(Tensor, name, counted)
    return waits


def a_task(folder: Path, accumulation: int) -> tuple[DetectorTask, GroundingDino]:
    """The small recipe's: image and text backbones frozen."""
    accelerator = make_accelerator(cpu=True)
    bundle = load_grounding_dino(write_tiny_model(folder / "model"))
    freeze(bundle.model, ["backbone", "text"])
    names = TrainingPrompts(bundle.prompt_tokenizer, 256, shuffle=True)
    dataset = SampleDataset(scenes("demo_train", 8, 1), lambda sample, generator: sample, names, seed=0)

    def normalise(pixels: Tensor, mask: Tensor) -> Tensor:
        return pixels.to(torch.float32).mul(1 / 128).masked_fill(~mask[:, None], 0)

    return DetectorTask(
        accelerator.prepare_model(bundle.model.train()),
        normalise,
        build_criterion("mm_grounding_dino", decoder_layers=2),
        feed=Feed(dataset=dataset, collate=collate_pairs, batch_size=2, accumulation=accumulation),
        accelerator=accelerator,
        evaluate=dict,
        save_model=print,
    ), bundle.model


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_waits_four_times(tmp_path: Path, as_on_a_device: Waits, accumulation: int) -> None:
    task, model = a_task(tmp_path, accumulation)
    optimizer = build_adamw(parameter_groups(model.named_parameters(), part_of, dict.fromkeys(
        ("encoder", "decoder", "heads"), 1e-4), weight_decay=1e-4))  # fmt: skip
    groups = list(task.groups(0, 0))
    for number, group in enumerate(groups[:2]):  # the first step also encodes prompts and makes optimiser states
        as_on_a_device.found.clear()
        with as_on_a_device:
            losses = accumulate_gradients(task, task.accelerator, group, normaliser=task.normaliser(group))
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            mean_figures(task.accelerator, {**losses, "grad_norm": norm})
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        by_batch = {"text.encode": 1, "detector.all_finite": 1, "matcher.__call__": 1}
        wanted = {name: count * accumulation for name, count in by_batch.items()} | {"processes.mean_figures": 1}
        assert dict(as_on_a_device.found) == wanted, f"step {number}"


def test_waits_are_seen(as_on_a_device: Waits) -> None:
    numbers = torch.arange(4.0)
    for asks in (
        lambda: numbers.sum().item(),
        lambda: bool((numbers > 9).any()),
        lambda: float(numbers[0]),
        lambda: numbers[numbers > 1],
        lambda: numbers.masked_select(numbers > 1),
        lambda: (numbers > 1).nonzero(),
        lambda: numbers.tolist(),
        lambda: numbers.cpu(),
    ):
        as_on_a_device.found.clear()
        with as_on_a_device:
            asks()
        assert sum(as_on_a_device.found.values()) == 1


def kept_bytes(model: GroundingDino, part: torch.nn.Module) -> tuple[int, int]:
    """Bytes that a training step's forward pass keeps for the backward one: inside a part, and in all."""
    inside, counts = [False], [0, 0]
    part.register_forward_pre_hook(lambda *_: inside.__setitem__(0, True))
    part.register_forward_hook(lambda *_: inside.__setitem__(0, False))
    weights = {weight.data_ptr() for weight in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            counts[0] += tensor.nbytes * inside[0]
            counts[1] += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        total(model(**images((64, 96), (96, 64)), **prompts(*IDS))).backward()
    return counts[0], counts[1]


@pytest.mark.parametrize("name", ["backbone", "text"])
def test_nothing_is_kept_of_a_frozen_part(name: str) -> None:
    found = {}
    for frozen in (False, True):
        model = small_detector().train()
        if frozen:
            freeze(model, [name])
        part = model.model.backbone if name == "backbone" else model.model.text_backbone
        found[frozen] = kept_bytes(model, part)
    assert found[False][0] > 10_000
    assert found[True][0] == 0
    assert found[True][1] <= found[False][1] - found[False][0]
