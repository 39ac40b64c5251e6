"""Generated scenes, asked for by a line of text instead of a path."""

from __future__ import annotations

from pathlib import Path

from deixis.data.scenes import PREFIX
from deixis.data.scenes.images import scenes
from deixis.errors import DataError
from deixis.records import Dataset

_DEFAULTS = {"count": 200, "seed": 0}


def read_scenes(path: str | Path, images: Path | None = None) -> Dataset:
    """Scenes from `scenes:split=demo_train,count=160,seed=1`; count defaults to 200 and seed to 0.

    Raises:
        DataError: no split, an unknown key, a count or seed that is not a whole number, or an unknown split.
    """
    del images  # scenes draw their own
    return scenes(*parse_scenes(str(path)))


def parse_scenes(text: str) -> tuple[str, int, int]:
    """(split, count, seed) of `scenes:split=NAME,count=N,seed=N`.

    Raises:
        DataError: as for `read_scenes`, the split's own name apart.
    """
    fields: dict[str, str] = {}
    for part in filter(None, text.removeprefix(PREFIX).split(",")):
        key, _, value = part.partition("=")
        if key.strip() not in ("split", *_DEFAULTS) or not value.strip():
            raise DataError(f"{text}: cannot read {part!r}; expected scenes:split=NAME,count=N,seed=N")
        fields[key.strip()] = value.strip()
    if "split" not in fields:
        raise DataError(f"{text}: no split; expected scenes:split=NAME,count=N,seed=N")
    numbers = dict(_DEFAULTS)
    for key in _DEFAULTS.keys() & fields.keys():
        if not fields[key].isdecimal():
            raise DataError(f"{text}: {key} must be a whole number of 0 or more, got {fields[key]!r}")
        numbers[key] = int(fields[key])
    if numbers["count"] < 1:
        raise DataError(f"{text}: count must be 1 or more, got {numbers['count']}")
    return fields["split"], numbers["count"], numbers["seed"]
