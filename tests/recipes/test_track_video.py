"""`deixis refer track` from its flags to its files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from clip_miniatures import moving_bar, video
from pycocotools import mask as coco_mask
from qwen_segmenters import QWENS, qwen_segmenter
from small_trackers import tiny_tracker, video_config

from deixis.cli.main import run
from deixis.data.pixels.frames import open_frames
from deixis.errors import DataError, OptionError
from deixis.models.sa2va import save_sa2va

PHRASES = ["--phrases", "red circle", "die Möwe"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tiny_tracker(seed=1)
    with torch.no_grad():
        bundle.model.sam.mask_decoder.pred_obj_score_head.proj_out.bias += 4.0
    folder = tmp_path_factory.mktemp("model") / "tracker"
    save_sa2va(bundle, folder)
    return folder


def frame_folder(folder: Path, frames: np.ndarray) -> Path:
    folder.mkdir()
    for number, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{number:05}.png"), frame)
    return folder


def test_masks_and_a_drawn_video_are_written(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = video(tmp_path / "clip.mp4", moving_bar(5), fps=12)
    out = tmp_path / "out"
    command = ["refer", "track", "--video", str(clip), "--model", str(model), "--output", str(out), *PHRASES]
    assert run([*command, "--prompt-frames", "2", "--device", "cpu"]) == 0
    tracks = json.loads((out / "masks.json").read_text(encoding="utf-8"))
    assert (tracks["video"], tracks["frames"], tracks["size"]) == ("clip.mp4", 5, [32, 48])
    assert [phrase["text"] for phrase in tracks["phrases"]] == ["red circle", "die Möwe"]
    seen = 0
    for phrase in tracks["phrases"]:
        assert len(phrase["masks"]) == len(phrase["scores"]) == len(phrase["present"]) == 5
        for rle in filter(None, phrase["masks"]):
            assert coco_mask.decode(rle).shape == (32, 48)
            seen += bool(coco_mask.area(rle))
    assert seen == sum(rle is not None for phrase in tracks["phrases"] for rle in phrase["masks"]) > 0
    drawn = open_frames(out / "video.mp4")
    assert len(drawn) == 5
    assert drawn.rate == 12  # type: ignore[attr-defined]
    assert {file.name for file in out.iterdir()} == {"masks.json", "video.mp4", ".deixis-output.json"}
    assert "red circle: visible in" in capsys.readouterr().out


@pytest.mark.parametrize("kind", QWENS)
def test_a_qwen_follows_a_phrase(kind: str, tmp_path: Path) -> None:
    bundle = qwen_segmenter(kind, seed=1, sam=video_config())
    with torch.no_grad():
        bundle.model.sam.mask_decoder.pred_obj_score_head.proj_out.bias += 4.0
    save_sa2va(bundle, tmp_path / "model")
    frames, out = frame_folder(tmp_path / "frames", moving_bar(4)), tmp_path / "out"
    command = ["refer", "track", "--video", str(frames), "--model", str(tmp_path / "model"), "--output", str(out)]
    assert run([*command, *PHRASES, "--prompt-frames", "2", "--device", "cpu", "--no-draw"]) == 0
    tracks = json.loads((out / "masks.json").read_text(encoding="utf-8"))
    assert [len(phrase["masks"]) for phrase in tracks["phrases"]] == [4, 4]
    areas = [[coco_mask.area(rle) if rle else 0 for rle in phrase["masks"]] for phrase in tracks["phrases"]]
    assert all(any(of_phrase) for of_phrase in areas)


def test_a_folder_of_frames_without_a_drawing(model: Path, tmp_path: Path) -> None:
    folder = frame_folder(tmp_path / "frames", moving_bar(3))
    command = ["refer", "track", "--video", str(folder), "--model", str(model), "--output", str(tmp_path / "out")]
    assert run([*command, "--prompts", "first", "--prompt-frames", "1", "--no-draw", "--device", "cpu", *PHRASES]) == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"masks.json", ".deixis-output.json"}


def test_what_cannot_be_read_is_told_and_nothing_is_left(model: Path, tmp_path: Path) -> None:
    command = ["refer", "track", "--model", str(model), "--device", "cpu", *PHRASES]
    whole = video(tmp_path / "clip.mp4", moving_bar(12))
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    folder = frame_folder(tmp_path / "frames", moving_bar(4))
    cv2.imwrite(str(folder / "00002.png"), np.zeros((20, 20, 3), np.uint8))
    for place, told in ((tmp_path / "cut.mp4", r"cut\.mp4"), (folder, r"00002\.png: frame 2 is \(20, 20\)")):
        with pytest.raises(DataError, match=told):
            run([*command, "--video", str(place), "--output", str(tmp_path / "out"), "--prompts", "first"])
        assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True
    with pytest.raises(OptionError, match="video"):
        run(command)
