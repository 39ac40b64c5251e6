r"""Several wordings for a class: the form that users type, with signs in names, and what is asked for."""

from __future__ import annotations

import pytest

from deixis.data.detect.wordings import (
    checked_wordings,
    read_wordings,
    require_distinct,
    text_of,
    worded,
    wordings_of_classes,
)
from deixis.errors import OptionError, PromptError
from deixis.options.detect_predict import DetectPredictOptions
from deixis.options.yaml_files import options_from


@pytest.mark.parametrize(
    ("text", "known", "read"),
    [
        ("car=car,automobile,sedan", (), ("car", ("car", "automobile", "sedan"))),
        (" red car = red car , auto. ", (), ("red car", ("red car", "auto."))),
        ("St. Bernard=st bernard,dog", (), ("St. Bernard", ("st bernard", "dog"))),
        ("car=car,car", (), ("car", ("car",))),
        ("a,b", (), ("a,b", ())),
        (r"a\=b", (), ("a=b", ())),
        (r"a\=b=x\,y,z", (), ("a=b", ("x,y", "z"))),
        ("a=b", ["a=b"], ("a=b", ())),
        ("a=b=x", ["a=b"], ("a=b", ("x",))),
        ("a,b=x,y", ["a,b"], ("a,b", ("x", "y"))),
        ("back\\slash", (), ("back\\slash", ())),
    ],
)
def test_a_text_is_read_in_one_way(text, known, read):
    assert read_wordings(text, known) == read


@pytest.mark.parametrize("text", ["=car", "car=", "car=,", "car=car,bus=bus", "car,bus=vehicle"])
def test_a_text_that_cannot_be_meant_is_told(text):
    with pytest.raises(OptionError, match="--names"):
        read_wordings(text)


@pytest.mark.parametrize("name", ["car", "a=b", "a,b", "a.b", r"a\b", "x=,y"])
@pytest.mark.parametrize("words", [(), ("x",), ("a=b", "c,d", "St. B.")])
def test_a_class_is_written_as_it_is_read(name, words):
    assert read_wordings(text_of(name, words)) == (name, words)


def test_wordings_are_of_classes_of_the_data():
    assert wordings_of_classes(["car=car,auto", "bus"], ["car", "bus"], "a.json") == {"car": ("car", "auto")}
    with pytest.raises(OptionError, match=r"no class 'van' in a\.json; its classes: 'car', 'bus'"):
        wordings_of_classes(["van=van,car"], ["car", "bus"], "a.json")


def test_a_wording_stands_for_one_class():
    with pytest.raises(PromptError, match="'vehicle' is a wording of 'car' and of 'bus'"):
        require_distinct(["car", "bus"], {"car": ("vehicle",), "bus": ("vehicle",)})
    with pytest.raises(PromptError, match="of 'car' and of 'bus'"):
        wordings_of_classes(["car=car,bus"], ["car", "bus"], "a.json")
    with pytest.raises(PromptError, match="list of wordings"):
        checked_wordings({"car": 3})


@pytest.mark.parametrize(
    "words", [("Car", "car", "auto"), ("Car", "Car", "auto"), ("Car", "car", "Car", "auto", "auto")]
)
def test_wordings_that_read_alike_are_asked_for_once(words):
    def tokenizer(text: str) -> tuple[list[int], list[tuple[int, int]]]:
        return [0, *map(ord, text.lower()), 1], [(0, 0)] * (len(text) + 2)

    asked, rows = worded(["car", "bus"], {"car": words}, tokenizer)
    assert (asked, rows) == (("Car", "auto", "bus"), (0, 0, 1))
    assert worded(["car"], {"car": words[:1] * 2}, tokenizer) == (("Car",), (0,))


def test_yaml_may_hold_a_mapping_or_the_same_texts():
    texts = ["car=car,auto", "bus"]
    mapping = {"car": ["car", "auto"], "bus": []}
    expected = DetectPredictOptions(names=("car=car,auto", "bus"))
    assert options_from(DetectPredictOptions, {"names": mapping}, "a.yaml") == expected
    assert options_from(DetectPredictOptions, {"names": texts}, "a.yaml") == expected
    with pytest.raises(OptionError, match="wordings as texts"):
        options_from(DetectPredictOptions, {"names": {"car": [3]}}, "a.yaml")
