"""What can be wrong with a data set: the kinds of findings, and the list that readers and checks add to."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from deixis.data.reading import reading
from deixis.errors import DataError

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Kind:
    """A kind of finding. An error stops training or makes figures wrong, a warning costs quality, a note is a fact to
    know."""

    severity: Severity
    title: str
    remedy: str


KINDS: dict[str, Kind] = {
    # errors: the annotation files
    "file_malformed": Kind("error", "annotation files that cannot be read", "export or copy the file again"),
    "record_malformed": Kind("error", "records with missing or invalid values", "correct or remove the record"),
    "id_repeated": Kind("error", "ids used twice", "give each image and category an id of its own"),
    "image_unknown": Kind("error", "annotations of images that are not listed", "list the image or remove them"),
    "category_unknown": Kind("error", "annotations of unknown categories", "add the category or correct the id"),
    "box_malformed": Kind("error", "boxes that are not four finite numbers", "correct or remove the box"),
    "boxes_elsewhere": Kind(
        "error", "boxes of which most lie outside their images", "write them in pixels of these images, at their size"
    ),
    "boxes_shares": Kind("error", "boxes that are shares of the image", "multiply them by its width and height"),
    "mask_malformed": Kind("error", "masks that cannot be read", "draw the mask again, or remove it"),
    "name_repeated": Kind("error", "categories with the same name", "merge them into one"),
    "no_objects": Kind("error", "no objects at all", "give annotations that have some"),
    # errors: images
    "image_missing": Kind("error", "image files not found", "restore the files, or give their folder with --images"),
    "image_misplaced": Kind(
        "error", "images outside the folders in their names", "give the folder that their names begin in with --images"
    ),
    "image_unreadable": Kind("error", "images that cannot be decoded", "restore or remove the file"),
    "size_mismatch": Kind("error", "images of another size than annotated", "restore the image or correct the size"),
    # errors: names and prompts
    "name_wordless": Kind("error", "names that no prompt can ask for", "rename the class with a word"),
    "names_same": Kind("error", "names that differ only in case or blanks", "merge them"),
    "names_same_tokens": Kind("error", "names the model cannot tell apart", "rename or merge them"),
    "prompt_too_long": Kind("error", "names longer than a prompt", "shorten the name"),
    # errors: phrases
    "phrase_mask_empty": Kind(
        "error", "phrases whose masks have no pixel: absent to training", "draw the mask again; [] if nothing is meant"
    ),
    "phrase_markup": Kind("error", "sentences with the model's own markup", "take it out of the sentence"),
    "seg_mismatch": Kind(
        "error", "conversations with more or fewer [SEG] than masks", "take [SEG] out of the sentence"
    ),
    "conversation_too_long": Kind(
        "error",
        "conversations longer than the limit, which would be cut",
        "shorten the sentences, ask for fewer at a time, or raise --max-tokens",
    ),
    # errors: measuring
    "leak_same": Kind(
        "error", "validation images that are trained on", "take them out of one side (deixis data split)"
    ),
    # warnings
    "annotation_id_repeated": Kind("warning", "annotation ids used twice", "number the annotations anew"),
    "area_malformed": Kind("warning", "areas that are no numbers of 0 or more", "correct or remove the area"),
    "box_outside": Kind("warning", "boxes that reach outside their image", "clip them, or restore the image"),
    "box_far_outside": Kind("warning", "boxes that lie mostly outside their image", "draw them again, or clip them"),
    "box_degenerate": Kind("warning", "boxes without area in their image", "draw them again or remove them"),
    "box_tiny": Kind("warning", "boxes under 2 pixels wide or high", "check whether they are accidental clicks"),
    "phrase_unplaced": Kind(
        "warning", "phrases that have no place in their caption", "correct the phrase, or give tokens_positive"
    ),
    "box_repeated": Kind("warning", "the same object annotated twice", "remove one of the two"),
    "mask_empty": Kind("warning", "masks without a pixel", "draw the mask again, or remove the object"),
    "mask_off_box": Kind("warning", "masks elsewhere than their boxes", "correct the mask or the box"),
    "exif_conflict": Kind("warning", "images annotated before EXIF's rotation", "rotate the file itself (--fix does)"),
    "image_listed_twice": Kind("warning", "image files listed twice", "merge the two into one"),
    "image_repeated": Kind("warning", "images that are the same file", "keep one; duplicates count double"),
    "copies_disagree": Kind("warning", "copies of an image annotated differently", "check which is right"),
    "image_near": Kind("warning", "images nearly the same", "keep them on one side of a split (deixis data split)"),
    "leak_near": Kind("warning", "validation images with a near copy in training", "take them out of one side"),
    "names_alike": Kind("warning", "names that differ only in '_' or '-'", "merge them"),
    "name_delimiter": Kind("warning", "names with '.' or '?', which end a phrase", "rename the class"),
    "name_unknown": Kind("warning", "names with parts unknown to the tokenizer", "use another word"),
    "class_untrained": Kind("warning", "validation classes without a training object", "add objects, or leave it out"),
    "class_imbalance": Kind("warning", "classes very unequal in number", "add objects of the rare ones"),
    "image_dim": Kind(
        "warning",
        "16-bit images that use little of their range",
        "stretch them to 8 bits before: (value - low) / (high - low) * 255, with one low and high for all",
    ),
    "object_small": Kind(
        "warning", "images with objects too small for the model", "raise --image-size, or cut the images into tiles"
    ),
    "objects_over_measured": Kind(
        "warning", "images with more objects than are measured", "give --max-detections, or AP stays below 1"
    ),
    "objects_over_queries": Kind(
        "warning", "images with more objects than queries", "cut them into tiles, or use a model with more queries"
    ),
    "phrase_ambiguous": Kind("warning", "one sentence for different masks of an image", "say which one is meant"),
    "mask_tiny": Kind("warning", "masks of few pixels", "check whether they are intended; --tiny sets the limit"),
    "no_phrases": Kind(
        "warning", "no sentence at all", "write captions (deixis refer cycle), or train with --placeholder-captions"
    ),
    "reader_warning": Kind("warning", "warnings while reading", "check whether this is intended"),
    # notes
    "box_two_classes": Kind("note", "one box with two classes", "check whether both are intended"),
    "class_unused": Kind("note", "classes without an object", "remove them, or keep them as negatives"),
    "class_rare": Kind("note", "classes with fewer than 10 objects", "add some, or expect little of them"),
    "class_unmeasured": Kind("note", "training classes without a validation object", "nothing is measured of them"),
    "exif_rotated": Kind("note", "images that EXIF rotates", "nothing to do: they are annotated as they are shown"),
    "image_crowd_only": Kind("note", "images with nothing but crowd regions", "they teach nothing but background"),
    "image_empty": Kind("note", "images without an object", "keep them as background if nothing is missing"),
    "image_not_listed": Kind("note", "image files that no annotation lists", "annotate them, or leave them"),
    "name_fragmented": Kind("note", "names broken into fragments", "a common word is understood better"),
    "phrase_repeated": Kind("note", "one sentence twice for the same mask", "remove one of the two"),
    "mask_wordless": Kind("note", "masks without a sentence", "write captions (deixis refer cycle)"),
    "image_unasked": Kind("note", "images without a sentence", "nothing to do: they train nothing"),
    "prompt_chunks": Kind("note", "more names than one prompt holds", "nothing to do: they are asked for in parts"),
}


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        kind: a key of `KINDS`.
        file: the file it is in.
        place: where in the file: an image, an annotation, a line.
        message: what is wrong.
        fix: what a cleaned copy does about it; empty where a person must decide.
    """

    kind: str
    file: str
    place: str
    message: str
    fix: str = ""

    @property
    def severity(self) -> Severity:
        """By its kind."""
        return KINDS[self.kind].severity

    @property
    def remedy(self) -> str:
        """By its kind."""
        return KINDS[self.kind].remedy


@dataclass
class Findings:
    """What readers and checks add to.

    A reader that is given one leaves out what it cannot use, adds it here and continues. It keeps boxes and sizes of
    images as annotated: the checks examine both.

    Attributes:
        found: in the order of finding.
        listed: names of image files that the annotations list, usable or not, without folder and suffix.
        object_places: by `Sample.source`, where each object of the image is (`annotation 17`), if known.
    """

    found: list[Finding] = field(default_factory=list)
    listed: set[str] = field(default_factory=set)
    object_places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, file: object, place: str, message: str, fix: str = "") -> None:
        """One more; see `Finding`."""
        self.listed.add(PurePosixPath(str(file)).stem)
        self.found.append(Finding(kind, str(file), place, message, fix))


def image_loss(objects: int) -> str:
    """What is removed with an image of so many objects, for `Finding.fix`."""
    return f"image removed, and its {objects} objects" if objects else "image removed"


@contextmanager
def collecting(findings: Findings | None, kind: str, file: object, place: str, fix: str) -> Iterator[None]:
    """A block whose `DataError` becomes a finding, after which reading continues; without findings it is raised.

    Other exceptions that the file causes are made `DataError`s with its name; see `reading`.
    """
    try:
        with reading(f"{file}: {place}" if place else str(file)):
            yield
    except DataError as error:
        if findings is None:
            raise
        message = str(error)
        for known in (f"{file}: ", f"{place}: "):
            message = message.removeprefix(known)
        findings.add(kind, file, place, message, fix)


@contextmanager
def collecting_warnings(findings: Findings, file: object) -> Iterator[None]:
    """A block whose warnings become findings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if not issubclass(warning.category, UserWarning):  # of libraries, to programmers
            continue
        findings.add("reader_warning", file, "", str(warning.message).removeprefix(f"{file}: "))
