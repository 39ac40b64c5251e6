"""The steps of the benchmarks of captions and the loop, with a random model: they run, and what they say is so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_refer_runs import write_tiny_segmenter

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_segmenter(tmp_path_factory.mktemp("segmenter") / "model")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


def test_held_out_scenes(model):
    import loop_segmenter as loop

    said = loop.described(str(model), "refer_unseen", 1)
    made = [
        loop.Described("the red star", score, iou, iou, exact, {"colour": exact, "shape": True, "size": None})
        for score, iou, exact in ((-2.0, 0.8, True), (-1.0, 0.2, False), (-3.0, 0.6, True), (-4.0, 0.1, False))
    ]
    kept, likeliest = loop.kept_at(made, 0.5)
    assert [each.cycle_iou for each in kept] == [0.8, 0.6]
    assert [each.score for each in likeliest] == [-1.0, -2.0]
    assert [each.nothing_wrong for each in made] == [True, False, True, False]
    assert loop.share(each.exact for each in kept) == 1.0
    assert f"{len(said)} things" in loop.section("refer_unseen", said)


def one_photograph(root, folder):
    """COCO's file of one photograph and three of its objects; the photograph stays where it is."""
    coco = json.loads((root / "coco_cc_instances" / "instances_tiny_coco_val.json").read_text(encoding="utf-8"))
    image = coco["images"][0]
    coco["images"] = [image]
    coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] == image["id"]][:3]
    (folder / image["file_name"]).symlink_to(root / "coco_cc_instances" / "tiny_coco_val" / image["file_name"])
    path = folder / "one.json"
    path.write_text(json.dumps(coco), encoding="utf-8")
    return str(path)


@pytest.mark.slow
def test_real_photographs(shared_data, model, tmp_path):
    from real_steps import ANNOTATE_HEAD, LOOP_HEAD, Run, annotated, looped, truth_of

    root, kept = shared_data.resolve(), tmp_path / "examples"
    masks = one_photograph(root, tmp_path)
    run = Run(str(model), "a random one", "builtin", 0.0, 0.0, root, tmp_path / "out", kept)
    truth = truth_of(masks, root)
    row, said = looped("held out", masks, truth, run)
    assert len(row) == len(LOOP_HEAD)
    assert len(said) == sum(map(len, truth.values())) == 3
    assert {each["image"] for each in said} == set(truth)
    images = [root / image for image in truth]
    assert len(annotated(images, (), truth, run)) == len(ANNOTATE_HEAD)
    text = (kept / "annotated_without_names.json").read_text(encoding="utf-8")
    assert str(root) not in text
    assert str(tmp_path) not in text
    assert {image["file_name"] for image in json.loads(text)["images"]} <= set(truth)


def test_real_frames(shared_data, tmp_path):
    from harness import write_random_segmenter
    from real_steps import TRACK_HEAD, Run, tracked

    model = write_random_segmenter(tmp_path / "model")
    root, kept = shared_data.resolve(), tmp_path / "examples"
    run = Run(str(model), "a random one", "builtin", 0.0, 0.0, root, tmp_path / "out", kept)
    rows = tracked(root / "demo_photos" / "video_bedroom", ("the bed",), run)
    assert [len(row) for row in rows] == [len(TRACK_HEAD)]
    (phrase,) = json.loads((kept / "tracks_video_bedroom.json").read_text(encoding="utf-8"))["phrases"]
    assert len(phrase["areas_px"]) == len(phrase["scores"]) == 20


def test_a_path_of_this_machine_is_never_kept(tmp_path):
    from real_examples import write_example

    with pytest.raises(ValueError, match="holds the path"):
        write_example(tmp_path / "example.json", [{"image": f"{tmp_path}/a.jpg"}], [tmp_path])
    assert not (tmp_path / "example.json").exists()
