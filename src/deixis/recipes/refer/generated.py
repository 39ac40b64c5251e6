"""Masks without sentences (SA-1B, SA-V): the run's own model describes them, and keeps what it finds again."""

from __future__ import annotations

import json
from pathlib import Path

from accelerate import Accelerator

from deixis.data.clip_formats import read_clips
from deixis.data.refer_formats import read_refer
from deixis.data.sets.clip_stills import CaptionedClips
from deixis.errors import DataError, OptionError
from deixis.inference.outputs.cycle import KEPT
from deixis.options.refer_caption import ReferCycleOptions
from deixis.options.refer_train import ReferTrainOptions
from deixis.recipes.refer.cycle import cycle_masks_together
from deixis.recipes.run.folder import run_folder
from deixis.refer_records import ReferDataset
from deixis.video_records import ClipDataset

_LOOKED_AT = 20  # clips, to see whether there are sentences


def caption_folders(options: ReferTrainOptions, accelerator: Accelerator) -> None:
    """Write captions of --sa1b-dir and --sav-dir into the run's folder, with the model that the run starts from. All
    processes take their share.

    What an earlier or interrupted run has done is not done again; for large folders do it beforehand, by
    `deixis refer cycle`, and train on what that writes.

    Raises:
        DeixisError: masks or model cannot be used, or a dry run would have to write.
    """
    for wanted in captions_wanted(options):
        cycle_masks_together(wanted, accelerator)


def captions_wanted(options: ReferTrainOptions) -> list[ReferCycleOptions]:
    """What is to be described before a run can start.

    Raises:
        DeixisError: masks cannot be used, or a dry run would have to write.
    """
    if options.placeholder_captions:
        return []
    found = []
    most = options.sa1b_max_samples
    for name, masks, form, images in (("sa1b", options.sa1b_dir, "sa1b", most), ("sav", options.sav_dir, None, None)):
        if masks is None or (name == "sav" and has_sentences(read_clips(masks))):
            continue
        folder = captions_folder(options, name)
        if options.dry_run and not (folder / KEPT).exists():
            raise OptionError(
                f"--{name}-dir: its masks have no sentences, and a dry run writes none; write them first, as in "
                f"deixis refer cycle --masks {masks} --output cycle, and name cycle/{KEPT} as --data, or give "
                "--placeholder-captions"
            )
        found.append(
            ReferCycleOptions(
                masks=str(masks),
                format=form,
                model=options.model,
                tokenizer=options.tokenizer,
                output=folder,
                threshold=options.cycle_threshold,
                max_images=images,
                max_tiles=options.max_tiles,
                device="cpu" if options.gpus == 0 else None,
            )
        )
    return found


def read_sa1b(options: ReferTrainOptions) -> ReferDataset:
    """What `caption_folders` kept of SA-1B; with --placeholder-captions its masks as they are.

    Raises:
        DataError: nothing was kept.
    """
    if options.placeholder_captions:
        return read_refer(str(options.sa1b_dir), format="sa1b", max_samples=options.sa1b_max_samples)
    return read_refer(_kept(options, "sa1b"), format="refer_json")


def read_sav(options: ReferTrainOptions) -> ClipDataset:
    """The clips of --sav-dir: with their own sentences, or with what `caption_folders` kept; with
    --placeholder-captions as they are.

    Raises:
        DataError: nothing was kept.
    """
    clips = read_clips(str(options.sav_dir))
    if options.placeholder_captions or has_sentences(clips):
        return clips
    entries = json.loads(_kept(options, "sav").read_text(encoding="utf-8"))
    captions = tuple((entry["id"], {e["id"]: tuple(e["text"]) for e in entry["expressions"]}) for entry in entries)
    return CaptionedClips(clips, captions, f"{clips.name}, captioned")


def has_sentences(clips: ClipDataset) -> bool:
    """Whether one of the first clips has any."""
    return any(e.texts for index in range(min(_LOOKED_AT, len(clips))) for e in clips[index].expressions)


def captions_folder(options: ReferTrainOptions, name: str) -> Path:
    """Where a run keeps them; a run that replaces this one finds them there."""
    return run_folder(options) / "captions" / name


def _kept(options: ReferTrainOptions, name: str) -> Path:
    file = captions_folder(options, name) / KEPT
    if not file.exists() or json.loads(file.read_text(encoding="utf-8")) == []:
        raise DataError(
            f"{file}: no caption is kept, since none finds its mask again with an IoU of {options.cycle_threshold:g}; "
            "lower --cycle-threshold, or start from a --model that describes better"
        )
    return file
