"""Telling an annotation format by the files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from deixis.data.formats.annotation_files import holds_text
from deixis.data.formats.foreign import foreign_file, foreign_folder
from deixis.data.formats.labelme.read import find_labelme_files, is_labelme
from deixis.data.formats.lvis.read import NEGATIVE, NOT_EXHAUSTIVE
from deixis.data.formats.odvg.lines import is_lines_file
from deixis.data.formats.odvg.read import find_lines_files
from deixis.data.formats.openimages.read import find_box_files
from deixis.data.formats.parquet.read import find_parquet_files
from deixis.data.formats.voc.read import find_xml_files
from deixis.data.formats.yolo.read import find_data_yaml
from deixis.data.pixels.image_files import is_left_by_macos
from deixis.errors import DataError

FORMATS = "coco, lvis, voc, yolo, odvg, openimages, labelme, parquet"
_BY_SUFFIX = {".jsonl": "odvg", ".yaml": "yolo", ".yml": "yolo", ".csv": "openimages", ".parquet": "parquet"}
_NAMED = 4


def recognise(path: Path) -> str:
    """The format of a file or folder, a key of `READERS`.

    Raises:
        DataError: no format fits, or several do; the message lists what was seen.
    """
    if path.is_dir():
        return _of_folder(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _of_json(path)
    what = foreign_file(path)
    if what is not None and suffix != ".parquet":
        raise DataError(f"{path}: is {what}")
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    hint = "give its folder" if suffix == ".xml" else f"name its format: {FORMATS}"
    raise DataError(f"{path}: not a COCO JSON file, nor one of another known format ({suffix or 'no suffix'}); {hint}")


def coco_file(folder: Path) -> Path:
    """The only COCO file of a folder or of its `annotations`.

    Raises:
        DataError: there is none, or there are several.
    """
    found = _json_files(folder)
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{folder}: holds several JSON files ({_some(found)}); give the one to read")
    raise DataError(f"{folder}: no JSON file in it or in its 'annotations'; give the folder of the annotations")


def _of_folder(folder: Path) -> str:
    seen = _evidence(folder)
    if len(seen) > 1:
        both = "; ".join(f"{name} ({_some(files)})" for name, files in seen.items())
        raise DataError(
            f"{folder}: looks like several formats: {both}; name one with --format, or give the file itself"
        )
    if not seen:
        named = foreign_folder(folder)
        if named is not None:
            raise DataError(named)
        raise DataError(f"{folder}: no annotations of a known format ({FORMATS}) in it; {_what_is_there(folder)}")
    (name,) = seen
    return _of_json(coco_file(folder)) if name == "coco" else name


def _evidence(folder: Path) -> dict[str, list[Path]]:
    """Format to the files that speak for it; `coco` stands for LVIS too."""
    labelme = find_labelme_files(folder)
    lines = find_lines_files(folder)
    seen = {
        "voc": [file for file in find_xml_files(folder)[:1] if foreign_file(file) is None],
        "yolo": find_data_yaml(folder),
        "odvg": [file for file in lines if foreign_file(file) is None],
        "openimages": find_box_files(folder),
        "labelme": labelme,
        "parquet": find_parquet_files(folder),
        "coco": [] if labelme or lines else _json_files(folder),
    }
    return {name: files for name, files in seen.items() if files}


def _of_json(file: Path) -> str:
    if is_lines_file(file):
        return "odvg"
    if not _may_be_coco(file) and not is_labelme(file):
        what = foreign_file(file)
        if what is not None:
            raise DataError(f"{file}: is {what}")
    if holds_text(file, f'"{NEGATIVE}"') or holds_text(file, f'"{NOT_EXHAUSTIVE}"'):
        return "lvis"
    return "labelme" if is_labelme(file) else "coco"


def _json_files(folder: Path) -> list[Path]:
    """The JSON files of a folder and of its `annotations` that may be COCO's; others stand beside many exports."""
    files = sorted(file for place in (folder, folder / "annotations") for file in place.glob("*.json"))
    return [file for file in files if not is_left_by_macos(file) and _may_be_coco(file)]


def _may_be_coco(file: Path) -> bool:
    return holds_text(file, '"images"') and not holds_text(file, '"segments_info"')


def _what_is_there(folder: Path) -> str:
    """What a folder holds, and which of its folders to give instead."""
    counts = Counter(file.suffix.lower() or file.name for file in folder.iterdir() if file.is_file())
    files = ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common(_NAMED)) or "no files"
    nested = sorted(child for child in folder.iterdir() if child.is_dir() and _evidence(child))
    hint = f"give one of its folders: {_some(nested)}" if nested else "give the folder of the annotations"
    return f"it holds {files}; {hint}"


def _some(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths[:_NAMED]) + (", …" if len(paths) > _NAMED else "")
