"""Conversations in a segmenter's run: told from data with masks, held out, and what they show of forgetting."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import chat_miniatures as mini
import pytest

from deixis.data.refer_formats import read_refer
from deixis.data.sets.subset import Subset
from deixis.errors import DataError
from deixis.options.refer_train import PublicData, ReferData, ReferForgetting
from deixis.recipes.refer.data.chat import held_out_chat, only_talks
from deixis.recipes.refer.data.facts import fingerprint
from deixis.recipes.refer.data.sources import as_images, read_refer_data
from deixis.recipes.refer.data.splits import Source
from deixis.recipes.refer.report import chat_line, forgetting_rows
from deixis.reporting.outcome import Measured, Outcome
from deixis.reporting.refer_report import forgetting_table

SCENES = "scenes:split=refer_train,count=30,seed=1"


def test_what_only_talks(tmp_path: Path) -> None:
    descriptions = read_refer(mini.osprey(tmp_path / "b", "osprey_detail_description.json"))
    for source in (read_refer(mini.llava(tmp_path / "a")), read_refer(mini.osprey(tmp_path / "c")), descriptions):
        assert only_talks(source)
    for source in (
        read_refer(mini.grandf(tmp_path / "d")),
        read_refer(mini.muse(tmp_path / "e")),
        read_refer(f"{mini.grefcoco(tmp_path / 'f')}#train"),
        read_refer("scenes:split=refer_train,count=3,seed=1"),
    ):
        assert not only_talks(source)
    assert as_images(descriptions) is descriptions, "measured as phrases where it is asked for"
    with pytest.raises(DataError, match=r"ask for no mask, so there is nothing to measure.*--forgetting-data"):
        as_images(read_refer(mini.llava(tmp_path / "g")))


def test_a_twentieth_is_held_out_of_enough(tmp_path: Path) -> None:
    chats = read_refer(mini.llava(tmp_path))
    assert held_out_chat(chats, 100) == (chats, None)
    many = cast(Source, Subset(chats, tuple(i % 3 for i in range(60)), "chats"))
    left, held = held_out_chat(many, 100)
    assert held is not None
    assert (len(left), len(held)) == (57, 3)
    assert len(held_out_chat(many, 2)[0]) == 58
    assert fingerprint(left) != fingerprint(many)


def test_a_run_holds_masks_and_talk_out_apart(tmp_path: Path) -> None:
    chats = str(mini.llava(tmp_path))
    given = ReferData(data=(SCENES, chats))
    plain = read_refer_data(given, PublicData(), folder=tmp_path / "run", seed=0)
    assert (len(plain.training), len(plain.validation), plain.chat) == (27 + 3, 3, None), "too few to hold any out"
    named = ReferForgetting(forgetting_data=chats, forgetting_max_images=2)
    measured = read_refer_data(given, PublicData(), named, folder=tmp_path / "run", seed=0)
    assert measured.chat is not None
    assert len(measured.chat) == 2
    with pytest.raises(DataError, match="nothing to choose the epoch by; give --val-data"):
        read_refer_data(ReferData(data=(chats,)), PublicData(), folder=tmp_path / "run", seed=0)


def test_the_gain_stands_beside_what_was_forgotten() -> None:
    before, best, last = (
        Measured(epoch, {"gIoU": giou, "chat_loss": loss, "chat_perplexity": 2**loss}, {})
        for epoch, giou, loss in ((0, 0.25, 1.0), (1, 0.5, 2.0), (2, 0.4, 3.0))
    )
    outcome = Outcome("gIoU", before, best, last)
    rows = forgetting_rows(outcome)
    assert rows == [
        ("gIoU of masks", "0.250", "0.500", "0.400"),
        ("loss of conversation", "1.000", "2.000", "3.000"),
        ("perplexity of conversation", "2.000", "4.000", "8.000"),
    ]
    assert [list(row) for row in rows] == [list(row) for row in forgetting_table(rows).rows]
    (line,) = chat_line(outcome)
    assert "2.000 before training, 4.000 at the best epoch, 8.000 at the last; it has risen" in line
    unmeasured = Outcome("gIoU", None, Measured(1, {"gIoU": 0.5}, {}), Measured(1, {"gIoU": 0.5}, {}))
    assert (forgetting_rows(unmeasured), chat_line(unmeasured)) == ([], [])
