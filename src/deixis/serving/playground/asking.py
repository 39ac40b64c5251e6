"""Files that a visitor gives, and questions about them put to the models."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deixis.data.inputs.pictures import Picture, each_picture
from deixis.data.pixels.images import image_sizes_hw
from deixis.errors import DataError, OptionError
from deixis.geometry.pixel_boxes import clip_boxes
from deixis.inference.detect.detector import Detector
from deixis.inference.refer.captioner import Captioner
from deixis.inference.refer.prompted_masks import PromptedMasks
from deixis.inference.refer.segmenter import Segmenter
from deixis.refer_records import Segmentation
from deixis.results.detections import Detections
from deixis.results.segmentations import Segmentations
from deixis.serving.models import Models
from deixis.serving.playground.looks import Found, Look

MAX_FRAMES = 32
"""Of a film: evenly spaced."""
MAX_TEXTS, MAX_TEXT = 100, 200
_FRAMES_PER_TURN = 4
Turn = Callable[[Callable[[], Any]], Any]
"""Returns what a function that uses a model returns, when its turn comes."""


@dataclass(frozen=True)
class Shot:
    """A picture, or frames of a film.

    Attributes:
        name: of the file.
        numbers: of the frames in the film; (0,) for a picture.
        film: whether it is one.
    """

    name: str
    frames: tuple[Picture, ...]
    numbers: tuple[int, ...] = (0,)
    film: bool = False


def opened(path: Path, max_pixels: int) -> Shot:
    """The picture in a file, decoded, or frames of the film in it, which are decoded when they are needed.

    Raises:
        DataError: it is neither, or its pictures have too many pixels.
    """
    if not path.is_file():  # a folder may hold what other visitors gave
        raise DataError(f"{path.name}: is no file; give a picture or a film")
    pictures = list(each_picture(path))
    if pictures[0].path is None:  # a frame has no file of its own
        count = min(MAX_FRAMES, len(pictures))
        numbers = tuple(np.linspace(0, len(pictures) - 1, count).round().astype(int).tolist())
        _require_pixels(pictures[0].load().shape[:2], max_pixels, path.name)
        return Shot(path.name, tuple(pictures[number] for number in numbers), numbers, film=True)
    _require_pixels(image_sizes_hw(path)[0], max_pixels, path.name)
    return Shot(path.name, (Picture(path.name, pictures[0].load(), path),))


def _require_pixels(size_hw: tuple[int, ...], max_pixels: int, name: str) -> None:
    height, width = size_hw
    if height * width > max_pixels:
        raise DataError(f"{name}: has {width}x{height} pixels, at most {max_pixels} are taken; make it smaller")


def texts_of(typed: str, *, are_names: bool) -> tuple[str, ...]:
    """Names separated by commas or lines, or phrases, one per line.

    Raises:
        OptionError: too many, or one that is too long or that the command line would take for something else.

    >>> texts_of("red car, dog", are_names=True), texts_of("the car, left of the dog", are_names=False)
    (('red car', 'dog'), ('the car, left of the dog',))
    """
    parts = re.split(r"[\n,]" if are_names else r"\n", typed)
    texts = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    if len(texts) > MAX_TEXTS or any(len(text) > MAX_TEXT for text in texts):
        raise OptionError(f"at most {MAX_TEXTS} names or phrases of {MAX_TEXT} letters each can be looked for")
    if any(text.startswith("--") or ("=" in text and are_names) for text in texts):  # means something else in a command
        raise OptionError("a name has no '=' in it and does not begin with '--'; write it without")
    return texts


def detect(detector: Detector, turn: Turn, model: str, typed: str, shot: Shot) -> Look:
    """What a detector finds of some names, or of its own, at any score; frames of a film a few at a time.

    Raises:
        DeixisError: there is nothing to look for, or the model cannot do it.
    """
    texts = texts_of(typed, are_names=True) or detector.names
    if not texts:
        raise OptionError("type what to look for, as in: red car, dog")
    asked = list(texts)
    frames = _by_turns(turn, shot, lambda some: detector.predict(some, asked, 0.0, batch_size=_FRAMES_PER_TURN))
    return Look(model, "detect", texts, tuple(frames))


def segment(segmenter: Segmenter, turn: Turn, model: str, typed: str, shot: Shot) -> Look:
    """The masks that a segmenter gives for some phrases, the same way."""
    texts = texts_of(typed, are_names=False)
    if not texts:
        raise OptionError("type a phrase, as in: the red car on the left")
    by_presence = segmenter.bundle.behaviour == "deixis"
    found = _by_turns(turn, shot, lambda some: _at_any_threshold(segmenter).segment(some, list(texts)))
    return Look(model, "segment", texts, tuple(found), by_presence=by_presence)


def _by_turns(turn: Turn, shot: Shot, ask: Callable[[list[Picture]], Sequence[Found]]) -> list[Found]:
    found: list[Found] = []
    for start in range(0, len(shot.frames), _FRAMES_PER_TURN):
        some = list(shot.frames[start : start + _FRAMES_PER_TURN])
        found += turn(lambda some=some: ask(some))  # type: ignore[misc]
    return found


def _at_any_threshold(segmenter: Segmenter) -> Segmenter:
    """The same model; masks are chosen by the visitor's threshold alone."""
    return Segmenter(
        segmenter.bundle, segmenter.device, segmenter.max_tiles, threshold=0.0, generate=segmenter.generate
    )


def click(models: Models, turn: Turn, shot: Shot, before: Look | None, *, at: tuple[int, float, float]) -> Look:
    """The look with one more object: what SAM 2 sees at a point (frame, x, y in pixels of the image).

    Raises:
        OptionError: no segmenter is served, or the point is outside of the image.
    """
    if not models.segmenters:
        raise OptionError("a click needs a segmenter, and none is served; start with --segmenter")
    frame, x, y = at
    pixels = shot.frames[frame].load()
    if before is None or before.task != "click":
        size_hw = (pixels.shape[0], pixels.shape[1])
        nothing = tuple(Segmentations((), picture, size_hw) for picture in shot.frames)
        before = Look(next(iter(models.segmenters)), "click", (), nothing)
    if not (0 <= x < pixels.shape[1] and 0 <= y < pixels.shape[0]):
        raise OptionError("click inside of the picture")
    prompted = PromptedMasks(models.segmenters[before.model])
    points = np.array([[x, y]], np.float64)
    mask = turn(lambda: prompted.at_clicks(pixels, points, np.ones(1, bool)))
    name = f"click {len(before.clicks) + 1}"
    answer = Segmentation(name, mask.mask_rle, mask.predicted_iou, image_id=frame)
    old = before.frames[frame]
    assert isinstance(old, Segmentations)
    frames = list(before.frames)
    frames[frame] = Segmentations((*old.answers, answer), old.image)
    return replace(before, texts=(*before.texts, name), clicks=(*before.clicks, at), frames=tuple(frames))


def described(models: Models, turn: Turn, look: Look, frame: int, threshold: float) -> Look:
    """The look with captions of what is shown in a frame. Boxes are described by the masks of what is in them.

    Raises:
        DeixisError: no segmenter is served, or it cannot describe.
    """
    if not models.segmenters:
        raise OptionError("captions need a segmenter, and none is served; start with --segmenter")
    name = next(iter(models.segmenters)) if look.task == "detect" else look.model
    segmenter, found = models.segmenters[name], look.frames[frame]
    positions = [i for i in look.shown(frame, threshold).tolist() if (frame, i) not in look.captions]

    def captions() -> dict[tuple[int, int], str]:
        masks = _masks(segmenter, found, positions)
        known = [i for i, mask in zip(positions, masks, strict=True) if mask is not None]
        captioner = Captioner(segmenter.bundle, segmenter.device, segmenter.max_tiles)
        (said,) = captioner.caption([found.pixels()], [[mask for mask in masks if mask is not None]])
        return {(frame, i): one.text for i, one in zip(known, said, strict=True)}

    return replace(look, captions={**look.captions, **(turn(captions) if positions else {})})


def _masks(segmenter: Segmenter, found: Found, positions: Sequence[int]) -> list[Any]:
    """The masks of some objects; None where there is nothing."""
    if isinstance(found, Detections):
        pixels, chosen = found.pixels(), found[positions]
        boxes = clip_boxes(chosen.boxes_xyxy_px, (pixels.shape[0], pixels.shape[1]))
        masks = [one.mask_rle for one in PromptedMasks(segmenter).in_boxes(pixels, boxes, chosen.labels)]
    else:
        masks = [found[i].mask_rle for i in positions]
    areas = Segmentations(tuple(Segmentation("", mask, 1.0) for mask in masks)).areas_px
    return [mask if area else None for mask, area in zip(masks, areas, strict=True)]
