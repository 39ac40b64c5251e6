"""Names typed in the way of other tools' prompts."""

from __future__ import annotations

import pytest

from deixis.cli.arguments import parse
from deixis.errors import OptionError
from deixis.options.detect_train import DetectTrainOptions
from deixis.recipes.detect.names import separate_names


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        (["a. b."], ["a", "b"]),
        (["red car. dog. "], ["red car", "dog"]),
        (["a, b"], ["a", "b"]),
        (["a,b", "c"], ["a", "b", "c"]),
        (["St. Bernard"], ["St. Bernard"]),
        (["cat."], ["cat."]),
        (["traffic light", "cat"], ["traffic light", "cat"]),
    ],
)
def test_names_of_one_text_are_separated(
    typed: list[str], names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert separate_names(typed) == names
    assert ("taken as 2 names" in capsys.readouterr().err) == (names != typed)


def test_a_packaged_file_is_found_by_its_name(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = parse(DetectTrainOptions, ["--config", "detector_lora.yaml"], "detect train", "")
    assert options.lora
    (tmp_path / "detector_lora.yaml").write_text("epochs: 7\n")  # one's own comes first
    assert parse(DetectTrainOptions, ["--config", "detector_lora.yaml"], "detect train", "").epochs == 7
    with pytest.raises(OptionError, match=r"absent\.yaml"):
        parse(DetectTrainOptions, ["--config", "absent.yaml"], "detect train", "")
