"""Pascal VOC: one XML file per image (Everingham et al., IJCV 2010; also what LabelImg writes)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from deixis.data.findings import Findings, collecting
from deixis.data.formats.annotation_files import ImageIndex, read_text, report_missing, require_no_missing
from deixis.data.formats.foreign import foreign_file
from deixis.data.formats.shared.annotated_objects import AnnotatedObject
from deixis.data.formats.shared.assemble import Picture, assemble, size_of
from deixis.data.pixels.image_files import is_left_by_macos, kind_of_file
from deixis.data.reading import reads, require_regular
from deixis.errors import DataError, NoSuchSplitError
from deixis.records import SampleList
from deixis.text import clean_name

_ENCODING = re.compile(rb"""(?:\xef\xbb\xbf)?\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")
_ANNOTATION_FOLDERS = ("", "annotations", "Annotations")
_IMAGE_FOLDERS = ("images", "Images", "JPEGImages")


@dataclass(frozen=True)
class _File:
    """The content of one XML file; `size_hw` is None where it gives no size."""

    path: Path
    file_name: str
    size_hw: tuple[int, int] | None
    objects: tuple[AnnotatedObject, ...]


def find_xml_files(folder: Path) -> list[Path]:
    """The XML files of a folder, or of its `annotations`, sorted by name."""
    for name in _ANNOTATION_FOLDERS:
        found = sorted(file for file in (folder / name).glob("*.xml") if not is_left_by_macos(file))
        if found:
            return found
    return []


def find_voc(path: Path) -> list[Path]:
    """The XML files of a folder, unless another tool wrote the first."""
    files = find_xml_files(path) if path.is_dir() else []
    return files if files and foreign_file(files[0]) is None else []


@reads("Pascal VOC annotations")
def read_voc(
    path: str | Path, images: Path | None = None, split: str | None = None, findings: Findings | None = None
) -> SampleList:
    """A folder of Pascal VOC XML files.

    The XML files are in the folder itself or in its `annotations`; the images beside them, in `images` or
    `JPEGImages`, found by the file name in the XML or else by the XML's own stem, whatever their suffix and case.

    VOC counts pixels from 1 and includes the last one, so a box's left top is `(xmin - 1, ymin - 1)` and its right
    bottom `(xmax, ymax)` in the corners used here; tools that count from 0 are then at most a pixel off. Objects
    marked difficult are kept as any other. Class names are sorted; image ids count the XML files from 1.

    Args:
        split: a list of `ImageSets/Main`, such as train or val, to read only the images it names; all if not given.

    Raises:
        DataError: no XML, malformed XML, a missing or differently sized image, or a box that is no box.
    """
    folder = Path(path)
    xml_files = find_xml_files(folder) if folder.is_dir() else []
    if not xml_files:
        raise DataError(
            f"{folder}: no Pascal VOC XML files in it or in its 'annotations'; give the folder that has them"
        )
    if split is not None:
        listed = _listed(folder, split, {file.stem for file in xml_files})
        xml_files = [file for file in xml_files if file.stem in listed]
        absent = sorted(listed - {file.stem for file in xml_files})
        if absent:
            raise DataError(f"{folder}: {len(absent)} images of split {split!r} have no XML file, as {absent[0]!r}")
    files = []
    for path in xml_files:
        with collecting(findings, "file_malformed", path, "", "image removed"):
            files.append(_parse(path, findings))
    if not files:
        raise DataError(f"{folder}: none of its {len(xml_files)} XML files can be read; see that they are Pascal VOC")
    names = sorted({thing.label for file in files for thing in file.objects})
    if not names:
        raise DataError(
            f"{folder}: none of its {len(files)} XML files has an object that can be used: nothing to learn from"
        )
    pictures = []
    for number, (file, image) in enumerate(zip(files, _find_images(folder, files, images, findings), strict=True), 1):
        if image is not None:
            with collecting(findings, "image_unreadable", image, file.path.name, "image removed"):
                size_hw = size_of(image, file.size_hw, findings, stated_in=file.path)
                pictures.append(Picture(image, size_hw, file.objects, file.path.name, image_id=number))
    return assemble(folder, pictures, names, folder.resolve().name, findings)


def _listed(folder: Path, split: str, known: set[str]) -> set[str]:
    """The names in a list of `ImageSets/Main`, which may have blanks and suffixes.

    A second column, as the lists of one class have, is left alone.

    Args:
        known: the stems of the XML files.
    """
    lists = next((place for place in (folder, folder.parent) if (place / "ImageSets" / "Main").is_dir()), folder)
    file = lists / "ImageSets" / "Main" / f"{split}.txt"
    if not file.is_file():
        seen = sorted(path.stem for path in file.parent.glob("*.txt"))
        raise NoSuchSplitError(f"{folder}: has no split {split!r}; ImageSets/Main has {', '.join(seen) or 'no lists'}")
    names = {_stem(line.strip(), known) for line in read_text(file).splitlines() if line.strip()}
    if not names:
        raise DataError(f"{file}: names no image; there is nothing to read")
    return names


def _stem(line: str, known: set[str]) -> str:
    """The name of a listed image: the line, without a suffix or a last column where only so it is known."""
    first, *last = line.rsplit(maxsplit=1)
    names = [line, first] if last and last[0] in ("-1", "0", "1") else [line]
    return next((stem for name in names for stem in (name, PurePosixPath(name).stem) if stem in known), names[-1])


def _find_images(folder: Path, files: list[_File], images: Path | None, findings: Findings | None) -> list[Path | None]:
    """The image of each file; None, with findings, where there is none."""
    places = [images] if images is not None else [files[0].path.parent, *(folder / name for name in _IMAGE_FOLDERS)]
    if images is None:
        places += [files[0].path.parent.parent / name for name in _IMAGE_FOLDERS]
    searched = [place for place in dict.fromkeys(places) if place.is_dir()]
    index = ImageIndex(searched)
    found: list[Path | None] = []
    missing = []
    for file in files:
        name, image = file.file_name or file.path.stem, None
        with collecting(findings, "image_misplaced", name, file.path.name, "image removed"):
            image = index.find(file.file_name, file.path.stem)
            missing += [(name, file.path.name)] if image is None else []
        found.append(image)
    if findings is not None and len(missing) < len(files):
        report_missing(findings, missing)
    else:
        require_no_missing(str(folder), [name for name, _ in missing], len(files), searched or places)
    return found


def _parse(path: Path, findings: Findings | None) -> _File:
    root = _root(path)
    if root.tag != "annotation":
        what = foreign_file(path)
        other = f"is {what}" if what else f"the root is <{root.tag}>, not Pascal VOC's <annotation>; move the file away"
        raise DataError(f"{path}: {other}")
    objects = []
    for number, node in enumerate(root.findall("object"), start=1):
        with collecting(findings, "record_malformed", path, f"object {number}", "object removed"):
            objects.append(_object(node, f"{path}: object {number}"))
    return _File(path, (root.findtext("filename") or "").strip(), _size(root, path), tuple(objects))


def _root(path: Path) -> ElementTree.Element:
    """The root of an XML file, in any encoding that Python knows."""
    require_regular(path)
    try:
        data = path.read_bytes()
        declared = _ENCODING.match(data)
        if declared is None:  # UTF-8, or UTF-16 by its mark
            return ElementTree.fromstring(data)
        name = declared[1].decode().lower()  # which cannot be of two bytes a character, since it is read as ASCII
        text = data.decode("utf-8" if name.startswith(("utf-16", "utf-32")) else name)  # the parser knows few of them
        return ElementTree.fromstring(text[text.index("?>") + 2 :].strip())
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        kind = kind_of_file(path)
        told = f"is {kind}" if kind else f"cannot read as XML ({error}); correct the file, or export it again"
        raise DataError(f"{path}: {told}") from error


def _object(node: ElementTree.Element, where: str) -> AnnotatedObject:
    name = clean_name(node.findtext("name") or "")
    if not name:
        raise DataError(f"{where}: has no <name>; add one")
    box = node.find("bndbox")
    x1, y1, x2, y2 = (_number(box, key, where) for key in ("xmin", "ymin", "xmax", "ymax"))
    (left, right), (top, bottom) = _in_order(x1, x2), _in_order(y1, y2)
    return AnnotatedObject(name, (left, top, right, bottom))


def _in_order(first: float, last: float) -> tuple[float, float]:
    """Both ends of a side that is counted from 1 and includes its last pixel, however it was drawn.

    The ends of a side shorter than a pixel are as far apart as their order says: 1 and 0.25 are a quarter of a pixel.
    """
    if last < first - 1:
        first, last = last, first
    return first - 1, last


def _size(root: ElementTree.Element, path: Path) -> tuple[int, int] | None:
    node = root.find("size")
    if node is None:
        return None
    height, width = (_number(node, key, f"{path}: size") for key in ("height", "width"))
    return (int(height), int(width)) if min(height, width) > 0 else None  # a side of 0 says that nobody knew it


def _number(node: ElementTree.Element | None, key: str, where: str) -> float:
    text = None if node is None else node.findtext(key)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: <{key}> must be a number, got {text!r}; correct the file")
    return value
