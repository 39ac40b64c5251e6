"""A training step, a forward pass and the memory of a step: deixis beside transformers, Swin-T, the same weights.

    python benchmarks/bench_detector.py                     # frozen backbones, 480 x 640, batch 1, fp32
    python benchmarks/bench_detector.py --train all --only step --rounds 3 --write
    python benchmarks/bench_detector.py --device cuda --batch 4 --size 800 1333 --precision bf16 --write

Both models get the same random weights, pictures, prompts and boxes, in one process and by turns. Before timing, their
proposals in evaluation mode have to agree. A step is forward, matching and loss of all layers, backward, clipping and
fused AdamW. transformers' auxiliary losses are switched on, so that both compute as many components. deixis remembers a
prompt's features where the text encoder does not train; rows with the prompt encoded anew show it without. Each timed
call follows one that is not timed, as it does in a run. Peak memory is measured in a process of its own for each, over
what is in use before the step.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from harness import peak_resident_mib, ratios, table, time_interleaved, write_result
from transformers import AutoModelForZeroShotObjectDetection, GroundingDinoConfig
from transformers.utils import logging as transformers_logging

from deixis.batch_records import Target
from deixis.losses.detection import build_criterion
from deixis.models.adapters import add_lora
from deixis.models.freezing import freeze
from deixis.models.grounding_dino.detector import GroundingDino
from deixis.models.grounding_dino.small import small_config
from deixis.models.grounding_dino.text import PromptCache

INPUT_IDS = [101, 26100, 2669, 1012, 4937, 1012, 3899, 1012, 2482, 1012, 2711, 1012, 102]  # five names
TITLES = {"forward": "inference forward, ms", "step": "training step, ms", "memory": "peak of a step, MiB"}
SPANS = [(1, 3), (4, 5), (6, 7), (8, 9), (10, 11)]


@dataclass(frozen=True)
class Problem:
    """What both are given."""

    pixel_values: torch.Tensor
    input_ids: torch.Tensor
    targets: list[Target]

    @property
    def masks(self) -> tuple[torch.Tensor, torch.Tensor]:
        batch, _, height, width = self.pixel_values.shape
        device = self.pixel_values.device
        return torch.ones(batch, height, width, dtype=torch.bool, device=device), torch.ones_like(self.input_ids).bool()


def make_problem(batch: int, size_hw: tuple[int, int], boxes: int, device: str) -> Problem:
    """Noise, five names, boxes spread at random."""
    torch.manual_seed(1)
    positive_map = torch.zeros(len(SPANS), len(INPUT_IDS))
    for row, (start, end) in enumerate(SPANS):
        positive_map[row, start:end] = 1 / (end - start)
    targets = []
    for index in range(batch):
        centres, sides = torch.rand(boxes, 2) * 0.6 + 0.2, torch.rand(boxes, 2) * 0.3 + 0.05
        classes = torch.randint(0, len(SPANS), (boxes,))
        corners = torch.cat([centres, sides], 1).to(device)
        targets.append(Target(corners, classes.to(device), positive_map.to(device), size_hw, size_hw, index))
    pixels = torch.randn(batch, 3, *size_hw).to(device)
    return Problem(pixels, torch.tensor([INPUT_IDS] * batch).to(device), targets)


def make_models(train: str, device: str, *, small: bool = False) -> tuple[GroundingDino, Any]:
    """Ours and theirs with the same weights, the same parts trainable: Swin-T, or the size of the built-in detector."""
    transformers_logging.set_verbosity_error()
    torch.manual_seed(0)
    config = small_config(max(INPUT_IDS) + 1) if small else GroundingDinoConfig()
    config.auxiliary_loss = True
    theirs = AutoModelForZeroShotObjectDetection.from_config(config)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim < 2:
                parameter.add_(torch.randn_like(parameter) * 0.02)
    ours = GroundingDino(config)
    weights = theirs.state_dict()
    ours.load_state_dict({name: weights[name] for name in ours.state_dict()})  # theirs has aliases of the box heads
    theirs.get_input_embeddings = theirs.model.text_backbone.get_input_embeddings  # PEFT asks for it
    for model in (ours, theirs):
        if train == "frozen":
            freeze(model, ["backbone", "text"])
        elif train == "lora":
            add_lora(model, 16, 32.0, dropout=0.0)
    return ours.to(device), theirs.to(device)


def our_outputs(model: GroundingDino, problem: Problem) -> dict[str, Any]:
    pixel_mask, token_mask = problem.masks
    outputs: dict[str, Any] = model(problem.pixel_values, pixel_mask, problem.input_ids, token_mask)
    return outputs


def their_outputs(model: Any, problem: Problem, labels: bool) -> Any:
    pixel_mask, token_mask = problem.masks
    given = [{"class_labels": t.class_ids, "boxes": t.boxes_cxcywh_norm} for t in problem.targets] if labels else None
    return model(
        problem.pixel_values,
        problem.input_ids,
        attention_mask=token_mask.long(),
        pixel_mask=pixel_mask.long(),
        labels=given,
    )


def stepper(model: torch.nn.Module, loss: Callable[[], torch.Tensor], amp: Any) -> Callable[[], None]:
    """A training step of either."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-6, fused=True)

    def step() -> None:
        with amp():
            total = loss()
        total.backward()
        torch.nn.utils.clip_grad_norm_(weights, 0.1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    model.train()
    return step


def steps(ours: GroundingDino, theirs: Any, problem: Problem, amp: Any) -> dict[str, Callable[[], None]]:
    """The training steps of both."""
    criterion = build_criterion("grounding_dino", decoder_layers=ours.config.decoder_layers)

    def our_loss() -> torch.Tensor:
        return criterion.total(criterion(our_outputs(ours, problem), problem.targets))

    def their_loss() -> torch.Tensor:
        loss: torch.Tensor = their_outputs(theirs, problem, labels=True).loss
        return loss

    return {"transformers": stepper(theirs, their_loss, amp), "deixis": stepper(ours, our_loss, amp)}


def check_agreement(ours: GroundingDino, theirs: Any, problem: Problem) -> float:
    """The largest relative difference of the chosen proposals' scores; more than 1e-3 ends the benchmark.

    With random weights many of the thousands of proposals score all but alike, so the last bits decide which of them
    comes first, and what the decoder makes of them cannot be compared one by one. It is in tests/parity.
    """
    ours.eval(), theirs.eval()
    with torch.inference_mode():
        mine, yours = our_outputs(ours, problem), their_outputs(theirs, problem, labels=False)
    tokens = problem.input_ids.shape[1]
    scores = mine["enc_outputs"]["pred_logits"][..., :tokens].amax(-1).sort(-1, descending=True)[0]
    wanted = yours.enc_outputs_class[..., :tokens].amax(-1).topk(scores.shape[1])[0]
    difference = float((scores - wanted).abs().max() / wanted.abs().max())
    if difference > 1e-3:
        sys.exit(f"the two do not agree: scores of proposals differ by {difference:.2g} of the largest")
    return difference


def forwards(ours: GroundingDino, theirs: Any, problem: Problem, amp: Any) -> dict[str, Callable[[], None]]:
    """The forward passes of both, in evaluation mode."""

    def run(outputs: Callable[[], Any]) -> Callable[[], None]:
        def forward() -> None:
            with torch.inference_mode(), amp():
                outputs()

        return forward

    ours.eval(), theirs.eval()
    return {
        "transformers": run(lambda: their_outputs(theirs, problem, labels=False)),
        "deixis": run(lambda: our_outputs(ours, problem)),
    }


def forgetful(ours: GroundingDino, run: Callable[[], None]) -> Callable[[], None]:
    """The same, with no prompt remembered from the call before."""

    def anew() -> None:
        ours.model.prompt_cache = PromptCache(ours.model.prompt_cache.capacity)
        run()

    return anew


def peak_of_a_step(side: str, arguments: argparse.Namespace) -> float:
    """MiB that a step takes at its peak beyond what is in use before it (second step: optimiser state exists)."""
    ours, theirs = make_models(arguments.train, arguments.device, small=arguments.small)
    problem = make_problem(arguments.batch, tuple(arguments.size), arguments.boxes, arguments.device)
    step = steps(ours, theirs, problem, amp_of(arguments))[side]
    del ours, theirs
    gc.collect()
    if arguments.device == "cuda":
        step()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    step()
    return peak_resident_mib(step)


def peaks(arguments: argparse.Namespace) -> dict[str, float]:
    """Peak memory of both, each in a process of its own."""
    found = {}
    for side in ("transformers", "deixis"):
        command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", side]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[side] = float(json.loads(output.splitlines()[-1]))
    return found


def amp_of(arguments: argparse.Namespace) -> Callable[[], Any]:
    """Mixed precision as asked."""
    if arguments.precision == "fp32":
        return contextlib.nullcontext
    return lambda: torch.autocast(arguments.device, torch.bfloat16)


def timed(title: str, ours: GroundingDino, runs: dict[str, Callable[[], None]], rounds: int) -> list[list[object]]:
    """Rows of the table: as it is, and with the prompt encoded anew."""
    timings = time_interleaved(runs | {"anew": forgetful(ours, runs["deixis"])}, rounds, warmup=0, settle=1)
    rows: list[list[object]] = []
    for run, label in (("deixis", title), ("anew", f"{title}, its prompt encoded anew")):
        ratio = ratios(timings["transformers"], timings[run]) + " times faster"
        rows.append([label, timings["transformers"], timings[run], ratio])
        print(*rows[-1], sep=" | ", flush=True)
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", choices=["frozen", "all", "lora"], default="frozen")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--small", action="store_true", help="the size of the built-in detector in place of Swin-T")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--boxes", type=int, default=5)
    parser.add_argument("--size", type=int, nargs=2, default=[480, 640], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=list(TITLES), default=list(TITLES), help="what to measure")
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    parser.add_argument("--peak-of", choices=["transformers", "deixis"], help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    if arguments.peak_of:
        print(json.dumps(peak_of_a_step(arguments.peak_of, arguments)))
        return
    ours, theirs = make_models(arguments.train, arguments.device, small=arguments.small)
    problem = make_problem(arguments.batch, tuple(arguments.size), arguments.boxes, arguments.device)
    difference = check_agreement(ours, theirs, problem)
    rows = []
    for name, make in (("forward", forwards), ("step", steps)):
        if name in arguments.only:
            rows += timed(TITLES[name], ours, make(ours, theirs, problem, amp_of(arguments)), arguments.rounds)
    if "memory" in arguments.only:
        memory = peaks(arguments)
        in_mib = [f"{memory[side]:.0f}" for side in ("transformers", "deixis")]
        rows.append([TITLES["memory"], *in_mib, f"{memory['deixis'] / memory['transformers']:.2f} of it"])
    height, width = arguments.size
    detector = "Small" if arguments.small else "Swin-T"
    title = f"{detector} detector, {arguments.train}, batch {arguments.batch}, {height}x{width}, {arguments.precision}"
    body = f"Scores of the chosen proposals agree within {difference:.1g} of the largest.\n\n" + table(
        ["", "transformers", "deixis", "ratio"], rows
    )
    print(body)
    if arguments.write:
        part = "" if len(arguments.only) == len(TITLES) else "_" + "_".join(arguments.only)
        what = (
            f"detector{'_small' * arguments.small}_{arguments.train}_{arguments.precision}_batch{arguments.batch}{part}"
        )
        print(f"wrote {write_result(what, title, body, arguments.device).relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
