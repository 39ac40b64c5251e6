"""Features of frozen encoders from disk: the same run, encoded once an image."""

from __future__ import annotations

import shutil
from collections import namedtuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_refer_runs import refer_arguments, write_tiny_segmenter
from tiny_runs import records

from deixis.recipes.refer import features as refer_features
from deixis.recipes.refer import train as recipe
from deixis.training.tasks.frozen_features import FrozenFeatures

pytestmark = pytest.mark.slow  # whole runs

SHORT = ("--epochs", "2", "--no-report", "--no-baseline", "--evaluate-every", "2")
ALONE = (*SHORT, "--batch-size", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_segmenter(tmp_path_factory.mktemp("segmenter") / "model")


@pytest.fixture(scope="module")
def plain(model, tmp_path_factory):
    """The folder of a run without a cache: two epochs of eight images, one a batch."""
    from deixis.cli.main import main

    output = tmp_path_factory.mktemp("runs")
    with pytest.raises(SystemExit) as stopped:
        main(refer_arguments(model, output, *ALONE))
    assert stopped.value.code == 0
    return output / "segmenter"


@pytest.fixture
def encoded(monkeypatch):
    """How many images were encoded for the cache: a list that grows."""
    calls: list[int] = []
    whole = FrozenFeatures.encode

    def counting(self, tiles, sam, grids):
        calls.append(len(tiles))
        return whole(self, tiles, sam, grids)

    monkeypatch.setattr(FrozenFeatures, "encode", counting)
    return calls


def weights(run):
    return {str(path.relative_to(run)): load_file(path) for path in sorted((run / "teachers").rglob("*.safetensors"))}


def require_same(run, plain):
    """The same losses in every step and the same weights, bit for bit; the operations of a step are fewer."""
    steps, plain_steps = (
        [{key: value for key, value in step.items() if key != "gflop_per_image"} for step in records(one, "step")]
        for one in (run, plain)
    )
    assert steps == plain_steps
    mine, theirs = weights(run), weights(plain)
    assert mine.keys() == theirs.keys()
    for file, tensors in theirs.items():
        for name, tensor in tensors.items():
            assert torch.equal(mine[file][name], tensor), name


def test_the_same_run_with_each_image_encoded_once(plain, model, tmp_path, deixis, encoded) -> None:
    code, out, err = deixis(refer_arguments(model, tmp_path, *ALONE, "--cache-features", tmp_path / "seen"))
    assert code == 0, err
    require_same(tmp_path / "segmenter", plain)
    assert len(encoded) == 8 + 1  # and a black picture, to know the room
    assert "GiB for 8 images" in out

    encoded.clear()  # a later run finds everything there, and one file that was damaged
    damaged = min((tmp_path / "seen").rglob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    again = ("--cache-features", tmp_path / "seen", "--experiment-name", "again")
    assert deixis(refer_arguments(model, tmp_path, *ALONE, *again))[0] == 0
    require_same(tmp_path / "again", plain)
    assert len(encoded) == 1 + 1


def test_what_has_no_room_is_encoded_anew(plain, model, tmp_path, deixis, encoded) -> None:
    """Room for three images and a bit."""
    options = ("--cache-features", tmp_path / "seen")
    assert deixis(refer_arguments(model, tmp_path, *ALONE, *options, "--max-steps", "1"))[0] == 0
    (file,) = (tmp_path / "seen").rglob("*.safetensors")
    room = 3.5 * file.stat().st_size / 2**30
    shutil.rmtree(tmp_path / "seen")
    encoded.clear()
    options = (*options, "--cache-gib", str(room), "--overwrite")
    assert deixis(refer_arguments(model, tmp_path, *ALONE, *options))[0] == 0
    require_same(tmp_path / "segmenter", plain)
    assert len(list((tmp_path / "seen").rglob("*.safetensors"))) == 3
    assert len(encoded) == 8 + 5 + 1


@pytest.mark.slow
def test_a_resumed_run_is_the_same_whatever_the_folder_holds(plain, model, tmp_path, deixis, monkeypatch) -> None:
    arguments = refer_arguments(model, tmp_path, *ALONE, "--save-interval", "1", "--cache-features", tmp_path / "seen")
    whole = recipe.SegmenterTask.groups

    def cut(self, epoch, start):
        for number, group in enumerate(whole(self, epoch, start)):
            if number == 5:
                raise KeyboardInterrupt
            yield group

    with monkeypatch.context() as patch:
        patch.setattr(recipe.SegmenterTask, "groups", cut)
        assert deixis(arguments)[0] == 130
    for file in sorted((tmp_path / "seen").rglob("*.safetensors"))[:2]:
        file.unlink()
    code, _, err = deixis([*arguments, "--resume"])
    assert code == 0, err
    require_same(tmp_path / "segmenter", plain)


def test_several_images_a_batch_give_the_same_losses_but_for_rounding(model, tmp_path, deixis) -> None:
    for name, more in {"plain": (), "cached": ("--cache-features", tmp_path / "seen")}.items():
        arguments = refer_arguments(model, tmp_path, *SHORT, *more, "--batch-size", "4", "--experiment-name", name)
        assert deixis(arguments)[0] == 0
    plain, cached = (records(tmp_path / name, "step") for name in ("plain", "cached"))
    assert [step["loss"] for step in cached] == pytest.approx([step["loss"] for step in plain], rel=1e-3)


def test_stale_features_are_not_read(model, tmp_path, deixis, encoded) -> None:
    """Another model's features lie in a folder of their own: these, made wrong, harm nobody."""
    other = write_tiny_segmenter(tmp_path / "other", seed=1)
    seen = ("--cache-features", tmp_path / "seen", "--max-steps", "1")
    assert deixis(refer_arguments(other, tmp_path, *ALONE, *seen, "--experiment-name", "other"))[0] == 0
    for file in (tmp_path / "seen").rglob("*.safetensors"):
        save_file({name: tensor * torch.nan for name, tensor in load_file(file).items()}, file)
    assert deixis(refer_arguments(model, tmp_path, *ALONE, *seen))[0] == 0
    (step,) = records(tmp_path / "segmenter", "step")
    assert step["loss"] == step["loss"]
    assert len(list((tmp_path / "seen").iterdir())) == 2


@pytest.mark.parametrize(
    ("part", "said"), [("vision", "vision encoder is trained"), ("sam_encoder", "SAM 2 encoder is trained")]
)
def test_encoders_that_train_are_refused(model, tmp_path, deixis, part, said) -> None:
    code, _, err = deixis(
        refer_arguments(model, tmp_path, "--train", "mask_decoder", part, "--cache-features", tmp_path / "seen")
    )
    assert code == 2
    assert said in err


def test_a_disk_without_room_is_refused_before_training(model, tmp_path, deixis, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")(10, 10, 0)
    monkeypatch.setattr(refer_features.shutil, "disk_usage", lambda folder: usage)
    code, _, err = deixis(refer_arguments(model, tmp_path, "--cache-features", tmp_path / "seen"))
    assert code == 2
    assert "choose a folder on another disk" in err
    assert not (tmp_path / "segmenter").exists()
