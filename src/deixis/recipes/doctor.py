"""What this machine and this installation have, and whether their results are right: one page."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import psutil
import torch
from packaging.requirements import Requirement
from PIL import Image

from deixis.console import print_text
from deixis.data.detect.collate import collate
from deixis.data.detect.prompts import build_prompt
from deixis.data.detect.transforms import eval_transform
from deixis.data.inputs.pictures import as_pixels
from deixis.data.pixels.images import load_image
from deixis.data.scenes.from_text import read_scenes
from deixis.errors import DeixisError
from deixis.models.checkpoints import DetectorBundle, load_any_detector, plain_detector, plain_outputs
from deixis.models.onnx.check import Outputs, matched_difference
from deixis.ops.deformable_attention import default_implementation, difference_of
from deixis.options.doctor import DoctorOptions
from deixis.recipes.run.devices import choose_device
from deixis.records import Instances, Sample, Vocabulary
from deixis.text import one_line

Verdict = Literal["", "ok", "note", "FAIL"]
TOLERANCE = 5e-3
"""Of boxes, scores and logits beside transformers, which limits coordinates at an image's edges differently."""
SHARE = 0.9
EXTRAS = ("onnx", "onnxruntime", "openvino", "pyarrow", "supervision", "pandas", "triton")
NAMES = ("red circle", "blue square", "green triangle")


class Line(NamedTuple):
    """A line of the page: what was looked at, what was found, and whether it is well."""

    verdict: Verdict
    topic: str
    text: str


def doctor(options: DoctorOptions) -> int:
    """Print the page; 0 if all is well, else 1.

    Raises:
        DeixisError: the device or the picture cannot be used.
    """
    options.check()
    device = choose_device(options.device)
    steps: list[Callable[[], Iterator[Line]]] = [
        lambda: machine(device),
        libraries,
        lambda: precision(device),
        lambda: kernels(device),
        lambda: beside_transformers(options.model, options.image, device),
        data_path,
    ]
    failed = 0
    for step in steps:
        for line in _guarded(step):
            failed += line.verdict == "FAIL"
            print_text(f"{line.verdict:<5} {line.topic:<14} {line.text}")
    print_text("all is well" if not failed else f"{failed} of these are not well; they are marked FAIL")
    return int(failed > 0)


def machine(device: torch.device) -> Iterator[Line]:
    """Hardware and system."""
    memory = psutil.virtual_memory()
    yield Line("", "system", f"{platform.system()} {platform.release()}, Python {platform.python_version()}")
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads used"
    yield Line("", "processor", f"{platform.machine()}, {cores}, {memory.total / 2**30:.0f} GiB of memory")
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        kind = f"compute capability {found.major}.{found.minor}"
        yield Line("", "GPU", f"cuda:{index} {found.name}, {found.total_memory / 2**30:.0f} GiB, {kind}")
    note = "" if torch.cuda.is_available() else "; no GPU is visible"
    yield Line("", "device", f"{device}, which models use{note}")


def libraries() -> Iterator[Line]:
    """The versions that deixis needs, and which of the others are here."""
    needed = [Requirement(text) for text in requires("deixis") or ()]
    needed = [each for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    found = {each.name: _version(each.name) for each in needed}
    wrong = [
        f"{each.name} {found[each.name] or 'is missing'}, needed {each.specifier}"
        for each in needed
        if not found[each.name] or not each.specifier.contains(found[each.name], prereleases=True)
    ]
    shown = ", ".join(f"{name} {found[name]}" for name in ("torch", "transformers", "numpy", "peft") if name in found)
    yield Line("FAIL" if wrong else "ok", "libraries", "; ".join(wrong) or f"{len(found)} as needed: {shown}")
    extras = {name: _version(name) for name in EXTRAS}
    absent = [name for name, found_version in extras.items() if not found_version]
    here = ", ".join(f"{name} {found_version}" for name, found_version in extras.items() if found_version) or "none"
    yield Line("", "extras", here + (f"; not installed: {', '.join(absent)}" if absent else ""))


def precision(device: torch.device) -> Iterator[Line]:
    """Whether a matrix product is as exact as its precision allows."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator) for _ in range(2))
    wanted = a.double() @ b.double()
    for dtype, least in ((torch.float32, 1e-4), (torch.bfloat16, 2e-2)):
        found = (a.to(device, dtype) @ b.to(device, dtype)).double().cpu()
        error = float((found - wanted).abs().max() / wanted.abs().max())
        name = str(dtype).removeprefix("torch.")
        tf32 = " (TF32)" if device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32 else ""
        yield Line("ok" if error <= least else "FAIL", "precision", f"{name} on {device}{tf32}: error {error:.0e}")


def kernels(device: torch.device) -> Iterator[Line]:
    """Deformable attention beside the reference, forward and backward."""
    for place in dict.fromkeys((torch.device("cpu"), device)):
        implementation = default_implementation(place.type)
        if implementation == "reference":
            yield Line("note", "kernels", f"{place}: none, plain PyTorch is used, which is slower")
            continue
        for dtype in (torch.float32, torch.bfloat16):
            found = difference_of(implementation, place, dtype)
            name = f"{implementation} on {place}, {str(dtype).removeprefix('torch.')}"
            gaps = f"forward {found.forward:.0e}, backward {found.backward:.0e}"
            yield Line("ok" if found.fits(dtype) else "FAIL", "kernels", f"{name}: {gaps}")


def beside_transformers(model: str, image: Path | None, device: torch.device) -> Iterator[Line]:
    """A detector's outputs on a picture beside those of transformers' own code, with the same weights."""
    bundle = load_any_detector(model)
    pixels = as_pixels(image if image is not None else read_scenes("scenes:split=demo_val,count=1,seed=2")[0].image)
    names = bundle.record.names[:10] or NAMES
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


def data_path() -> Iterator[Line]:
    """Reading, decoding and resizing pictures, in one thread."""
    count, rng = 8, np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        coarse = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        path = Path(folder) / "picture.jpg"
        coarse.resize((1280, 960)).save(path, quality=90)
        transform, vocabulary = eval_transform(800, 1333), Vocabulary(NAMES)
        start = time.perf_counter()
        for _ in range(count):
            sample = Sample(load_image(path), (960, 1280), Instances.none(), vocabulary)
            transform(sample, np.random.default_rng(0))
        seconds = time.perf_counter() - start
    yield Line("", "data path", f"{count / seconds:.0f} pictures of 1280 x 960 per second and thread, read and resized")


def _guarded(step: Callable[[], Iterator[Line]]) -> Iterator[Line]:
    """The lines of a step; an error is a line, so that the page goes on."""
    try:
        yield from step()
    except Exception as error:  # whatever is broken here is what the page is for
        if isinstance(error, DeixisError):
            yield Line("FAIL", "error", one_line(error, 300))
        else:
            yield Line("FAIL", "error", f"{type(error).__name__}: {one_line(error, 300)}")


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


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
