"""MUSE (Ren et al., arXiv 2312.02228): questions that take reasoning, and answers with several masks.

[{"file_name": "000000391895.jpg", "height": 360, "width": 640, "ann_list": [{"category_id": 1}, …],
  "questions": ["What could carry both of them home?"], "text_answers": ["The motorcycle {seg} can."],
  "answers": [[{"segmentation": …, "category_name": "motorcycle", "rephrased_name": "the red motorcycle"}]]}]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deixis.data.formats.annotation_files import the_file
from deixis.data.formats.record import Format
from deixis.data.reading import reads, shown
from deixis.data.refer_formats.chat.entries import Entry, are_lists_with, image_name, read_entries, size_of
from deixis.data.refer_formats.entries import object_mask
from deixis.refer_records import Exchange, Expression, Grounded, ReferList, ReferSample

_MASK = "{seg}"
_WITH_MASKS = " Please respond with segmentation masks."


def find_muse(path: Path) -> list[Path]:
    """JSON lists of questions with masks as answers."""
    return are_lists_with(path, "questions", "answers", "segmentation")


@reads("questions with masks as answers")
def read_muse(path: str | Path, images: Path | None = None, faults: list[str] | None = None) -> ReferList:
    """One file of MUSE, or of one's own laid out like it. Training shows its questions and answers, with a mask at
    each `{seg}`, or after the name of each object where no text is given. Measured is each question by itself: all
    masks of its answer are one target.

    Args:
        images: folder of COCO's images, or one with `train2017`, `val2017` and so on in it.

    Raises:
        DataError: malformed JSON, missing images, or entries that cannot be used.
    """
    file = the_file(path, find_muse, "file of MUSE")
    return read_entries(
        file,
        images,
        faults,
        # `coco_url` is an address; its last part is the file.
        name_of=lambda entry: image_name(entry, "file_name", "image", "coco_url").rpartition("/")[2],
        sample_of=_sample,
    )


def _sample(entry: Entry, image: Path, number: int, source: str) -> ReferSample:
    size_hw = size_of(entry, image)
    questions, answers = entry.get("questions"), entry.get("answers")
    questions = [questions] if isinstance(questions, str) else questions
    if not isinstance(questions, list) or not isinstance(answers, list) or len(questions) != len(answers):
        raise ValueError(f"questions and answers must be lists of one length, got {shown(questions)}")
    texts = entry.get("text_answers") or [None] * len(questions)
    if not isinstance(texts, list) or len(texts) != len(questions):
        raise ValueError(f"text_answers must be as many as questions, got {shown(texts)}")
    asked: list[Expression] = []
    objects: list[Expression] = []
    chat = []
    for position, (question, answer, text) in enumerate(zip(questions, answers, texts, strict=True), start=1):
        if not isinstance(question, str) or not question.strip():
            raise ValueError(f"question {position} is blank, or no text")
        try:
            masks, names = _objects(answer, size_hw)
            written, places = _answer(text, names)
        except ValueError as error:
            raise ValueError(f"answer {position}: {error}") from error
        first = len(questions) + len(objects)  # in the sample's expressions, where objects follow all questions
        asked.append(Expression((question.strip(),), tuple(masks), ("question",), position))
        objects += [Expression((), (mask,), expression_id=position) for mask in masks]
        grounded = tuple(Grounded(*place, first + i) for i, place in enumerate(places))
        chat.append(Exchange((question.strip() + _WITH_MASKS,), written, grounded))
    return ReferSample(image, size_hw, (*asked, *objects), number, source, tuple(chat))


def _objects(answer: Any, size_hw: tuple[int, int]) -> tuple[list[Any], list[str]]:
    """The masks of an answer, and their names."""
    if not isinstance(answer, list) or not answer or not all(isinstance(one, dict) for one in answer):
        raise ValueError(f"expected a list of objects with a segmentation, got {shown(answer)}")
    masks, names = [], []
    for one in answer:
        try:
            masks.append(object_mask(one.get("segmentation"), size_hw))
        except ValueError as error:
            raise ValueError(f"a segmentation {error}") from error
        name = one.get("rephrased_name") or one.get("category_name") or ""
        names.append(name.strip() if isinstance(name, str) else "")
    return masks, names


def _answer(text: Any, names: list[str]) -> tuple[str, list[tuple[int, int]]]:
    """The words of an answer, and the place of each mask in them.

    Raises:
        ValueError: another number of `{seg}` than of masks.
    """
    if text is None:
        words, places = "", []
        for i, name in enumerate(names):
            words += ("" if i == 0 else " and " if i + 1 == len(names) else ", ") + name
            places.append((len(words) - len(name), len(words)))
        return f"{words}.", places
    parts = text.split(_MASK) if isinstance(text, str) else []
    # A text of n masks has n + 1 parts around them.
    if len(parts) != len(names) + 1:
        raise ValueError(f"{max(len(parts) - 1, 0)} {_MASK} for {len(names)} masks in {shown(text)}")
    words, places = parts[0], []
    for part in parts[1:]:
        places.append((len(words), len(words)))  # no words of its own: `{seg}` stands beside them
        words += part
    return words, places


MUSE = Format("muse", find_muse, read_muse, takes=("faults",), decisive=True)
