"""Conversations about one image as tokens and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from deixis.data.refer.conversation import PHRASE_MARKS, SEG, Turn
from deixis.errors import PromptError
from deixis.models.sa2va.bundle import Sa2vaBundle
from deixis.models.sa2va.language.templates import NEW_TOKENS, Template
from deixis.models.sa2va.model import IGNORED
from deixis.text import whole_characters


@dataclass(frozen=True)
class ConversationTokens:
    """Writes conversations the way a segmenter's language model was trained on them.

    Questions and answers are tokenised apart: a label begins exactly where the assistant does, and no token spans both.
    """

    tokenizer: Any
    template: Template
    tokens_per_tile: int
    pad_token_id: int
    marks: tuple[str, ...] = ()  # refused in texts; `refer check` gives none, since it reports them itself

    @staticmethod
    def of(bundle: Sa2vaBundle) -> ConversationTokens:
        """Those of a segmenter."""
        pad = bundle.tokenizer.pad_token_id
        # Where there is no padding token any other will do: padded positions are neither attended to nor labelled.
        pad = bundle.end_token_id if pad is None else int(pad)
        marks = tuple(sorted({*bundle.tokenizer.all_special_tokens, *NEW_TOKENS}))
        return ConversationTokens(bundle.tokenizer, bundle.template, bundle.tokens_per_tile, pad, marks)

    def __call__(
        self, turns: Sequence[Turn], tiles: int, regions: Sequence[int] = (), frames: int = 1
    ) -> tuple[list[int], list[int]]:
        """(input_ids, labels) of a whole conversation; the image stands before the first question, its regions, of so
        many tokens each, between the two. Of a clip several frames stand there, one after another, `tiles` each; of a
        conversation without an image none.

        Raises:
            PromptError: a text holds a mark of the conversation itself.
        """
        input_ids = self.beginning()
        labels = [IGNORED] * len(input_ids)
        for position, turn in enumerate(turns):
            first = position == 0
            asked = self._question(turn.question, tiles, regions, frames) if first else self._later(turn.question)
            question = self._ids(asked)
            # `[SEG]` is in every answer; phrase marks only in a data set's own, put there by `grounded_answer`.
            self._require_plain(_without((SEG, *PHRASE_MARKS) if turn.given else (SEG,), turn.answer))
            answer = self._ids(self.template.answer(turn.answer))
            # The end mark is part of the answer and is learnt; the image and the question are only read.
            input_ids += question + answer
            labels += [IGNORED] * len(question) + answer
        return input_ids, labels

    def question(self, text: str, tiles: int, regions: Sequence[int] = (), frames: int = 1) -> list[int]:
        """A conversation up to where the assistant begins to speak, for generation. Raises as a call does."""
        return self.beginning() + self._ids(self._question(text, tiles, regions, frames))

    def beginning(self) -> list[int]:
        """What the tokenizer itself puts before any text: a beginning-of-text token, for most language models none."""
        return [int(token_id) for token_id in self.tokenizer("").input_ids]

    def padded(
        self, conversations: Sequence[Sequence[int]], device: torch.device
    ) -> tuple[Int[Tensor, "batch tokens"], Bool[Tensor, "batch tokens"]]:
        """(input_ids, attention_mask) of several, padded on the right."""
        longest = max(len(ids) for ids in conversations)
        # On the right: attention is causal, so that what follows a conversation does not change its states.
        padded = [[*ids, *[self.pad_token_id] * (longest - len(ids))] for ids in conversations]
        real = [[True] * len(ids) + [False] * (longest - len(ids)) for ids in conversations]
        return torch.tensor(padded, device=device), torch.tensor(real, device=device)

    def _question(self, text: str, tiles: int, regions: Sequence[int], frames: int) -> str:
        self._require_plain(text)
        image = f"{self.template.image(tiles * self.tokens_per_tile)}\n" * frames
        return self.template.question(image + self.template.regions(regions) + text, first=True)

    def _later(self, text: str) -> str:
        self._require_plain(text)
        return self.template.question(text, first=False)

    def _require_plain(self, text: str) -> None:
        """A mark in a user's text would be read as the conversation's own: the end of an answer, say, or an image."""
        if found := next((mark for mark in self.marks if mark in text), None):
            raise PromptError(f"{text!r} holds {found!r}, a mark of the conversation itself; take it out of the phrase")

    def _ids(self, text: str) -> list[int]:
        # Each part of a conversation is tokenised alone: special tokens would begin and end all of them.
        ids = self.tokenizer(whole_characters(text), add_special_tokens=False).input_ids
        return [int(token_id) for token_id in ids]


def _without(marks: Sequence[str], text: str) -> str:
    for mark in marks:
        text = text.replace(mark, "")
    return text
