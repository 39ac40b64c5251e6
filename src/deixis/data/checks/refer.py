"""What can be wrong with phrases and masks. Everything is looked at, told and counted; nothing is changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pycocotools import mask as coco_mask

from deixis.data.refer.conversation import (
    ANSWERS,
    QUESTIONS,
    ConversationEncoder,
    Turn,
    plain_phrase,
    training_question,
)
from deixis.data.refer.loading import decoded
from deixis.data.sets.placeholders import TAG
from deixis.errors import DeixisError
from deixis.records import Rle
from deixis.refer_records import Expression, ReferDataset, ReferSample
from deixis.video_records import Clip, ClipDataset, ClipExpression

# Kinds of findings: how grave, and what they are. An error stops training or teaches what is wrong.
KINDS: dict[str, tuple[str, str]] = {
    "entry": ("error", "entries that cannot be used"),
    "image": ("error", "images missing, unreadable or of another size"),
    "mask_empty": ("error", "phrases whose masks have no pixel: they would be taught as absent"),
    "seg_mismatch": ("error", "conversations with more or fewer [SEG] than masks"),
    "cut": ("error", "conversations longer than the limit, which truncation would cut"),
    "markup": ("error", "sentences with the model's own markup in them"),
    "ambiguous": ("warning", "one sentence for different masks of an image"),
    "mask_tiny": ("warning", "masks of few pixels"),
    "said": ("warning", "said while reading"),
    "silent": (
        "warning",
        "no sentence at all: refer train needs captions (refer cycle) or --placeholder-captions",
    ),
    "repeated": ("note", "one sentence twice for the same mask"),
    "wordless": ("note", "masks without a sentence: they await a caption"),
    "nothing_asked": ("note", "images without a sentence: they train nothing"),
}
MARKUP = ("[seg]", "<image>", "<img>", "<img_context>", "<p>", "</p>", "<vp>", "</vp>", "<|im_start|>", "<|im_end|>")


@dataclass(frozen=True)
class ReferFinding:
    """One thing found: a key of `KINDS`, where it stands, and what is wrong."""

    kind: str
    where: str
    message: str


@dataclass(frozen=True)
class ReferFacts:
    """A data set in numbers. `longest_tokens` is that of the longest conversation; 0 where none was written."""

    images: int
    phrases: int
    masks: int
    absent: int
    longest_tokens: int


@dataclass(frozen=True)
class Limits:
    """What conversations are tried with.

    Attributes:
        encode: the model's own way to write a conversation as tokens.
        seg_token_id: of `[SEG]`.
        tiles: how many tiles an image of a (height, width) becomes.
        most_tokens: of a conversation.
        most_masks: of a conversation.
        behaviour: whose answers; see `conversation.ANSWERS`.
        clip_frames: most frames of a clip, one tile each.
    """

    encode: ConversationEncoder
    seg_token_id: int
    tiles: Callable[[tuple[int, int]], int]
    most_tokens: int
    most_masks: int
    behaviour: str = "deixis"
    clip_frames: int = 5


@dataclass
class _Notes:
    found: list[ReferFinding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    longest: int = 0

    def add(self, kind: str, where: str, message: str) -> None:
        self.found.append(ReferFinding(kind, where, message))


def check_refer(
    dataset: ReferDataset | ClipDataset,
    limits: Limits | None = None,
    tiny_px: int = 16,
    decode: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[ReferFacts, list[ReferFinding]]:
    """Look at every sample.

    Args:
        dataset: of images or clips; samples that cannot be read become findings.
        limits: write the longest conversation that training can draw of each image, and look at its tokens.
        tiny_px: masks with fewer pixels are told of.
        decode: decode every image, and of clips every labelled frame; without, none is decoded.
        progress: called with the number done and the number of all.
    """
    notes = _Notes()
    for index in range(len(dataset)):
        try:
            sample: ReferSample | Clip = dataset[index]
        except DeixisError as error:
            notes.add("entry", f"{dataset.name}: sample {index}", str(error))
        else:
            if isinstance(sample, Clip):
                _look_at_clip(sample, limits, tiny_px, decode, notes)
            else:
                tiles = limits.tiles(sample.size_hw) if limits is not None else 0
                _look_at(sample, limits, tiny_px, decode, notes, tiles)
        if progress is not None:
            progress(index + 1, len(dataset))
    counts = notes.counts
    if len(dataset) and not counts["phrases"]:
        notes.add("silent", dataset.name, f"none of its {len(dataset)} images or clips has a sentence")
    facts = ReferFacts(len(dataset), counts["phrases"], counts["masks"], counts["absent"], notes.longest)
    return facts, notes.found


def _look_at_clip(clip: Clip, limits: Limits | None, tiny_px: int, decode: bool, notes: _Notes) -> None:
    """A clip as an image in which every expression has its masks of the frame that shows most of it."""
    if not clip.labelled:
        notes.add("nothing_asked", clip.source, "a clip without labels: it trains nothing")
    if decode:
        try:
            for _ in clip.frames.read(clip.labelled):  # training shows these frames and no others
                pass
        except DeixisError as error:
            notes.add("image", clip.source, str(error))
    shown = [(expression, _fullest(clip, expression)) for expression in clip.expressions]
    expressions = tuple(Expression(e.texts, masks, e.tags, e.expression_id) for e, masks in shown if e.texts or masks)
    frames = min(len(clip.labelled), limits.clip_frames if limits is not None else 1)
    tiles = limits.tiles(clip.size_hw) if limits is not None and frames == 1 else frames
    sample = ReferSample(Path(), clip.size_hw, expressions, source=clip.source)
    _look_at(sample, limits, tiny_px, False, notes, tiles, clip=True)


def _fullest(clip: Clip, expression: ClipExpression) -> tuple[Rle, ...]:
    """The masks of what is meant, of the labelled frame where they are largest; none where it is never visible."""
    masks = (clip.masks_at(expression, label) for label in range(len(clip.labelled)))
    return max(masks, key=lambda found: sum(int(coco_mask.area(mask)) for mask in found), default=())


def _look_at(
    sample: ReferSample,
    limits: Limits | None,
    tiny_px: int,
    decode: bool,
    notes: _Notes,
    tiles: int,
    *,
    clip: bool = False,
) -> None:
    where = sample.source or f"image {sample.image_id}"
    if decode:
        try:
            decoded(sample)
        except DeixisError as error:
            notes.add("image", where, str(error))
    for expression in sample.expressions:
        _look_at_masks(expression, tiny_px, where, notes)
        for text in expression.texts:
            inside = [word for word in MARKUP if word in text.lower()]
            if inside:
                notes.add("markup", where, f"{text!r} has {', '.join(inside)} in it; take it out of the sentence")
    if not any(expression.texts for expression in sample.expressions):
        notes.add("nothing_asked", where, f"{len(sample.expressions)} expressions, none with a sentence")
    _look_for_doubles(sample, where, notes)
    if limits is not None:
        _write_out(sample, limits, where, notes, tiles, clip=clip)


def _look_at_masks(expression: Expression, tiny_px: int, where: str, notes: _Notes) -> None:
    notes.counts["phrases"] += len(expression.texts)
    notes.counts["masks"] += len(expression.masks_rle)
    name = repr(expression.texts[0]) if expression.texts else f"expression {expression.expression_id}"
    areas = [int(coco_mask.area(mask)) for mask in expression.masks_rle]
    if not areas:
        notes.counts["absent"] += 1
    elif not any(areas):
        notes.add("mask_empty", where, f"{name} has masks without a pixel; say masks: [] if nothing is meant")
    elif min(areas) < tiny_px:
        notes.add("mask_tiny", where, f"a mask of {name} has {min(areas)} pixels")
    if not expression.texts:
        notes.add("wordless", where, f"{name} has no sentence")


def _look_for_doubles(sample: ReferSample, where: str, notes: _Notes) -> None:
    meant: dict[str, list[tuple[bytes, ...]]] = {}
    for expression in sample.expressions:
        if TAG in expression.tags:
            continue  # one phrase for all masks on purpose
        masks = tuple(sorted(_counts(mask["counts"]) for mask in expression.masks_rle))
        for text in expression.texts:
            meant.setdefault(plain_phrase(text), []).append(masks)
    for text, targets in meant.items():
        if len(set(targets)) > 1:
            notes.add("ambiguous", where, f"{text!r} means {len(set(targets))} different things here")
        elif len(targets) > 1:
            notes.add("repeated", where, f"{text!r} stands {len(targets)} times")


def _counts(counts: str | bytes) -> bytes:
    return counts.encode("ascii") if isinstance(counts, str) else counts


def _write_out(sample: ReferSample, limits: Limits, where: str, notes: _Notes, tiles: int, *, clip: bool) -> None:
    """The longest conversation: of each expression the longest sentence, and of these the longest."""
    longest: list[tuple[int, str]] = []
    for expression in sample.expressions:
        if expression.texts:
            alone = [(_turn(text, 0, limits.behaviour, clip=clip), text) for text in expression.texts]
            longest.append(max((len(limits.encode([turn], 1)[0]), text) for turn, text in alone))
    longest = sorted(longest, reverse=True)[: limits.most_masks]
    if not longest:
        return
    turns = [_turn(text, position, limits.behaviour, clip=clip) for position, (_, text) in enumerate(longest)]
    input_ids, _ = limits.encode(turns, tiles)
    notes.longest = max(notes.longest, len(input_ids))
    if len(input_ids) > limits.most_tokens:
        lost = input_ids[limits.most_tokens :].count(limits.seg_token_id)
        notes.add(
            "cut",
            where,
            f"{len(input_ids)} tokens, {limits.most_tokens} are allowed: {lost} of {len(longest)} [SEG] would be lost; "
            "shorten the sentences, ask for fewer at a time, or raise --max-tokens",
        )
    if input_ids.count(limits.seg_token_id) != len(longest):
        count = input_ids.count(limits.seg_token_id)
        notes.add("seg_mismatch", where, f"{count} [SEG] for {len(longest)} masks: {[text for _, text in longest]}")


def _turn(text: str, position: int, behaviour: str, *, clip: bool) -> Turn:
    """The longest way to ask and answer."""
    question = training_question(max(QUESTIONS, key=len), text, behaviour, clip=clip)
    answer = max(ANSWERS[behaviour], key=len).format(phrase=plain_phrase(text))
    return Turn(question, answer, (position,))


def gravest(findings: Sequence[ReferFinding]) -> str:
    """`error`, `warning` or `note`; empty where nothing was found."""
    found = {KINDS[finding.kind][0] for finding in findings}
    return next((severity for severity in ("error", "warning", "note") if severity in found), "")
