"""Captioner and loop: what does not depend on what, files that go on, what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from refer_miniatures import LEFT, OVERLAPPING, RIGHT, picture, plain, rle
from small_segmenters import tiny_segmenter

from deixis.data.refer_formats import read_refer
from deixis.data.scenes.refer_scenes import refer_scenes
from deixis.data.sets.mask_regions import each_mask
from deixis.errors import DataError, OptionError
from deixis.evaluation.cycle import cycle_metrics
from deixis.inference.outputs.cycle import CycleLines, cycle_entry, require_cycled, write_kept
from deixis.inference.refer.captioner import Captioner
from deixis.inference.refer.cycle import Cycle
from deixis.refer_records import Caption, Expression, ReferList, ReferSample, Segmentation

IMAGE = np.random.default_rng(1).integers(0, 255, (60, 80, 3), dtype=np.uint8)


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((60, 80), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def as_rle(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


MASKS = [square(5, 5, 12), square(20, 30, 35), square(59, 79, 1), square(0, 60, 20)]


@pytest.fixture(scope="module")
def bundle():
    return tiny_segmenter(seed=3)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_captions_do_not_depend_on_batches(bundle, temperature) -> None:
    options = {"max_tiles": 2, "max_new_tokens": 6, "temperature": temperature}
    images, masks = [IMAGE, IMAGE[:, ::-1].copy()], [MASKS, MASKS[:2]]
    one, four = (Captioner(bundle, **options).caption(images, masks, batch_size=size) for size in (1, 4))
    assert [[c.text for c in found] for found in one] == [[c.text for c in found] for found in four]
    assert [len(found) for found in one] == [4, 2]
    assert all(caption.text for found in one for caption in found)
    for mine, theirs in zip(one[0], four[0], strict=True):
        assert mine.score == pytest.approx(theirs.score, abs=1e-4)
        assert np.array_equal(coco_mask.decode(mine.mask_rle), coco_mask.decode(theirs.mask_rle))
    if temperature:
        other = Captioner(bundle, **options, seed=5).caption(images, masks)
        assert [c.text for c in other[0]] != [c.text for c in one[0]]


def test_swapped_masks_swap_captions(bundle) -> None:
    captioner = Captioner(bundle, max_new_tokens=6)
    ((one, two),) = captioner.caption([IMAGE], [MASKS[:2]])
    ((three, four),) = captioner.caption([IMAGE], [[as_rle(mask) for mask in reversed(MASKS[:2])]])
    assert (one.text, two.text) == (four.text, three.text)
    assert (one.score, two.score) == pytest.approx((four.score, three.score), abs=1e-5)
    assert abs(one.score - two.score) > 1e-3


def test_masks_that_cannot_be_described_are_one_clear_error(bundle) -> None:
    captioner = Captioner(bundle)
    with pytest.raises(DataError, match="mask 2 is empty"):
        captioner.caption([IMAGE], [[MASKS[0], np.zeros((60, 80), bool)]])
    with pytest.raises(DataError, match=r"\(80, 60\), the image \(60, 80\)"):
        captioner.caption([IMAGE], [[np.ones((80, 60), bool)]])
    with pytest.raises(DataError, match="got masks for 2 images, expected 1"):
        captioner.caption([IMAGE], [[], []])
    for wrong in ({"temperature": -1.0}, {"top_p": 0.0}, {"max_new_tokens": 0}):
        with pytest.raises(OptionError):
            Captioner(bundle, **wrong)
    assert captioner.caption([IMAGE], [[]]) == [[]]


def test_every_mask_once_by_itself(tmp_path) -> None:
    data = plain(
        tmp_path,
        [
            {
                "image": "a.jpg",
                "expressions": [
                    {"text": "both", "masks": [rle([LEFT]), rle([RIGHT])]},
                    {"text": ["left one", "the left"], "masks": [rle([LEFT])]},
                    {"text": "left again", "masks": [rle([LEFT])]},
                    {"text": "absent", "masks": []},
                    {"masks": [rle(OVERLAPPING)]},
                ],
            }
        ],
    )
    (sample,) = [each_mask(read_refer(data))[0]]
    assert [e.texts for e in sample.expressions] == [("left one", "the left", "left again"), (), ()]
    assert all(len(e.masks_rle) == 1 for e in sample.expressions)
    scenes = refer_scenes("refer_seen", 2, 0)
    assert len(each_mask(scenes)[1].expressions) == len(scenes.scene(1)[0].things)


class Says:
    """A captioner that says what it is told."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def run(self, dataset, batch_size, indices):
        for index in indices:
            sample = dataset[index]
            masks = [expression.masks_rle[0] for expression in sample.expressions]
            yield sample, [Caption(text, -1.0, mask) for text, mask in zip(self.texts, masks, strict=True)]


class Finds:
    """A segmenter that finds what it knows."""

    def __init__(self, bundle, known: dict[str, np.ndarray]) -> None:
        self.bundle, self.known, self.asked = bundle, known, []

    def run(self, dataset, batch_size):
        asked = [text for expression in dataset[0].expressions for text in expression.texts]
        self.asked += asked
        yield dataset[0], [Segmentation(text, as_rle(self.known[text]), 0.9) for text in asked]


def test_the_loop_takes_the_caption_that_finds_its_region_best(bundle) -> None:
    regions = tuple(Expression(texts, (as_rle(mask),)) for texts, mask in zip((("mine",), ()), MASKS[:2], strict=True))
    data = ReferList((ReferSample(IMAGE, (60, 80), regions),))
    cycle = Cycle(bundle, direct=True)
    cycle.captioners = [Says("square", " "), Says("mine", "right"), Says("square", "square")]
    known = {"square": square(5, 5, 6), "mine": MASKS[0], "right": square(20, 30, 30)}
    cycle.segmenter = Finds(bundle, known)
    ((_, (first, second)),) = cycle.run(data)
    assert (first.caption.text, first.iou, first.direct_iou) == ("mine", 1, 1)
    assert (second.caption.text, second.direct_iou) == ("right", None)
    assert second.iou == pytest.approx((30 / 35) ** 2)
    assert sorted(cycle.segmenter.asked) == ["mine", "right", "square"]  # each once, and nothing blank
    cycle.captioners = [Says("square", " ")]
    ((_, (first, second)),) = cycle.run(data)
    assert (first.iou, first.direct_iou, second.iou) == (0.25, 1, 0)


def test_metrics_of_the_loop() -> None:
    rows = [
        {"mask": 0, "text": ["A red star."], "cycle_iou": 0.9, "known": ["a red star"], "direct_iou": 1.0},
        {"mask": 1, "text": ["no"], "cycle_iou": 0.4, "known": ["yes"], "direct_iou": 0.5},
        {"mask": 1, "text": ["yes"], "cycle_iou": 0.2},
        {"mask": 2, "cycle_iou": 0.0},
    ]
    rows = [{**row, "masks": [as_rle(MASKS[row["mask"]])]} for row in rows]
    found = cycle_metrics(rows, 0.5)
    assert found["cycle_IoU"] == pytest.approx(0.375)
    assert found["direct_IoU"] == pytest.approx(0.75)
    assert (found["kept"], found["exact"], found["exact_kept"], found["regions"]) == (0.25, 0.5, 1, 4)
    assert found["by_threshold"]["0.3"]["exact_kept"] == 0.5
    assert found["by_sizes"]["medium"] == {"regions": 2, "cycle_IoU": pytest.approx(0.3)}
    assert cycle_metrics([], 0.5)["regions"] == 0


def entry(number: int, folder: Path, iou: float = 0.8) -> dict:
    picture(folder / f"{number}.jpg", seed=number)
    sample = ReferSample(folder / f"{number}.jpg", (30, 40), (), image_id=number)
    from deixis.inference.refer.cycle import Cycled

    return cycle_entry(
        sample,
        f"{number}.jpg",
        [Cycled(Caption("left thing", -0.5, rle([LEFT])), iou), Cycled(Caption(" ", -0.5, rle([RIGHT])), 0.0)],
    )


def test_lines_go_on_and_half_a_line_is_cut_off(tmp_path) -> None:
    made_by = {"model": "m", "seed": 0}
    lines = CycleLines(tmp_path, made_by)
    assert lines.done() == 0
    lines.append(entry(1, tmp_path))
    lines.append(entry(2, tmp_path))
    with lines.path.open("a") as file:
        file.write('{"image": "3.jp')  # killed here
    again = CycleLines(tmp_path, made_by)
    assert again.done() == 2
    again.append(entry(3, tmp_path, iou=0.2))
    assert [line["image"] for line in again.entries()] == ["1.jpg", "2.jpg", "3.jpg"]
    assert write_kept(tmp_path, again, 0.7) == (2, 2)
    data = read_refer(tmp_path / "captions.json")
    assert [data[i].expressions[0].texts for i in range(2)] == [("left thing",)] * 2
    assert data[0].expressions[0].tags == ("cycle",)
    (first, _) = json.loads((tmp_path / "captions.json").read_text())
    assert first["provenance"] == {**made_by, "threshold": 0.7}
    assert first["expressions"][0]["cycle_iou"] == 0.8
    assert write_kept(tmp_path, again, 0.0) == (3, 3)  # what has no words is never kept
    assert write_kept(tmp_path, again, 0.9) == (0, 0)


def test_lines_of_something_else_are_not_mixed(tmp_path) -> None:
    CycleLines(tmp_path, {"model": "m", "seed": 0})
    with pytest.raises(DataError, match="made with seed 0, now it is 1"):
        CycleLines(tmp_path, {"model": "m", "seed": 1})
    (tmp_path / "other").mkdir()
    (tmp_path / "other/cycle.jsonl").write_text("[1]\n")
    with pytest.raises(DataError, match="was not written by this command"):
        CycleLines(tmp_path / "other", {})
    (tmp_path / "cycle.jsonl").write_text('{"made_by": {}}\nnonsense\n{}\n')
    with pytest.raises(DataError, match="line 2 is damaged"):
        CycleLines(tmp_path, {}).done()


@pytest.mark.parametrize(
    "first", ["[]", "3", "null", '"made_by"', "{}", *(f'{{"made_by": {x}}}' for x in ("3", '"x"', "[1]"))]
)
def test_a_first_line_with_other_values_is_one_line(tmp_path, first) -> None:
    (tmp_path / "cycle.jsonl").write_text(f"{first}\n{{}}\n")
    with pytest.raises(DataError, match="was not written by this command"):
        CycleLines(tmp_path, {"model": "m"})
    assert (tmp_path / "cycle.jsonl").read_text() == f"{first}\n{{}}\n"


@pytest.mark.parametrize(
    "change",
    [
        *(lambda line, value=value: value for value in ([], 3, None, "x", {}, b"\xff", b"[" * 100_000)),
        *(lambda line, name=name: {**line, name: None} for name in ("id", "width", "expressions")),
        lambda line: {**line, "expressions": [3]},
        lambda line: {**line, "expressions": [{**line["expressions"][0], "cycle_iou": "high"}]},
        lambda line: {**line, "expressions": [{**line["expressions"][0], "text": [3]}]},
        lambda line: {**line, "expressions": [{**line["expressions"][0], "masks": []}]},
    ],
)
def test_a_line_with_other_values_is_named(tmp_path, change) -> None:
    lines = CycleLines(tmp_path, {"model": "m"}, require=require_cycled)
    for number in (1, 2, 3):
        lines.append(entry(number, tmp_path))
    content = lines.path.read_bytes().splitlines()
    changed = change(json.loads(content[2]))
    content[2] = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
    lines.path.write_bytes(b"\n".join(content) + b"\n")
    again = CycleLines(tmp_path, {"model": "m"}, require=require_cycled)
    with pytest.raises(DataError, match="line 3 is damaged; remove it and those after it"):
        again.done()
