"""Generated clips: masks are what is drawn, phrases hold through the whole clip."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from deixis.data.scenes.clip_scenes import CLIP_SPLITS, DrawnFrames, clip_scenes
from deixis.data.scenes.images import SEEN_PAIRS, UNSEEN_PAIRS, Thing
from deixis.data.scenes.motion import WAYS, Moving, clip_phrases
from deixis.data.scenes.phrases import PHRASE_WORDS, plural
from deixis.data.scenes.shapes import TEXTURES
from deixis.errors import DataError
from deixis.evaluation.video_jf import presence_of
from deixis.video_records import Clip, ClipDataset, ClipExpression, Frames

CLIPS = [clip_scenes("clip_train", 30, seed=4)[i] for i in range(30)]


def said(tag: str) -> list[tuple[Clip, ClipExpression, str]]:
    found = [(clip, e, text) for clip in CLIPS for e in clip.expressions for text in e.texts if tag in e.tags]
    assert len(found) > 5, f"too few phrases of {tag} to test by"
    return found


def centres(clip: Clip, masklet: int) -> np.ndarray:
    """Centroid (x, y) of a masklet in every frame; NaN where it is not to be seen or cut by the picture's edge."""
    found = np.full((len(clip.labelled), 2), np.nan)
    for label, mask in enumerate(clip.masklets[masklet].masks_rle):
        if mask is not None:
            ys, xs = np.nonzero(coco_mask.decode(mask))
            if min(ys.min(), xs.min()) > 0 and max(ys.max(), xs.max()) < 127:
                found[label] = xs.mean(), ys.mean()
    return found


@pytest.mark.parametrize("split", CLIP_SPLITS)
def test_clips_are_a_function_of_their_place(split: str) -> None:
    data = clip_scenes(split, 5, seed=2)
    assert isinstance(data, ClipDataset)
    clip, again, other = data[3], data[3], data[4]
    assert isinstance(clip.frames, Frames)
    assert (len(clip.frames), clip.size_hw, clip.labelled) == (24, (128, 128), tuple(range(24)))
    for a, b in zip(clip.frames, again.frames, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (clip.masklets, clip.expressions) == (again.masklets, again.expressions)
    assert clip.expressions != other.expressions
    np.testing.assert_array_equal(next(clip.frames.read([7])), clip.frames[7])
    unpickled = pickle.loads(pickle.dumps(clip))  # noqa: S301
    np.testing.assert_array_equal(unpickled.frames[11], clip.frames[11])


def test_masks_are_what_is_drawn() -> None:
    compared = 0
    for clip in CLIPS[:12]:
        frames = clip.frames
        assert isinstance(frames, DrawnFrames)
        for i in range(len(frames.movings)):
            keep = [j for j in range(len(frames.movings)) if j != i]
            without = replace(
                frames,
                movings=tuple(frames.movings[j] for j in keep),
                surfaces=tuple(frames.surfaces[j] for j in keep),
            )
            for number in (0, 9, 15, 23):
                changed = np.abs(frames[number].astype(int) - without[number].astype(int)).max(2)
                rle = clip.masklets[i].masks_rle[number]
                mask = np.zeros(clip.size_hw, bool) if rle is None else coco_mask.decode(rle).astype(bool)
                assert not mask[changed == 0].any() or mask[changed == 0].mean() < 0.05
                near = np.pad(mask, 1)
                near = near[:-2, 1:-1] | near[2:, 1:-1] | near[1:-1, :-2] | near[1:-1, 2:] | mask
                assert (changed[~near] > 40).sum() <= 2, "nothing is drawn outside the mask, smooth edges apart"
                compared += mask.any()
    assert compared > 30


def test_what_moves_goes_where_it_is_said_to() -> None:
    for clip, expression, text in said("motion"):
        (masklet,) = expression.masklets
        known = centres(clip, masklet)
        known = known[~np.isnan(known[:, 0])]
        if len(known) < 2:
            continue
        x, y = known[-1] - known[0]
        word = text.split()[-1]
        if word == "still":
            moving = clip.frames.movings[masklet]  # type: ignore[attr-defined]
            assert len(moving.stops) == 1
        else:
            along, across = {"left": (-x, y), "right": (x, y), "up": (-y, x), "down": (y, x)}[word]
            assert along > 0, text
            # what covers it for a while may shift its visible middle a little
            assert abs(across) < 8, text


def test_presence_is_as_it_is_said() -> None:
    wanted = {"that comes in": "late", "that goes away": "vanishes", "that comes back": "returns"}
    for clip, expression, text in said("presence"):
        (group,) = (wanted[key] for key in wanted if text.endswith(key))
        assert group in presence_of(clip, expression), text


def test_what_goes_behind_is_hidden_and_seen_again() -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        group = WAYS["passes behind"](("red", "star"), (128, 128), rng)
        surfaces = tuple(np.zeros((99, 99, 3), np.float32) for _ in group)
        frames = DrawnFrames(tuple(group), np.zeros((128, 128, 3), np.uint8), surfaces, 24, 0)
        seen = [bool(frames.masks(i)[0].any()) for i in range(24)]
        assert seen[0]
        assert seen[-1]
        assert seen.count(False) >= 2


def test_every_group_occurs() -> None:
    groups = {name for clip in CLIPS for e in clip.expressions for name in presence_of(clip, e)}
    assert groups == {"always", "late", "vanishes", "returns", "never"}
    assert {tag for clip in CLIPS for e in clip.expressions for tag in e.tags} == {
        *("attribute", "several", "motion", "presence", "relation", "absent")
    }


def moving(colour: str, shape: str, motion: str, presence: str = "", behind: int = 0) -> Moving:
    return Moving(Thing(shape, colour, "plain", (0, 0), 10, 0), ((0, 50, 50),), motion, presence, behind)


def meanings(*movings: Moving) -> dict[str, tuple[int, ...]]:
    found = clip_phrases(movings, np.random.default_rng(0), [("green", "moon")])
    return {text: phrase.things for phrase in found for text in phrase.texts}


def test_phrases_by_hand() -> None:
    meant = meanings(
        moving("red", "star", "left", behind=3),
        moving("red", "star", "right"),
        moving("blue", "star", "right", "comes in"),
        moving("blue", "circle", "still"),
    )
    assert meant["all stars"] == (0, 1, 2)
    assert meant["the star that moves left"] == (0,)
    assert "the star that moves right" not in meant, "two do"
    assert meant["the red star that moves right"] == (1,)
    assert meant["the star that comes in"] == meant["the blue star"] == (2,)
    assert meant["the blue thing that stays still"] == (3,)
    assert meant["the star that goes behind the blue circle"] == (0,)
    absent = {text.removeprefix("the ") for text, things in meant.items() if not things}
    assert absent
    assert absent <= {"green moon", "moon", "green thing"}


def test_no_direction_where_something_of_the_kind_goes_to_and_fro() -> None:
    meant = meanings(moving("red", "star", "left"), moving("blue", "star", "", "comes back"))
    assert meant["the star that comes back"] == (1,)
    assert "the star that moves left" not in meant
    assert meant["the red star that moves left"] == (0,)


def test_what_is_gone_behind_is_named_beyond_doubt() -> None:
    hidden, cover = moving("red", "star", "left", behind=1), moving("blue", "circle", "still")
    assert not any("behind" in text for text in meanings(hidden, cover, moving("blue", "circle", "left")))
    assert not any("behind" in text for text in meanings(moving("blue", "circle", "left", behind=1), cover))


def test_words_of_phrases_are_known() -> None:
    names = {word for pair in (*SEEN_PAIRS, *UNSEEN_PAIRS) for word in pair}
    moves = ["that", "moves", "stays", "still", "up", "down", "comes", "in", "goes", "away", "back", "behind"]
    known = {*PHRASE_WORDS, *moves, *TEXTURES, *names, *map(plural, names)}
    for clip in CLIPS:
        assert {w for e in clip.expressions for text in e.texts for w in text.split()} <= known


def test_training_never_shows_an_unseen_pair_and_the_unseen_split_does() -> None:
    for clip in CLIPS:
        for it in clip.frames.movings:  # type: ignore[attr-defined]
            assert (it.thing.colour, it.thing.shape) in SEEN_PAIRS
    unseen = clip_scenes("clip_unseen", 15, seed=0)
    assert any("unseen pair" in e.tags for i in range(15) for e in unseen[i].expressions)


def test_as_many_frames_as_are_wanted() -> None:
    clip = clip_scenes("clip_seen", 1, seed=0, frames=90)[0]
    assert len(clip.frames) == len(clip.labelled) == 90
    assert clip.frames[89].shape == (128, 128, 3)


def test_what_does_not_exist() -> None:
    with pytest.raises(DataError, match="no split 'x'"):
        clip_scenes("x", 1, 0)
    with pytest.raises(DataError, match="count must be at least 1"):
        clip_scenes("clip_train", 0, 0)
    with pytest.raises(IndexError):
        clip_scenes("clip_train", 1, 0)[1]
    with pytest.raises(IndexError):
        CLIPS[0].frames[24]
