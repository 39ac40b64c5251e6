"""From the file names that annotations give to files: exporters add folders, encode characters, or drop both."""

from __future__ import annotations

import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from deixis.data.pixels.image_files import is_image_file

_ByName = dict[str, list[Path]]
_PROBED_IMAGES = 20  # names tried in each folder, spread over the data set
_MAX_LISTED, _MAX_FOLDERS = 1000, 60  # entries asked whether they are folders, a system call each; and folders tried
_BESIDE = ("images", "data", "img", "imgs", "JPEGImages")


@dataclass(frozen=True)
class Located:
    """What became of the names of a data set.

    Attributes:
        files: one for each name; None where there is none, or where the name means several.
        faults: by position, why a name with a file of its base name got None.
        loose: (name, file) of those found only without their own folders, which differ from the file's.
    """

    files: list[Path | None]
    faults: dict[int, str]
    loose: list[tuple[str, Path]]


@dataclass(frozen=True)
class _Found:
    """Where a name led: to one file, or to several of which it could be any.

    Attributes:
        files: one; several where only the suffix, or upper and lower case, tells them apart.
        gone: the leading folders of the name that had to go.
        alike: whether the file's own name differs, in case or suffix.
    """

    files: tuple[Path, ...]
    gone: tuple[str, ...] = ()
    alike: bool = False

    @property
    def rank(self) -> tuple[bool, int]:
        """How far the file is from the name: of two names that lead to one file, the nearer one means it."""
        return self.alike, len(self.gone)


def spellings(name: str) -> Iterator[str]:
    """A file name as given, with `/`, percent-decoded, without a URL's query; each composed and decomposed (Unicode).

    >>> list(spellings("a%20b.jpg"))
    ['a%20b.jpg', 'a b.jpg']
    """
    posix = name.replace("\\", "/")
    plain = posix.rpartition("?d=")[2]  # Label Studio: /data/local-files/?d=folder/a.jpg
    plain = plain if "?d=" in posix else posix.partition("?")[0] or posix
    seen = set()
    for text in (name, posix, unquote(posix), plain, unquote(plain)):
        # File systems compare bytes, and names that passed through macOS are often decomposed.
        for spelling in (text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)):
            if spelling not in seen and "\0" not in spelling:
                seen.add(spelling)
                yield spelling


def resolve_image(folder: Path, file_name: str) -> Path | None:
    """`file_name` in a folder, in any of its spellings, with as many of its own folders as are there.

    Where no file is called so, the one picture whose name differs in case only or has the suffix that the name lacks.
    """
    found = _find(folder, file_name)
    return found.files[0] if found and len(found.files) == 1 else None


def _find(folder: Path, file_name: str, alike: bool = True) -> _Found | None:
    """Where a name leads; without `alike` a folder is not listed, which takes long where it holds many files."""
    if (folder / file_name).is_file():
        return _Found((folder / file_name,))
    names = [tuple(name.split("/")) for name in spellings(file_name)]
    depth = max(map(len, names))
    # First with all folders, then without the first, and so on: `a/1.jpg` and `b/1.jpg` are different pictures.
    for gone in range(depth):
        for parts in names:
            if parts[gone:] and (folder / "/".join(parts[gone:])).is_file():
                return _Found((folder / "/".join(parts[gone:]),), parts[:gone])
    # Last, as it lists folders, and only where nothing is called exactly so.
    for gone in range(depth if alike else 0):
        for parts in names:
            if parts[gone:] and (files := _alike(folder.joinpath(*parts[gone:-1]), parts[-1])):
                return _Found(files, parts[:gone], alike=True)
    return None


def _alike(folder: Path, name: str) -> tuple[Path, ...]:
    """The pictures of a folder that are called `name` in other case, or `name` and a suffix."""
    try:
        by_name, by_stem = pictures_by_name(folder)
        files = by_name.get(folded(name)) or by_stem.get(folded(name)) or []
        return tuple(file for file in files if file.is_file())  # as of names that are written rightly
    except (OSError, ValueError):  # no such folder, or a name that can be none
        return ()


def with_other_suffix(folders: Iterable[Path], name: str) -> Path | None:
    """A picture that differs from a name in its suffix only: pictures are converted, and annotations are not."""
    stem = PurePosixPath(name.replace("\\", "/")).stem
    return next((file for folder in folders for file in _alike(folder, stem)), None)


def pictures_by_name(folder: Path) -> tuple[_ByName, _ByName]:
    """The pictures of a folder by name and by stem, upper and lower case alike, sorted; kept until the folder changes.

    Raises:
        OSError: there is no such folder.
    """
    return _listed(folder, folder.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _listed(folder: Path, _changed_ns: int) -> tuple[_ByName, _ByName]:
    by_name: dict[str, list[Path]] = defaultdict(list)
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.iterdir()):
        if is_image_file(file):
            by_name[folded(file.name)].append(file)
            by_stem[folded(file.stem)].append(file)
    return dict(by_name), dict(by_stem)


def folded(name: str) -> str:
    """Upper and lower case, composed and decomposed characters alike."""
    return unicodedata.normalize("NFC", name).lower()


def locate_all(folder: Path, names: Sequence[str]) -> Located:
    """The file of each name in a folder.

    A name may lose leading folders, as exporters add their own. It must not thereby become the file of another name,
    nor replace a file that is there under its whole name beside the folder.
    """
    found = [_find(folder, name) for name in names]
    files: list[Path | None] = [None if one is None else one.files[0] for one in found]
    faults: dict[int, str] = {}
    same: dict[Path, list[int]] = defaultdict(list)
    loose = []
    for position, one in enumerate(found):
        if one is None:
            continue
        if len(one.files) > 1:
            faults[position] = f"{names[position]!r} may be {one.files[0]} or {one.files[1].name}"
            continue
        file, gone = one.files[0], one.gone
        same[file].append(position)
        # Where the name begins with the folder itself (`images/a.jpg` in `images`), nothing is in doubt.
        if gone and gone[-1] not in (file.parent.name, ".", ""):
            # In `val`, `train/a.jpg` must not become `val/a.jpg` where `train/a.jpg` is there beside it.
            meant = next((p for s in spellings(names[position]) if (p := folder.parent / s).is_file()), None)
            if meant is not None and not meant.samefile(file):
                faults[position] = f"{names[position]!r} is {meant}, which is not in {folder}"
            else:
                loose.append((names[position], file))
    for file, positions in same.items():
        # One name twice is one picture asked for twice; two names with one file are a mistake.
        if len({names[i] for i in positions}) > 1:
            ranks = {i: found[i].rank for i in positions}  # type: ignore[union-attr]
            nearest = min(ranks.values())
            exact = [i for i in positions if ranks[i] == nearest]
            if nearest == (False, 0) or len({names[i] for i in exact}) == 1:
                positions = [i for i in positions if i not in exact]
            for i in positions:
                other = next(names[j] for j in same[file] if names[j] != names[i])
                faults.setdefault(i, f"{names[i]!r} and {other!r} are found as one file, {file}")
    for position in faults:
        files[position] = None
    wrong = {names[position] for position in faults}
    return Located(files, faults, [pair for pair in loose if pair[0] not in wrong])


def locate_beside(path: Path, names: Sequence[str], images: Path | None) -> tuple[Located, list[Path]]:
    """The file of each name, and the folders that were searched.

    Args:
        path: the annotation file; without `images`, the likely folders around it are tried.
        images: the folder that the names are relative to, where the user gives it.
    """
    stems = (path.stem, path.stem.removeprefix("instances_"))
    return locate_among([images] if images is not None else likely_folders(path.parent, *stems), names)


def locate_among(folders: Sequence[Path], names: Sequence[str]) -> tuple[Located, list[Path]]:
    """The file of each name in the folder that has most of them, and that folder; all folders where none has any."""
    probe = names[:: max(len(names) // _PROBED_IMAGES, 1)]
    folder = max(folders, key=lambda place: _fit(place, probe, alike=False))
    # Folders are listed, which takes long, only where names are left.
    if _fit(folder, probe, alike=False)[0] < len(probe):
        folder = max(folders, key=lambda place: _fit(place, probe, alike=True))
    located = locate_all(folder, names)
    return located, [folder] if any(located.files) else list(folders)


def _fit(folder: Path, names: Sequence[str], *, alike: bool) -> tuple[int, int]:
    """(names found in a folder, those found as they are written): a folder where all folders match is likelier."""
    found = [_find(folder, name, alike) is not None for name in names]
    return sum(found), sum((folder / name).is_file() for name in names)


def likely_folders(home: Path, *stems: str) -> list[Path]:
    """Where pictures may be for annotations in a folder: beside them, in folders of usual names, in any folder there,
    in the folder above; and in folders that are called as the annotations are. Likeliest first."""
    up, names = home.parent, (*_BESIDE, *dict.fromkeys(filter(None, stems)))
    children = [child for child in sorted(home.iterdir())[:_MAX_LISTED] if child.is_dir() and child.name[0] != "."]
    places = [home, *(home / name for name in names), *children[:_MAX_FOLDERS], up, *(up / name for name in names)]
    places += [up / "images" / stem for stem in names[len(_BESIDE) :]]
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def warn_loose(source: str, loose: Sequence[tuple[str, Path]]) -> None:
    """One warning for the pictures that were found by the end of their names only."""
    if loose:
        name, file = loose[0]
        warnings.warn(
            f"{source}: {len(loose)} images found without the folders in their names, as {name!r} = {file}; "
            "see that these are the annotated ones",
            stacklevel=3,
        )
