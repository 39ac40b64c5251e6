"""Finding, reading and writing model folders, completely or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer

from deixis.atomic_files import draft_of
from deixis.data.reading import reason
from deixis.errors import DeixisError, ModelError
from deixis.file_modes import give_user_mode
from deixis.models.sentencepiece import internlm2_tokenizer, is_internlm2
from deixis.text import one_line

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
INDEX = "model.safetensors.index.json"
HUB_ID = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}")
"""A name of the hub's form; a folder's may have it too, see `is_hub_id`."""


@contextmanager
def reading_model(place: object) -> Iterator[None]:
    """A block that reads a model's files, which may come from anyone.

    Errors of deixis pass unchanged. Any other error was caused by a file, in deixis or in a library (including panics
    of Rust code), and becomes a `ModelError` with the original as its cause; `DEIXIS_DEBUG=1` raises the original.

    Raises:
        ModelError: the block failed.
    """
    try:
        yield
    # a warning that was made an error, or a missing package: not the file's fault
    except (Warning, ImportError):
        raise
    except DeixisError as error:
        if str(error).isprintable():
            raise
        raise type(error)(_printable(str(error))) from error  # names in a file may contain any character
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"  # of Rust code; not an Exception
        if os.environ.get("DEIXIS_DEBUG") == "1" or not (panic or isinstance(error, Exception)):
            raise
        text = f"{place}: cannot be read as a model ({reason(error)}); download or write it again"
        raise ModelError(_printable(text)) from error


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def reads_model(loader: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Decorator: runs a loader, whose first argument is a file or folder, inside `reading_model`."""

    @wraps(loader)
    def load(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        with reading_model(arguments[0] if arguments else next(iter(named.values()))):
            return loader(*arguments, **named)

    return load


def is_hub_id(name: str) -> bool:
    """Whether a name is one of the hub's, and none of a file or folder that exists."""
    return HUB_ID.fullmatch(name) is not None and not Path(name).exists()


@contextmanager
def leaving_long_names() -> Iterator[None]:
    """A block that looks for a path by the user's name; it ends where the name is too long for a path."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise


def model_folder(source: str | Path, files: Sequence[str], example: str) -> Path:
    """The folder itself, or the hub's files in the local cache.

    Args:
        files: patterns of the files to fetch from the hub.
        example: a hub id, for messages.

    Raises:
        ModelError: there is neither.
    """
    folder = Path(source)
    with leaving_long_names():
        if folder.is_dir():
            return folder
        if folder.exists():
            raise ModelError(f"{source}: is a file; name the folder of a model, or a hub id like {example}")
    if isinstance(source, Path) or not HUB_ID.fullmatch(source):
        raise ModelError(f"{source}: no such folder; name a model folder, or a hub id like {example}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=list(files)))
    except Exception as error:  # the client raises its own, httpx's and requests' errors
        raise ModelError(
            f"{source}: no such folder, and it could not be downloaded from the hub ({type(error).__name__}); "
            "check the name and the network, or name a downloaded folder"
        ) from error


def read_json(path: Path) -> Any:
    """A JSON file of a model folder.

    Raises:
        ModelError: it cannot be read.
    """
    require_file(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); is this a model folder?") from error


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a model folder.

    Raises:
        ModelError: it cannot be read, or is not an object.
    """
    values = read_json(path)
    if not isinstance(values, dict):
        raise ModelError(f"{path}: contains a {type(values).__name__}, expected an object; download the model again")
    return values


def require_file(path: Path) -> None:
    """Raises ModelError for a device, a pipe or a folder, which would be read forever or not at all."""
    try:
        odd = path.exists() and not path.is_file()
    except OSError as error:  # a link to itself
        raise ModelError(f"{path}: cannot be read ({error}); download or write the model again") from error
    if odd:
        raise ModelError(f"{path}: is not a regular file; download or write the model again")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors in `model.safetensors`, or in all files named by `model.safetensors.index.json`.

    Raises:
        ModelError: a file is missing or damaged.
    """
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        try:
            tensors.update(load_file(path))
        except (OSError, SafetensorError, ValueError) as error:
            raise ModelError(f"{path}: cannot be read ({error}); download or write the model again") from error
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """The files with a folder's weights, all of them inside it.

    Raises:
        ModelError: the index is damaged or names a file outside the folder, or one is missing or no regular file.
    """
    index = folder / INDEX
    names: list[str] = ["model.safetensors"]
    if not (folder / names[0]).exists() and index.exists():
        places = read_object(index).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
            raise ModelError(f"{index}: has no weight_map from tensors to files; download the model again")
        names = sorted(set(places.values()))
    for name in names:
        # a name with a folder in it could lead anywhere on the disk
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(f"{index}: names {name[:80]!r}, expected .safetensors files of this folder")
        require_file(folder / name)
        if not (folder / name).exists():
            raise ModelError(f"{folder / name}: no such file; download or write the model again")
    return [folder / name for name in names]


def read_tokenizer(folder: Path) -> Any:
    """A folder's tokenizer.

    Raises:
        ModelError: it cannot be read.
    """
    for path in folder.iterdir():
        if path.suffix in (".json", ".txt", ".model", ".jinja"):
            require_file(path)
    try:
        with reading_model(folder):
            file = folder / "tokenizer_config.json"
            config = read_object(file) if file.is_file() else {}
            if is_internlm2(folder, config):
                return internlm2_tokenizer(folder, config)
            # neither asks the hub for what the folder lacks, nor runs code in it
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ModelError as error:  # transformers raises many kinds of errors for a missing or damaged tokenizer
        why = one_line(error.__cause__ or error, 200)
        hint = "tokenizers with their own code are not run: put one with tokenizer.json into the folder"
        raise ModelError(f"{folder}: no tokenizer can be read ({why}); {hint}") from error


@contextmanager
def staged_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files replace those in `folder` when the block ends; other files there stay.

    Raises:
        ModelError: the folder cannot be written.
    """
    aside = draft_of(folder)
    try:
        aside.mkdir(parents=True)
        yield aside
        for path in [*aside.rglob("*"), aside]:
            give_user_mode(path)
        # One rename makes a new folder appear whole; into an existing one files go one by one, each whole.
        if not folder.exists():
            aside.rename(folder)
            return
        for file in sorted(path for path in aside.rglob("*") if path.is_file()):
            place = folder / file.relative_to(aside)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder}: cannot be written ({error}); choose another folder") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
