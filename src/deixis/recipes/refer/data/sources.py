"""Where a segmenter's data comes from: files in any format, generated scenes, and the folders of public data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from deixis.data.refer_formats import read_refer
from deixis.data.refer_formats.chat.llava import Chats
from deixis.data.refer_formats.entries import warn_left_out
from deixis.data.scenes.clip_scenes import ClipScenes
from deixis.data.scenes.refer_scenes import ReferScenes
from deixis.data.sets.clip_stills import ClipStills
from deixis.data.sets.mask_regions import PHRASE, with_placeholders
from deixis.data.sets.mixing import Joined, Mixture
from deixis.errors import DataError, OptionError
from deixis.options.refer_train import PublicData, ReferData, ReferForgetting
from deixis.recipes.refer.data.chat import held_out_chat, only_talks, read_chat, read_source
from deixis.recipes.refer.data.generated import read_sa1b, read_sav
from deixis.recipes.refer.data.splits import (
    VALIDATION_SHARE,
    Source,
    held_out,
    note_on_official,
    official_parts,
    subset,
    without_images_of,
)
from deixis.recipes.run.data import RunData, held_out_shares, note_on_parts
from deixis.recipes.run.outputs import warn_once
from deixis.refer_records import ReferDataset, ReferSample
from deixis.video_records import Clip, ClipDataset


def read_refer_data(
    given: ReferData, public: PublicData, forgetting: ReferForgetting | None = None, *, folder: Path, seed: int
) -> RunData[ReferDataset]:
    """The data of a run; what is not given is held out of the training data.

    Args:
        forgetting: the conversations that show what is forgotten; held out of those in `given` where none are named.
        folder: of the run, where captions of masks without phrases are.
        seed: of the order in which data sets are mixed.

    Raises:
        DataError: they cannot be read, or are empty.
        OptionError: weights that do not fit the data sets.
    """
    if public.placeholder_captions:
        warn_once(
            f"--placeholder-captions: every mask without a phrase is asked for as {PHRASE!r}, which teaches no "
            "language; for phrases of their own, leave it out or write captions by deixis refer cycle"
        )
    sources = _training_sources(given, public, folder)
    measured = ((given.val_data, given.val_images), (given.test_data, given.test_images))
    validation, test = (
        read_refer_sources(data, images, given.format, public.placeholder_captions) if data else None
        for data, images in measured
    )
    sources = [with_phrases(phrased(source, public.placeholder_captions)) for source in sources]
    talk = [number for number, source in enumerate(sources) if only_talks(source)]
    official: dict[str, list[ReferDataset]] = {}
    if validation is None:
        official = official_parts(public.refcoco_dir, given.images, with_test=test is None)
    theirs = len(given.data) if official else None  # RefCOCO comes after --data; nothing is held out of it
    # Before anything is held out: what the authors measure on must not be trained on.
    sources = [
        without_images_of(source, [*official.get("validation", ()), *official.get("test", ())]) for source in sources
    ]
    split = [number for number in range(len(sources)) if number != theirs and number not in talk]
    images = sum(len(sources[number]) for number in split)
    shares: tuple[float, ...] = ()
    if validation is None:
        shares = held_out_shares(images, VALIDATION_SHARE, VALIDATION_SHARE, test is not None) if split else ()
        validation, held = _hold_out_of(sources, split, shares, official=official)
        test = test if held is None else held
    chat = _chat_of(sources, talk, forgetting or ReferForgetting())
    training = mixed(sources, given.data_weights, seed)
    note = note_on_parts(shares, images, test is not None)
    note = f"{note_on_official(official)}; {note}" if official else note
    return RunData(training, validation, test, note, cast(ReferDataset | None, chat))


def _training_sources(given: ReferData, public: PublicData, folder: Path) -> list[Source]:
    """The data sets to train on, `--data` first, then the public ones."""
    sources = [read_source(path, given.images, given.format) for path in given.data]
    if public.refcoco_dir is not None:
        sources.append(read_refer(public.refcoco_dir, given.images, "refcoco", split="train"))
    if public.sa1b_dir is not None:
        sources.append(read_sa1b(public, folder))
    if public.openimages_dir is not None:
        sources.append(read_refer(public.openimages_dir, given.images, "openimages_masks"))
    if public.sav_dir is not None:
        sources.append(read_sav(public, folder))
    return sources


def _hold_out_of(
    sources: list[Source], split: Sequence[int], shares: Sequence[float], *, official: Mapping[str, list[ReferDataset]]
) -> tuple[ReferDataset, ReferDataset | None]:
    """(validation, test) data: the authors' own splits, and the shares held out of some sources, in place.

    It is held out before mixing, so that no image is on both sides and the mix still draws anew each epoch.

    Raises:
        DataError: there is nothing to measure.
    """
    parts = held_out([sources[number] for number in split], shares) if split else []
    for number, (kept, *_) in zip(split, parts, strict=True):
        sources[number] = kept
    # for each share the part that every data set gives to it
    roles = [[as_images(part[role]) for part in parts] for role in range(1, len(shares) + 1)]
    chosen = [*official.get("validation", ()), *(roles[0] if roles else ())]
    tested = [*official.get("test", ()), *(roles[1] if len(roles) > 1 else ())]
    if not chosen:
        raise DataError(
            f"{sources[0].name}: its conversations ask for no mask, so there is nothing to choose the epoch by; "
            "give --val-data with phrases and masks"
        )
    return mixed(chosen, (), 0), mixed(tested, (), 0) if tested else None


def _chat_of(sources: list[Source], talk: Sequence[int], forgetting: ReferForgetting) -> Source | None:
    """The conversations that show what is forgotten: those named, or some held out of the sources that only talk, in
    place; of several such sources, the first that has enough."""
    chat = read_chat(forgetting)
    if chat is None:
        for number in talk:
            sources[number], held = held_out_chat(sources[number], forgetting.forgetting_max_images)
            chat = held if chat is None else chat
    return chat


def as_images(source: Source) -> ReferDataset:
    """What evaluation looks at: of clips a frame each. `deixis refer track --data` measures whole clips.

    Raises:
        DataError: conversations that ask for no mask.
    """
    if only_talks(source, described=False):
        raise DataError(
            f"{source.name}: its conversations ask for no mask, so there is nothing to measure; deixis refer train "
            "measures their language with --forgetting-data"
        )
    return ClipStills(cast(ClipDataset, source)) if isinstance(source[0], Clip) else cast(ReferDataset, source)


def with_phrases(dataset: Source) -> Source:
    """Without images of which nothing is asked, and clips without labels: they train nothing. A warning counts them.

    Raises:
        DataError: none is left.
    """
    if isinstance(dataset, ReferScenes | ClipScenes | Chats):
        return dataset
    kept, silent = [], []
    for index in range(len(dataset)):
        sample: ReferSample | Clip = dataset[index]
        labelled = not isinstance(sample, Clip) or bool(sample.labelled)
        if sample.chat or (labelled and any(expression.texts for expression in sample.expressions)):
            kept.append(index)
        else:
            silent.append(sample.source or f"number {index + 1}")
    if not kept:
        raise DataError(
            f"{dataset.name}: none of its {len(dataset)} images has a sentence; nothing can be asked. "
            "deixis refer cycle writes captions of masks, --placeholder-captions trains without any"
        )
    warn_left_out(dataset.name, "images without a sentence", silent)
    return subset(dataset, tuple(kept), dataset.name) if silent else dataset


def phrased(source: Source, placeholders: bool) -> Source:
    """With a placeholder phrase for each mask without one, where asked; generated scenes have all theirs."""
    if not placeholders or isinstance(source, ReferScenes | ClipScenes):
        return source
    return cast(Source, with_placeholders(source))


def read_refer_sources(
    data: Sequence[str], images: Path | None, form: str | None, placeholders: bool = False
) -> ReferDataset:
    """One data set of all that is named, one after the other in full; see `phrased`.

    Raises:
        DataError: it cannot be read.
    """
    return mixed([as_images(phrased(read_source(path, images, form), placeholders)) for path in data], (), 0)


def mixed(sources: Sequence[Source], weights: Sequence[float], seed: int) -> ReferDataset:
    """The only data set, or all of them by weight.

    Raises:
        OptionError: another number of weights than of data sets.
    """
    if weights and len(weights) != len(sources):
        raise OptionError(
            f"--data-weights: got {len(weights)} for {len(sources)} data sets; give one for each, in order"
        )
    if len(sources) == 1:
        return cast(ReferDataset, sources[0])
    # Clips are recognised among images where questions are drawn.
    return cast(ReferDataset, Joined(sources, Mixture.of([len(s) for s in sources], weights, seed=seed)))
