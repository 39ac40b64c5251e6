"""Telling a format of phrases and masks by the files."""

from __future__ import annotations

from pathlib import Path

from deixis.data.formats.recognise import recognise
from deixis.data.reading import require_regular
from deixis.data.refer_formats.openimages_masks import find_mask_files
from deixis.data.refer_formats.refcoco import find_refs_file
from deixis.data.refer_formats.sa1b import has_sa1b_files
from deixis.errors import DataError

MASKED = ("coco", "lvis", "yolo", "labelme")


def recognise_refer(path: Path) -> str:
    """The format of a file or folder, one of `REFER_FORMATS`.

    Raises:
        DataError: no format fits, or one that has no masks.
    """
    if path.is_dir():
        found = _of_folder(path)
        if found is not None:
            return found
        nested = sorted(child.name for child in path.iterdir() if child.is_dir() and _of_folder(child))
        if nested:
            raise DataError(f"{path}: holds several data sets ({', '.join(nested[:6])}); give the folder of one")
    elif path.suffix == ".p":
        return "refcoco"
    elif path.suffix == ".json" and _is_list(path):
        return "refer_json"
    elif path.suffix == ".csv":
        return "openimages_masks"
    try:
        found = recognise(path)
    except DataError as error:
        raise DataError(f"{error}; masks and phrases may also be RefCOCO, SA-1B, Open Images or plain JSON") from error
    if found not in MASKED:
        raise DataError(f"{path}: {found} annotations have no masks; give data with masks, such as COCO or labelme")
    return found


def _of_folder(folder: Path) -> str | None:
    if has_sa1b_files(folder):  # first: it does not list a folder that may hold millions of files
        return "sa1b"
    if find_refs_file(folder) is not None or any(folder.glob("refs(*).p")):
        return "refcoco"
    if find_mask_files(folder):
        return "openimages_masks"
    files = sorted(folder.glob("*.json"))
    return "refer_json" if len(files) == 1 and _is_list(files[0]) else None


def _is_list(file: Path) -> bool:
    """Whether a JSON file holds a list of image entries, told by its first bytes; one object a line is no such list."""
    try:
        require_regular(file)
        with file.open("rb") as content:
            start = content.read(4096).decode("utf-8-sig", errors="ignore").lstrip()
    except (OSError, DataError):
        return False
    return start.startswith("[")
