"""Names of a training prompt: the image's own always, beside them only what the image surely does not show."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from bert_tokenizer import BertPromptTokenizer

from deixis.data.detect.chunking import choose_names, fit_objects
from deixis.data.detect.collate import SampleDataset, collate
from deixis.data.detect.prompts import build_prompt
from deixis.errors import PromptError
from deixis.recipes.detect.data.prompts import FittedTransform, TrainingPrompts
from deixis.records import Instances, Sample, SampleList, Vocabulary

LETTERS = "abcdefghijklmnopqrstuvwxyz"
MANY = Vocabulary(tuple(f"{a} {b}" for a in LETTERS for b in LETTERS))  # 676 names of three tokens with delimiter


@pytest.fixture(scope="module")
def tokenizer() -> BertPromptTokenizer:
    return BertPromptTokenizer()


def shows(
    class_ids: list[int],
    absent: set[int] | None = None,
    vocabulary: Vocabulary = MANY,
    crowd: list[bool] | None = None,
    partly: set[int] | None = None,
) -> Sample:
    boxes = [[1.0, 1, 5, 4]] * len(class_ids)
    known = None if absent is None else frozenset(absent)
    return Sample(
        np.zeros((8, 6, 3), np.uint8),
        (8, 6),
        Instances.build(np.asarray(boxes, float).reshape(-1, 4), class_ids, crowd),
        vocabulary,
        absent_class_ids=known,
        not_exhaustive_class_ids=frozenset(partly or ()),
    )


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def ids_of(names: tuple[str, ...], vocabulary: Vocabulary = MANY) -> list[int]:
    return [vocabulary.names.index(name) for name in names]


def test_one_name(tokenizer: BertPromptTokenizer) -> None:
    alone = Vocabulary(("cat",))
    assert choose_names(shows([], vocabulary=alone), draw(), tokenizer, 256) == ("cat",)


@pytest.mark.parametrize(("tokens", "asked"), [(2 + 3 * 10, 10), (2 + 3 * 10 - 1, 9)])
def test_a_vocabulary_that_exactly_fits_is_asked_whole_and_one_token_less_samples(
    tokenizer: BertPromptTokenizer, tokens: int, asked: int
) -> None:
    ten = Vocabulary(MANY.names[:10])
    generator = draw()
    before = generator.bit_generator.state
    names = choose_names(shows([3], vocabulary=ten), generator, tokenizer, tokens)
    assert len(names) == asked
    assert ten.names[3] in names
    assert (generator.bit_generator.state == before) == (asked == 10), "a prompt of all names draws nothing"


def test_own_classes_are_always_asked_and_the_prompt_is_filled(tokenizer: BertPromptTokenizer) -> None:
    for seed in range(20):
        names = choose_names(shows([5, 600, 5, 77]), draw(seed), tokenizer, 256)
        assert {5, 77, 600} <= set(ids_of(names))
        assert (
            len(build_prompt(names, tokenizer).input_ids) == 2 + 3 * 84
        )  # 84 names of 3 tokens: no 85th fits into 254
        assert list(names) == sorted(names, key=MANY.names.index)


def test_most_names_bounds_negatives_and_never_the_images_own(tokenizer: BertPromptTokenizer) -> None:
    assert len(choose_names(shows([1, 2]), draw(), tokenizer, 256, max_names=5)) == 5
    assert ids_of(choose_names(shows([1, 2, 3]), draw(), tokenizer, 256, max_names=2)) == [1, 2, 3]


def all_others(sample: Sample, generator: np.random.Generator, tokenizer: BertPromptTokenizer) -> tuple[str, ...]:
    """Faulty: every class without a box is taken for absent."""
    return choose_names(sample.evolve(absent_class_ids=None), generator, tokenizer, 256)


@pytest.mark.parametrize("choose", [choose_names, all_others])
def test_federated_negatives_are_only_classes_that_somebody_looked_for(
    tokenizer: BertPromptTokenizer, choose: Callable[..., tuple[str, ...]]
) -> None:
    sample, allowed = shows([5, 600], absent={1, 2, 3}), {5, 600, 1, 2, 3}
    drawn: set[int] = set()
    for seed in range(10):
        arguments = (256,) if choose is choose_names else ()
        drawn |= set(ids_of(choose(sample, draw(seed), tokenizer, *arguments)))
    assert (drawn == allowed) == (choose is choose_names)


def test_federated_data_is_sampled_even_where_all_names_fit(tokenizer: BertPromptTokenizer) -> None:
    few = Vocabulary(MANY.names[:6])
    names = choose_names(shows([2], absent={4}, vocabulary=few), draw(), tokenizer, 256)
    assert ids_of(names, few) == [2, 4]


def test_a_class_of_which_only_a_crowd_is_seen_is_no_negative(tokenizer: BertPromptTokenizer) -> None:
    sample = shows([7, 9], crowd=[False, True])
    for seed in range(10):
        names = set(ids_of(choose_names(sample, draw(seed), tokenizer, 256)))
        assert 7 in names
        assert 9 not in names


def test_where_nothing_is_known_one_name_is_asked_and_not_judged(tokenizer: BertPromptTokenizer) -> None:
    sample = shows([], absent=set())
    names = choose_names(sample, draw(), tokenizer, 256)
    assert len(names) == 1
    (target,) = collate([sample], [build_prompt(names, tokenizer)]).targets
    assert target.unjudged_class_ids == (0,)


def test_names_asked_for_but_not_judged_are_marked(tokenizer: BertPromptTokenizer) -> None:
    prompt = build_prompt([MANY.names[i] for i in (4, 3, 2, 1)], tokenizer)
    for sample, expected in (
        (shows([1, 2]), ()),
        (shows([1, 2], absent={3}), (0,)),
        (shows([1, 2], partly={2}), (2,)),
        (shows([1, 2], absent={3, 4}, partly={1}), (3,)),
    ):
        assert collate([sample], [prompt]).targets[0].unjudged_class_ids == expected


def test_an_image_of_300_classes_keeps_those_that_fit_and_warns(tokenizer: BertPromptTokenizer) -> None:
    sample = shows(list(range(300)))
    kept: set[int] = set()
    for seed in range(40):
        with pytest.warns(UserWarning, match="more classes than a prompt holds"):
            fitted = fit_objects(sample, draw(seed), tokenizer, 256)
        own = fitted.present_class_ids
        assert len(own) == 84
        assert fitted.known_absent_class_ids == frozenset(range(300, len(MANY))), "those left out are not absent"
        names = choose_names(fitted, draw(seed), tokenizer, 256)
        assert set(ids_of(names)) == own
        collate([fitted], [build_prompt(names, tokenizer)])  # every box has its name
        kept |= own
    assert kept == set(range(300)), "in time all are asked for"


@pytest.mark.filterwarnings("error")
def test_an_image_that_exactly_fits_is_left_alone(tokenizer: BertPromptTokenizer) -> None:
    sample, generator = shows(list(range(84))), draw()
    before = generator.bit_generator.state
    assert fit_objects(sample, generator, tokenizer, 254) is sample
    assert generator.bit_generator.state == before
    with pytest.warns(UserWarning, match="more classes"):
        assert len(fit_objects(sample, generator, tokenizer, 253).present_class_ids) == 83


def test_an_own_class_longer_than_a_prompt_is_named(tokenizer: BertPromptTokenizer) -> None:
    vocabulary = Vocabulary((*MANY.names, "dog " * 300))
    with pytest.raises(PromptError, match="class name 'dog dog"):
        choose_names(shows([676], vocabulary=vocabulary, absent={1}), draw(), tokenizer, 256)
    with pytest.warns(UserWarning, match="more classes"), pytest.raises(PromptError, match="class name 'dog dog"):
        fit_objects(shows([676, 1], vocabulary=vocabulary), draw(), tokenizer, 256)


def test_a_training_sample_is_a_function_of_seed_epoch_and_index(tokenizer: BertPromptTokenizer) -> None:
    data = SampleList((shows([5], absent=set(range(6, 300))), shows([8])), MANY)
    prompts = TrainingPrompts(tokenizer, 256, True, 20)
    one, other = (
        SampleDataset(data, FittedTransform(lambda sample, _: sample, prompts), prompts, seed) for seed in (3, 3)
    )
    asked = [one[(0, 0)][1].names, one[(1, 0)][1].names]
    assert [other[(1, 0)][1].names, other[(0, 0)][1].names] == asked[::-1], "whatever was drawn before"
    assert set(asked[0]) != set(asked[1]), "another epoch, other negatives"
    assert list(asked[0]) != sorted(asked[0], key=MANY.names.index), "in another order"


def test_a_wording_is_drawn_for_each_prompt_and_the_class_stays(tokenizer: BertPromptTokenizer) -> None:
    vocabulary = Vocabulary(("cat", "dog"))
    wordings = {"dog": ("dog", "red square"), "other": ("raccoon",)}
    prompts = TrainingPrompts(tokenizer, 256, shuffle=False, wordings=wordings)
    sample = shows([1], vocabulary=vocabulary)
    made = [prompts(sample, draw(seed)) for seed in range(20)]
    assert {prompt.caption for prompt in made} == {"cat. dog.", "cat. red square."}
    assert {prompt.names for prompt in made} == {("cat", "dog")}
    (target,) = collate([sample], [made[0]]).targets
    assert target.class_ids.tolist() == [1]
    assert prompts(sample, draw(3)).caption == prompts(sample, draw(3)).caption


def test_objects_are_fitted_by_their_longest_wording(tokenizer: BertPromptTokenizer) -> None:
    vocabulary = Vocabulary(("cat", "dog"))
    prompts = TrainingPrompts(tokenizer, 6, shuffle=False, wordings={"dog": ("dog", "red square")})
    transform = FittedTransform(lambda sample, _: sample, prompts)
    with pytest.warns(UserWarning, match="more classes"):  # "cat." and "dog." would fit, "cat." and "red square." not
        fitted = transform(shows([0, 1], vocabulary=vocabulary), draw())
    assert (len(fitted.present_class_ids), fitted.vocabulary) == (1, vocabulary)
