"""What can be wrong with phrases and masks. Everything is counted and reported; nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from deixis.data.findings import Findings, collecting
from deixis.data.pixels.images import load_image
from deixis.data.refer.conversation import (
    ANSWERS,
    DETAIL_QUESTIONS,
    QUESTIONS,
    ConversationEncoder,
    Turn,
    chat_turns,
    plain_phrase,
    training_question,
)
from deixis.data.sets.mask_regions import TAG, mask_key
from deixis.records import Rle
from deixis.refer_records import Expression, ReferDataset, ReferSample
from deixis.video_records import Clip, ClipDataset, ClipExpression

# Special tokens of the models: in a phrase they would be taken for an image, a mask or a turn.
MARKUP = ("[seg]", "<image>", "<img>", "<img_context>", "<p>", "</p>", "<vp>", "</vp>", "<|im_start|>", "<|im_end|>")

Add = Callable[[str, str], None]
"""Adds a finding on one image: its kind, and what is wrong."""


@dataclass
class ReferFacts:
    """A data set in numbers. `longest_tokens` is that of the longest conversation; 0 where none was written.
    `exchanges` counts questions with answers that the data itself gives."""

    images: int
    phrases: int = 0
    masks: int = 0
    absent: int = 0
    longest_tokens: int = 0
    exchanges: int = 0


@dataclass(frozen=True)
class ConversationLimits:
    """What conversations are tried with.

    Attributes:
        encode: the model's own way to write a conversation as tokens.
        seg_token_id: of `[SEG]`.
        tiles: how many tiles an image of a (height, width) becomes.
        max_tokens: of a conversation.
        max_masks: of a conversation.
        behaviour: whose answers; see `conversation.ANSWERS`.
        clip_frames: maximum number of frames of a clip.
        frame_tiles: how many tiles a frame of a clip becomes.
    """

    encode: ConversationEncoder
    seg_token_id: int
    tiles: Callable[[tuple[int, int]], int]
    max_tokens: int
    max_masks: int
    behaviour: str = "deixis"
    clip_frames: int = 5
    frame_tiles: Callable[[tuple[int, int]], int] = lambda size_hw: 1


def check_refer(
    dataset: ReferDataset | ClipDataset,
    findings: Findings,
    limits: ConversationLimits | None = None,
    *,
    tiny_px: int = 16,
    decode: bool = True,
    advance: Callable[[], object] = lambda: None,
) -> ReferFacts:
    """Check every sample once.

    Args:
        dataset: of images or clips; samples that cannot be read become findings.
        limits: write the longest conversation that training can draw of each image, and check its tokens.
        tiny_px: masks with fewer pixels are reported.
        decode: decode every image, and of clips every labelled frame; without, none is decoded.
        advance: called after each sample.
    """
    facts = ReferFacts(len(dataset))
    for index in range(len(dataset)):
        sample: ReferSample | Clip | None = None
        with collecting(findings, "record_malformed", dataset.name, f"sample {index}", ""):
            sample = dataset[index]
        if sample is not None:
            file, place = _where(sample)
            add = partial(_add, findings, file, place)
            if decode:
                with collecting(findings, "image_unreadable", file, place, ""):
                    _decode(sample, add)
            facts.exchanges += len(sample.chat)
            if isinstance(sample, Clip) and not sample.labelled and not sample.chat:
                add("image_unasked", "a clip without labels: it trains nothing")
            # Clips are checked as the one image that shows most of each expression.
            shown = _as_image(sample) if isinstance(sample, Clip) else sample
            _check_expressions(shown, facts, tiny_px, add)
            if limits is not None:
                _check_conversation(shown, facts, limits, add, clip=sample if isinstance(sample, Clip) else None)
        advance()
    if len(dataset) and not facts.phrases and not facts.exchanges:
        text = f"none of its {len(dataset)} images or clips has a sentence"
        findings.add("no_phrases", dataset.name, "", text)
    return facts


def _where(sample: ReferSample | Clip) -> tuple[str, str]:
    """The file of an image or clip, and its place in the annotations."""
    if isinstance(sample, Clip):
        return sample.source, ""
    place = sample.source or f"image {sample.image_id}"
    return (str(sample.image) if isinstance(sample.image, Path) else place), place


def _add(findings: Findings, file: str, place: str, kind: str, message: str) -> None:
    findings.add(kind, file, place, message)


def _decode(sample: ReferSample | Clip, add: Add) -> None:
    """Decode what training shows: an image, or the labelled frames of a clip.

    Raises:
        DataError: it cannot be decoded.
    """
    if isinstance(sample, Clip):
        for _ in sample.frames.read(sample.labelled or (0,)):
            pass
    elif isinstance(sample.image, Path):
        height, width = load_image(sample.image).shape[:2]
        if (height, width) != sample.size_hw:
            annotated = f"{sample.size_hw[1]}x{sample.size_hw[0]}"
            add("size_mismatch", f"is {width}x{height} pixels (width x height) but annotated as {annotated}")


def _as_image(clip: Clip) -> ReferSample:
    """An image in which every expression has its masks of the frame that shows most of it."""
    shown = [(expression, _fullest(clip, expression)) for expression in clip.expressions]
    expressions = tuple(Expression(e.texts, masks, e.tags, e.expression_id) for e, masks in shown if e.texts or masks)
    return ReferSample(Path(), clip.size_hw, expressions, source=clip.source, chat=clip.chat)


def _fullest(clip: Clip, expression: ClipExpression) -> tuple[Rle, ...]:
    """The masks of what is meant, of the labelled frame where they are largest; none where it is never visible."""
    masks = (clip.masks_at(expression, label) for label in range(len(clip.labelled)))
    return max(masks, key=lambda found: sum(int(coco_mask.area(mask)) for mask in found), default=())


def _check_expressions(sample: ReferSample, facts: ReferFacts, tiny_px: int, add: Add) -> None:
    for expression in sample.expressions:
        _check_masks(expression, facts, tiny_px, add, in_chat=bool(sample.chat))
        for text in expression.texts:
            inside = [word for word in MARKUP if word in text.lower()]
            if inside:
                add("phrase_markup", f"{text!r} contains {', '.join(inside)}")
    if not sample.chat and not any(expression.texts for expression in sample.expressions):
        add("image_unasked", f"{len(sample.expressions)} expressions, none with a sentence")
    _check_repetitions(sample, add)


def _check_masks(expression: Expression, facts: ReferFacts, tiny_px: int, add: Add, *, in_chat: bool) -> None:
    facts.phrases += len(expression.texts)
    facts.masks += len(expression.masks_rle)
    name = repr(expression.texts[0]) if expression.texts else f"expression {expression.expression_id}"
    areas = [int(coco_mask.area(mask)) for mask in expression.masks_rle]
    if not areas:
        facts.absent += 1
    elif not any(areas):
        add("phrase_mask_empty", f"{name} has masks without a pixel")
    elif min(areas) < tiny_px:
        add("mask_tiny", f"a mask of {name} has {min(areas)} pixels")
    if not expression.texts and not in_chat:
        add("mask_wordless", f"{name} has no sentence")


def _check_repetitions(sample: ReferSample, add: Add) -> None:
    meant: dict[str, list[tuple[bytes, ...]]] = {}
    for expression in sample.expressions:
        if TAG in expression.tags:
            continue  # one phrase for all masks on purpose
        masks = tuple(sorted(mask_key(mask) for mask in expression.masks_rle))
        for text in expression.texts:
            meant.setdefault(plain_phrase(text), []).append(masks)
    for text, targets in meant.items():
        if len(set(targets)) > 1:
            add("phrase_ambiguous", f"{text!r} means {len(set(targets))} different things here")
        elif len(targets) > 1:
            add("phrase_repeated", f"{text!r} occurs {len(targets)} times")


def _check_conversation(
    sample: ReferSample, facts: ReferFacts, limits: ConversationLimits, add: Add, *, clip: Clip | None
) -> None:
    """The longest conversation: of each expression the longest sentence, and of these the longest."""
    if sample.chat or sample.described:
        _check_chat(sample, facts, limits, add, clip=clip)
        return
    frames = 1 if clip is None else min(len(clip.labelled), limits.clip_frames)
    tiles = limits.tiles(sample.size_hw) if frames == 1 else frames * limits.frame_tiles(sample.size_hw)
    turn = partial(_turn, behaviour=limits.behaviour, clip=clip is not None)
    longest: list[tuple[int, str]] = []
    for expression in sample.expressions:
        # In tokens: of two texts the longer one may have fewer.
        if expression.texts:
            alone = [(turn(text, 0), text) for text in expression.texts]
            longest.append(max((len(limits.encode([asked], 1)[0]), text) for asked, text in alone))
    longest = sorted(longest, reverse=True)[: limits.max_masks]
    if not longest:
        return
    turns = [turn(text, position) for position, (_, text) in enumerate(longest)]
    input_ids, _ = limits.encode(turns, tiles)
    facts.longest_tokens = max(facts.longest_tokens, len(input_ids))
    if len(input_ids) > limits.max_tokens:
        # What is cut off at the end takes its [SEG] along, and so its mask.
        lost = input_ids[limits.max_tokens :].count(limits.seg_token_id)
        text = f"{len(input_ids)} tokens, {limits.max_tokens} are allowed"
        add("conversation_too_long", f"{text}: {lost} of {len(longest)} [SEG] would be lost")
    count = input_ids.count(limits.seg_token_id)
    if count != len(longest):
        add("seg_mismatch", f"{count} [SEG] for {len(longest)} masks: {[text for _, text in longest]}")


def _check_chat(
    sample: ReferSample, facts: ReferFacts, limits: ConversationLimits, add: Add, *, clip: Clip | None
) -> None:
    """A conversation of the data's own, with its longest questions; the descriptions that are longest."""
    tiles = 0 if not sample.has_image else limits.tiles(sample.size_hw)
    if clip is not None:
        tiles = min(len(clip.frames), limits.clip_frames)
    if sample.chat:
        longest = [replace(exchange, questions=(max(exchange.questions, key=len),)) for exchange in sample.chat]
        turns, asked = chat_turns(longest, sample.expressions, np.random.default_rng(0))
    else:
        texts = sorted((max(e.texts, key=len) for e in sample.expressions if e.texts), key=len)[-limits.max_masks :]
        question = max(DETAIL_QUESTIONS, key=len)
        turns, asked = [Turn(question.format(region="region1"), text, ()) for text in texts], []
    count = len(limits.encode(turns, tiles)[0])
    facts.longest_tokens = max(facts.longest_tokens, count)
    if count > limits.max_tokens:
        lost = "it stops training" if asked or len(turns) == 1 or not sample.chat else "its last exchanges are left out"
        add("conversation_too_long", f"{count} tokens, {limits.max_tokens} are allowed: {lost}")


def _turn(text: str, position: int, *, behaviour: str, clip: bool) -> Turn:
    """The longest way to ask and answer."""
    question = training_question(max(QUESTIONS, key=len), text, behaviour, clip=clip)
    answer = max(ANSWERS[behaviour], key=len).format(phrase=plain_phrase(text))
    return Turn(question, answer, (position,))
