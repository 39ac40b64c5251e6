"""From logits and boxes to detections: scores, frames, order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deixis.batch_records import Prompt
from deixis.errors import ModelError
from deixis.inference.detect.postprocess import class_scores, postprocess

LENGTH = 12
WHOLE = [0.5, 0.5, 1.0, 1.0]


def _prompt(rows: dict[str, list[int]], tokens: int = 8) -> Prompt:
    """A prompt whose names have the given token positions."""
    positive_map = np.zeros((len(rows), tokens), np.float32)
    for row, positions in zip(positive_map, rows.values(), strict=True):
        row[positions] = 1 / len(positions)
    return Prompt("unused.", tuple(rows), ((0, 1),) * len(rows), tuple(range(tokens)), positive_map)


def _outputs(token_probabilities: list[list[float]], boxes: list[list[float]]) -> dict[str, torch.Tensor]:
    """One image's outputs with the given sigmoids on its tokens and padding after them."""
    logits = torch.full((1, len(token_probabilities), LENGTH), -torch.inf)
    logits[0, :, : len(token_probabilities[0])] = torch.tensor(token_probabilities).logit()
    return {"pred_logits": logits, "pred_boxes": torch.tensor([boxes])}


# [CLS] hot dog . dog . [SEP]
HOT_DOG = _prompt({"hot dog": [1, 2], "dog": [4]}, tokens=7)


def test_score_is_the_mean_over_the_names_tokens() -> None:
    """Fault K: with the maximum over tokens, 'hot dog' would score 0.9 and win over 'dog'."""
    outputs = _outputs([[0.5, 0.1, 0.9, 0.5, 0.8, 0.5, 0.5]], [WHOLE])
    (found,) = postprocess(outputs, [HOT_DOG], [(10, 40)])
    assert found.labels == ["dog", "hot dog"]
    np.testing.assert_allclose(found.scores, [0.8, 0.5], atol=1e-6)


def test_labels_are_whole_names_even_where_one_token_fires() -> None:
    """Fault K: decoding the firing tokens would return 'dog' for the one and '##s' for the other."""
    prompt = _prompt({"hot dog": [1, 2], "st. bernards": [4, 5, 6]})
    outputs = _outputs([[0.0, 0.0, 0.9, 0.0, 0.0, 0.0, 0.9, 0.0]], [WHOLE])
    (found,) = postprocess(outputs, [prompt], [(10, 40)])
    assert set(found.labels) == {"hot dog", "st. bernards"}
    assert found.names == ("hot dog", "st. bernards")


def test_tokens_outside_the_names_do_not_score() -> None:
    outputs = _outputs([[0.99, 0.2, 0.2, 0.99, 0.3, 0.99, 0.99]], [WHOLE])
    (found,) = postprocess(outputs, [HOT_DOG], [(10, 40)])
    np.testing.assert_allclose(found.scores, [0.3, 0.2], atol=1e-6)


def test_padding_of_minus_infinity_gives_finite_scores() -> None:
    logits = torch.full((1, 3, LENGTH), -torch.inf)
    logits[..., :7] = 0
    maps = torch.zeros(1, 2, LENGTH)
    maps[0, :, :7] = torch.from_numpy(HOT_DOG.positive_map)
    assert class_scores(logits, maps).tolist() == [[[0.5, 0.5]] * 3]


def test_boxes_are_pixels_of_the_original_image_cut_at_its_edges() -> None:
    outputs = _outputs([[0.5, 0.9, 0.9, 0.5, 0.1, 0.5, 0.5]] * 2, [[0.5, 0.5, 0.5, 0.2], [0.0, 1.0, 0.4, 0.4]])
    (found,) = postprocess(outputs, [HOT_DOG], [(10, 40)], max_detections=2)
    assert found.size_hw == (10, 40)
    boxes = found.boxes_xyxy_px[np.argsort(found.boxes_xyxy_px[:, 0])]
    np.testing.assert_allclose(boxes, [[0, 8, 8, 10], [10, 4, 30, 6]], atol=1e-5)


def test_one_query_may_answer_for_several_names_best_first() -> None:
    outputs = _outputs([[0, 0.8, 0.8, 0, 0.7, 0, 0], [0, 0.2, 0.2, 0, 0.75, 0, 0]], [WHOLE, WHOLE])
    (found,) = postprocess(outputs, [HOT_DOG], [(10, 40)], max_detections=3)
    assert found.labels == ["hot dog", "dog", "dog"]
    np.testing.assert_allclose(found.scores, [0.8, 0.75, 0.7], atol=1e-6)


def test_one_query_one_name_and_a_generous_limit() -> None:
    outputs = _outputs([[0.1, 0.6]], [WHOLE])
    (found,) = postprocess(outputs, [_prompt({"cat": [1]}, tokens=2)], [(3, 2)], max_detections=1000)
    assert len(found) == 1
    assert found.boxes_xyxy_px.tolist() == [[0, 0, 2, 3]]


def test_images_of_a_batch_keep_their_own_prompts_and_sizes() -> None:
    one, two = _prompt({"cat": [1]}, tokens=3), HOT_DOG
    first = _outputs([[0.5, 0.01, 0.5]], [WHOLE])
    second = _outputs([[0.5, 0.3, 0.5, 0.5, 0.6, 0.5, 0.5]], [WHOLE])
    batch = {key: torch.cat([first[key], second[key]]) for key in first}
    together = postprocess(batch, [one, two], [(10, 40), (7, 5)], image_ids=[31, 4])
    for found, outputs, prompt, size_hw in zip(together, [first, second], [one, two], [(10, 40), (7, 5)], strict=True):
        (alone,) = postprocess(outputs, [prompt], [size_hw])
        assert found.labels == alone.labels
        np.testing.assert_array_equal(found.boxes_xyxy_px, alone.boxes_xyxy_px)
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-7)
    assert [found.image_id for found in together] == [31, 4]
    assert together[0].labels == ["cat"]


@pytest.mark.parametrize("damaged", ["pred_logits", "pred_boxes"])
def test_outputs_that_are_not_finite_are_an_error(damaged: str) -> None:
    outputs = _outputs([[0.5] * 7], [WHOLE])
    outputs[damaged][0, 0, 1] = torch.nan
    with pytest.raises(ModelError, match="not finite"):
        postprocess(outputs, [HOT_DOG], [(10, 40)])
