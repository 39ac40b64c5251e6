"""Reading other projects' files: only tensors come out, and no code in a file runs."""

from __future__ import annotations

import argparse
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from deixis.errors import ModelError
from deixis.models.grounding_dino.weights.recognise import Names
from deixis.models.weight_files import KeyTable, Rule, read_tensors

WEIGHTS = {"module.a": torch.arange(3.0), "b.module.c": torch.ones(2, 2)}


def assert_weights(found: dict[str, torch.Tensor]) -> None:
    """Those of `WEIGHTS`, without the prefix of a wrapped model."""
    assert found.keys() == {"a", "b.module.c"}
    assert torch.equal(found["a"], torch.arange(3.0))
    assert torch.equal(found["b.module.c"], torch.ones(2, 2))


@pytest.mark.parametrize("content", [{"model": WEIGHTS}, {"state_dict": WEIGHTS, "meta": {"epoch": 3}}, WEIGHTS])
def test_places_of_the_weights(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    assert_weights(read_tensors(tmp_path / "w.pth"))


def test_old_pickles_and_safetensors(tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    for name in ("old.pth", "w.safetensors"):
        assert_weights(read_tensors(tmp_path / name))


def test_logs_and_options_of_training_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self) -> None:
            self.history = np.arange(3.0)
            self.last = np.float64(2.0)

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    for name in ("mmengine", "mmengine.logging", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    content = {
        "state_dict": WEIGHTS,
        "message_hub": {"log_scalars": {"train/loss": HistoryBuffer()}, "count": np.int64(3)},
        "args": argparse.Namespace(lr=1e-4, output_dir=Path("runs")),
    }
    torch.save(content, tmp_path / "w.pth")
    assert torch.equal(read_tensors(tmp_path / "w.pth")["a"], torch.arange(3.0))


class Attack:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_a_file_never_runs(tmp_path: Path) -> None:
    content = {"model": WEIGHTS, "extra": Attack(tmp_path / "touched")}
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"w\.pth: cannot be read safely \(.*; if you trust it") as caught:
        read_tensors(tmp_path / "w.pth")
    assert not (tmp_path / "touched").exists()
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # PyTorch's advice to read it unsafely
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(content["extra"]))
    with pytest.raises(ModelError, match="cannot be read"):
        read_tensors(tmp_path / "plain.pth")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("content", [b"", b"half a file", b"PK\x03\x04 and nothing"])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_damaged_files(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read") as caught:
        read_tensors(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_files_without_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read_tensors(tmp_path / "absent.pth")
    for content in ([1, 2], {"epoch": 3}, {"model": {}}):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(ModelError, match="has no weights"):
            read_tensors(tmp_path / "w.pth")
    save_file({}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"w\.safetensors: has no weights; expected tensors by name"):
        read_tensors(tmp_path / "w.safetensors")


@pytest.mark.parametrize(("numbers", "count"), [((), 0), ((0, 1), 2), ((3,), 4), ((4,), 0), ((0, 4), 5), ((0, 5), 1)])
def test_layers_are_counted_over_gaps_of_up_to_three(numbers: tuple[int, ...], count: int) -> None:
    state = {f"there.{number}.weight": torch.zeros(1) for number in numbers}
    names = Names(state, KeyTable([Rule("here.{}.", "there.{}.")]), "w.pth")
    assert names.count("here.{}.bias", "here.{}.weight") == count
