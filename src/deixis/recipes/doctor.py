"""What this machine and this installation have, and whether their results are right: one page."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from rich.table import Table

from deixis.console import Console, print_text
from deixis.data.detect.collate import collate
from deixis.data.detect.prompts import build_prompt
from deixis.data.detect.transforms import eval_transform
from deixis.data.formats import read_dataset
from deixis.data.inputs.pictures import as_pixels
from deixis.data.pixels.images import load
from deixis.errors import DeixisError
from deixis.models.checkpoints import DetectorBundle, load_any_detector, plain_detector, plain_outputs
from deixis.models.onnx.check import Outputs, matched_difference
from deixis.models.sa2va import load_sa2va
from deixis.ops.deformable_attention import difference_of, implementations_of, precisions_of
from deixis.ops.kernel_check import forget_verdicts
from deixis.options.doctor import DoctorOptions
from deixis.recipes.machine import Line, Verdict, libraries, machine, optional, room
from deixis.recipes.model.segmenter import layout_of
from deixis.recipes.run.devices import choose_device
from deixis.records import Dataset, Instances, Sample, Vocabulary
from deixis.text import one_line

TOLERANCE = 5e-3
"""Of boxes, scores and logits beside transformers, which limits coordinates at an image's edges differently."""
SHARE = 0.9
SCENES = "scenes:split=demo_val,count=1,seed=2"
TIMED_PICTURES = 24
NAMES = ("red circle", "blue square", "green triangle")


class Picture(NamedTuple):
    """A picture to compare on, and the names that are asked for."""

    pixels_u8: np.ndarray
    names: tuple[str, ...]


def doctor(options: DoctorOptions) -> int:
    """Print the page; 0 if all is well, else 1.

    Raises:
        DeixisError: the device cannot be used, or the picture or the data cannot be read.
    """
    options.check()
    device = choose_device(options.device)
    dataset = read_dataset(options.data) if options.data else None
    picture = picture_of(options.image, dataset)
    steps: dict[str, Callable[[], Iterator[Line]]] = {
        "machine": partial(machine, device),
        "room": partial(room, device),
        "libraries": libraries,
        "optional": optional,
        "precision": partial(precision, device),
        "kernels": partial(kernels, device),
        "model": partial(beside_transformers, options.model, picture, device),
        "data path": partial(data_path, dataset),
    }
    lines = [line for topic, step in steps.items() for line in _guarded(topic, step)]
    table = Table("", "checked", "found")
    for line in lines:
        table.add_row(*line)
    Console(highlight=False, soft_wrap=True).print(table)
    failed = sum(line.verdict == "FAIL" for line in lines)
    print_text("all is well" if not failed else f"{failed} of these are not well; they are marked FAIL")
    return int(failed > 0)


def picture_of(image: Path | None, dataset: Dataset | None) -> Picture:
    """The picture that was named, the first one of the data with an object, or a generated one.

    Raises:
        DataError: it cannot be read.
    """
    if image is not None:
        return Picture(as_pixels(image), ())
    source = dataset if dataset is not None and len(dataset) else read_dataset(SCENES)
    first = (sample for sample in (source[index] for index in range(len(source))) if len(sample.instances))
    sample = load(next(first, source[0]))
    return Picture(as_pixels(sample.image), () if source is not dataset else sample.vocabulary.names)


def precision(device: torch.device) -> Iterator[Line]:
    """Whether a matrix product is as exact as its precision allows."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator) for _ in range(2))
    # In float64 on the CPU, which is taken for exact.
    wanted = a.double() @ b.double()
    for dtype, least in ((torch.float32, 1e-4), (torch.bfloat16, 2e-2)):
        found = (a.to(device, dtype) @ b.to(device, dtype)).double().cpu()
        error = float((found - wanted).abs().max() / wanted.abs().max())
        name = str(dtype).removeprefix("torch.")
        tf32 = " (TF32)" if device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32 else ""
        yield Line("ok" if error <= least else "FAIL", "precision", f"{name} on {device}{tf32}: error {error:.0e}")


def kernels(device: torch.device) -> Iterator[Line]:
    """Deformable attention beside the reference in float64, forward and backward."""
    forget_verdicts()  # what was found before a driver or a compiler changed
    for place in dict.fromkeys((torch.device("cpu"), device)):
        for implementation in implementations_of(place.type):
            for dtype in precisions_of(place.type):
                name = f"{implementation} on {place}, {str(dtype).removeprefix('torch.')}"
                try:
                    found = difference_of(implementation, place, dtype)
                except Exception as error:  # of a compiler or a driver
                    yield Line("FAIL", "kernels", f"{name}: {type(error).__name__}: {one_line(error, 200)}")
                else:
                    gaps = f"forward {found.forward:.0e}, backward {found.backward:.0e}"
                    yield Line("ok" if found.fits(dtype) else "FAIL", "kernels", f"{name}: differs by {gaps}")
        if implementations_of(place.type) == ("reference",):
            yield Line("note", "kernels", f"{place}: plain PyTorch alone, which is slower")


def beside_transformers(model: str, picture: Picture, device: torch.device) -> Iterator[Line]:
    """A detector's outputs on a picture beside those of transformers' own code, with the same weights."""
    if layout_of(model):
        load_sa2va(model)
        yield Line("ok", "model", f"{model}: a segmenter, loads; its parts are transformers' own code")
        return
    bundle = load_any_detector(model)
    pixels = picture.pixels_u8
    names = (picture.names or bundle.record.names or NAMES)[:10]
    prompt = build_prompt(names, bundle.prompt_tokenizer, bundle.model.max_text_len)
    size_hw = (pixels.shape[0], pixels.shape[1])
    sample = Sample(pixels, size_hw, Instances.none(), Vocabulary(tuple(names)))
    batch = collate([eval_transform(*bundle.image_size)(sample, np.random.default_rng(0))], [prompt])
    values = bundle.normalise(batch.pixels_u8, batch.pixel_mask).to(device)
    plain = plain_detector(bundle).to(device)
    bundle.model.to(device).eval()
    took: dict[str, float] = {}
    with torch.no_grad():
        ours = _timed("deixis", took, device, lambda: _own(bundle, values, batch.input_ids.to(device)))
        theirs = _timed("transformers", took, device, lambda: plain_outputs(plain, values, batch.input_ids.to(device)))
    class_tokens = torch.from_numpy(prompt.positive_map)
    mine, other = (_outputs(*found, class_tokens) for found in (ours, theirs))
    found = matched_difference(other, mine, size_hw, tolerance=TOLERANCE)
    verdict: Verdict = "ok" if found.matched >= SHARE else "FAIL"
    text = f"{100 * found.matched:.0f}% of {mine.boxes.shape[1]} outputs within {TOLERANCE:g} of transformers'"
    yield Line(verdict, "model", f"{model}: {text}")
    speed = ", ".join(f"{name} {1e3 * seconds:.0f} ms" for name, seconds in took.items())
    yield Line("", "model", f"forward of {values.shape[2]} x {values.shape[3]} on {device}: {speed}")


def data_path(dataset: Dataset | None) -> Iterator[Line]:
    """Reading, decoding and resizing the pictures of a data set, or generated ones, in one thread."""
    if dataset is not None:
        samples = list(islice((dataset[index] for index in range(len(dataset))), TIMED_PICTURES))
        if samples:
            yield Line("", "data path", f"{_speed(samples):.0f} pictures of the data per second and worker")
        return
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.jpg"
        coarse.resize((1280, 960)).save(path, quality=90)
        speed = _speed([Sample(path, (960, 1280), Instances.none(), Vocabulary(NAMES))] * 8)
    yield Line("", "data path", f"{speed:.0f} JPEGs of 1280 x 960 per second and worker, read and resized")


def _speed(samples: list[Sample]) -> float:
    """Pictures per second, as training and evaluation read them."""
    short_px, long_px = 800, 1333
    transform = eval_transform(short_px, long_px)
    start = time.perf_counter()
    for sample in samples:
        transform(load(sample, short_px), np.random.default_rng(0))
    return len(samples) / max(time.perf_counter() - start, 1e-9)


def _guarded(topic: str, step: Callable[[], Iterator[Line]]) -> Iterator[Line]:
    """The lines of a step; an error is a line, so that the page goes on."""
    try:
        yield from step()
    except Exception as error:  # whatever is broken here is what the page is for
        kind = "" if isinstance(error, DeixisError) else f"{type(error).__name__}: "
        yield Line("FAIL", topic, f"{kind}{one_line(error, 300)}")


def _own(bundle: DetectorBundle, values: torch.Tensor, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    pixel_mask = torch.ones_like(values[:, 0], dtype=torch.bool)
    out = bundle.model(values, pixel_mask, input_ids, torch.ones_like(input_ids, dtype=torch.bool))
    return out["pred_logits"][..., : input_ids.shape[1]], out["pred_boxes"]


def _outputs(logits: torch.Tensor, boxes: torch.Tensor, class_tokens: torch.Tensor) -> Outputs:
    logits = logits.float().cpu()
    return Outputs(logits.numpy(), boxes.float().cpu().numpy(), (logits.sigmoid() @ class_tokens.T).numpy())


def _timed(
    name: str, took: dict[str, float], device: torch.device, run: Callable[[], tuple[torch.Tensor, torch.Tensor]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the second call gives, and its seconds: the first one compiles."""
    run()
    start = time.perf_counter()
    found = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    took[name] = time.perf_counter() - start
    return found
