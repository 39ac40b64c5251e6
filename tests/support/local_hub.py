"""A hub on this machine: ids stand for local folders, and a download is a copy of the files asked for."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects


def use_local_hub(monkeypatch: pytest.MonkeyPatch, cache: Path, folders: Mapping[str, Path]) -> None:
    """Downloads are copies from these folders, by hub id, into `cache`; of any other id nothing can be downloaded."""

    def download(name: str, *, allow_patterns: Sequence[str]) -> str:
        if name not in folders:
            raise LocalEntryNotFoundError(name)
        files = [path.relative_to(folders[name]).as_posix() for path in folders[name].rglob("*") if path.is_file()]
        for file in filter_repo_objects(files, allow_patterns=list(allow_patterns)):
            (cache / name / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folders[name] / file, cache / name / file)
        return str(cache / name)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
