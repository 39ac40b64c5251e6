"""The built-in detector as it is shipped: small, known words in unseen pairs found, readable by transformers."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer, MMGroundingDinoForObjectDetection

from deixis import load_detector
from deixis.data.scenes.images import scenes
from deixis.models.builtin import builtin_folder

CHECK_SEED = 77  # neither the seed of its training scenes (1) nor of its validation scenes (2)


@pytest.mark.slow
def test_known_words_in_unseen_pairs_are_found() -> None:
    metrics, _ = load_detector("builtin").evaluate(scenes("unseen_pairs", 80, CHECK_SEED), batch_size=8)
    assert metrics.as_dict()["AP"] >= 0.5


def test_it_is_small() -> None:
    size = sum(path.stat().st_size for path in builtin_folder("detector").rglob("*") if path.is_file())
    assert size < 15_000_000


def test_transformers_reads_it_whole() -> None:
    model, information = MMGroundingDinoForObjectDetection.from_pretrained(
        builtin_folder("detector"), output_loading_info=True
    )
    assert not information["missing_keys"]
    assert not information["unexpected_keys"]
    assert not information["mismatched_keys"]
    tokenizer = AutoTokenizer.from_pretrained(builtin_folder("detector"))
    assert tokenizer("red star. ?")["input_ids"][0] == 101
    assert tokenizer("red star. ?")["input_ids"][-3:] == [1012, 1029, 102]
    assert model.config.text_config.vocab_size == len(tokenizer)


def test_a_class_is_found_in_one_picture() -> None:
    """The three lines of the README, on a picture of one plain thing."""
    dataset = scenes("seen_pairs", 400, CHECK_SEED)
    alone = next(dataset[i] for i in range(400) if len(dataset[i].instances) == 1)
    name = alone.vocabulary.names[int(alone.instances.class_ids[0])]
    detector = load_detector("builtin")
    (found,) = detector.predict([alone.image], [name, "brown ring" if name != "brown ring" else "red star"])
    assert found.labels[0] == name
