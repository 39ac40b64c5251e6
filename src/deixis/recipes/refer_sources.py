"""Where a segmenter's data comes from: files in any format, generated scenes, and the folders of public data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deixis.data.refer_mixing import ReferMix
from deixis.data.refer_readers import read_refer
from deixis.data.refer_readers.entries import warn_left_out
from deixis.data.refer_scenes import ReferScenes
from deixis.data.subset import ReferSubset
from deixis.errors import DataError, OptionError
from deixis.recipes.refer_data import held_out
from deixis.recipes.refer_options import ReferTrainOptions
from deixis.refer_records import ReferDataset


def read_refer_data(options: ReferTrainOptions) -> tuple[ReferDataset, ReferDataset]:
    """(training, validation) data of a run.

    Raises:
        DataError: they cannot be read, or are empty.
        OptionError: weights that do not fit the data sets.
    """
    if options.sav_dir is not None:
        raise OptionError("--sav-dir: video is not trained on yet; leave it out")
    if options.sa1b_dir is not None:
        raise OptionError(
            "--sa1b-dir: its masks have no phrases; write captions first, as in deixis refer cycle --masks "
            f"{options.sa1b_dir} --output cycle, then train with --data cycle/captions.json"
        )
    sources = [read_refer(path, options.images, options.format) for path in options.data]
    if options.refcoco_dir is not None:
        sources.append(read_refer(options.refcoco_dir, options.images, "refcoco", split="train"))
    if options.openimages_dir is not None:
        sources.append(read_refer(options.openimages_dir, options.images, "openimages_masks"))
    if options.val_data:
        validation = read_refer_sources(options.val_data, options.val_images, options.format)
        sources = [with_phrases(source) for source in sources]
        return mixed(sources, options.data_weights, options.seed), validation
    # Held out before mixing, so that no image is on both sides and the mix still draws anew each epoch.
    parts = held_out([with_phrases(source) for source in sources])
    training = mixed([kept for kept, _ in parts], options.data_weights, options.seed)
    return training, mixed([out for _, out in parts], (), 0)


def with_phrases(dataset: ReferDataset) -> ReferDataset:
    """Without the images of which nothing is asked: they train nothing. A warning counts them.

    Raises:
        DataError: none is left.
    """
    if isinstance(dataset, ReferScenes):
        return dataset
    kept, silent = [], []
    for index in range(len(dataset)):
        sample = dataset[index]
        if any(expression.texts for expression in sample.expressions):
            kept.append(index)
        else:
            silent.append(sample.source or f"image {sample.image_id}")
    if not kept:
        raise DataError(f"{dataset.name}: none of its {len(dataset)} images has a sentence; nothing can be asked")
    warn_left_out(dataset.name, "images without a sentence", silent)
    return ReferSubset(dataset, tuple(kept), dataset.name) if silent else dataset


def read_refer_sources(data: Sequence[str], images: Path | None, form: str | None) -> ReferDataset:
    """One data set of all that is named, one after the other in full.

    Raises:
        DataError: it cannot be read.
    """
    return mixed([read_refer(path, images, form) for path in data], (), 0)


def mixed(sources: Sequence[ReferDataset], weights: Sequence[float], seed: int) -> ReferDataset:
    """The only data set, or all of them by weight.

    Raises:
        OptionError: another number of weights than of data sets.
    """
    if weights and len(weights) != len(sources):
        raise OptionError(
            f"--data-weights: got {len(weights)} for {len(sources)} data sets; give one for each, in order"
        )
    return sources[0] if len(sources) == 1 else ReferMix(sources, weights, seed=seed)
