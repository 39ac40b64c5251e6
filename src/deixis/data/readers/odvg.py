"""ODVG: one JSON object a line and an image, with boxes of classes (`detection`) or of phrases (`grounding`).

The form that Open-GroundingDino and MM-Grounding-DINO train from:

    {"filename": "a.jpg", "height": 4, "width": 6,
     "detection": {"instances": [{"bbox": [x1, y1, x2, y2], "label": 0, "category": "dog"}]}}
    {"filename": "b.jpg", "height": 4, "width": 6,
     "grounding": {"caption": "a dog by a red car", "regions": [{"bbox": [[…], […]], "phrase": "a red car"}]}}
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from deixis.data.findings import Findings, collecting
from deixis.data.images import image_sizes_hw
from deixis.data.readers.files import (
    clip_instances,
    parse_object,
    read_text,
    require_no_missing,
    resolve_image,
    tell_missing,
    vocabulary_of,
    warn_dropped,
)
from deixis.data.readers.odvg_lines import OdvgLine, is_lines_file, parse_line
from deixis.errors import DataError
from deixis.records import Instances, Sample, SampleList, Vocabulary


def read_odvg(path: str | Path, images: Path | None = None, findings: Findings | None = None) -> SampleList:
    """A file of ODVG lines, or the folder that holds one.

    Detection lines share one vocabulary: the label map (a JSON file `…label_map….json` beside the lines, label to
    name) or else the categories that the lines name. A grounding line has a vocabulary of its own, its phrases; a
    region may have several boxes or several phrases, and a box with several phrases stands once for each. The data
    set's vocabulary holds the label map and then all phrases. A caption that only lists the phrases is none.

    Args:
        path: the file or its folder.
        images: the folder that file names are relative to, where it is not beside the file.
        findings: what cannot be used goes here and is left out; see `deixis.data.findings.Findings`.

    Raises:
        DataError: a line that is no such object, a label outside the label map, a box that is no box, missing images.
    """
    file = _lines_file(Path(path))
    labels = _label_map(file)
    lines = []
    for number, text in enumerate(read_text(file).split("\n"), start=1):
        if text.strip():
            with collecting(findings, "record_malformed", file, f"line {number}", "image removed"):
                lines.append(parse_line(text, f"{file}: line {number}", labels))
    if not lines:
        raise DataError(f"{file}: has no line; there is nothing to train on or evaluate")
    shared, whole = _vocabularies(file, labels, lines)
    samples, dropped = [], []
    for number, (line, image) in enumerate(
        zip(lines, _find_images(file, lines, images, findings), strict=True), start=1
    ):
        if image is None:
            continue
        with collecting(findings, "image_unreadable", image, line.where, "image removed"):
            sample, lost = _sample(line, image, shared, whole, number, findings is not None)
            samples.append(sample)
            dropped += [line.where] * lost
    warn_dropped(str(file), dropped)
    return SampleList(tuple(samples), whole, name=file.stem)


def find_lines_files(folder: Path) -> list[Path]:
    """The files of a folder, or of its `annotations`, that hold ODVG lines."""
    files = [file for place in (folder, folder / "annotations") for file in sorted(place.glob("*.json*"))]
    return [file for file in files if is_lines_file(file)]


def _lines_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = find_lines_files(path)
    if len(found) != 1:
        seen = ", ".join(file.name for file in found[:4]) or "none"
        raise DataError(f"{path}: wanted one file of ODVG lines, found {seen}; give the file itself")
    return found[0]


def _label_map(file: Path) -> dict[int, str] | None:
    """The label map beside a file; of several, the one whose name begins most like the file's."""
    found = sorted({*file.parent.glob("*label_map*.json"), *file.parent.glob("*labelmap*.json")} - {file})
    if not found:
        return None
    shared = [_common_start(candidate.name, file.name) for candidate in found]
    if shared.count(max(shared)) > 1:
        names = ", ".join(candidate.name for candidate in found)
        raise DataError(f"{file}: several label maps beside it ({names}); leave the one that belongs to it")
    path = found[shared.index(max(shared))]
    labels = {}
    for key, name in parse_object(read_text(path), str(path)).items():
        if not key.isdecimal() or not isinstance(name, str):
            raise DataError(f'{path}: wanted numbers to names, as in {{"0": "dog"}}, got {key!r}: {name!r}')
        labels[int(key)] = name.strip()
    return dict(sorted(labels.items()))


def _common_start(one: str, other: str) -> int:
    """How many characters two texts begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _vocabularies(
    file: Path, labels: dict[int, str] | None, lines: Sequence[OdvgLine]
) -> tuple[Vocabulary | None, Vocabulary]:
    """(of the detection lines, of the whole data set)."""
    if labels is None:
        labels = {}
        for line in lines:
            if line.names is None:
                labels |= line.categories
        labels = dict(sorted(labels.items()))
    names = list(labels.values())
    shared = vocabulary_of(names, str(file)) if names else None
    phrases = [name for line in lines for name in line.names or ()]
    if not names and not phrases:
        raise DataError(f"{file}: no line names a class or a phrase; there is nothing to learn from")
    new = [name for name in dict.fromkeys(phrases) if name not in set(names)]
    return shared, (shared if shared is not None and not new else vocabulary_of([*names, *new], str(file)))


def _sample(
    line: OdvgLine, image: Path, shared: Vocabulary | None, whole: Vocabulary, number: int, keep_all: bool
) -> tuple[Sample, int]:
    """The sample of a line, and how many boxes without area it lost."""
    size_hw = line.size_hw or image_sizes_hw(image)[0]
    absent = None
    if line.names:
        vocabulary = vocabulary_of(line.names, line.where)
    elif line.names is None and shared is not None:
        vocabulary = shared
    else:  # nothing was asked of this image, so nothing is known of it
        vocabulary, absent = whole, frozenset[int]()
    rows = {name: row for row, name in enumerate(vocabulary.names)}
    instances = Instances.build([box for box, _ in line.objects], [rows[name] for _, name in line.objects])
    instances, lost = clip_instances(instances, size_hw, keep_all)
    return (
        Sample(
            image,
            size_hw,
            instances,
            vocabulary,
            number,
            line.where.rsplit("/", 1)[-1],
            absent_class_ids=absent,
            caption=line.caption,
        ),
        lost,
    )


def _find_images(
    file: Path, lines: Sequence[OdvgLine], images: Path | None, findings: Findings | None
) -> list[Path | None]:
    """The image of each line; None, with findings, where there is none."""
    home = file.parent
    places = [images] if images is not None else [home, home / "images", home.parent, home.parent / "images"]
    searched = [place for place in places if place.is_dir()] or places
    found = [next(filter(None, (resolve_image(place, line.file_name) for place in searched)), None) for line in lines]
    missing = [(line.file_name, line.where) for line, image in zip(lines, found, strict=True) if image is None]
    if findings is not None and len(missing) < len(lines):
        tell_missing(findings, missing)
    else:
        require_no_missing(str(file), [name for name, _ in missing], len(lines), searched)
    return found
