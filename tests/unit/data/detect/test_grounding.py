"""Sentences as prompts: phrases found in their caption, tokens of phrases, boxes of several phrases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bert_tokenizer import BertPromptTokenizer
from PIL import Image

from deixis.data.detect.collate import collate, join_phrases
from deixis.data.detect.grounding import build_sentence_prompt, locate_phrases, sentence_prompt
from deixis.data.detect.transforms import train_transform
from deixis.data.findings import Findings
from deixis.data.formats.odvg.read import read_odvg
from deixis.data.formats.writing import write_dataset
from deixis.errors import DataError, PromptError
from deixis.losses.detection import build_criterion
from deixis.losses.packing import pack_targets
from deixis.recipes.detect.data.prompts import TrainingPrompts
from deixis.records import Instances, Sample, Vocabulary

SENTENCE = "A man in a red shirt walks his dog past a hot dog stand"


@pytest.fixture(scope="module")
def tokenizer():
    return BertPromptTokenizer()


def sample(phrases: dict[str, tuple[tuple[int, int], ...]], objects: Any, caption: str = SENTENCE) -> Sample:
    boxes, ids = [box for box, _ in objects], [list(phrases).index(phrase) for _, phrase in objects]
    return Sample(
        np.zeros((40, 60, 3), np.uint8),
        (40, 60),
        Instances.build(boxes, ids),
        Vocabulary(tuple(phrases)),
        caption=caption,
        phrase_spans=tuple(phrases.values()),
    )


def words(prompt: Any, row: Any, tokenizer: Any) -> list[str]:
    """The text of the tokens that a row marks."""
    _, offsets = tokenizer(prompt.caption)
    return [prompt.caption[slice(*offsets[i])] for i in np.flatnonzero(np.asarray(row))]


def test_phrases_are_found_as_whole_words_whatever_their_case():
    assert locate_phrases("The cat. A scattered CAT's toy", ["the cat", "toy"], {}) == (((0, 7),), ((27, 30),))
    assert locate_phrases("concatenate a cat", ["cat"], {}) == (((14, 17),),)
    assert locate_phrases("a  red\ncar", ["red car"], {}) == (((3, 10),),)


def test_a_phrase_within_a_longer_one_is_looked_for_outside_it():
    assert locate_phrases("a hot dog and a dog", ["dog", "a hot dog"], {}) == (((16, 19),), ((0, 9),))
    assert locate_phrases("the man in red", ["the man", "the man in red"], {}) == (((0, 7),), ((0, 14),))


def test_offsets_count_where_they_say_the_phrase():
    caption = "a dog chases a dog"
    assert locate_phrases(caption, ["a dog"], {"a dog": ((13, 18),)}) == (((13, 18),),)
    parts = {"red and blue": ((0, 3), (8, 20))}
    assert locate_phrases("red or, and blue", ["red and blue"], {"red and blue": ((0, 3), (8, 16))}) == (
        ((0, 3), (8, 16)),
    )
    for wrong in ((12, 17), (13, 19), (-1, 4), (5, 5)):
        with pytest.raises(DataError, match="occurs 2 times"):
            locate_phrases(caption, ["a dog"], {"a dog": (wrong,)})
    with pytest.raises(DataError, match="'red and blue' is not in its caption 'red or, and blue'"):
        locate_phrases("red or, and blue", ["red and blue"], parts)


def test_absent_and_ambiguous_phrases_are_told():
    with pytest.raises(DataError, match=r"phrase 'a cat' is not in its caption 'two dogs'; correct"):
        locate_phrases("two dogs", ["a cat"], {})
    with pytest.raises(DataError, match=r"phrase 'dog' occurs 2 times in its caption .* tokens_positive"):
        locate_phrases("dog by dog", ["dog"], {})


@pytest.mark.parametrize("ending", ["", " \u00e9"])  # other letters than ASCII's are searched for in another way
@pytest.mark.parametrize(
    ("caption", "phrase", "places"),
    [
        ("a dog and a  dog", "a dog", 2),
        ("a\tdog and a dog", "A Dog", 2),
        ("a  dog and the dog", "a dog", ((0, 6),)),
        ("a a a", "a a", 2),
        ("a dog", " a  dog ", ((0, 5),)),
        ("dog_house, dog-house", "dog", ((11, 14),)),
    ],
)
def test_letters_elsewhere_in_a_caption_change_nothing(caption: str, ending: str, phrase: str, places: Any) -> None:
    if isinstance(places, tuple):
        assert locate_phrases(caption + ending, [phrase], {}) == (places,)
    else:
        with pytest.raises(DataError, match=f"occurs {places} times"):
            locate_phrases(caption + ending, [phrase], {})


def test_the_sentence_is_the_prompt_and_rows_mark_its_phrases(tokenizer):
    names = ["a man in a red shirt", "red shirt", "dog"]
    prompt = build_sentence_prompt(SENTENCE, names, locate_phrases(SENTENCE, names, {"dog": ((31, 34),)}), tokenizer)
    assert prompt.caption == SENTENCE + "."
    assert prompt.names == tuple(names)
    assert words(prompt, prompt.positive_map[0], tokenizer) == ["A", "man", "in", "a", "red", "shirt"]
    assert words(prompt, prompt.positive_map[1], tokenizer) == ["red", "shirt"]
    assert np.flatnonzero(prompt.positive_map[2]).tolist() == [9], "the dog, not the hot dog"
    np.testing.assert_allclose(prompt.positive_map.sum(1), 1, rtol=1e-6)
    assert [prompt.caption[slice(*span)].lower() for span in prompt.char_spans] == names


@pytest.mark.parametrize(("caption", "wanted"), [("a dog. ", "a dog."), ("a dog?", "a dog?"), ("a dog!", "a dog!.")])
def test_a_sentence_ends_in_one_delimiter(tokenizer, caption, wanted):
    assert build_sentence_prompt(caption, ["dog"], [((2, 5),)], tokenizer).caption == wanted


def test_delimiters_inside_a_phrase_stay_negative(tokenizer):
    prompt = build_sentence_prompt("A St. Bernard", ["St. Bernard"], [((2, 13),)], tokenizer)
    assert "." not in words(prompt, prompt.positive_map[0], tokenizer)
    assert words(prompt, prompt.positive_map[0], tokenizer)[0] == "St"


def test_split_phrases_mark_all_their_parts(tokenizer):
    prompt = build_sentence_prompt("red or blue cars", ["red cars"], [((0, 3), (12, 16))], tokenizer)
    assert words(prompt, prompt.positive_map[0], tokenizer) == ["red", "cars"]
    assert prompt.char_spans == ((0, 3),)


def test_too_long_a_sentence_is_prompted_by_its_phrases(tokenizer):
    with pytest.raises(PromptError, match=r"13 tokens .* reads 11"):
        build_sentence_prompt("a b c d e f g h i j", ["a"], [((0, 1),)], tokenizer, 11)
    long = sample({"man": ((2, 5),)}, [([1, 1, 9, 5], "man")])
    with pytest.warns(UserWarning, match="prompted by the list of its phrases"):
        assert sentence_prompt(long, tokenizer, 8) is None
    with pytest.warns(UserWarning, match="prompted by the list"):
        assert TrainingPrompts(tokenizer, 8, shuffle=True)(long, np.random.default_rng(0)).caption == "man."


def test_a_phrase_without_a_token_is_told(tokenizer):
    with pytest.raises(PromptError, match=r"phrase '\.' has no token"):
        build_sentence_prompt("a . b", ["."], [((2, 3),)], tokenizer)


def test_detection_samples_keep_their_list_of_names(tokenizer):
    plain = Sample(np.zeros((4, 4, 3), np.uint8), (4, 4), Instances.none(), Vocabulary(("cat",)))
    assert sentence_prompt(plain, tokenizer) is None
    assert TrainingPrompts(tokenizer, 256, shuffle=False)(plain, np.random.default_rng(0)).caption == "cat."


def test_a_box_of_two_phrases_is_one_object_positive_on_both(tokenizer):
    """As two objects each query would be negative on the other phrase, and the two would fight."""
    phrases = {"a red shirt": ((9, 20),), "man": ((2, 5),), "dog": ((31, 34),)}
    box, other = [1.0, 2.0, 30.0, 12.0], [5.0, 5.0, 9.0, 8.0]
    one = sample(phrases, [(box, "man"), (other, "dog"), (box, "a red shirt")])
    prompt = sentence_prompt(one, tokenizer)
    assert prompt is not None
    target = collate([one], [prompt]).targets[0]
    assert target.class_ids.tolist() == [3, 2]
    assert target.boxes_cxcywh_norm[0].tolist() == pytest.approx([15.5 / 60, 7 / 40, 29 / 60, 10 / 40])
    assert words(prompt, target.positive_map[3], tokenizer) == ["man", "a", "red", "shirt"]
    torch.testing.assert_close(target.positive_map.sum(1), torch.ones(4))
    assert torch.equal(target.positive_map[:3], torch.from_numpy(prompt.positive_map))


def test_its_query_is_pulled_up_on_both_phrases_and_down_elsewhere(tokenizer):
    phrases = {"a red shirt": ((9, 20),), "man": ((2, 5),)}
    one = sample(phrases, [([1.0, 2.0, 30.0, 12.0], name) for name in phrases])
    prompt = sentence_prompt(one, tokenizer)
    assert prompt is not None
    target = collate([one], [prompt]).targets[0]
    tokens = len(prompt.input_ids)
    logits = torch.zeros(1, 2, tokens, requires_grad=True)
    boxes = torch.stack([target.boxes_cxcywh_norm[0], torch.tensor([0.9, 0.9, 0.1, 0.1])])[None]
    outputs = {"pred_logits": logits, "pred_boxes": boxes, "text_token_mask": torch.ones(1, tokens, dtype=torch.bool)}
    criterion = build_criterion(decoder_layers=1)
    criterion(outputs, [target])["loss_ce"].backward()
    assert logits.grad is not None
    raised = words(prompt, (logits.grad[0, 0] < 0).numpy(), tokenizer)
    assert raised == ["man", "a", "red", "shirt"]
    assert (logits.grad[0, 1] > 0).all(), "no second query is asked to answer for the same box"
    assert pack_targets([target], torch.device("cpu")).counts == (1,)


def test_joining_nothing_and_joining_alike():
    rows = torch.eye(3)
    boxes, ids, joined = join_phrases(np.zeros((0, 4)), torch.zeros(0, dtype=torch.int64), rows)
    assert (boxes.shape, ids.tolist(), joined.tolist()) == ((0, 4), [], rows.tolist())
    same = np.array([[0.1] * 4] * 2)
    assert join_phrases(same, torch.tensor([1, 1]), rows)[1].tolist() == [1, 1]
    two = np.array([[0.1] * 4, [0.2] * 4, [0.1] * 4, [0.2] * 4])
    _, ids, joined = join_phrases(two, torch.tensor([0, 0, 2, 2]), rows)
    assert ids.tolist() == [3, 3], "the same phrases share a row"
    assert joined[3].tolist() == [0.5, 0, 0.5]


def test_without_a_sentence_a_box_of_two_names_is_one_object_too(tokenizer):
    names = Vocabulary(("cat", "pet", "dog"))
    objects = Instances.build([[1, 1, 5, 5], [2, 2, 9, 9], [1, 1, 5, 5], [2, 2, 9, 9]], [0, 2, 1, 2])
    plain = Sample(np.zeros((40, 60, 3), np.uint8), (40, 60), objects, names)
    prompt = TrainingPrompts(tokenizer, 256, shuffle=False)(plain, np.random.default_rng(0))
    target = collate([plain], [prompt]).targets[0]
    assert target.class_ids.tolist() == [3, 2, 2], "a box that is repeated for one name stays as it is"
    assert words(prompt, target.positive_map[3], tokenizer) == ["cat", "pet"]


def test_one_batch_of_sentences_and_names(tokenizer):
    first = sample({"man": ((2, 5),)}, [([1, 1, 9, 5], "man")])
    second = Sample(np.zeros((20, 30, 3), np.uint8), (20, 30), Instances.none(), Vocabulary(("cat",)))
    make = TrainingPrompts(tokenizer, 256, shuffle=True)
    prompts = [make(one, np.random.default_rng(0)) for one in (first, second)]
    batch = collate([first, second], prompts)
    assert batch.attention_mask.sum(1).tolist() == [len(prompt.input_ids) for prompt in prompts]
    assert [len(target.class_ids) for target in batch.targets] == [1, 0]


@pytest.mark.parametrize(
    ("caption", "flips"),
    [("the man on the LEFT", 0), ("rightmost dog", 0), ("a bright dog left", 0), ("a bright dog", 1)],
)
def test_a_sentence_of_left_and_right_is_not_mirrored(caption, flips):
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    one = Sample(pixels, (4, 6), Instances.none(), Vocabulary(("x",)), caption=caption)
    turned = train_transform([4], 6, 0.0, 1.0)(one, np.random.default_rng(0))
    assert np.array_equal(turned.image, pixels[:, ::-1] if flips else pixels)


@pytest.mark.parametrize("spans", [(((0, 3),),), (((0, 3),), ()), (((0, 3),), ((2, 99),)), (((0, 3),), ((4, 4),))])
def test_spans_that_do_not_fit_are_refused(spans):
    with pytest.raises(DataError, match="2 phrases need as many spans inside the caption"):
        Sample(Path("a.jpg"), (4, 4), Instances.none(), Vocabulary(("a", "b")), caption="abc abc", phrase_spans=spans)


def test_from_file_to_file(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg")
    region = {"bbox": [[1, 1, 9, 5], [20, 1, 30, 9]], "phrase": "a dog", "tokens_positive": [[13, 18]]}
    line = {"filename": "a.jpg", "height": 40, "width": 60}
    line |= {"grounding": {"caption": "a dog chases a dog", "regions": [region]}}
    (tmp_path / "lines.jsonl").write_text(json.dumps(line) + "\n")
    first = read_odvg(tmp_path / "lines.jsonl")
    assert first[0].phrase_spans == (((13, 18),),)
    again = read_odvg(write_dataset(first, tmp_path / "out", "odvg"))
    assert again[0].phrase_spans == first[0].phrase_spans
    line["grounding"]["regions"][0]["tokens_positive"] = "0:5"
    (tmp_path / "lines.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(DataError, match=r"line 1: region 1: tokens_positive must be a list of \[start, end\)"):
        read_odvg(tmp_path / "lines.jsonl")


def test_data_check_tells_phrases_without_a_place(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg")
    regions = [{"bbox": [1, 1, 9, 5], "phrase": "a cat"}, {"bbox": [2, 1, 9, 5], "phrase": "two dogs"}]
    content = {"filename": "a.jpg", "height": 40, "width": 60, "grounding": {"caption": "two dogs", "regions": regions}}
    (tmp_path / "lines.jsonl").write_text(json.dumps(content) + "\n{}\n")
    findings = Findings()
    dataset = read_odvg(tmp_path / "lines.jsonl", findings=findings)
    assert [(one.kind, one.place) for one in findings.found] == [
        ("phrase_unplaced", "line 1"),
        ("record_malformed", "line 2"),
    ]
    assert "phrase 'a cat' is not in its caption 'two dogs'" in findings.found[0].message
    assert (len(dataset), dataset[0].phrase_spans) == (1, ())
