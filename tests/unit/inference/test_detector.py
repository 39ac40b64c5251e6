"""The detector as users call it, on a small one with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deixis.errors import DataError, ModelError, OptionError, PromptError
from deixis.inference.detect import batch as grounding
from deixis.inference.detect.detector import Detector, load_detector
from deixis.models.adapters import add_lora, save_adapter
from deixis.models.grounding_dino import init_bundle, save_grounding_dino
from deixis.models.grounding_dino.small import small_config, small_tokenizer
from deixis.models.model_record import ModelRecord
from deixis.records import Instances, Sample, SampleList, Vocabulary
from deixis.results.detections import Detections

NAMES = ["red circle", "blue square", "cat"]


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(3)
    tokenizer = small_tokenizer(["red", "circle"])
    return Detector(init_bundle(small_config(len(tokenizer)), tokenizer, image_size=(64, 96)))


def _pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _dataset(sizes_hw: list[tuple[int, int]]) -> SampleList:
    vocabulary = Vocabulary(tuple(NAMES))
    samples = tuple(
        Sample(
            _pixels(*size_hw, seed=i), size_hw, Instances.build([[1.0, 2, 30, 9]], [i % 3]), vocabulary, image_id=40 + i
        )
        for i, size_hw in enumerate(sizes_hw)
    )
    return SampleList(samples, vocabulary)


def _same(a: Detections, b: Detections) -> None:
    assert a.labels == b.labels
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)
    np.testing.assert_allclose(a.boxes_xyxy_px, b.boxes_xyxy_px, atol=1e-2)


def test_paths_pil_images_and_arrays_give_the_same(detector: Detector, tmp_path: Path) -> None:
    pixels = _pixels(40, 120)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    images = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels]
    found = detector.predict(images, NAMES, threshold=0, max_detections=7)
    assert [len(f) for f in found] == [7] * 4
    assert [f.image_id for f in found] == [0, 1, 2, 3]
    for other in found[1:]:
        _same(found[0], other)


def test_boxes_lie_in_the_original_frame(detector: Detector) -> None:
    (found,) = detector.predict([_pixels(300, 75)], NAMES, threshold=0)
    assert found.size_hw == (300, 75)
    assert (found.boxes_xyxy_px >= 0).all()
    assert found.boxes_xyxy_px[:, 2].max() <= 75
    assert 75 < found.boxes_xyxy_px[:, 3].max() <= 300
    assert (np.diff(found.scores) <= 0).all()


def test_batching_changes_nothing(detector: Detector) -> None:
    """Nor do neighbours of other sizes: padding, which the backbone would see, is never added."""
    images = [_pixels(40, 120, 0), _pixels(120, 40, 1), _pixels(40, 120, 2), _pixels(64, 96, 3)]
    together = detector.predict(images, NAMES, threshold=0, max_detections=5, batch_size=4)
    for image, found in zip(images, together, strict=True):
        (alone,) = detector.predict([image], NAMES, threshold=0, max_detections=5)
        _same(found, alone)


def test_thresholds_of_the_models_record_are_used_unless_one_is_given(detector: Detector, monkeypatch) -> None:
    (everything,) = detector.predict([_pixels(64, 64)], NAMES, threshold=0)
    middle = {name: float(np.median(everything.scores[everything.class_ids == i])) for i, name in enumerate(NAMES)}
    least = dict(zip(NAMES, [middle["red circle"], middle["blue square"], 0.3], strict=True))  # "cat" is new to it
    record = ModelRecord(
        names=("red circle", "blue square"),
        thresholds={"score": middle["blue square"]},
        class_thresholds={"red circle": middle["red circle"]},
    )
    monkeypatch.setattr(detector, "bundle", replace(detector.bundle, record=record))
    (found,) = detector.predict([_pixels(64, 64)], NAMES)
    expected = everything[everything.scores >= np.asarray([least[name] for name in everything.labels])]
    assert found.labels == expected.labels
    assert {"red circle", "blue square"} <= set(found.labels)
    assert len(detector.predict([_pixels(64, 64)], NAMES, threshold=0)[0]) == len(everything) > len(found)


def test_threshold_leaves_out_what_scores_less(detector: Detector) -> None:
    (everything,) = detector.predict([_pixels(64, 64)], NAMES, threshold=0)
    middle = float(everything.scores[len(everything) // 2])
    (some,) = detector.predict([_pixels(64, 64)], NAMES, threshold=middle)
    assert 0 < len(some) < len(everything)
    assert some.scores.min() >= middle


def test_no_images_give_no_detections(detector: Detector) -> None:
    assert detector.predict([], NAMES) == []


def test_wrong_calls_say_what_to_write(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"write \['cat'\]"):
        detector.predict([_pixels(8, 8)], "cat")
    with pytest.raises(DataError, match=r"a\.jpg: no such file or folder"):
        detector.predict("a.jpg", NAMES)
    with pytest.raises(DataError, match="images is a int; expected a path"):
        detector.predict(8, NAMES)
    with pytest.raises(OptionError, match=r"between 0 and 1, got 30"):
        detector.predict([_pixels(8, 8)], NAMES, threshold=30)
    with pytest.raises(OptionError, match="at least 1"):
        detector.predict([_pixels(8, 8)], NAMES, batch_size=0)
    with pytest.raises(DataError, match="absent"):
        detector.predict([tmp_path / "absent.jpg"], NAMES)
    with pytest.raises(DataError, match="values of float64 must lie in"):
        detector.predict([np.full((8, 8, 3), -1.5)], NAMES)


def test_a_stream_reads_a_batch_ahead_and_no_more(detector: Detector) -> None:
    taken: list[int] = []

    def endless() -> Iterator[np.ndarray]:
        while True:
            taken.append(len(taken))
            yield _pixels(16, 24, seed=len(taken))

    stream = detector.stream(endless(), NAMES, 0.0, max_detections=2, batch_size=2)
    first, second, third = (next(stream) for _ in range(3))
    assert len(taken) <= 6
    assert [first.image_id, second.image_id, third.image_id] == [0, 1, 2]
    assert first.pixels().shape == (16, 24, 3)
    _same(second, detector.predict(_pixels(16, 24, seed=2), NAMES, 0.0, max_detections=2)[0])


def test_what_came_before_a_stream_broke_off_is_given(detector: Detector) -> None:
    def broken() -> Iterator[np.ndarray]:
        for seed in range(3):
            yield _pixels(16, 24, seed=seed)
        raise DataError("the camera is gone")

    found = []
    with pytest.raises(DataError, match="the camera is gone"):
        found.extend(detector.stream(broken(), NAMES, 0.0, max_detections=2, batch_size=2))
    assert [one.image_id for one in found] == [0, 1, 2]


def test_a_stream_leaves_out_what_cannot_be_read(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"no image")
    left: list[str] = []
    found = detector.stream(
        [_pixels(8, 8), tmp_path / "b.jpg", _pixels(8, 9)],
        NAMES,
        unreadable=lambda picture, error: left.append(f"{picture.name}: {error}"),
    )
    assert [(one.image_id, one.size_hw) for one in found] == [(0, (8, 8)), (1, (8, 9))]
    assert len(left) == 1
    assert "b.jpg" in left[0]


def test_dataset_predictions_carry_ids_and_report_progress(detector: Detector) -> None:
    calls: list[tuple[int, int]] = []
    data = _dataset([(40, 120), (120, 40), (64, 64)])
    found = detector.predict_dataset(data, batch_size=2, progress=lambda done, total: calls.append((done, total)))
    assert [f.image_id for f in found] == [40, 41, 42]
    assert calls == [(2, 3), (3, 3)]
    (only,) = detector.predict_dataset(data, indices=[2])
    _same(only, found[2])


def test_samples_of_one_data_set_may_ask_for_different_names(detector: Detector) -> None:
    data = _dataset([(64, 64), (64, 64)])
    other = data.samples[1].evolve(vocabulary=Vocabulary(("a hot dog", *NAMES)), instances=Instances.none())
    found = detector.predict_dataset(SampleList((data.samples[0], other), data.vocabulary), batch_size=2)
    assert [len(f.names) for f in found] == [3, 4]
    _same(found[0], detector.predict_dataset(data, indices=[0])[0])


def test_perfect_detections_evaluate_to_one(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    """`evaluate` scores in the original frame, whatever size the model sees."""
    data = _dataset([(40, 120), (200, 400)])
    by_id = {sample.image_id: sample.instances for sample in data.samples}

    def perfect(
        outputs: object, prompts: object, sizes: object, *, max_detections: int, image_ids: list[int]
    ) -> list[Detections]:
        return [Detections(by_id[i].boxes_xyxy_px, np.ones(1), by_id[i].class_ids, tuple(NAMES), i) for i in image_ids]

    monkeypatch.setattr(grounding, "postprocess", perfect)
    metrics, found = detector.evaluate(data)
    assert (metrics.AP, metrics.images, metrics.boxes, len(found)) == (1, 2, 2, 2)
    metrics, found = detector.evaluate(data, limit=1)
    assert (metrics.AP, metrics.images, len(found)) == (1, 1, 1)


def test_data_without_objects_cannot_be_evaluated(detector: Detector) -> None:
    empty = Sample(_pixels(64, 64), (64, 64), Instances.none(), Vocabulary(tuple(NAMES)))
    with pytest.raises(DataError, match="AP cannot be measured"):
        detector.evaluate(SampleList((empty,), empty.vocabulary))


def test_every_module_keeps_its_mode(detector: Detector) -> None:
    model = detector.bundle.model
    model.train()
    frozen = next(model.children())
    frozen.eval()
    modes = [module.training for module in model.modules()]
    assert len(set(modes)) == 2
    detector.predict([_pixels(64, 64)], NAMES)
    assert [module.training for module in model.modules()] == modes


def test_written_detector_loads_and_predicts_the_same(detector: Detector, tmp_path: Path) -> None:
    save_grounding_dino(detector.bundle, tmp_path / "model")
    again = load_detector(tmp_path / "model", device="cpu")
    images = [_pixels(40, 120)]
    _same(again.predict(images, NAMES, threshold=0)[0], detector.predict(images, NAMES, threshold=0)[0])


def test_adapter_folder_loads_with_its_base(detector: Detector, tmp_path: Path) -> None:
    save_grounding_dino(detector.bundle, tmp_path / "base")
    adapted = load_detector(tmp_path / "base", device="cpu")
    add_lora(adapted.bundle.model, rank=2)
    with torch.no_grad():
        for name, parameter in adapted.bundle.model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    save_adapter(adapted.bundle.model, tmp_path / "adapter", base=str(tmp_path / "base"))
    images = [_pixels(40, 120)]
    expected = adapted.predict(images, NAMES, threshold=0)[0]
    again = load_detector(tmp_path / "adapter", device="cpu")
    _same(again.predict(images, NAMES, threshold=0)[0], expected)
    before = detector.predict(images, NAMES, threshold=0)[0]
    assert not np.allclose(before.scores, expected.scores, atol=1e-4), "the adapter must have changed something"
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace(str(tmp_path / "base"), ""))
    with pytest.raises(ModelError, match="names no model"):
        load_detector(tmp_path / "adapter")


def test_absent_model_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        load_detector(tmp_path / "nowhere")


def test_wordings_are_one_class(detector: Detector) -> None:
    """The best wording's score in one place; the classes of the others are those of a vocabulary of all wordings."""
    wordings = {"shape": ["red circle", "blue square"], "cat": "cat"}
    (each,) = detector.predict([_pixels(64, 64)], NAMES, threshold=0, max_detections=200)
    (found,) = detector.predict([_pixels(64, 64)], wordings, threshold=0, max_detections=200)
    assert found.names == ("shape", "cat")
    assert found.boxes_xyxy_px[found.class_ids == 1].tolist() == each.boxes_xyxy_px[each.class_ids == 2].tolist()
    of_shape = each[each.class_ids < 2]
    for box, score in zip(found.boxes_xyxy_px[found.class_ids == 0], found.scores[found.class_ids == 0], strict=True):
        same = (of_shape.boxes_xyxy_px == box).all(1)
        assert same.sum() == 2  # one query, both wordings
        assert score == of_shape.scores[same].max()
    (few,) = detector.predict([_pixels(64, 64)], wordings, threshold=0, max_detections=3)
    assert few.scores.tolist() == found.scores[:3].tolist()


def test_a_wording_given_twice_is_asked_for_once(detector: Detector) -> None:
    once, twice = (
        detector.predict([_pixels(64, 64)], {"cat": words}, threshold=0) for words in (["cat"], ["cat", "cat"])
    )
    assert once == twice


def test_wordings_of_the_record_are_used_and_split_over_prompts(detector: Detector) -> None:
    record = ModelRecord(names=("shape",), wordings={"shape": ["red circle", "blue square", "cat"]})
    of_record = Detector(replace(detector.bundle, record=record), prompt_names=1)
    (found,) = of_record.predict([_pixels(64, 64)], threshold=0)
    (each,) = Detector(detector.bundle, prompt_names=1).predict([_pixels(64, 64)], NAMES, threshold=0)
    assert set(found.labels) == {"shape"}
    assert found.scores[0] == each.scores[0]
    metrics, _ = of_record.evaluate(SampleList(_dataset([(64, 64)]).samples[:1], Vocabulary(tuple(NAMES))))
    assert list(metrics.per_class) == ["red circle"]  # names of the data that the record does not have
    with pytest.raises(PromptError, match="is a wording of"):
        detector.predict([_pixels(64, 64)], {"a": ["cat"], "b": ["cat"]})


def test_boxes_suppress_each_other_where_asked(detector: Detector) -> None:
    (everything,) = detector.predict([_pixels(64, 64)], NAMES, threshold=0)
    for across in (False, True):
        chosen = Detector(detector.bundle, nms=0.05, across_classes=across)
        (found,) = chosen.predict([_pixels(64, 64)], NAMES, threshold=0)
        _same(found, everything.with_nms(0.05, class_agnostic=across))
        assert len(found) < len(everything)
    with pytest.raises(OptionError, match="nms: expected a number above 0"):
        Detector(detector.bundle, nms=0.0)


def test_scores_are_calibrated_as_the_record_says(detector: Detector) -> None:
    (plain,) = detector.predict([_pixels(64, 64)], NAMES, threshold=0)
    record = ModelRecord(calibration={"temperature": 0.5, "shift": 1.0})
    (found,) = Detector(replace(detector.bundle, record=record)).predict([_pixels(64, 64)], NAMES, threshold=0)
    assert found.boxes_xyxy_px.tolist() == plain.boxes_xyxy_px.tolist()
    logits = np.log(plain.scores / (1 - plain.scores))
    np.testing.assert_allclose(found.scores, 1 / (1 + np.exp(-2 * logits - 1)), rtol=1e-9)
