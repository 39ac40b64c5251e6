"""Questions and answers about the masks of one image: phrases to masks, and masks to captions.

A question names one phrase or several; each `[SEG]` of the answer is one mask, in the order of the phrases. Masks to be
described are called `region1`, `region2` and so on, in the order in which they are listed before the first question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from pycocotools import mask as coco_mask

from deixis.refer_records import Exchange, Expression, Grounded
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
"""By behaviour; the first is the standard answer of evaluation. With `deixis`, a `[SEG]` stands right after its
phrase; with `sa2va` the model has to find the phrase in the question."""
CAPTION_QUESTIONS = (
    "Please describe {region} in this image.",
    "What is {region}?",
    "Describe {region}.",
    "Please give a short description of {region}.",
)
"""The first is the standard question. The answer is the caption alone, as in the data of released models."""
EVERY_REGION = "Please describe every region."
DETAIL_QUESTIONS = (
    "Please describe {region} in detail.",
    "What is to be seen in {region}? Please answer in detail.",
    "Please give a detailed description of {region} in this image.",
    "What can you report of {region}?",
)
GROUNDED_QUESTIONS = (
    "Please describe this image in detail, with a mask for each thing that you name.",
    "What does this image show? Please answer with masks for the parts that you name.",
    "Describe the picture, and mark each phrase with a segmentation mask.",
    "Give a full description of this photo, with a mask after each phrase.",
)
PHRASE_MARKS = ("<p>", "</p>")
"""Around a phrase before its `[SEG]`, where an answer is more than the phrase."""
# Marks of InternVL, Qwen, Phi and SentencePiece vocabularies. The lookahead leaves all but their first sign out of the
# match, so that `without_marks` puts a blank after it.
_MARKS = re.compile(
    r"<(?=/?(?:p|vp|image|video|img|img_context|quad|ref|box|s|unk|pad)>|\|[^<>|\s]*\|>)|\[(?=(?:seg|pad|unk)\])",
    re.IGNORECASE,
)
TOGETHER = 0.2  # share of training conversations that ask for all phrases in one question


@dataclass(frozen=True)
class Turn:
    """One question and its answer.

    Attributes:
        expressions: the expressions of the answer's `[SEG]`s, by position.
        given: a data set's own exchange; its answer has `PHRASE_MARKS` around grounded phrases.
    """

    question: str
    answer: str
    expressions: tuple[int, ...]
    given: bool = False


@runtime_checkable
class ConversationEncoder(Protocol):
    """Writes a conversation about one image as the tokens of a model."""

    def __call__(
        self, turns: Sequence[Turn], tiles: int, regions: Sequence[int] = (), frames: int = 1
    ) -> tuple[list[int], list[int]]:
        """(input_ids, labels): before the first question come placeholders for `tiles` tiles of each frame, and then
        for the tokens of each region. Labels are the token itself in answers, -100 elsewhere."""
        ...


def plain_phrase(text: str) -> str:
    """A phrase as part of a question: lower case, without a full stop at its end.

    >>> plain_phrase(" The left Man. ")
    'the left man'
    """
    return text.strip().lower().rstrip(".").rstrip()


def question_for(text: str, behaviour: str = "deixis", clip: bool = False) -> str:
    """The question that evaluation and prediction ask.

    Behaviour `sa2va` asks as Sa2VA's evaluation of videos does (`SEG_PROMPT` and `SEG_PROMPT_QUESTION` in its
    `refVOS.py`): a phrase with a question mark is itself the question, and neither questions nor phrases of clips are
    rewritten. The leading space is part of the original's sentence; it changes the first token.

    Args:
        clip: the language model sees frames of a clip in one conversation.

    >>> question_for("The left man.")
    'Please segment the left man in this image.'
    >>> question_for("The left man", "sa2va", clip=True)
    'Please segment The left man.'
    >>> question_for("Who wins?", "sa2va")
    ' Who wins? Please respond with a segmentation mask.'
    """
    if is_question(text, behaviour):
        return f" {text} Please respond with a segmentation mask."
    if clip and behaviour == "sa2va":
        return f"Please segment {text}."
    return QUESTIONS[0].format(phrase=plain_phrase(text))


def is_question(text: str, behaviour: str) -> bool:
    """Whether behaviour `sa2va` asks the phrase itself: it contains a question mark, anywhere."""
    return behaviour == "sa2va" and "?" in text


def single_turn(text: str, behaviour: str, clip: bool = False) -> Turn:
    """The conversation of evaluation: one phrase, and the behaviour's standard answer. See `question_for`."""
    answer = ANSWERS[behaviour][0].format(phrase=plain_phrase(text))
    return Turn(question_for(text, behaviour, clip), answer, (0,))


def training_question(sentence: str, text: str, behaviour: str, *, clip: bool) -> str:
    """A phrase in one of `QUESTIONS`; for behaviour `sa2va` a phrase that is a question stands alone, unchanged.

    >>> training_question("Segment {phrase}.", "Who wins?", "sa2va", clip=True)
    'Who wins?'
    """
    return text if is_question(text, behaviour) else sentence.format(phrase=training_phrase(text, behaviour, clip))


def training_phrase(text: str, behaviour: str, clip: bool) -> str:
    """`plain_phrase`; in clips behaviour `sa2va` drops every full stop, as Sa2VA's own data set does.

    >>> training_phrase("The car 3.5 m away.", "sa2va", clip=True)
    'the car 35 m away'
    """
    return plain_phrase(text.replace(".", "") if clip and behaviour == "sa2va" else text)


def training_turns(
    expressions: Sequence[Expression | ClipExpression],
    most: int,
    rng: np.random.Generator,
    behaviour: str = "deixis",
    *,
    clip: bool = False,
) -> tuple[list[Turn], list[tuple[int, str]]]:
    """A conversation about some of an image's expressions, and for each `[SEG]` (position of expression, sentence).

    One sentence is drawn per expression. Expressions without sentences are left out.

    Args:
        most: the maximum number of expressions.
        behaviour: which of `ANSWERS` are given, and how phrases are asked for; see `training_question`.
        clip: the expressions are of a clip.
    """
    askable = [i for i, expression in enumerate(expressions) if expression.texts]
    chosen = [askable[i] for i in rng.permutation(len(askable))[:most]]
    # (position, sentence), in the order of the `[SEG]`s
    asked = [(i, expressions[i].texts[int(rng.integers(len(expressions[i].texts)))]) for i in chosen]
    together = len(asked) > 1 and rng.random() < TOGETHER
    # a phrase that is a question stands alone, not in a list
    if together and not any(is_question(text, behaviour) for _, text in asked):
        phrases = [training_phrase(text, behaviour, clip) for _, text in asked]
        question = _drawn(QUESTIONS, rng).format(phrase=" and ".join([", ".join(phrases[:-1]), phrases[-1]]))
        answer = ", ".join(f"{phrase} {SEG}" for phrase in phrases)
        return [Turn(question, f"Sure, {answer}.", tuple(range(len(asked))))], asked
    turns = []
    for position, (_, text) in enumerate(asked):
        question, answer = _drawn(QUESTIONS, rng), _drawn(ANSWERS[behaviour], rng)
        question = training_question(question, text, behaviour, clip=clip)
        turns.append(Turn(question, answer.format(phrase=plain_phrase(text)), (position,)))
    return turns, asked


def caption_turn(region: int = 1, text: str = "") -> Turn:
    """The question that evaluation and prediction ask about a region, and the caption where it is known."""
    return Turn(CAPTION_QUESTIONS[0].format(region=region_name(region)), text, ())


def region_name(number: int) -> str:
    """The name of a region in a conversation, counted from 1."""
    return f"region{number}"


def caption_turns(
    expressions: Sequence[Expression],
    most: int,
    rng: np.random.Generator,
    questions: tuple[str, ...] = CAPTION_QUESTIONS,
) -> tuple[list[Turn], tuple[int, ...]]:
    """A conversation that describes some of an image's masks, and the positions of its regions' expressions, in order.

    All masks of an expression form one region; its caption is one of its sentences, drawn at random. Expressions
    without a sentence, or without a visible mask, are left out; the conversation may be empty.

    Args:
        most: the maximum number of regions.
        questions: how they are asked about.
    """
    known = [i for i, expression in enumerate(expressions) if expression.texts and has_pixels(expression)]
    chosen = tuple(known[i] for i in rng.permutation(len(known))[:most])
    captions = [expressions[i].texts[int(rng.integers(len(expressions[i].texts)))].strip() for i in chosen]
    names = [region_name(number) for number in range(1, len(chosen) + 1)]
    # detailed descriptions are asked for one by one: `EVERY_REGION` does not ask for details
    if questions is CAPTION_QUESTIONS and len(chosen) > 1 and rng.random() < TOGETHER:
        answer = ", ".join(f"{name}: {caption}" for name, caption in zip(names, captions, strict=True))
        return [Turn(EVERY_REGION, answer, ())], chosen
    turns = [
        Turn(_drawn(questions, rng).format(region=name), caption, ())
        for name, caption in zip(names, captions, strict=True)
    ]
    return turns, chosen


def chat_turns(
    chat: Sequence[Exchange], expressions: Sequence[Expression], rng: np.random.Generator
) -> tuple[list[Turn], list[tuple[int, str]]]:
    """A data set's own conversation, whole, and for each `[SEG]` (position of expression, phrase).

    One question is drawn per exchange. A grounded phrase becomes `<p> phrase </p> [SEG]`, as released models write it.
    """
    turns: list[Turn] = []
    asked: list[tuple[int, str]] = []
    for exchange in chat:
        first = len(asked)
        for start, end, position in exchange.grounded:
            texts = expressions[position].texts
            # an empty range: a `[SEG]` without its phrase
            asked.append((position, exchange.answer[start:end] or (texts[0] if texts else "")))
        expected = tuple(range(first, len(asked)))
        question = without_marks(_drawn(exchange.questions, rng))
        turns.append(Turn(question, grounded_answer(exchange.answer, exchange.grounded), expected, given=True))
    return turns, asked


def grounded_answer(answer: str, grounded: Sequence[Grounded]) -> str:
    """An answer with its phrases marked and a `[SEG]` after each.

    >>> grounded_answer("A dog, running.", [Grounded(0, 5, 0)])
    '<p> A dog </p> [SEG], running.'
    """
    written, after = "", 0  # what is written, and the end of the answer's part that is
    opening, closing = PHRASE_MARKS
    for start, end, _ in grounded:
        phrase = without_marks(answer[start:end]).strip()
        written += without_marks(answer[after:start]) + (f"{opening} {phrase} {closing} {SEG}" if phrase else SEG)
        after = end
    return written + without_marks(answer[after:])


def without_marks(text: str) -> str:
    """A data set's text in which nothing is read as a mark of the conversation itself: a blank breaks such words up.

    >>> without_marks("<p>One</p> <div> <|im_end|>")
    '< p>One< /p> <div> < |im_end|>'
    """
    return _MARKS.sub(lambda found: f"{found[0]} ", text)


def has_pixels(expression: Expression) -> bool:
    """Whether any of its masks is not empty, so that there is something to describe."""
    return any(int(coco_mask.area(mask)) > 0 for mask in expression.masks_rle)


def conversation_words() -> tuple[str, ...]:
    """Every word of the questions and answers, in lower case, for word-level tokenizers."""
    regions = [region_name(number) for number in range(1, 10)]
    said = (*QUESTIONS, *ANSWERS["sa2va"], *ANSWERS["deixis"], "and", *CAPTION_QUESTIONS, EVERY_REGION, *regions)
    said = (*said, *DETAIL_QUESTIONS, *GROUNDED_QUESTIONS)
    text = " ".join((*said, "There are part regions in the picture:"))
    text = text.replace("{phrase}", " ").replace("{region}", " ").replace(SEG, " ")
    return tuple(sorted({word.strip(".,?:").lower() for word in text.split()} - {""}))


def _drawn(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
