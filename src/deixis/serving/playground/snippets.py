"""The Python and the command that do what the page did."""

from __future__ import annotations

import json
import shlex

from deixis.serving.playground.looks import Look


def python_of(look: Look, place: str, file_name: str, *, threshold: float, is_film: bool) -> str:
    """A program that gives the same; `place` is the model's folder or hub id."""
    if look.task == "detect":
        call = f"{file_name!r}, {list(look.texts)!r}, threshold={threshold:g}"
        return _program(f"detector = deixis.load_detector({place!r})", f"detector.stream({call})", is_film)
    if look.task == "segment":
        least = f", threshold={threshold:g}" if look.by_presence else ""
        chosen = "" if look.by_presence else f".filter(min_score={threshold:g})"
        call = f"segmenter.stream({file_name!r}, {list(look.texts)!r})"
        return _program(f"segmenter = deixis.load_segmenter({place!r}{least})", call, is_film, chosen)
    points = [[x, y] for _, x, y in look.clicks]
    return f"""import numpy as np

import deixis
from deixis.inference.images import as_pixels
from deixis.inference.refer.prompted_masks import PromptedMasks

prompted = PromptedMasks(deixis.load_segmenter({place!r}))
pixels = as_pixels({file_name!r})
for point in {points!r}:
    mask = prompted.at_clicks(pixels, np.array([point], float), np.array([True]))
    print(point, mask.predicted_iou, mask.mask_rle)
"""


def _program(load: str, call: str, is_film: bool, chosen: str = "") -> str:
    saving = (
        ""
        if is_film
        else """
    found.save("found.png")
    found.save("found.json")"""
    )
    found = f"found{chosen}" if chosen else "found"
    again = f"\n    found = {found}" if chosen else ""
    return f"""import deixis

{load}
for found in {call}:{again}
    print(found){saving}
"""


def command_of(look: Look, place: str, file_name: str, *, threshold: float, url: str) -> str:
    """A command line that gives the same; what was clicked at is asked of the server at `url`."""
    file = file_name if not file_name.startswith("-") else f"./{file_name}"
    if look.task == "detect":
        words = ["deixis", "detect", "predict", "--model", place, "--images", file, "--names", *look.texts]
        return shlex.join([*words, "--threshold", f"{threshold:g}"])
    if look.task == "segment":
        words = ["deixis", "refer", "predict", "--model", place, "--images", file, "--no-generate"]
        least = ["--threshold", f"{threshold:g}"] if look.by_presence else []
        return shlex.join([*words, *least, "--phrases", *look.texts])
    lines = []
    for _, x, y in look.clicks:
        point = json.dumps([{"x": x, "y": y}])
        fields = [f"image=@{file}", f"model={look.model}", f"points={point}"]
        lines.append(shlex.join(["curl", *(word for one in fields for word in ("-F", one)), f"{url}/v1/segment"]))
    return "\n".join(lines)
