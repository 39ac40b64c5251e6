"""A labelling configuration of Label Studio: which image is labelled, with what, and what a model is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from deixis.errors import DataError

KINDS = {
    "RectangleLabels": "rectanglelabels",
    "PolygonLabels": "polygonlabels",
    "BrushLabels": "brushlabels",
    "KeyPointLabels": "keypointlabels",
}
"""Tags that label with names, and the type of their results."""
DRAWN = ("rectanglelabels", "polygonlabels", "brushlabels")
"""Those that a model draws, in the order in which one of several is chosen."""
_MAX_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class Control:
    """A tag that labels.

    Attributes:
        kind: the type of its results.
        name, to_name: its own, and that of its image.
        labels: what a model is asked for, and the label that this becomes. A label is asked for by its own name, or by
            the words of its attribute `predicted_values`.
        threshold: minimum score of a detection; None for the model's own.
        prompts_only: it is there to click with, and no result of its kind is kept.
    """

    kind: str
    name: str
    to_name: str
    labels: dict[str, str]
    threshold: float | None
    prompts_only: bool


@dataclass(frozen=True)
class LabelConfig:
    """What a project is labelled with.

    Attributes:
        key: of the image in a task's data.
        controls: of that image, in order.
    """

    key: str
    controls: tuple[Control, ...]

    def drawn(self, kinds: tuple[str, ...] = DRAWN, label: str = "") -> Control | None:
        """The control that a model's answer is for: one that has a label, then by kind; None where there is none."""
        found = [one for one in self.controls if one.kind in kinds and not one.prompts_only]
        return min(found, key=lambda one: (label not in one.labels.values(), kinds.index(one.kind)), default=None)


def read_label_config(text: str) -> LabelConfig:
    """The first image of a configuration, with its controls.

    Raises:
        DataError: it is no such configuration, or labels no image.
    """
    # Declarations may define entities that expand without end.
    if len(text) > _MAX_CHARACTERS or "<!" in text.replace("<!--", ""):
        raise DataError("label_config: has declarations or is too long; give a labelling configuration alone")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(f"label_config: is no labelling configuration ({error})") from error
    image = next(root.iter("Image"), None)
    value = "" if image is None else image.get("value", "")
    if image is None or not value.startswith("$"):
        raise DataError("label_config: has no <Image value='$...'>; only images are labelled")
    name = image.get("name", "")
    controls = tuple(_control(tag) for tag in root.iter() if tag.tag in KINDS and tag.get("toName") == name)
    return LabelConfig(value[1:], controls)


def _control(tag: Any) -> Control:
    labels: dict[str, str] = {}
    for label in tag.iter("Label"):
        shown = label.get("value", "")
        words = [word.strip() for word in label.get("predicted_values", "").split(",")]
        # where a label has an alias, that is what results have
        labels |= dict.fromkeys([word for word in words if word] or [shown], label.get("alias") or shown)
    labels.pop("", None)
    threshold = tag.get("model_score_threshold")
    try:
        least = None if threshold is None else min(max(float(threshold), 0.0), 1.0)
    except ValueError as error:
        raise DataError(f"label_config: model_score_threshold {threshold!r} is no number") from error
    only = tag.get("smartOnly", tag.get("smartonly", "")).lower() == "true"
    return Control(KINDS[tag.tag], tag.get("name", ""), tag.get("toName", ""), labels, least, only)
