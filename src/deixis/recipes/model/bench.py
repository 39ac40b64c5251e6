"""How long a detector takes for an image on this machine, by format."""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table

from deixis.batch_records import Prompt
from deixis.console import Console, print_text
from deixis.data.detect.prompts import build_prompt
from deixis.errors import ModelError
from deixis.models.checkpoints import DetectorBundle, load_any_detector, plain_detector, plain_outputs
from deixis.models.onnx.export import Precision, export_detector
from deixis.models.onnx.exported import load_exported
from deixis.options.model_bench import ModelBenchOptions
from deixis.recipes.model.export import size_of
from deixis.recipes.run.devices import choose_device
from deixis.recipes.run.outputs import warn

EXPORTS: dict[str, tuple[str, Precision]] = {
    "onnx": ("fp32.onnx", "fp32"),
    "onnx-int8": ("int8.onnx", "int8"),
    "openvino": ("fp32.xml", "fp32"),
}


@dataclass
class Row:
    """One format: how it is run, its size in bytes, and the seconds that each timed run took."""

    title: str
    run: Callable[[], object]
    size: int
    seconds: list[float]


@dataclass(frozen=True)
class Job:
    """What every format is given: a model, an image of noise, and a prompt."""

    bundle: DetectorBundle
    prompt: Prompt
    pixels: torch.Tensor
    device: torch.device

    @property
    def weights(self) -> int:
        """Bytes of the parameters."""
        return sum(p.numel() * p.element_size() for p in self.bundle.model.parameters())


def bench_model(options: ModelBenchOptions) -> dict[str, list[float]]:
    """Print a table of latencies; returns the seconds of each timed run by format.

    Raises:
        DeixisError: options or model cannot be used, or nothing can be measured.
    """
    options.check()
    bundle = load_any_detector(options.model)
    device = torch.device(choose_device(options.device))
    bundle.model.to(device).eval()
    prompt = build_prompt(options.names, bundle.prompt_tokenizer, bundle.model.max_text_len)
    pixels = torch.randn(1, 3, *options.size, generator=torch.Generator().manual_seed(0))
    job = Job(bundle, prompt, pixels.to(device), device)
    with tempfile.TemporaryDirectory() as folder:
        rows = list(_rows(options, job, Path(folder)))
        if not rows:
            raise ModelError("nothing can be measured; pip install 'deixis[onnx,openvino]' or choose other --formats")
        # The first run compiles and allocates: it is not timed.
        for row in rows:
            row.run()
        for _ in range(options.repeats):  # in turns, so that what else the machine does falls on all of them
            for row in rows:
                start = time.perf_counter()
                row.run()
                row.seconds.append(time.perf_counter() - start)
    _print(options, job, rows)
    return {row.title: row.seconds for row in rows}


def _rows(options: ModelBenchOptions, job: Job, folder: Path) -> Iterator[Row]:
    """The formats that can be run here; a line for each of the others."""
    for wanted in options.formats:
        try:
            if wanted == "transformers":
                yield _plain(job)
            elif wanted in EXPORTS:
                name, precision = EXPORTS[wanted]
                export_detector(job.bundle, options.names, folder / name, precision=precision)
                yield _exported(wanted, folder / name, job)
            else:
                yield _own(wanted, job)
        except ModelError as error:
            warn(f"{wanted} is left out: {error}")
    yield from (_exported(str(path), path, job) for path in options.files)


def _own(title: str, job: Job) -> Row:
    ids = torch.tensor([job.prompt.input_ids], device=job.device)
    pixel_mask = torch.ones_like(job.pixels[:, 0], dtype=torch.bool)
    half = title == "deixis-bf16"

    def run() -> None:
        with torch.no_grad(), torch.autocast(job.device.type, torch.bfloat16, enabled=half):
            job.bundle.model(job.pixels, pixel_mask, ids, torch.ones_like(ids, dtype=torch.bool))
        _wait(job.device)

    return Row(title, run, job.weights, [])


def _plain(job: Job) -> Row:
    model = plain_detector(job.bundle).to(job.device)
    ids = torch.tensor([job.prompt.input_ids], device=job.device)

    def run() -> None:
        plain_outputs(model, job.pixels, ids)
        _wait(job.device)

    return Row("transformers", run, job.weights, [])


def _exported(title: str, path: Path, job: Job) -> Row:
    bundle = load_exported(path, str(job.device))
    prompt = bundle.prompts(bundle.model.fixed or job.prompt.names)[0]
    ids = torch.tensor([prompt.input_ids])
    images = bundle.model.encode_image(job.pixels.cpu(), torch.ones_like(job.pixels[:, 0], dtype=torch.bool).cpu())
    words = bundle.model.encode_text(ids, torch.ones_like(ids, dtype=torch.bool))
    return Row(title, lambda: bundle.model.ground(images, words), size_of(path), [])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _print(options: ModelBenchOptions, job: Job, rows: list[Row]) -> None:
    height, width = options.size
    device = torch.cuda.get_device_name(job.device) if job.device.type == "cuda" else platform.processor() or "CPU"
    asked = f"{options.model}, {height} x {width}, {len(job.prompt.names)} names"
    table = Table(title=f"{asked}; {device}, {torch.get_num_threads()} threads")
    table.add_column("format")
    for column in ("MB", "median ms", "fastest ms", "of the first"):
        table.add_column(column, justify="right")
    first = statistics.median(rows[0].seconds)
    for row in rows:
        median = statistics.median(row.seconds)
        shown = f"{1e3 * median:.0f}", f"{1e3 * min(row.seconds):.0f}", f"{median / first:.2f}"
        table.add_row(row.title, f"{row.size / 1e6:.0f}", *shown)
    Console(highlight=False, soft_wrap=True).print(table)
    print_text("one image of noise; deixis and exports encode the names once, transformers with each image")
