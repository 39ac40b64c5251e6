"""`deixis refer track --data`: J, F and J&F of followed phrases, with memory and frame by frame."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_miniatures import moving_bar
from pycocotools import mask as coco_mask
from small_trackers import tiny_tracker

from deixis.cli.main import run
from deixis.data.clip_formats.lazy import LazyClips
from deixis.data.pixels.frames import ArrayFrames
from deixis.data.scenes.clip_scenes import clip_scenes
from deixis.errors import DataError, OptionError
from deixis.evaluation.video_jf import VideoJF, VideoMetrics
from deixis.inference.refer.segmenter import Segmenter
from deixis.inference.refer.track_metrics import evaluate_tracks
from deixis.inference.refer.tracker import Tracker
from deixis.models.sa2va import Sa2vaBundle, save_sa2va
from deixis.records import Rle
from deixis.video_records import Clip, ClipExpression, Masklet

pytestmark = pytest.mark.slow  # whole clips

SIZE_HW = (32, 48)
LABELLED = (0, 2, 4)
TEXTS = ("red circle", "blue square", "the bird")


@pytest.fixture(scope="module")
def bundle() -> Sa2vaBundle:
    made = tiny_tracker(seed=1)
    with torch.no_grad():
        made.model.sam.mask_decoder.pred_obj_score_head.proj_out.bias += 4.0  # all is there
    return made


def mask(left: int) -> Rle:
    drawn = np.zeros(SIZE_HW, np.uint8)
    drawn[8:20, left : left + 12] = 1
    return coco_mask.encode(np.asfortranarray(drawn))


def late_clip(index: int = 0) -> Clip:
    """Six frames, three of them labelled; one object from the first on, one that comes later."""
    rng = np.random.default_rng(index)
    frames = ArrayFrames(rng.integers(0, 256, (6, *SIZE_HW, 3), np.uint8))
    masklets = (Masklet((mask(0), mask(4), mask(8))), Masklet((None, mask(30), mask(30)), 1))
    expressions = (ClipExpression(TEXTS[:2], (0,), ("colour",)), ClipExpression(TEXTS[2:], (1,)))
    return Clip(frames, LABELLED, masklets, expressions, str(index), f"clip {index}")


def clips(*made: Clip) -> LazyClips:
    return LazyClips(made, lambda clip: clip, "made up", "made up")


def test_each_way_is_measured_in_the_labelled_frames_by_its_own_answers(bundle: Sa2vaBundle) -> None:
    tracker = Tracker(bundle, prompt_frames=2)
    told: list[tuple[int, int]] = []
    found = evaluate_tracks(tracker, clips(late_clip(0), late_clip(1)), True, progress=lambda *at: told.append(at))
    assert told == [(1, 2), (2, 2)]
    wanted = {"memory": VideoJF(), "frame_by_frame": VideoJF()}
    for clip in (late_clip(0), late_clip(1)):
        pictures = list(clip.frames)
        answers = {
            "memory": list(Tracker(bundle, prompt_frames=2).track(clip.frames, TEXTS)),
            "frame_by_frame": Segmenter(bundle).segment(pictures, TEXTS),
        }
        for way, added in wanted.items():
            for phrase, text in enumerate(TEXTS):
                masks = {frame: answers[way][frame][phrase].mask_rle for frame in LABELLED}
                added.add(clip, clip.expressions[phrase // 2], text, predicted=masks)
    assert {way: metrics.as_dict() for way, metrics in found.items()} == {
        way: added.result().as_dict() for way, added in wanted.items()
    }
    assert found["memory"].presence["late"].phrases == 2
    assert found["memory"].tags["colour"].phrases == 4
    assert found["memory"].whole != found["frame_by_frame"].whole


def test_a_tracker_that_looks_in_every_frame_is_frame_by_frame(bundle: Sa2vaBundle) -> None:
    found = evaluate_tracks(Tracker(bundle, prompt_frames=6), clips(late_clip()), frame_by_frame=True)
    assert found["memory"].as_dict() == found["frame_by_frame"].as_dict()


def test_reading_ends_with_the_last_label_and_the_limit_holds(bundle: Sa2vaBundle) -> None:
    read: list[int] = []

    class Counted(ArrayFrames):
        def __iter__(self):  # type: ignore[no-untyped-def]
            for number in range(len(self)):
                read.append(number)
                yield self[number]

    clip = late_clip()
    counted = clip.evolve(frames=Counted(moving_bar(9, SIZE_HW)))
    unreadable = LazyClips((counted, None), lambda one: one or pytest.fail("read past the limit"), "made up", "x")
    found = evaluate_tracks(Tracker(bundle, prompt_frames=1), unreadable, limit=1)
    assert read == [0, 1, 2, 3, 4]
    assert list(found) == ["memory"]


def test_clips_that_cannot_be_measured_are_told(bundle: Sa2vaBundle) -> None:
    tracker = Tracker(bundle, prompt_frames=1)
    silent = late_clip().evolve(expressions=(ClipExpression((), (0,)),))
    with pytest.raises(DataError, match="made up: 1 clips without a phrase"):
        evaluate_tracks(tracker, clips(silent))
    unlabelled = Clip(late_clip().frames, (), (), (ClipExpression(("a cat",), ()),), source="clip 7")
    with pytest.raises(DataError, match="clip 7: has no labelled frames"):
        evaluate_tracks(tracker, clips(unlabelled))
    measured: VideoMetrics = evaluate_tracks(tracker, clips(silent, late_clip()))["memory"]
    assert measured.clips == 1


def test_the_command_prints_and_writes_both_ways(
    bundle: Sa2vaBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_sa2va(bundle, tmp_path / "model")
    data = "scenes:split=clip_seen,count=9,seed=77"
    command = ["refer", "track", "--data", data, "--max-clips", "1", "--model", str(tmp_path / "model")]
    command += ["--output", str(tmp_path / "out"), "--prompt-frames", "2", "--device", "cpu"]
    assert run([*command, "--frame-by-frame"]) == 0
    written = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert set(written) == {"memory", "frame_by_frame"}
    for values in written.values():
        assert {"J&F", "J", "F", "by_presence", "by_tags"} <= set(values)
        assert values["clips"] == 1
        clip = clip_scenes("clip_seen", 9, 77)[0]
        assert values["phrases"] == sum(len(expression.texts) for expression in clip.expressions)
    printed = capsys.readouterr().out
    assert "object: " in printed
    assert "left empty" in printed


def test_options_that_do_not_go_together_are_told() -> None:
    data = ["refer", "track", "--data", "scenes:split=clip_seen,count=1,seed=1"]
    with pytest.raises(OptionError, match="--phrases"):
        run([*data, "--phrases", "a cat"])
    with pytest.raises(OptionError, match="--video"):
        run([*data, "--video", "clip.mp4"])
    with pytest.raises(OptionError, match="--frame-by-frame"):
        run(["refer", "track", "--video", "clip.mp4", "--phrases", "a cat", "--frame-by-frame"])
