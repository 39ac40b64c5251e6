"""Reading only the tensors in other projects' files, and their names there; no code in a file is ever run.

PyTorch's restricted unpickler builds tensors and plain containers. Training tools store more in their files (logs,
options, NumPy scalars); classes known to occur there are read as `Inert`, which stores nothing and does nothing.

A `Rule` gives the start of a tensor's name here (as in transformers' files) and there. What follows the start, usually
`weight` or `bias`, is the same on both sides, and `{}` stands for the same number. Tables of rules are used both ways.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from deixis.errors import ModelError
from deixis.models.folders import reads_model
from deixis.text import one_line

STATE_KEYS = ("state_dict", "model", "model_state_dict")
"""The key of the weights in a checkpoint: of MMDetection, IDEA-Research, others."""

LEFT_BY_TRAINING_TOOLS = (
    "addict.addict.Dict",
    "argparse.Namespace",
    "datetime.datetime",
    "mmengine.config.config.Config",
    "mmengine.config.config.ConfigDict",
    "mmengine.config.lazy.LazyObject",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "mmengine.utils.package_utils.Registry",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "numpy.dtypes.Float32DType",
    "numpy.dtypes.Float64DType",
    "numpy.dtypes.Int64DType",
    "numpy.ndarray",
    "_codecs.encode",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.WindowsPath",
    "util.slconfig.ConfigDict",
    "util.slconfig.SLConfig",
)
"""Classes and functions in released checkpoints that are not needed for the weights."""


class Inert:
    """Replaces objects that a training tool stored in a file; accepts any arguments and state, and keeps none."""

    def __new__(cls, *arguments: Any, **options: Any) -> Inert:
        return object.__new__(cls)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)


@reads_model
def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The weights in a `.pth`, `.pt`, `.bin` or `.safetensors` file, by name, without the prefix `module.`.

    Raises:
        ModelError: the file is missing, damaged, needs code to be read, or has no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such file; name a checkpoint file, such as groundingdino_swint_ogc.pth")
    if path.suffix == ".safetensors":
        try:
            found: dict[str, Tensor] = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path}: cannot be read ({error}); download it again") from error
    else:
        found = _state(_unpickle(path))
    if not found:
        raise ModelError(f"{path}: has no weights; expected tensors by name, possibly under one of {list(STATE_KEYS)}")
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}


def _unpickle(path: Path) -> Any:
    allowed: list[Any] = [(Inert, name) for name in LEFT_BY_TRAINING_TOOLS]
    try:
        # `Inert` under the name of each class: nothing of theirs is imported
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: cannot be read safely ({_reason(str(error))}); if you trust it, load it where it was written and "
            "save only its weights: torch.save({'model': model.state_dict()}, 'weights.pth')"
        ) from error
    except Exception as error:  # a damaged archive raises RuntimeError, EOFError, KeyError, AttributeError and others
        raise ModelError(
            f"{path}: cannot be read ({type(error).__name__}: {one_line(error, 200)}); download it again"
        ) from error


def _reason(message: str) -> str:
    """PyTorch's reason, without its advice to read the file unsafely."""
    lines = [line.strip() for line in message.splitlines() if "WeightsUnpickler error" in line] or [message]
    return lines[0].partition("WeightsUnpickler error:")[2].partition("was not an allowed")[0].strip() or lines[0][:200]


def _state(content: Any) -> dict[str, Tensor]:
    """The weights, under one of `STATE_KEYS` or as the whole content."""
    if not isinstance(content, Mapping):
        return {}
    for key in STATE_KEYS:
        if isinstance(content.get(key), Mapping):
            return _state(content[key])
    return {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


Form = Literal["same", "third", "unfolded", "one", "grouped", "rows"]
"""How a tensor is stored there.

same      unchanged
third     one of three stacked along the first axis: query, key, value
unfolded  there the last axis runs over channels, then over the four merged pixels, row by row; here over the pixels,
          column by column, then over channels (Swin's patch merging with and without `nn.Unfold`)
one       a scalar here, a vector of length 1 there
grouped   one of query, key, value, interleaved there by key-value head
rows      rows of one tensor here, a tensor per row there; `*` stands for its number
"""


class Rule(NamedTuple):
    """The start of a name here and there; `copy` is a second name there with the same content."""

    ours: str
    theirs: str
    form: Form = "same"
    part: int = 0
    copy: str = ""


class Place(NamedTuple):
    """A tensor's name there, `key`, and a second name with the same content, `copy`, or an empty string."""

    key: str
    form: Form
    part: int
    copy: str


class KeyTable:
    """A layout's rules, looked up by a tensor's name here."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = [(_pattern(rule.ours), rule) for rule in rules]
        self._places: dict[str, Place | None] = {}

    def place(self, name: str) -> Place | None:
        """The tensor's name and form there; None if the layout does not have it.

        >>> KeyTable([Rule("model.layers.{}.key.", "layers.{}.in_proj_", "third", 1)]).place("model.layers.3.key.bias")
        Place(key='layers.3.in_proj_bias', form='third', part=1, copy='')
        """
        if name not in self._places:
            self._places[name] = self._find(name)
        return self._places[name]

    def _find(self, name: str) -> Place | None:
        # the first rule that fits: tables put a rule for one module before the general one beside it
        for pattern, rule in self._rules:
            if match := pattern.match(name):
                rest, numbers = name[match.end() :], match.groups()
                copy = rule.copy.format(*numbers) + rest if rule.copy else ""
                return Place(rule.theirs.format(*numbers) + rest, rule.form, rule.part, copy)
        return None


def _pattern(start: str) -> re.Pattern[str]:
    # `re.escape` turns `{}` into `\{\}`
    return re.compile(re.escape(start).replace(r"\{\}", r"(\d+)"))
