"""Model folders: found, read and written, in full or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer

from deixis.errors import ModelError
from deixis.file_modes import give_user_mode

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def model_folder(source: str | Path, files: Sequence[str], example: str) -> Path:
    """The folder itself, or the hub's files in the local cache.

    Args:
        files: patterns of what is fetched from the hub.
        example: a hub id, for the message.

    Raises:
        ModelError: neither.
    """
    folder = Path(source)
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
            f"{source}: no such folder, and the hub did not give it ({type(error).__name__}); "
            "check the name and the network, or name a downloaded folder"
        ) from error


def read_json(path: Path) -> Any:
    """A JSON file of a model folder.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); is this a model folder?") from error


def read_weights(folder: Path) -> dict[str, Tensor]:
    """`model.safetensors`, or all files that `model.safetensors.index.json` names.

    Raises:
        ModelError: a file is missing or damaged.
    """
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if not (folder / names[0]).exists() and index.exists():
        names = sorted(set(read_json(index)["weight_map"].values()))
    tensors: dict[str, Tensor] = {}
    for name in names:
        try:
            tensors.update(load_file(folder / name))
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{folder / name}: cannot be read ({error}); download or write the model again") from error
    return tensors


def read_tokenizer(folder: Path) -> Any:
    """A folder's tokenizer.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises many kinds for a missing or damaged tokenizer
        raise ModelError(f"{folder}: no tokenizer can be read ({' '.join(str(error).split())[:200]})") from error


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes the other's place when all is written; other files there stay.

    Raises:
        ModelError: it cannot be written.
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        aside.mkdir(parents=True)
        yield aside
        for path in [*aside.rglob("*"), aside]:
            give_user_mode(path)
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
