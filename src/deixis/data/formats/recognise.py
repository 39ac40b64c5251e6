"""The format of a file or folder, recognised from the files; the same for boxes, phrases and clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from deixis.data.formats.foreign import foreign_file, foreign_folder
from deixis.data.formats.record import Format
from deixis.data.formats.zipped import is_zip, unpacked
from deixis.data.reading import require_regular
from deixis.data.scenes import PREFIX
from deixis.errors import DataError, NoSuchSplitError

_NAMED = 4


def are_scenes(path: str | Path, name: str | None, formats: Mapping[str, Format]) -> bool:
    """Whether a path, or the name of a format, means generated scenes.

    Raises:
        DataError: the name is that of no format.
    """
    if name is not None and name not in formats:
        require_known(name, (*_names(formats), "scenes"))
    return name == "scenes" or str(path).startswith(PREFIX)


def opened(
    path: Path, name: str | None, split: str | None, formats: Mapping[str, Format], what: str
) -> tuple[Format, Path, str | None]:
    """The format of what a user names, its place, and the part of it to read.

    Args:
        path: a file, folder or ZIP archive, perhaps with a split after a `#`, as in `data.yaml#val`.
        name: the format, a key of `formats`, where the user names it.
        split: the part, where the user names it apart.
        formats: the candidates, in the order of recognition.
        what: what they hold, in the plural, for messages.

    Raises:
        DataError: nothing there, a format that is not recognised, or a split where there are none.
    """
    place, fragment = without_split(path)
    split = split or fragment
    require_regular(place)
    if not place.exists():
        raise DataError(f"{place}: no such file or folder; give the annotations' file or folder, or scenes:…")
    place = unzipped(place, formats)
    format = formats[name] if name is not None else recognise(place, formats, what)
    if format.refused:
        raise DataError(f"{place}: {format.name} annotations {format.refused}")
    if split is not None and "split" not in format.takes:
        raise NoSuchSplitError(
            f"{place}: {format.name} annotations have no splits to choose from; give the file of {split!r}"
        )
    return format, place, split


def unzipped(place: Path, formats: Mapping[str, Format]) -> Path:
    """The folder that holds an archive's annotations, once it is unpacked; what is no archive as it is.

    Raises:
        DataError: an archive that cannot be unpacked.
    """
    return _innermost(unpacked(place), formats) if is_zip(place) else place


def _innermost(folder: Path, formats: Mapping[str, Format]) -> Path:
    """The folder of an archive's annotations: it may hold nothing but a folder that does."""
    here = folder
    while not any(format.find(here) for format in formats.values()):
        inside = list(here.iterdir())
        if len(inside) != 1:
            return folder
        if not inside[0].is_dir():
            return inside[0]
        here = inside[0]
    return here


def require_known(name: str, known: Collection[str]) -> None:
    """Raises DataError for the name of no format."""
    if name not in known:
        raise DataError(f"unknown format {name!r}; choose one of {', '.join(known)}")


def without_split(path: Path) -> tuple[Path, str | None]:
    """A path and the split named after its `#`, unless the path exists as it is."""
    if path.exists() or "#" not in path.name:
        return path, None
    name, _, split = path.name.rpartition("#")
    return path.with_name(name), split


def recognise(path: Path, formats: Mapping[str, Format], what: str) -> Format:
    """The format of a file or folder.

    Args:
        formats: the candidates, in the order of recognition.
        what: what they hold, for messages.

    Raises:
        DataError: no format fits, or several do; the message lists what was seen, or names the tool that wrote it.
    """
    seen: dict[str, list[Path]] = {}
    for format in formats.values():
        files = format.find(path)
        # A file is of one format; a folder may hold files of several.
        if files and (format.decisive or not path.is_dir()):
            return format
        if files:
            seen[format.name] = files
    fits = [name for name in seen if not any(other in seen for other in formats[name].yields_to)]
    if len(fits) > 1:
        both = "; ".join(f"{name} ({_some(seen[name])})" for name in fits)
        raise DataError(f"{path}: may be of several formats: {both}; name one with --format, or give the file itself")
    if not fits:
        raise DataError(_unrecognised(path, formats, what))
    return formats[fits[0]]


def _unrecognised(path: Path, formats: Mapping[str, Format], what: str) -> str:
    """What a file or folder is instead, as far as it can be seen, and what to give."""
    known = ", ".join(_names(formats))
    if path.is_dir():
        nested = [child for child in sorted(path.iterdir()) if child.is_dir() and _is_known(child, formats)]
        unread = None if nested else foreign_folder(path)
        return unread or f"{path}: no {what} of a known format ({known}) in it; {_what_is_there(path, nested)}"
    foreign = foreign_file(path)
    if foreign is not None:
        return f"{path}: is {foreign}"
    beside = any(path in format.find(path.parent) for format in formats.values())
    hint = "give its folder" if beside else "if it is one of them, name it with --format"
    return f"{path}: no {what} of a known format ({known}), recognised from its suffix and content; {hint}"


def _names(formats: Mapping[str, Format]) -> list[str]:
    return [name for name, format in formats.items() if not format.refused]


def _is_known(path: Path, formats: Mapping[str, Format]) -> bool:
    return any(format.find(path) for format in formats.values())


def _what_is_there(folder: Path, nested: list[Path]) -> str:
    """What a folder holds, and which of its folders to give instead."""
    counts = Counter(file.suffix.lower() or file.name for file in folder.iterdir() if file.is_file())
    most = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:_NAMED]
    files = ", ".join(f"{count} {suffix}" for suffix, count in most) or "no files"
    hint = f"give one of its folders: {_some(nested)}" if nested else "give the folder of the annotations"
    return f"it holds {files}; {hint}"


def _some(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths[:_NAMED]) + (", …" if len(paths) > _NAMED else "")
