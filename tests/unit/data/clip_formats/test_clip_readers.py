"""Readers of clips: a faithful miniature of every format, and its faults."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import clip_miniatures as mini
import numpy as np
import pytest
from clip_miniatures import box, columns, rle
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.clip_formats import are_clips, read_clips
from deixis.data.clip_formats.table import CLIP_FORMATS
from deixis.data.formats.recognise import recognise
from deixis.errors import DataError
from deixis.evaluation.video_jf import presence_of
from deixis.video_records import Clip, ClipDataset


def first(path: Path, **how: Any) -> Clip:
    """The first clip, read through to its last frame."""
    clips = read_clips(path, **how)
    assert isinstance(clips, ClipDataset)
    clip = clips[0]
    assert sum(1 for _ in clip.frames) == len(clip.frames)
    assert pickle.loads(pickle.dumps(clips))[0].masklets == clip.masklets  # noqa: S301
    return clip


def said(clip: Clip) -> dict[str, tuple[int, ...]]:
    return {text: e.masklets for e in clip.expressions for text in e.texts}


class TestSav:
    def test_labels_are_every_fourth_frame_and_null_is_out_of_sight(self, tmp_path: Path) -> None:
        mini.sav(tmp_path)
        clip = first(tmp_path)
        assert (clip.labelled, clip.size_hw, clip.video_id) == ((0, 4, 8), mini.SIZE_HW, "sav_000001")
        assert [columns(m.masks_rle) for m in clip.masklets] == [[0, 4, 8], [None, None, 20], [30, None, 34]]
        assert [e.texts for e in clip.expressions] == [(), (), ()], "masklets await captions"
        assert [presence_of(clip, e) for e in clip.expressions] == [("always",), ("late",), ("returns",)]
        shown = clip.sample_at(1)
        assert np.abs(np.asarray(shown.image).astype(int) - mini.moving_bar(9)[4]).mean() < 12, "label 1 is frame 4"
        assert [len(e.masks_rle) for e in shown.expressions] == [1]

    def test_a_frame_of_null_and_masks_without_a_pixel(self, tmp_path: Path) -> None:
        empty = rle(0 * box(0))
        mini.sav(tmp_path, rows=[None, [rle(box(2)), empty, None]], masklet_id=[5, 6, 7])
        clip = first(tmp_path)
        assert [m.masklet_id for m in clip.masklets] == [5, 6, 7]
        assert [columns(m.masks_rle) for m in clip.masklets] == [[None, 2], [None, None], [None, None]]

    def test_manual_before_auto_and_folders_of_folders(self, tmp_path: Path) -> None:
        mini.sav(tmp_path / "sav_000", 2, "auto")
        mini.sav(tmp_path / "sav_000", 2, "manual")
        mini.sav(tmp_path / "sav_000", 1, "auto")
        clips = read_clips(tmp_path)
        assert [Path(clips[i].source).name for i in (0, 1)] == ["sav_000001_auto.json", "sav_000002_manual.json"]
        assert len(read_clips(tmp_path, split="manual")) == 1
        assert Path(read_clips(f"{tmp_path}#auto")[1].source).name == "sav_000002_auto.json"
        assert len(read_clips(tmp_path, max_clips=1)) == 1

    def test_videos_elsewhere_and_one_file(self, tmp_path: Path) -> None:
        file = mini.sav(tmp_path / "a")
        (tmp_path / "b").mkdir()
        (tmp_path / "a" / "sav_000001.mp4").rename(tmp_path / "b" / "sav_000001.mp4")
        assert len(first(file, videos=tmp_path / "b").masklets) == 3
        with pytest.raises(DataError, match=r"sav_000001\.mp4: video file not found"):
            read_clips(file)[0]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"video_height": 64.0}, r"made on a video of \(64.0, 48.0\), the video is \(32, 48\)"),
            ({"rows": [[rle(box(0))] * 3] * 4}, "labels are given for frames 0 to 12, the video has 9"),
            ({"rows": [[rle(box(0))] * 3, [rle(box(0))]]}, "frame 4: expected null or a list of 3 masks"),
            (
                {"rows": [[rle(box(0)), None, rle(box(0, (30, 40)))]]},
                r"frame 0, masklet 2: segmentation has size \[30, 40\]",
            ),
            ({"rows": [[{"size": list(mini.SIZE_HW), "counts": "~~"}, None, None]]}, "frame 0, masklet 0: .*RLE text"),
            ({"masklet": "none"}, "expected 'masklet' as list"),
        ],
    )
    def test_what_does_not_fit_is_named(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        mini.sav(tmp_path, **changes)
        with pytest.raises(DataError, match=f"sav_000001_manual.json: .*{message}") as caught:
            read_clips(tmp_path)[0]
        assert "\n" not in str(caught.value)

    def test_a_corrupt_video(self, tmp_path: Path) -> None:
        mini.sav(tmp_path)
        video = tmp_path / "sav_000001.mp4"
        video.write_bytes(video.read_bytes()[:1000])
        with pytest.raises(DataError, match=r"sav_000001\.mp4: cannot be read as a video"):
            read_clips(tmp_path)[0]

    def test_nothing_of_the_kind(self, tmp_path: Path) -> None:
        mini.sav(tmp_path)
        with pytest.raises(DataError, match=r"no sav_000001_auto\.json"):
            read_clips(tmp_path, split="auto")
        with pytest.raises(DataError, match="manual and auto, got 'val'"):
            read_clips(tmp_path, split="val")


class TestSavVal:
    def test_a_png_an_object_and_frame(self, tmp_path: Path) -> None:
        clip = first(mini.sav_val(tmp_path))
        assert (clip.labelled, len(clip.frames)) == ((0, 4, 8), 9)
        assert [columns(m.masks_rle) for m in clip.masklets] == [[0, 4, 8], [None, 20, None]]
        assert presence_of(clip, clip.expressions[1]) == ("late", "vanishes")

    def test_a_mask_of_another_size(self, tmp_path: Path) -> None:
        mini.sav_val(tmp_path)
        file = tmp_path / "Annotations_6fps" / "sav_000262" / "001" / "00004.png"
        mini.palette_png(file, box(0, (20, 48)))
        with pytest.raises(DataError, match=r"001/00004\.png: is \(20, 48\), the frames are \(32, 48\)"):
            read_clips(tmp_path)[0]

    def test_frames_missing(self, tmp_path: Path) -> None:
        mini.sav_val(tmp_path)
        for file in (tmp_path / "JPEGImages_24fps" / "sav_000262").iterdir():
            file.unlink()
        with pytest.raises(DataError, match=r"sav_000262: no frames 00000\.jpg"):
            read_clips(tmp_path)[0]


class TestRefSav:
    def test_sentences_about_masklets(self, tmp_path: Path) -> None:
        clip = first(mini.ref_sav(tmp_path))
        assert said(clip) == {"The box that stays in sight.": (0,), "The one that returns.": (2,)}
        assert clip.labelled == (0, 4, 8)

    def test_an_object_that_is_no_masklet(self, tmp_path: Path) -> None:
        file = mini.ref_sav(tmp_path)
        file.write_text(file.read_text().replace('"2": {', '"3": {'))
        with pytest.raises(DataError, match="video sav_000007: object '3' is none of the 3 masklets"):
            read_clips(file)[0]


class TestMevis:
    def test_several_ids_are_their_union(self, tmp_path: Path) -> None:
        clip = first(mini.mevis(tmp_path))
        assert clip.labelled == (0, 1, 2, 3)
        assert [m.masklet_id for m in clip.masklets] == [11, 12]
        assert [columns(m.masks_rle) for m in clip.masklets] == [[0, 4, 8, None], [None, None, 10, 14]]
        both = clip.expressions[1]
        assert both.masklets == (0, 1)
        union = coco_mask.merge(list(clip.masks_at(both, 2)))
        assert int(coco_mask.area(union)) == 80, "two boxes of 60 that share 40"
        assert [presence_of(clip, e) for e in clip.expressions] == [("vanishes",), ("always",), ("late",)]

    def test_without_masks_there_are_no_labels(self, tmp_path: Path) -> None:
        mini.mevis(tmp_path)
        (tmp_path / "mask_dict.json").unlink()
        clip = first(tmp_path)
        assert clip.labelled == ()
        assert [e.texts[0] for e in clip.expressions] == [e["exp"] for e in mini.MEVIS_EXPRESSIONS.values()]

    def test_revos_keeps_frames_beside_the_file(self, tmp_path: Path) -> None:
        mini.mevis(tmp_path)
        (tmp_path / "JPEGImages" / "2da2").rename(tmp_path / "2da2")
        assert len(first(tmp_path).frames) == 4

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"masks": {"11": [None] * 4}}, "annotation 12 of video 2da2 is not there"),
            ({"masks": {**mini.MEVIS_MASKS, "12": [None]}}, "annotation 12 of video 2da2 has 1 entries, .* 4 frames"),
            (
                {"masks": {**mini.MEVIS_MASKS, "12": [None, rle(box(0, (9, 9))), None, None]}},
                r"annotation 12 of video 2da2, frame 1: segmentation has size \[9, 9\]",
            ),
            ({"expressions": {"0": {"exp": " ", "anno_id": [11]}}}, "expression 0: its sentence is blank"),
            ({"expressions": {"0": {"exp": "a", "anno_id": ["x"]}}}, "expression 0: ids must be whole numbers"),
            ({"expressions": []}, "video 2da2: expected 'expressions' as dict"),
        ],
    )
    def test_what_does_not_fit_is_named(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(DataError, match=message):
            read_clips(mini.mevis(tmp_path, **changes))[0]

    def test_a_missing_frame(self, tmp_path: Path) -> None:
        mini.mevis(tmp_path)
        (tmp_path / "JPEGImages" / "2da2" / "00002.jpg").unlink()
        clip = read_clips(tmp_path)[0]
        with pytest.raises(DataError, match=r"00002\.jpg: frame 2 of 4 is missing"):
            list(clip.frames)


class TestRefYoutubeVos:
    def test_objects_by_their_number_in_the_png(self, tmp_path: Path) -> None:
        clip = first(mini.ref_youtube_vos(tmp_path))
        assert said(clip) == {"a box on the left": (0,), "the box that stays": (1,)}
        assert [columns(m.masks_rle) for m in clip.masklets] == [[0, None, 8], [30, 30, 30]]
        assert clip.labelled == (0, 1, 2), "of the frames that are listed"
        assert presence_of(clip, clip.expressions[0]) == ("returns",)

    def test_a_video_without_masks_has_expressions_only(self, tmp_path: Path) -> None:
        clip = read_clips(mini.ref_youtube_vos(tmp_path))[1]
        assert (clip.labelled, clip.masklets, len(clip.expressions)) == ((), (), 2)

    def test_an_object_in_no_png(self, tmp_path: Path) -> None:
        file = mini.ref_youtube_vos(tmp_path)
        file.write_text(file.read_text().replace('"obj_id": "2"', '"obj_id": "4"'))
        with pytest.raises(DataError, match="video 0a, expression 1: object 4 is in no PNG"):
            read_clips(file)[0]

    def test_a_png_in_colours(self, tmp_path: Path) -> None:
        file = mini.ref_youtube_vos(tmp_path)
        Image.new("RGB", (48, 32)).save(tmp_path / "train" / "Annotations" / "0a" / "00005.png")
        with pytest.raises(DataError, match=r"00005\.png: has mode RGB, expected a palette image"):
            read_clips(file)[0]


class TestDavis:
    def test_sentences_of_an_object_are_one_expression(self, tmp_path: Path) -> None:
        clip = first(mini.davis(tmp_path))
        assert [e.texts for e in clip.expressions] == [("a brown bear", "the bear walking"), ("a cub",)]
        assert [columns(m.masks_rle) for m in clip.masklets] == [[0, 4, 8], [None, None, 30]]
        assert clip.labelled == (0, 1, 2)

    def test_splits_and_frames_without_masks(self, tmp_path: Path) -> None:
        mini.davis(tmp_path)
        clips = read_clips(f"{tmp_path}#val")
        assert len(clips) == 1
        assert (clips[0].video_id, clips[0].labelled, len(clips[0].frames)) == ("cow", (0,), 3)
        with pytest.raises(DataError, match=r"no list ImageSets/…/test\.txt"):
            read_clips(tmp_path, split="test")

    def test_without_text_masks_await_captions(self, tmp_path: Path) -> None:
        clip = first(mini.davis(tmp_path, text=False))
        assert [(e.texts, e.masklets) for e in clip.expressions] == [((), (0,)), ((), (1,))]

    def test_black_and_white_masks_are_one_object_and_void_is_none(self, tmp_path: Path) -> None:
        mini.davis(tmp_path, text=False)
        folder = tmp_path / "Annotations" / "480p" / "bear"
        for i in range(3):
            Image.fromarray(255 * box(4 * i)).save(folder / f"{i:05d}.png")
        (masklet,) = first(tmp_path).masklets
        assert (columns(masklet.masks_rle), masklet.masklet_id) == ([0, 4, 8], 1)
        mini.palette_png(folder / "00001.png", box(4) + 255 * box(20))
        assert [columns(m.masks_rle) for m in first(tmp_path).masklets] == [[None, 4, None]]

    def test_faults(self, tmp_path: Path) -> None:
        mini.davis(tmp_path)
        text = tmp_path / "davis_text_annotations" / "Davis17_annot1.txt"
        text.write_text('bear 3 "a third"\n')
        with pytest.raises(DataError, match="bear: sentences are given for object 3, which is in no PNG"):
            read_clips(tmp_path)[0]
        text.write_text("bear one\n")
        with pytest.raises(DataError, match=r"annot1\.txt: line 1: expected `video object"):
            read_clips(tmp_path)
        text.unlink()
        mini.palette_png(tmp_path / "Annotations" / "480p" / "bear" / "00002.png", box(0, (16, 24)))
        with pytest.raises(DataError, match=r"00002\.png: is \(16, 24\), the frames are \(32, 48\)"):
            read_clips(tmp_path)[0]
        (tmp_path / "Annotations" / "480p" / "bear" / "00002.png").write_text("no image")
        with pytest.raises(DataError, match=r"00002\.png: cannot be read as an image"):
            read_clips(tmp_path)[0]


class TestRecognition:
    def test_every_format_is_told_by_its_files(self, tmp_path: Path) -> None:
        mini.sav(tmp_path / "sav")
        places = {
            "sav": tmp_path / "sav",
            "sav_val": mini.sav_val(tmp_path / "sav_val"),
            "ref_sav": mini.ref_sav(tmp_path / "ref_sav"),
            "mevis": mini.mevis(tmp_path / "mevis"),
            "ref_youtube_vos": mini.ref_youtube_vos(tmp_path / "ytvos"),
            "davis": mini.davis(tmp_path / "davis"),
        }
        assert set(places) == set(CLIP_FORMATS)
        for name, place in places.items():
            assert recognise(place, CLIP_FORMATS, "clips") is CLIP_FORMATS[name]
            assert read_clips(place, format=name)[0].masklets

    def test_generated_clips(self) -> None:
        clips = read_clips("scenes:split=clip_train,count=3,seed=1", max_clips=2)
        assert len(clips) == 2
        assert clips[1].expressions

    def test_what_is_not_there_or_unknown(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such file or folder"):
            read_clips(tmp_path / "none")
        with pytest.raises(DataError, match="no clips of a known format"):
            read_clips(tmp_path)
        with pytest.raises(DataError, match="unknown format 'x'"):
            read_clips(tmp_path, format="x")
        with pytest.raises(DataError, match="must be 1 or more"):
            read_clips(tmp_path, max_clips=0)
        mini.mevis(tmp_path)
        (tmp_path / "meta_expressions_2.json").write_text(json.dumps({}))
        with pytest.raises(DataError, match=r"found meta_expressions\.json, meta_expressions_2\.json; give the file"):
            read_clips(tmp_path)
        with pytest.raises(DataError, match="no splits to choose from"):
            read_clips(tmp_path / "meta_expressions.json", split="val")


def test_an_archive_of_clips_is_known_as_one(tmp_path: Path) -> None:
    mini.sav(tmp_path / "sav")
    archive = Path(shutil.make_archive(str(tmp_path / "sav"), "zip", tmp_path, "sav"))
    assert are_clips(archive)
    assert len(first(archive).masklets) == 3
