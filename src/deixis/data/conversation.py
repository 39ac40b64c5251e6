"""Questions and answers about the masks of one image.

A phrase is asked for in a turn of its own, or several in one turn; every `[SEG]` of an answer is one mask, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from deixis.refer_records import Expression

SEG = "[SEG]"
QUESTIONS = (
    "Please segment {phrase} in this image.",
    "Can you segment {phrase} in this image?",
    "Segment {phrase}.",
    "Where is {phrase}? Please answer with a mask.",
)
ANSWERS = {
    "sa2va": (f"Sure, {SEG}.", f"It is {SEG}.", f"{SEG}."),
    "deixis": (f"Sure, {{phrase}} {SEG}.", f"{{phrase}} {SEG}."),
}
"""By behaviour, the first one standard. Where `[SEG]` follows the words it stands for, its hidden state has them at
hand; in the released answers the model has to find them in the question."""
TOGETHER = 0.2  # share of training conversations that ask for all phrases in one question


@dataclass(frozen=True)
class Turn:
    """One question and its answer. `expressions` are the masks of the answer's `[SEG]`s, by position."""

    question: str
    answer: str
    expressions: tuple[int, ...]


@runtime_checkable
class ConversationEncoder(Protocol):
    """A model's own way to write a conversation about one image as tokens."""

    def __call__(self, turns: Sequence[Turn], tiles: int) -> tuple[list[int], list[int]]:
        """(input_ids, labels): placeholders for so many tiles before the first question; labels are the token itself
        in answers, -100 elsewhere."""
        ...


def plain_phrase(text: str) -> str:
    """A phrase as it stands inside a question: lower case, no full stop at its end.

    >>> plain_phrase(" The left Man. ")
    'the left man'
    """
    return text.strip().lower().rstrip(".").rstrip()


def question_for(text: str) -> str:
    """The question that evaluation and prediction ask."""
    return QUESTIONS[0].format(phrase=plain_phrase(text))


def single_turn(text: str, behaviour: str) -> Turn:
    """The conversation of evaluation: one phrase, the behaviour's standard answer."""
    return Turn(question_for(text), ANSWERS[behaviour][0].format(phrase=plain_phrase(text)), (0,))


def training_turns(
    expressions: Sequence[Expression], most: int, rng: np.random.Generator, behaviour: str = "deixis"
) -> tuple[list[Turn], list[tuple[int, str]]]:
    """A conversation about some of an image's expressions, and what was asked: (position, sentence) by mask.

    Of each expression one sentence is drawn. Expressions without sentences are left out.

    Args:
        most: masks in the conversation at most.
        behaviour: which of `ANSWERS` are given.
    """
    askable = [i for i, expression in enumerate(expressions) if expression.texts]
    chosen = [askable[i] for i in rng.permutation(len(askable))[:most]]
    asked = [(i, expressions[i].texts[int(rng.integers(len(expressions[i].texts)))]) for i in chosen]
    if len(asked) > 1 and rng.random() < TOGETHER:
        phrases = [plain_phrase(text) for _, text in asked]
        question = _drawn(QUESTIONS, rng).format(phrase=" and ".join([", ".join(phrases[:-1]), phrases[-1]]))
        answer = ", ".join(f"{phrase} {SEG}" for phrase in phrases)
        return [Turn(question, f"Sure, {answer}.", tuple(range(len(asked))))], asked
    turns = []
    for position, (_, text) in enumerate(asked):
        question, answer = _drawn(QUESTIONS, rng), _drawn(ANSWERS[behaviour], rng)
        phrase = plain_phrase(text)
        turns.append(Turn(question.format(phrase=phrase), answer.format(phrase=phrase), (position,)))
    return turns, asked


def conversation_words() -> tuple[str, ...]:
    """Every word of the questions and answers, in lower case: for tokenizers made from words."""
    text = (
        " ".join((*QUESTIONS, *ANSWERS["sa2va"], *ANSWERS["deixis"], "and")).replace("{phrase}", " ").replace(SEG, " ")
    )
    return tuple(sorted({word.strip(".,?").lower() for word in text.split()} - {""}))


def _drawn(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
