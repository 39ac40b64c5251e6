"""Questions and answers about the masks of one image, in both directions.

A phrase is asked for in a turn of its own, or several in one turn; every `[SEG]` of an answer is one mask, in order.
Masks are asked about as `region1`, `region2` and so on, in the order in which the conversation begins with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from pycocotools import mask as coco_mask

from deixis.refer_records import Expression
from deixis.video_records import ClipExpression

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
CAPTION_QUESTIONS = (
    "Please describe {region} in this image.",
    "What is {region}?",
    "Describe {region}.",
    "Please give a short description of {region}.",
)
"""The first one standard. The answer is the caption alone, as in the released models' data."""
EVERY_REGION = "Please describe every region."
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

    def __call__(
        self, turns: Sequence[Turn], tiles: int, regions: Sequence[int] = (), frames: int = 1
    ) -> tuple[list[int], list[int]]:
        """(input_ids, labels): placeholders for so many tiles, of each frame where it is a clip, before the first
        question, and after them, for each region, as many as it has tokens; labels are the token itself in answers,
        -100 elsewhere."""
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
    expressions: Sequence[Expression | ClipExpression],
    most: int,
    rng: np.random.Generator,
    behaviour: str = "deixis",
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


def caption_turn(region: int = 1, text: str = "") -> Turn:
    """What evaluation and prediction ask about a region, and the caption where it is known."""
    return Turn(CAPTION_QUESTIONS[0].format(region=region_name(region)), text, ())


def region_name(number: int) -> str:
    """How a conversation calls its regions, counted from 1."""
    return f"region{number}"


def caption_turns(
    expressions: Sequence[Expression], most: int, rng: np.random.Generator
) -> tuple[list[Turn], tuple[int, ...]]:
    """A conversation that describes some of an image's masks, and the expressions that its regions are, in order.

    The masks of an expression are one region together; its caption is one of its sentences, drawn. Expressions without
    a sentence, or without a pixel, are left out; there may be none.

    Args:
        most: regions at most.
    """
    known = [i for i, expression in enumerate(expressions) if expression.texts and has_pixels(expression)]
    chosen = tuple(known[i] for i in rng.permutation(len(known))[:most])
    captions = [expressions[i].texts[int(rng.integers(len(expressions[i].texts)))].strip() for i in chosen]
    names = [region_name(number) for number in range(1, len(chosen) + 1)]
    if len(chosen) > 1 and rng.random() < TOGETHER:
        answer = ", ".join(f"{name}: {caption}" for name, caption in zip(names, captions, strict=True))
        return [Turn(EVERY_REGION, answer, ())], chosen
    turns = [
        Turn(_drawn(CAPTION_QUESTIONS, rng).format(region=name), caption, ())
        for name, caption in zip(names, captions, strict=True)
    ]
    return turns, chosen


def has_pixels(expression: Expression) -> bool:
    """Whether any of its masks has a pixel, so that there is something to describe."""
    return any(int(coco_mask.area(mask)) > 0 for mask in expression.masks_rle)


def conversation_words() -> tuple[str, ...]:
    """Every word of the questions and answers, in lower case: for tokenizers made from words."""
    regions = [region_name(number) for number in range(1, 10)]
    said = (*QUESTIONS, *ANSWERS["sa2va"], *ANSWERS["deixis"], "and", *CAPTION_QUESTIONS, EVERY_REGION, *regions)
    text = " ".join((*said, "There are part regions in the picture:"))
    text = text.replace("{phrase}", " ").replace("{region}", " ").replace(SEG, " ")
    return tuple(sorted({word.strip(".,?:").lower() for word in text.split()} - {""}))


def _drawn(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
