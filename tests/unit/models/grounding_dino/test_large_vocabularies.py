"""More names than a prompt holds: asked in several, merged, each image and each prompt encoded once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import nn

from deixis.data.detect.chunking import chunk_prompts
from deixis.inference.detect.detector import Detector
from deixis.inference.detect.postprocess import merge_detections
from deixis.models.grounding_dino import init_bundle
from deixis.models.grounding_dino.small import small_config, small_tokenizer
from deixis.records import Instances, Sample, SampleList, Vocabulary
from deixis.results.detections import Detections

WORDS = ("red", "blue", "green", "circle", "square", "star", "ring", "cross")
NAMES = tuple(f"{first} {second}" for first in WORDS for second in WORDS if first != second)


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(3)
    tokenizer = small_tokenizer(WORDS)
    return Detector(init_bundle(small_config(len(tokenizer)), tokenizer, image_size=(64, 96)), prompt_names=8)


def pictures(count: int, names: tuple[str, ...] = NAMES, size_hw: tuple[int, int] = (40, 60)) -> SampleList:
    vocabulary = Vocabulary(names)
    pixels = np.random.default_rng(0).integers(0, 256, (count, *size_hw, 3), dtype=np.uint8)
    samples = tuple(Sample(pixels[i], size_hw, Instances.none(), vocabulary, image_id=i) for i in range(count))
    return SampleList(samples, vocabulary)


@pytest.fixture
def calls(detector: Detector) -> Counter[str]:
    """Images that the backbone has seen, prompts that the text encoder has seen, pairs that the decoder has seen."""
    seen: Counter[str] = Counter()
    trunk = detector.bundle.model.model

    def count(name: str, argument: Callable[[tuple[object, ...], dict[str, object]], object]) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
            tensor = argument(args, kwargs)
            assert isinstance(tensor, torch.Tensor)
            seen[name] += len(tensor)

        return hook

    handles = [
        trunk.backbone.register_forward_pre_hook(count("images", lambda a, k: a[0]), with_kwargs=True),
        trunk.text_backbone.register_forward_pre_hook(count("prompts", lambda a, k: k["input_ids"]), with_kwargs=True),
        trunk.decoder.register_forward_pre_hook(count("pairs", lambda a, k: a[0]), with_kwargs=True),
    ]
    trunk.prompt_cache._features.clear()
    yield seen  # type: ignore[misc]  # a fixture
    for handle in handles:
        handle.remove()


def test_backbone_runs_once_an_image_and_text_encoder_once_a_prompt(detector: Detector, calls: Counter[str]) -> None:
    detector.predict_dataset(pictures(5), batch_size=2)
    assert calls == {"images": 5, "prompts": 7, "pairs": 35}


def test_more_prompts_than_were_remembered_are_still_encoded_once(detector: Detector, calls: Counter[str]) -> None:
    detector.bundle.model.model.prompt_cache.capacity = 3
    detector.predict_dataset(pictures(4), batch_size=1)
    assert calls["prompts"] == 7


def test_many_prompts_take_no_more_rows_at_a_time_than_there_are_images(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    ground = detector.bundle.model.ground
    monkeypatch.setattr(detector.bundle.model, "ground", lambda p, c: rows.append(len(p.tokens)) or ground(p, c))
    detector.predict_dataset(pictures(5), batch_size=3)
    assert rows == [3] * 7 + [2] * 7


def test_the_best_over_all_prompts_are_those_of_brute_force(detector: Detector) -> None:
    """Every prompt asked by itself, everything kept, sorted."""
    data = pictures(2)
    found = detector.predict_dataset(data, max_detections=37, batch_size=2)
    for image in range(2):
        scores, names = [], []
        for prompt in chunk_prompts(NAMES, detector.bundle.prompt_tokenizer, 256, 8):
            alone = SampleList(
                (data.samples[image].evolve(vocabulary=Vocabulary(prompt.names)),), Vocabulary(prompt.names)
            )
            (part,) = detector.predict_dataset(alone, max_detections=10_000)
            assert len(part) == 50 * 8, "nothing is left out"
            scores += part.scores.tolist()
            names += part.labels
        order = np.argsort(-np.asarray(scores), kind="stable")[:37]
        assert found[image].names == NAMES
        np.testing.assert_allclose(found[image].scores, np.asarray(scores)[order], atol=1e-6)
        apart = np.abs(np.diff(found[image].scores, prepend=2, append=-1)) > 1e-6
        clear = apart[:-1] & apart[1:]  # ties may come in any order
        assert clear.sum() > 20
        expected = np.array(names)[order]
        np.testing.assert_array_equal(np.array(found[image].labels)[clear], expected[clear])


def test_images_with_vocabularies_of_different_sizes_share_a_batch(detector: Detector) -> None:
    many, few = pictures(1).samples[0], pictures(1, NAMES[:3]).samples[0].evolve(image_id=1)
    together = detector.predict_dataset(SampleList((few, many, few), many.vocabulary), batch_size=3)
    for sample, found in zip((few, many), together, strict=False):
        (alone,) = detector.predict_dataset(SampleList((sample,), sample.vocabulary))
        assert found.names == sample.vocabulary.names
        assert found.image_id == sample.image_id
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-5)


def test_a_vocabulary_that_fits_is_not_cut(detector: Detector) -> None:
    """Prompts limited to exactly its size give what no limit gives; the bits, since nothing differs."""
    few = pictures(2, NAMES[:8])
    free = Detector(detector.bundle)
    for one, other in zip(detector.predict_dataset(few), free.predict_dataset(few), strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)
        np.testing.assert_array_equal(one.class_ids, other.class_ids)


def part(scores: list[float], class_ids: list[int], names: tuple[str, ...]) -> Detections:
    boxes: Float[np.ndarray, "n 4"] = np.asarray([[0, 0, score, 1] for score in scores], float).reshape(-1, 4)
    return Detections(boxes, np.asarray(scores, float), np.asarray(class_ids, np.int64), names, 7, (30, 40))


def test_merged_detections_are_the_best_with_class_ids_counted_through() -> None:
    merged = merge_detections(
        [part([0.9, 0.2], [1, 0], ("a", "b")), part([], [], ("c",)), part([0.5, 0.4], [0, 1], ("d", "e"))], 3
    )
    assert merged.labels == ["b", "d", "e"]
    assert merged.class_ids.tolist() == [1, 3, 4]
    assert merged.boxes_xyxy_px[:, 2].tolist() == merged.scores.tolist() == [0.9, 0.5, 0.4]
    assert (merged.image_id, merged.size_hw) == (7, (30, 40))
