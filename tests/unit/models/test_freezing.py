"""Parts of the detector, freezing, and the table of what trains."""

from __future__ import annotations

import pytest
from small_detectors import FLAVOURS, small_detector

from deixis.errors import OptionError
from deixis.models.adapters import add_lora
from deixis.models.freezing import PARTS, freeze, parameter_table, part_of, training_lines


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_parameter_has_a_part(flavour: str) -> None:
    model = small_detector(flavour, decoder_bbox_embed_share=False)
    assert {part_of(name) for name, _ in model.named_parameters()} == set(PARTS)
    add_lora(model, rank=2, targets=("encoder", "text"))
    assert {part_of(name) for name, p in model.named_parameters() if p.requires_grad} == {"encoder", "text"}


def test_unknown_parameter() -> None:
    with pytest.raises(KeyError):
        part_of("model.neck.weight")


def test_table_counts_every_number_once() -> None:
    model = small_detector()
    table = parameter_table(model)
    assert [row.part for row in table] == list(PARTS)
    assert sum(row.total for row in table) == sum(p.numel() for p in model.parameters())
    assert all(row.trainable == row.total > 0 for row in table)
    freeze(model, ["backbone", "heads"])
    trainable = {row.part: row.trainable for row in parameter_table(model)}
    assert trainable["backbone"] == trainable["heads"] == 0
    assert trainable["text"] > 0


def test_freezing_adds_up_and_none_is_allowed() -> None:
    model = small_detector()
    freeze(model, [])
    freeze(model, ["text"])
    freeze(model, ["decoder"])
    assert [row.part for row in parameter_table(model) if row.trainable == 0] == ["text", "decoder"]


def test_unknown_part() -> None:
    with pytest.raises(OptionError, match=r"no part \['neck'\]; its parts are"):
        freeze(small_detector(), ["backbone", "neck"])


def test_what_trains_is_said_in_words() -> None:
    model = small_detector()
    freeze(model, ["backbone", "text"])
    next(model.model.decoder.parameters()).requires_grad_(False)
    trained, frozen = training_lines(model, PARTS, part_of)
    encoder = next(row.total for row in parameter_table(model) if row.part == "encoder")
    assert f"encoder (all {encoder:,})" in trained
    assert "decoder (" in trained
    assert "decoder (all" not in trained
    assert frozen == "frozen      backbone, text"


def test_where_adapters_sit_is_said_in_words() -> None:
    model = small_detector()
    add_lora(model, rank=2, targets=("text",))
    lines = training_lines(model, PARTS, part_of)
    assert lines[0] == "trained     no part but its adapters"
    assert lines[1] == "frozen      backbone, encoder, decoder, heads"
    count = sum(".lora_A." in name for name, _ in model.named_parameters())
    assert lines[2] == f"adapters    {count} in text, on dense, key, query, value"
