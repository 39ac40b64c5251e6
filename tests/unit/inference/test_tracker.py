"""Phrases through a video: which frames are asked, what is followed, late objects, streams, bad input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clip_miniatures import moving_bar, video
from pycocotools import mask as coco_mask
from small_segmenters import tiny_segmenter
from small_trackers import random_video_sam, tiny_tracker

from deixis.data.pixels.frames import ArrayFrames
from deixis.errors import DataError, ModelError, OptionError, PromptError
from deixis.inference.refer.pictures import enlarged
from deixis.inference.refer.segmenter import Segmenter
from deixis.inference.refer.tracker import Tracker
from deixis.models.sa2va import ConversationTokens, Sa2vaBundle, load_sa2va, save_sa2va
from deixis.models.sa2va.memory.attention import see_masks, see_next, see_prompts
from deixis.models.sa2va.memory.bank import MemoryBank

PHRASES = ["red circle", "the blue square"]
FRAMES = 7


@pytest.fixture(scope="module")
def bundle() -> Sa2vaBundle:
    made = tiny_tracker(seed=1)
    with torch.no_grad():
        made.model.sam.mask_decoder.pred_obj_score_head.proj_out.bias += 4.0  # all is there
    return made


def noise(frames: int = FRAMES, size_hw: tuple[int, int] = (30, 50)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, *size_hw, 3), np.uint8)


def masks_of(records: list[Any]) -> np.ndarray:
    return np.stack([coco_mask.decode(record.mask_rle) for record in records])


def test_every_frame_has_a_record_a_phrase_in_its_own_size(bundle: Sa2vaBundle) -> None:
    tracked = list(Tracker(bundle, prompt_frames=2).track(noise(), PHRASES))
    assert len(tracked) == FRAMES
    for index, records in enumerate(tracked):
        assert [(record.text, record.image_id) for record in records] == [(text, index) for text in PHRASES]
        assert masks_of(records).shape == (2, 30, 50)


def test_sampled_frames_get_the_masks_that_images_get(bundle: Sa2vaBundle) -> None:
    clip = noise()
    tracked = list(Tracker(bundle, prompt_frames=3).track(clip, PHRASES))
    for index in (0, 3, 6):
        (alone,) = Segmenter(bundle).segment([clip[index]], PHRASES)
        assert np.array_equal(masks_of(tracked[index]), masks_of(alone))
        for mine, other in zip(tracked[index], alone, strict=True):
            assert mine.score == pytest.approx(other.score, abs=1e-5)
            assert mine.present == pytest.approx(other.present, abs=1e-5)


def test_a_frame_between_is_found_by_memory(bundle: Sa2vaBundle) -> None:
    clip = noise()
    before = list(Tracker(bundle, prompt_frames=2).track(clip, PHRASES))
    assert masks_of(before[3]).any()
    other = clip.copy()
    other[0] = 255 - other[0]  # what the memory was prompted with
    assert not np.array_equal(
        masks_of(before[3]), masks_of(list(Tracker(bundle, prompt_frames=2).track(other, PHRASES))[3])
    )


@pytest.mark.parametrize("generate", [False, True])
def test_frames_read_together_mean_one_thing(bundle: Sa2vaBundle, generate: bool) -> None:
    clip = noise()
    tracked = list(Tracker(bundle, prompt_frames=2, together=True, generate=generate).track(clip, PHRASES))
    assert len(tracked) == FRAMES
    if not generate:
        other = clip.copy()
        other[-1] = 0
        changed = list(Tracker(bundle, prompt_frames=2, together=True).track(other, PHRASES))
        # The first frame's own pixels are the same; what is meant was read from both frames.
        assert tracked[0][0].score != changed[0][0].score


def test_an_endless_stream_is_followed_from_its_first_frames(bundle: Sa2vaBundle) -> None:
    taken = []

    def endless() -> Iterator[np.ndarray]:
        rng = np.random.default_rng(1)
        while True:
            taken.append(0)
            yield rng.integers(0, 256, (30, 50, 3), np.uint8)

    tracked = Tracker(bundle, prompts="first", prompt_frames=2).track(endless(), PHRASES)
    records = [next(tracked) for _ in range(5)]
    assert len(taken) == 5  # nothing is read ahead
    assert records[4][0].image_id == 4
    assert masks_of(records[4]).any()
    with pytest.raises(OptionError, match="length is not known"):
        Tracker(bundle).track(iter(noise()), PHRASES)


class Scripted(Tracker):
    """What is found in a frame is told by the frame's first pixel: nothing, where it is black."""

    looked: list[int]

    def script(self) -> None:
        self.looked = []
        found = self.finder.found
        meant = self.finder.meant

        def only_bright(*arguments: Any) -> Any:
            results, states = found(*arguments)
            return [one if self.bright else one._replace(logits=None, present=0.0) for one in results], states

        def note(texts: list[str], pictures: list[np.ndarray]) -> Any:
            self.bright = bool(pictures[0][0, 0, 0])
            self.looked.append(int(pictures[0][0, 0, 1]))
            return meant(texts, pictures)

        self.finder.found = only_bright  # type: ignore[method-assign]
        self.finder.meant = note  # type: ignore[method-assign]


def test_a_late_object_is_found_when_it_is_looked_for_again(bundle: Sa2vaBundle) -> None:
    clip = noise(9)
    clip[:, 0, 0] = [(0 if i < 3 else 255, i, 0) for i in range(9)]
    tracker = Scripted(bundle, prompts="first", prompt_frames=1, prompt_every=2)
    tracker.script()
    tracked = list(tracker.track(clip, PHRASES[:1]))
    there = [bool(masks_of(records).any()) for records in tracked]
    assert there == [False] * 4 + [True] * 5
    assert tracker.looked == [0, 2, 4]  # and no more once it is followed
    never = Scripted(bundle, prompts="first", prompt_frames=1)
    never.script()
    assert not any(masks_of(records).any() for records in never.track(clip, PHRASES[:1]))


def test_an_object_that_vanishes_leaves_an_empty_mask(bundle: Sa2vaBundle) -> None:
    gone = random_video_sam(seed=1, score_shift=-50.0)
    tracked = list(Tracker(bundle, prompt_frames=1, sam=gone).track(noise(3), PHRASES))
    assert masks_of(tracked[0]).any()  # as the segmenter found it
    assert not masks_of(tracked[1]).any()
    assert tracked[1][0].present < 0.5


def test_released_behaviour_takes_every_object_for_present() -> None:
    released = tiny_tracker(seed=1, behaviour="sa2va")
    with torch.no_grad():
        released.model.sam.mask_decoder.pred_obj_score_head.proj_out.bias -= 50.0
    tracked = list(Tracker(released, prompts="first", prompt_frames=1).track(noise(3), PHRASES))
    assert tracked[2][0].present == 1
    assert masks_of(tracked[2]).any()


class Unseen(Tracker):
    """Nothing of the object is found in some of the frames that are asked, or the answer has no `[SEG]`."""

    def without(self, empty: tuple[int, ...], speechless: tuple[int, ...] = ()) -> Unseen:
        found = self.finder.found
        frames = iter(range(100))

        def some(*arguments: Any) -> Any:
            frame = next(frames)
            results, states = found(*arguments)
            results = [one._replace(logits=-one.logits.abs()) if frame in empty else one for one in results]
            return [one._replace(logits=None, present=0.0) if frame in speechless else one for one in results], states

        self.finder.found = some  # type: ignore[method-assign]
        return self


@torch.no_grad()
def by_hand(tracker: Tracker, clip: np.ndarray, prompted: list[int], empty: tuple[int, ...], last: int) -> torch.Tensor:
    """Logits of a frame, from the steps of the memory alone, with certain frames given to it."""
    sam, finder = tracker.sam, tracker.finder
    bank = MemoryBank(sam)
    for frame, (meant,) in enumerate(finder.meant(PHRASES[:1], list(clip[:last]))):
        if frame in prompted:
            levels = tracker.prompter.levels(sam, clip[frame])
            if tracker.prompts == "first":
                seen = see_prompts(sam, levels, tracker.bundle.model.text_hidden_fcs(meant.hidden), suppress=False)
            else:
                ((found,), _) = finder.found([meant], levels)
                large = torch.nn.functional.interpolate(found.logits[None, None], (64, 64), mode="bilinear")[0]
                seen = see_masks(sam, levels, (large > 0) & (frame not in empty))
            bank.prompt(frame, seen, 0)
    for frame in range(last + 1):
        if frame not in prompted:
            seen = see_next(sam, tracker.prompter.levels(sam, clip[frame]), [bank], frame, suppress=False)
            bank.add(frame, seen, 0)
    return seen.logits[0]


@pytest.mark.parametrize("prompts", ["first", "uniform"])
def test_released_memory_is_prompted_in_every_frame_that_is_asked(prompts: str) -> None:
    """Behaviour `sa2va`, as Sa2VA's own code: empty or not; only an answer without `[SEG]` prompts nothing."""
    clip = noise(3)
    released = tiny_tracker(seed=1, behaviour="sa2va")

    def last_mask(bundle: Sa2vaBundle, empty: tuple[int, ...], speechless: tuple[int, ...] = ()) -> np.ndarray:
        tracker = Unseen(bundle, prompts=prompts, prompt_frames=2).without(empty, speechless)
        if prompts == "uniform":  # frames 0 and 1 as well, so that frame 2 is found by memory
            tracker._sampled = lambda frames: (list(enumerate(clip[:2])), iter(clip))  # type: ignore[method-assign]
        tracked = list(tracker.track(clip, PHRASES[:1]))
        for frame in empty:  # behaviour `deixis` is told nothing there, and finds the object by memory
            assert masks_of(tracked[frame]).any() == (bundle.behaviour == "deixis")
        return masks_of(tracked[2])[0]

    plain = Tracker(released, prompts=prompts, prompt_frames=2)
    for empty, speechless, prompted in (((0,), (), [0, 1]), ((), (0,), [1]), ((0, 1), (), [0, 1])):
        wanted = enlarged(by_hand(plain, clip, prompted, empty, 2), (30, 50), 64)
        assert np.array_equal(last_mask(released, empty, speechless), wanted)
    assert not last_mask(released, (), (0, 1)).any()
    own = tiny_tracker(seed=1)
    with torch.no_grad():
        own.model.sam.mask_decoder.pred_obj_score_head.proj_out.bias += 4.0
    assert np.array_equal(last_mask(own, (1,)), last_mask(own, (), (1,)))


@pytest.mark.parametrize("generate", [False, True])
@pytest.mark.parametrize("frames", [1, 3, 7])
def test_released_order_asks_the_first_five_frames_in_sa2vas_own_words(
    bundle: Sa2vaBundle, generate: bool, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []
    written = ConversationTokens._question

    def note(self: ConversationTokens, text: str, tiles: int, regions: Any, count: int) -> str:
        asked.append((text, count))
        return written(self, text, tiles, regions, count)

    monkeypatch.setattr(ConversationTokens, "_question", note)
    phrases = ["The Red car 3.5 m away.", "Which one wins?"]
    released = tiny_tracker(seed=1, behaviour="sa2va")
    tracker = Tracker(released, prompts="first", generate=generate)
    shown: list[np.ndarray] = []
    meant = tracker.finder.meant
    monkeypatch.setattr(tracker.finder, "meant", lambda texts, seen: shown.extend(seen) or meant(texts, seen))
    assert len(list(tracker.track(noise(frames), phrases))) == frames
    first = min(frames, 5)
    assert np.array_equal(np.stack(shown), noise(frames)[:5])
    assert asked == [
        ("Please segment The Red car 3.5 m away..", first),
        (" Which one wins? Please respond with a segmentation mask.", first),
    ]
    asked.clear()
    list(Tracker(bundle, prompts="first", prompt_frames=1, generate=generate).track(noise(1), phrases))
    assert asked == [
        ("Please segment the red car 3.5 m away in this image.", 1),
        ("Please segment which one wins? in this image.", 1),
    ]


def test_memory_comes_from_another_sam_where_there_is_none() -> None:
    image_only = tiny_segmenter(seed=1)
    with pytest.raises(ModelError, match="no memory"):
        Tracker(image_only)
    tracked = list(Tracker(image_only, sam=random_video_sam(seed=1)).track(noise(3), PHRASES))
    assert len(tracked) == 3


def test_videos_folders_and_arrays_are_read(bundle: Sa2vaBundle, tmp_path: Path) -> None:
    clip = moving_bar(4)
    tracker = Tracker(bundle, prompt_frames=2)
    from_file = list(tracker.track(video(tmp_path / "a.mp4", clip), PHRASES))
    from_list = list(tracker.track(list(clip), PHRASES))
    from_frames = list(tracker.track(ArrayFrames(clip), PHRASES))
    assert len(from_file) == 4
    assert all(np.array_equal(masks_of(a), masks_of(b)) for a, b in zip(from_list, from_frames, strict=True))


def test_folders_keep_the_memory(bundle: Sa2vaBundle, tmp_path: Path) -> None:
    save_sa2va(bundle, tmp_path / "model")
    again = load_sa2va(tmp_path / "model")
    wanted, found = bundle.model.state_dict(), again.model.state_dict()
    assert found.keys() == wanted.keys()
    assert any("memory_attention" in name for name in found)
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    clip = noise(3)
    for mine, other in zip(
        Tracker(bundle, prompt_frames=1).track(clip, PHRASES),
        Tracker(again, prompt_frames=1).track(clip, PHRASES),
        strict=True,
    ):
        assert np.array_equal(masks_of(mine), masks_of(other))


def test_bad_input_is_told_in_one_line(bundle: Sa2vaBundle, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="must be a list"):
        Tracker(bundle).track(noise(), "a cat")
    with pytest.raises(PromptError, match="must not be blank"):
        Tracker(bundle).track(noise(), [" "])
    with pytest.raises(OptionError, match="'uniform' or 'first'"):
        Tracker(bundle, prompts="last")
    with pytest.raises(OptionError, match="prompt_frames"):
        Tracker(bundle, prompt_frames=0)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"broken\.mp4"):
        Tracker(bundle).track(tmp_path / "broken.mp4", PHRASES)
    sizes = iter([noise(1)[0], noise(1, (20, 20))[0]])
    with pytest.raises(DataError, match=r"frame 1 is \(20, 20\), the first one \(30, 50\)"):
        list(Tracker(bundle, prompts="first", prompt_frames=1).track(sizes, PHRASES))


def test_half_precision_tracks(bundle: Sa2vaBundle) -> None:
    half = tiny_tracker(seed=1)
    half.model.to(torch.bfloat16)
    for prompts in ("uniform", "first"):
        tracked = list(Tracker(half, prompts=prompts, prompt_frames=1).track(noise(3), PHRASES))
        assert len(tracked) == 3
