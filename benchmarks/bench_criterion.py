"""Matcher and criterion, forward and backward, beside transformers' loss on the same outputs.

    python benchmarks/bench_criterion.py [--device cuda] [--threads 2] [--repeats 15] [--write]

Both get the outputs of six decoder layers and the encoder (900 queries, 256 token slots, one prompt for all images) and
the same targets; both compute every component and the gradient of the total. The totals have to agree. The two are
timed by turns, so that whatever else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from harness import write_result
from torch import Tensor
from transformers.loss.loss_grounding_dino import GroundingDinoForObjectDetectionLoss

from deixis.batch_records import Target
from deixis.losses.detection import build_criterion

QUERIES, TEXT_LEN, DECODER_LAYERS = 900, 256, 6


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    batch: int = 4
    boxes: int = 20
    classes: int = 8

    @property
    def tokens(self) -> int:
        """[CLS], two tokens and a delimiter for each class, [SEP]; as many as fit."""
        return min(2 + 3 * self.classes, TEXT_LEN)


CASES = [
    Case(),
    Case(classes=1),
    Case(classes=80),
    Case(boxes=0),
    Case(boxes=1),
    Case(boxes=100),
    Case(batch=1),
    Case(batch=8),
]


def make(case: Case, device: str) -> tuple[dict[str, Any], list[Target]]:
    """Outputs as a detector gives them in the middle of training, and targets."""
    generator = torch.Generator().manual_seed(0)

    def boxes(*shape: int) -> Tensor:
        sides = torch.rand(*shape, 2, generator=generator) * 0.4 + 0.02
        return torch.cat([sides / 2 + torch.rand(*shape, 2, generator=generator) * (1 - sides), sides], -1)

    rows = torch.zeros(case.classes, case.tokens)
    for index, row in enumerate(rows):
        start = min(1 + 3 * index, case.tokens - 3)
        row[start : start + 2] = 0.5
    mask = (torch.arange(TEXT_LEN) < case.tokens).expand(case.batch, -1).clone()

    def layer() -> dict[str, Tensor]:
        logits = torch.randn(case.batch, QUERIES, TEXT_LEN, generator=generator) * 2 - 4
        logits = logits.masked_fill(~mask[:, None], -torch.inf).to(device)
        predicted = boxes(case.batch, QUERIES).to(device)
        return {"pred_logits": logits.requires_grad_(), "pred_boxes": predicted.requires_grad_()}

    targets = [
        Target(
            boxes(case.boxes).to(device),
            torch.randint(0, case.classes, (case.boxes,), generator=generator).to(device),
            rows.to(device),
            (480, 640),
            (480, 640),
            image,
        )
        for image in range(case.batch)
    ]
    aux = [layer() for _ in range(DECODER_LAYERS - 1)]
    return {**layer(), "text_token_mask": mask.to(device), "aux_outputs": aux, "enc_outputs": layer()}, targets


def leaves(outputs: dict[str, Any]) -> list[Tensor]:
    """Every tensor that gets a gradient."""
    layers = [outputs, *outputs["aux_outputs"], outputs["enc_outputs"]]
    return [layer[name] for layer in layers for name in ("pred_logits", "pred_boxes")]


def ours(outputs: dict[str, Any], targets: list[Target]) -> Tensor:
    """One forward and backward of deixis' criterion; the total."""
    criterion = build_criterion(decoder_layers=DECODER_LAYERS)
    total = criterion.total(criterion(outputs, targets))
    torch.autograd.grad(total, leaves(outputs))
    return total.detach()


SETTINGS = SimpleNamespace(
    class_cost=1.0,
    bbox_cost=5.0,
    giou_cost=2.0,
    focal_alpha=0.25,
    bbox_loss_coefficient=5.0,
    giou_loss_coefficient=2.0,
    auxiliary_loss=True,
    two_stage=True,
    decoder_layers=DECODER_LAYERS,
)


def theirs(outputs: dict[str, Any], targets: list[Target]) -> Tensor:
    """One forward and backward of transformers' loss; the total."""
    decoder = [*outputs["aux_outputs"], outputs]
    encoder = outputs["enc_outputs"]
    total, _, _ = GroundingDinoForObjectDetectionLoss(
        outputs["pred_logits"],
        [{"class_labels": one.class_ids, "boxes": one.boxes_cxcywh_norm} for one in targets],
        outputs["pred_logits"].device,
        outputs["pred_boxes"],
        SETTINGS,
        [(F.pad(one.positive_map, (0, TEXT_LEN - one.positive_map.shape[1])) > 0).float() for one in targets],
        outputs["text_token_mask"][:, None].expand_as(outputs["pred_logits"]),
        torch.stack([layer["pred_logits"] for layer in decoder]),
        torch.stack([layer["pred_boxes"] for layer in decoder]),
        encoder["pred_logits"],
        encoder["pred_boxes"],
    )
    torch.autograd.grad(total, leaves(outputs))
    return total.detach()


def timed(call: Callable[[], Tensor], device: str) -> float:
    """Milliseconds of one call, the device's work included."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


def compare(case: Case, device: str, repeats: int) -> str:
    """A row of the table: medians, and the ratio with the middle half of its values."""
    outputs, targets = make(case, device)
    first, second = ours(outputs, targets).item(), theirs(outputs, targets).item()
    if abs(first - second) > 1e-4 * abs(second):
        raise SystemExit(f"{case}: totals differ, {first} and {second}")
    pairs = [
        (timed(lambda: ours(outputs, targets), device), timed(lambda: theirs(outputs, targets), device))
        for _ in range(repeats)
    ]
    ratios = [slow / fast for fast, slow in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4)
    fast, slow = (statistics.median(column) for column in zip(*pairs, strict=True))
    size = f"| {case.batch} | {case.boxes} | {case.classes} ({case.tokens})"
    return f"{size} | {fast:.1f} | {slow:.1f} | **{middle:.1f}x** ({low:.1f} to {high:.1f}) |"


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--cases", type=int, default=len(CASES), help="only the first N rows of the table")
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = [
        f"Seven layers, {QUERIES} queries, {TEXT_LEN} token slots; forward and backward; medians of {options.repeats} "
        "alternating runs. The ratio is followed by its middle half.",
        "",
        "| batch | boxes an image | classes (tokens) | deixis ms | transformers ms | ratio |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for case in CASES[: options.cases]:
        lines.append(compare(case, options.device, options.repeats))
        print(lines[-1], flush=True)
    if options.write:
        write_result("criterion", "Matcher and criterion beside transformers' loss", "\n".join(lines), options.device)


if __name__ == "__main__":
    main()
