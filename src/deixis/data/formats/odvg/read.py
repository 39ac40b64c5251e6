"""ODVG: one JSON object per line and image, with boxes of classes (`detection`) or of phrases (`grounding`).

The form that Open-GroundingDino and MM-Grounding-DINO train from:

    {"filename": "a.jpg", "height": 4, "width": 6,
     "detection": {"instances": [{"bbox": [x1, y1, x2, y2], "label": 0, "category": "dog"}]}}
    {"filename": "b.jpg", "height": 4, "width": 6,
     "grounding": {"caption": "a dog by a red car",
                   "regions": [{"bbox": [[…], […]], "phrase": "a red car", "tokens_positive": [[9, 18]]}]}}

A file is read once to check it and to note where its lines begin; a sample is parsed when it is asked for. So a file of
any length takes 20 bytes per line, on disk.
"""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

from deixis.data.findings import Findings
from deixis.data.formats.annotation_files import clip_instances, parse_object, read_text, the_file, vocabulary_of
from deixis.data.formats.foreign import foreign_file
from deixis.data.formats.odvg.line_index import LineIndex
from deixis.data.formats.odvg.lines import OdvgLine, is_lines_file
from deixis.data.formats.odvg.scan import Scan, find_image, parsed, spans_of
from deixis.data.reading import reading, reads
from deixis.errors import DataError
from deixis.records import Instances, Sample, Spans
from deixis.text import clean_name


class OdvgDataset:
    """The samples of a file of ODVG lines, parsed when asked for; see `read_odvg`.

    Attributes:
        vocabulary: the label map, then the phrases, the first `MAX_PHRASES` of them. A sample knows its own.
        digest: the same for files with the same content.
    """

    def __init__(
        self, file: Path, images: Path | None, labels: dict[int, str] | None, findings: Findings | None = None
    ) -> None:
        self.name = file.stem
        self._file = file
        self._labels = labels
        self._places = _image_places(file, images)
        self._keep_all = findings is not None
        scan = Scan(file, labels, self._places, findings)
        self._index = LineIndex(file, iter(scan))
        scan.finish()
        self.digest = scan.digest
        self._shared, self.vocabulary = scan.vocabularies()

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int, /) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        row = index % len(self)
        with reading(self._file):
            line = parsed(self._file, self._index.line(row), self._labels)
            image = find_image(self._places, line.file_name)
            if image is None:
                raise DataError(f"{line.where}: the image {line.file_name!r} is gone; start again")
            return self._sample(line, image, self._index.size_hw(row), row + 1)

    def size_hw(self, index: int) -> tuple[int, int]:
        """(height, width) of a sample's image, without parsing its line."""
        return self._index.size_hw(index)

    def _sample(self, line: OdvgLine, image: Path, size_hw: tuple[int, int], image_id: int) -> Sample:
        absent = None
        spans: tuple[Spans, ...] = ()
        if line.names:
            vocabulary = vocabulary_of(line.names, line.where)
            spans = spans_of(line)[0]
        elif line.names is None and self._shared is not None:
            vocabulary = self._shared
        else:  # nothing was asked of this image, so nothing is known of it
            vocabulary, absent = self.vocabulary, frozenset[int]()
        rows = {name: row for row, name in enumerate(vocabulary.names)}
        instances = Instances.build([box for box, _ in line.objects], [rows[name] for _, name in line.objects])
        return Sample(
            image,
            size_hw,
            clip_instances(instances, size_hw, self._keep_all)[0],
            vocabulary,
            image_id,
            line.where.rsplit("/", 1)[-1],
            absent_class_ids=absent,
            caption=line.caption,
            phrase_spans=spans,
        )


@reads("ODVG annotations")
def read_odvg(path: str | Path, images: Path | None = None, findings: Findings | None = None) -> OdvgDataset:
    """A file of ODVG lines, or the folder that holds one.

    Detection lines share one vocabulary: the label map (a JSON file `…label_map….json` beside the lines, label to
    name) or else the categories that the lines name. A grounding line has a vocabulary of its own, its phrases; a
    region may have several boxes or several phrases, and a box with several phrases is repeated for each. A caption
    that only lists the phrases is none. Where a phrase is not found in the caption, the line keeps
    its caption and is prompted by the list of its phrases; a warning counts these lines.

    Args:
        images: the folder that file names are relative to, where it is not beside the file.

    Raises:
        DataError: a line that is no such object, a label outside the label map, a box that is no box, missing images.
    """
    file = the_file(path, find_odvg, "file of ODVG lines")
    return OdvgDataset(file, images, _label_map(file), findings)


def find_odvg(path: Path) -> list[Path]:
    """The files of a folder, or of its `annotations`, that hold ODVG lines; or the file itself if it is one."""
    if path.is_dir():
        files = [file for place in (path, path / "annotations") for file in sorted(place.glob("*.json*"))]
        return [file for file in files if is_lines_file(file)]
    suffix = path.suffix.lower()
    known = suffix == ".jsonl" and foreign_file(path) is None
    return [path] if known or (suffix == ".json" and is_lines_file(path)) else []


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
            raise DataError(f'{path}: expected numbers to names, as in {{"0": "dog"}}, got {key!r}: {name!r}')
        labels[int(key)] = clean_name(name)
    return dict(sorted(labels.items()))


def _common_start(one: str, other: str) -> int:
    """How many characters two texts begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _image_places(file: Path, images: Path | None) -> list[Path]:
    home = file.parent
    places = [images] if images is not None else [home, home / "images", home.parent, home.parent / "images"]
    return [place for place in places if place.is_dir()] or places
