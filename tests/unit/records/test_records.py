"""What a sample says of the classes that were looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from deixis.errors import DataError
from deixis.records import Instances, Sample, Vocabulary

NAMES = Vocabulary(("cat", "dog", "zebra"))


def sample(absent: frozenset[int] | None = None, partly: frozenset[int] = frozenset()) -> Sample:
    objects = Instances.build([[0, 0, 5, 5], [1, 1, 9, 9]], [1, 1], [False, True])
    return Sample(
        Path("a.jpg"),
        (10, 40),
        objects,
        NAMES,
        source="x.json",
        absent_class_ids=absent,
        not_exhaustive_class_ids=partly,
    )


def test_without_a_word_all_classes_without_an_object_are_absent() -> None:
    assert sample().present_class_ids == {1}
    assert sample().known_absent_class_ids == {0, 2}


def test_with_a_word_only_those_named_are() -> None:
    assert sample(frozenset({2})).known_absent_class_ids == {2}
    assert sample(frozenset()).known_absent_class_ids == frozenset()


@pytest.mark.parametrize(
    ("absent", "partly", "message"),
    [
        (frozenset({3}), frozenset(), r"x.json: judged class ids \[3\] are outside the 3 names"),
        (frozenset(), frozenset({-1}), r"x.json: judged class ids \[-1\] are outside the 3 names"),
        (frozenset({0, 1}), frozenset(), r"x.json: classes \['dog'\] are annotated but also listed as absent"),
    ],
)
def test_impossible_words_are_errors(absent: frozenset[int], partly: frozenset[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        sample(absent, partly)
