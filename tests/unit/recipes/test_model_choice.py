"""The built-in models are for generated scenes: on photographs a model is named, and one of shapes is warned of."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from deixis.errors import OptionError
from deixis.models.builtin import builtin_folder
from deixis.models.checkpoints import load_any_detector
from deixis.models.model_record import ModelRecord, read_record
from deixis.options.annotate import AnnotateOptions
from deixis.options.checks import are_generated
from deixis.options.detect_eval import DetectEvalOptions
from deixis.options.detect_predict import DetectPredictOptions
from deixis.options.detect_train import DetectTrainOptions
from deixis.options.refer_caption import ReferCaptionOptions
from deixis.options.refer_cycle import ReferCycleOptions
from deixis.options.refer_eval import ReferEvalOptions
from deixis.options.refer_predict import ReferPredictOptions
from deixis.options.refer_track import ReferTrackOptions
from deixis.options.refer_train import ReferTrainOptions
from deixis.recipes.detect.evaluate import evaluate_detector
from deixis.recipes.detect.predict import predict_detector
from deixis.recipes.model.choice import knowing, warn_of_shapes
from deixis.recipes.run import outputs

SCENES = "scenes:split=demo_val,count=2,seed=2"
PHOTOGRAPHS = {
    "detect train": lambda **more: DetectTrainOptions(data=("labels.json",), **more),
    "detect train, dry": lambda **more: DetectTrainOptions(data=("labels.json",), dry_run=True, **more),
    "detect train, mixed": lambda **more: DetectTrainOptions(data=(SCENES, "labels.json"), **more),
    "detect eval": lambda **more: DetectEvalOptions(data="labels.json", **more),
    "detect predict": lambda **more: DetectPredictOptions(images=(Path("photos"),), names=("cat",), **more),
    "refer train": lambda **more: ReferTrainOptions(data=("phrases.json",), **more),
    "refer train, a folder": lambda **more: ReferTrainOptions(data=(SCENES,), refcoco_dir=Path("refcoco"), **more),
    "refer eval": lambda **more: ReferEvalOptions(data=("phrases.json",), **more),
    "refer predict": lambda **more: ReferPredictOptions(images=(Path("photos"),), phrases=("a cat",), **more),
    "refer track": lambda **more: ReferTrackOptions(video=Path("film.mp4"), phrases=("a cat",), **more),
    "refer track, measured": lambda **more: ReferTrackOptions(data="DAVIS", **more),
    "refer caption": lambda **more: ReferCaptionOptions(masks="masks.json", **more),
    "refer cycle": lambda **more: ReferCycleOptions(masks="masks.json", **more),
}
GENERATED = {
    "detect train": lambda **more: DetectTrainOptions(data=(SCENES,), **more),
    "detect eval": lambda **more: DetectEvalOptions(data=SCENES, **more),
    "refer train": lambda **more: ReferTrainOptions(data=("scenes:split=refer_train,count=4,seed=1",), **more),
    "refer caption": lambda **more: ReferCaptionOptions(masks="scenes:split=refer_seen,count=4,seed=1", **more),
    "refer track": lambda **more: ReferTrackOptions(data="scenes:split=clip_seen,count=1,seed=1", **more),
}


@pytest.fixture(autouse=True)
def forget_warnings():
    outputs.warn_once.cache_clear()


@pytest.mark.parametrize("options", PHOTOGRAPHS.values(), ids=PHOTOGRAPHS)
def test_on_a_user_s_pictures_a_model_has_to_be_named(options):
    with pytest.raises(OptionError, match=r"^--model is required: a released model, as in --model \w+[-\w]*/\S+, or"):
        options().check()
    options(model="somebody/model").check()
    options(model="builtin").check()


@pytest.mark.parametrize("options", GENERATED.values(), ids=GENERATED)
def test_on_generated_scenes_the_built_in_one_is_the_default(options):
    assert options().model == "builtin"
    assert options(model="mine").model == "mine"


def test_annotate_asks_for_what_it_uses():
    with pytest.raises(OptionError, match=r"^--segmenter is required"):
        AnnotateOptions(images=(Path("photos"),)).check()
    with pytest.raises(OptionError, match=r"^--detector is required"):
        AnnotateOptions(images=(Path("photos"),), names=("cat",), segmenter="a/b").check()
    AnnotateOptions(images=(Path("photos"),), segmenter="a/b").check()  # without names there is no detector


def test_sources_of_every_form():
    assert are_generated(SCENES, None, (), "")
    assert not are_generated()
    assert not are_generated(None, "")
    assert not are_generated((SCENES,), "photos")


def test_a_model_of_shapes_is_warned_of_once(capsys):
    for _ in range(2):
        warn_of_shapes(ModelRecord(domain="generated"), "mine", "--model a/b", ("photos",))
    warn_of_shapes(ModelRecord(domain="generated"), "mine", "--model a/b", SCENES)
    warn_of_shapes(ModelRecord(), "mine", "--model a/b", ("photos",))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("deixis: warning: mine has learned from generated shapes only")


def test_training_on_photographs_teaches_photographs():
    bundle = load_any_detector("builtin")
    assert bundle.record.domain == "generated"
    assert knowing(bundle, "builtin", "a/b", SCENES).record.domain == "generated"
    assert knowing(bundle, "builtin", "a/b", ("labels.json",)).record.domain == "photographs"


@pytest.mark.parametrize("kind", ["detector", "segmenter"])
def test_the_built_in_models_say_what_they_know(kind):
    record = read_record(builtin_folder(kind))
    assert (record.task, record.domain) == (kind, "generated")


def test_predict_and_eval_warn(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.full((64, 64, 3), 128, np.uint8))
    values = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 64}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "area": 1200, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "star"}],
    }
    (tmp_path / "labels.json").write_text(json.dumps(values), encoding="utf-8")
    out = tmp_path / "out"
    predict_detector(
        DetectPredictOptions(images=(tmp_path / "a.jpg",), names=("star",), model="builtin", output=out, device="cpu")
    )
    outputs.warn_once.cache_clear()
    evaluate_detector(DetectEvalOptions(data=str(tmp_path / "labels.json"), model="builtin", device="cpu"))
    evaluate_detector(DetectEvalOptions(data=SCENES, device="cpu"))
    lines = [line for line in capsys.readouterr().err.splitlines() if "generated shapes only" in line]
    assert len(lines) == 2


def test_a_folder_without_a_record_works_as_before(tmp_path, capsys):
    folder = shutil.copytree(builtin_folder("detector"), tmp_path / "model")
    (folder / "deixis.json").unlink()
    assert load_any_detector(folder).record == ModelRecord()
    evaluate_detector(DetectEvalOptions(data=SCENES, model=str(folder), device="cpu"))
    assert "warning" not in capsys.readouterr().err
