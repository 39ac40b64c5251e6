"""Data sets of conversations, in their published layouts: what becomes of phrases, regions, questions and none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import chat_miniatures as mini
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from refer_miniatures import LEFT, pixels, rle

from deixis.data.clip_formats import read_clips
from deixis.data.formats.recognise import recognise
from deixis.data.refer.conversation import GROUNDED_QUESTIONS, chat_turns, grounded_answer
from deixis.data.refer.loading import QuestionDataset
from deixis.data.refer_formats import read_refer
from deixis.data.refer_formats.table import REFER_FORMATS
from deixis.data.sets.subset import Subset
from deixis.errors import DataError
from deixis.evaluation.refer_iou import evaluate_segmentations
from deixis.geometry.rle import bitmap_rle
from deixis.options.refer_check import ReferCheckOptions
from deixis.recipes.refer.check import check_refer_data
from deixis.recipes.refer.data.sources import mixed
from deixis.recipes.refer.data.splits import Source
from deixis.refer_records import Exchange, Grounded, ReferSample, Segmentation
from deixis.video_records import Clip

LAYOUTS: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "gcg": (mini.grandf, "gcg", ""),
    "gcg of OpenPSG": (lambda root: mini.grandf(root, "OpenPsgGCG_train.json"), "gcg", ""),
    "gcg of RefCOCOg": (mini.refcocog_gcg, "gcg", ""),
    "gcg of Flickr": (mini.flickr_gcg, "gcg", ""),
    "osprey": (mini.osprey, "osprey", ""),
    "osprey's descriptions": (lambda root: mini.osprey(root, "osprey_detail_description.json"), "osprey", ""),
    "osprey's parts": (lambda root: mini.osprey(root, "osprey_part_level.json"), "osprey", ""),
    "llava": (mini.llava, "llava", ""),
    "muse": (mini.muse, "muse", ""),
    "reasonseg": (mini.reasonseg, "reasonseg", "#train"),
    "describe_anything": (mini.describe_anything, "describe_anything", ""),
    "grefcoco": (mini.grefcoco, "grefcoco", "#train"),
}


def asked(sample: ReferSample) -> tuple[str, list[tuple[int, str]]]:
    """The answers of a conversation as training writes them, and what each `[SEG]` means."""
    turns, meant = chat_turns(sample.chat, sample.expressions, np.random.default_rng(0))
    assert sum(turn.answer.count("[SEG]") for turn in turns) == len(meant) == sum(len(t.expressions) for t in turns)
    return " / ".join(turn.answer for turn in turns), meant


@pytest.mark.parametrize("layout", LAYOUTS)
def test_recognised_read_and_checked(layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, name, split = LAYOUTS[layout]
    place = make(tmp_path)
    assert recognise(place, REFER_FORMATS, "phrases").name == name
    assert len(read_refer(f"{place}{split}"))
    code = check_refer_data(ReferCheckOptions(data=(f"{place}{split}",), tiny=0))
    assert code == 0, capsys.readouterr().out
    assert "images read" in capsys.readouterr().out


class TestGroundedCaptions:
    def test_phrases_have_masks_in_the_order_of_the_caption(self, tmp_path: Path) -> None:
        (sample,) = (read_refer(mini.grandf(tmp_path))[0],)
        assert [e.texts for e in sample.expressions] == [("A man in red",), ("red",), ("two dogs",), ("the grass",)]
        assert [len(e.masks_rle) for e in sample.expressions] == [1, 1, 2, 1]
        answer, meant = asked(sample)
        assert answer == "<p> A man in red </p> [SEG] walks <p> two dogs </p> [SEG] on <p> the grass </p> [SEG]."
        assert meant == [(0, "A man in red"), (2, "two dogs"), (3, "the grass")], "of phrases that overlap the longer"
        assert sample.chat[0].questions == GROUNDED_QUESTIONS

    def test_references_are_found_in_the_caption(self, tmp_path: Path) -> None:
        sample = read_refer(mini.refcocog_gcg(tmp_path))[0]
        answer, meant = asked(sample)
        assert answer == "<p> A man in red </p> [SEG] walks two dogs on the grass."
        assert [e.texts for e in sample.expressions] == [("a man in Red",), ("someone else",)]
        assert meant == [(0, "A man in red")]

    def test_annotations_of_one_phrase_are_one_expression(self, tmp_path: Path) -> None:
        sample = read_refer(mini.flickr_gcg(tmp_path))[0]
        assert [(e.texts[0], len(e.masks_rle)) for e in sample.expressions] == [("A man in red", 1), ("two dogs", 2)]
        assert asked(sample)[0] == "<p> A man in red </p> [SEG] walks <p> two dogs </p> [SEG] on the grass."

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"groundings": []}, "groundings must be an object"),
            ({"caption": " "}, "has no 'caption'"),
            ({"file_name": 3}, "has no 'file_name'"),
            (
                {"groundings": {"a cat": {"token_positives": [90, 99], "rle_masks": []}}},
                "the caption has 41 characters",
            ),
            ({"groundings": {"A man": {"token_positives": [0, 5], "rle_masks": [rle([LEFT], (5, 5))]}}}, "size"),
        ],
    )
    def test_what_cannot_be_used(self, change: dict[str, object], said: str, tmp_path: Path) -> None:
        path = mini.grandf(tmp_path)
        (entry,) = json.loads(path.read_text())
        path.write_text(json.dumps([entry, {**entry, **change}]))
        if said == "size":  # the first mask gives the size, which the picture then has not
            assert read_refer(path)[1].size_hw == (5, 5)
            return
        with pytest.raises(DataError, match=said):
            read_refer(path)
        faults: list[str] = []
        assert len(read_refer(path, faults=faults)) == 1
        assert len(faults) == 1


class TestOsprey:
    def test_conversations_name_regions(self, tmp_path: Path) -> None:
        sample = read_refer(mini.osprey(tmp_path))[0]
        assert sample.regions == (0, 1)
        assert [pixels(e.masks_rle[0]) for e in sample.expressions] == [200, 280]
        assert sample.chat[0] == Exchange(("What does region1 do?",), "region1 walks region2.")
        assert asked(sample) == ("region1 walks region2. / It runs.", [])

    def test_parts_are_answered_shortly(self, tmp_path: Path) -> None:
        sample = read_refer(mini.osprey(tmp_path, "osprey_part_level.json"))[0]
        assert sample.chat[1].questions == ("And region2? Answer the question using a single word or phrase.",)

    def test_descriptions_go_to_their_regions(self, tmp_path: Path) -> None:
        sample = read_refer(mini.osprey(tmp_path, "osprey_detail_description.json"))[0]
        assert [e.texts for e in sample.expressions] == [("A man: tall, in red.",), ("A dog that runs.",)]
        assert sample.described
        assert not sample.chat


class TestLlava:
    def test_an_image_nothing_and_a_video(self, tmp_path: Path) -> None:
        first, second, third = (read_refer(mini.llava(tmp_path))[i] for i in range(3))
        assert first.has_image
        assert [exchange.questions for exchange in first.chat] == [("What is on the table?",), ("Who left it there?",)]
        assert not second.has_image
        assert len(second.chat) == 1
        assert isinstance(third, Clip)
        assert third.chat[0].questions == ("What happens?",)
        assert len(third.frames) == 6

    def test_marks_of_conversations_are_words_in_them(self, tmp_path: Path) -> None:
        sample = read_refer(mini.llava(tmp_path))[1]
        assert asked(sample)[0] == "< p>Hi< /p> [ SEG] < |im_end|> <div>"

    def test_json_lines_and_roles(self, tmp_path: Path) -> None:
        turns = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Two and two?"},
            {"role": "assistant", "content": "Four."},
        ]
        (tmp_path / "a.jsonl").write_text(json.dumps({"messages": turns}) + "\n\n")
        assert read_refer(tmp_path / "a.jsonl")[0].chat == (Exchange(("Be brief.\nTwo and two?",), "Four."),)

    @pytest.mark.parametrize(
        ("entry", "said"),
        [
            ({"conversations": [{"from": "human", "value": "Hello?"}]}, "has no question with an answer"),
            ({"conversations": [{"from": "robot", "value": "Hello?"}]}, "turn 1 is from 'robot'"),
            ({"conversations": [{"value": 3}]}, "turn 1 must have 'from' and 'value'"),
            ({"conversations": "Hello"}, "conversations must be a list of turns"),
            ({"image": ["a.jpg", "b.jpg"], "conversations": mini.CAPTION}, "must be a list"),
        ],
    )
    def test_what_cannot_be_used(self, entry: dict[str, object], said: str, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text(json.dumps([entry]))
        with pytest.raises(DataError, match=f"entry 1: .*{said}"):
            read_refer(tmp_path / "a.json")

    def test_missing_images_are_named(self, tmp_path: Path) -> None:
        path = mini.llava(tmp_path)
        (tmp_path / "llava_images/coco/train2017/000000000009.jpg").unlink()
        with pytest.raises(DataError, match="1 of 1 image files not found, the first is 'coco/train2017/0000"):
            read_refer(path)


def test_muse_has_a_mask_at_each_place(tmp_path: Path) -> None:
    sample = read_refer(mini.muse(tmp_path))[0]
    answer, meant = asked(sample)
    first, second = answer.split(" / ")
    assert first == "The man [SEG] could, with the dog [SEG] beside him."
    assert second == "<p> the running dog </p> [SEG]."
    masks = [pixels(sample.expressions[position].masks_rle[0]) for position, _ in meant]
    assert masks == [200, 280, 280]
    measured = [e for e in sample.expressions if e.texts]
    assert [(e.texts[0], len(e.masks_rle)) for e in measured] == [
        ("Who could carry the shopping home?", 2),
        ("What has four legs?", 1),
    ]
    path = tmp_path / "MUSE_train.json"
    (entry,) = json.loads(path.read_text())
    entry["text_answers"][0] = "Only one {seg}."
    path.write_text(json.dumps([entry]))
    with pytest.raises(DataError, match=r"answer 1: 1 \{seg\} for 2 masks"):
        read_refer(path)


class TestReasonSeg:
    def test_targets_texts_and_kinds(self, tmp_path: Path) -> None:
        place = mini.reasonseg(tmp_path)
        data = read_refer(f"{place}#train")
        first, second = data[0].expressions[0], data[1].expressions[0]
        assert first.texts == ("what keeps the rain off?", "what is dry inside?")
        assert (first.tags, second.tags) == (("sentence",), ("phrase",))
        assert second.texts == ("the caf\u00e9 table",)
        target, ignored = (coco_mask.decode(one[0]).astype(bool) for one in (first.masks_rle, first.ignored_rle))
        assert (target.sum(), ignored.sum()) == (19 * 19 - 25, 25), "edges belong to polygons; the smaller lies on top"
        assert not (target & ignored).any()
        with pytest.raises(DataError, match="name the split to read, one of train, val, as in --data"):
            read_refer(place)

    def test_ignored_pixels_do_not_count(self, tmp_path: Path) -> None:
        sample = read_refer(f"{mini.reasonseg(tmp_path)}#val")[0]
        everything = np.zeros((30, 40), bool)
        everything[2:21, 2:21] = True  # the target and what is to be ignored in it
        found = [Segmentation(text, bitmap_rle(everything), 0.9, image_id=1) for text in sample.expressions[0].texts]
        assert evaluate_segmentations([sample], [found]).ciou == 1.0
        counted = sample.evolve(expressions=(replace(sample.expressions[0], ignored_rle=()),))
        assert evaluate_segmentations([counted], [found]).ciou < 0.95, "they would otherwise"


def test_descriptions_of_masks(tmp_path: Path) -> None:
    folder = mini.describe_anything(tmp_path)
    sample = read_refer(folder)[0]
    assert sample.described
    assert [e.expression_id for e in sample.expressions] == [31, 32]
    assert sample.expressions[1].texts == ("A small brown dog that runs to the right.",)
    (folder / "images" / "000000000009.jpg").rename(folder / "images" / "0.tar")
    with pytest.raises(DataError, match=r"unpack .*0\.tar and its like first: 1 of 1 image files not found"):
        read_refer(folder)


@pytest.mark.parametrize("suffix", [".json", ".p"])
def test_grefcoco_means_several_and_none(suffix: str, tmp_path: Path) -> None:
    sample = read_refer(f"{mini.grefcoco(tmp_path, suffix)}#train")[0]
    assert [(e.texts[0], len(e.masks_rle), e.tags) for e in sample.expressions] == [
        ("both", 2, ()),
        ("left man", 1, ()),
        ("a horse", 0, ("absent",)),
    ]


class TestMaskPickle:
    def test_masks_of_every_expression(self, tmp_path: Path) -> None:
        clips = read_clips(mini.youtube_with_pickle(tmp_path))
        for clip in (clips[0], clips[1]):
            assert clip.labelled == (0, 1, 2)
            masks = {e.texts[0][:6].strip(): clip.masklets[e.masklets[0]] for e in clip.expressions}
            assert [mask is not None for mask in masks["box 10"].masks_rle] == [True, False, True]
            assert [mask is not None for mask in masks["box 2"].masks_rle] == [True, True, False]

    def test_another_splits_pickle_is_left_alone(self, tmp_path: Path) -> None:
        file = mini.youtube_with_pickle(tmp_path)
        content = json.loads(file.read_text())
        del content["videos"]["0b"]
        file.write_text(json.dumps(content))
        assert read_clips(file)[0].labelled == ()
        (tmp_path / "mask_dict.pkl").rename(file.parent / "mask_dict.pkl")
        with pytest.raises(DataError, match=r"has masks of 4 expressions, meta_expressions.json has 2"):
            read_clips(file)

    def test_nothing_is_executed(self, tmp_path: Path) -> None:
        file = mini.youtube_with_pickle(tmp_path)
        (tmp_path / "mask_dict.pkl").write_bytes(b"cos\nsystem\n(S'touch here'\ntR.")
        with pytest.raises(DataError, match=r"asks to import (os|posix)\.system"):
            read_clips(file)
        assert not Path("here").exists()


def test_an_answer_is_marked_only_where_it_is_grounded() -> None:
    assert grounded_answer("a dog", ()) == "a dog"
    with pytest.raises(DataError, match="overlaps the one before"):
        Exchange(("What?",), "a dog", (Grounded(2, 5, 0), Grounded(0, 3, 0)))


def test_weights_are_what_is_drawn(tmp_path: Path) -> None:
    """An epoch of five layouts, 2 : 1 : 1 : 4 : 2, counted by the conversations that training is shown."""
    read = (
        read_refer(mini.grandf(tmp_path / "a")),
        read_refer(mini.osprey(tmp_path / "b")),
        read_refer(mini.describe_anything(tmp_path / "c")),
        read_refer(mini.llava(tmp_path / "d")),
        read_refer(f"{mini.reasonseg(tmp_path / 'e')}#val"),
    )
    sources = [cast(Source, Subset(source, (0,) * 20, source.name)) for source in read]
    shown = QuestionDataset(mixed(sources, (2, 1, 1, 4, 2), seed=0), max_masks=2, seed=0)
    drawn = [shown[1, index] for index in range(len(shown))]
    counts = Counter(question.sample.source.partition(":")[0].rpartition("/")[2] for question in drawn)
    assert counts == {
        "GranDf_HA_GCG_train.json": 20,
        "osprey_conversation.json": 10,
        "annotations.json": 10,
        "llava_v1_5_mix665k.json": 40,
        "1.json": 20,
    }
    described = [question for question in drawn if question.sample.described]
    assert all(question.regions and not question.asked for question in described), "never asked for by its description"
    assert all("region" in question.turns[0].question for question in described)
