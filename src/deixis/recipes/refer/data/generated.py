"""Masks without sentences (SA-1B, SA-V): the run's own model describes them, and keeps what it finds again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator

from deixis.data.clip_formats import read_clips
from deixis.data.reading import reading
from deixis.data.refer_formats import read_refer
from deixis.data.sets.clip_stills import CaptionedClips
from deixis.errors import DataError, OptionError
from deixis.inference.outputs.cycle import KEPT
from deixis.options.refer_cycle import ReferCycleOptions
from deixis.options.refer_train import PublicData, ReferParts
from deixis.recipes.refer.cycle import cycle_masks_together
from deixis.refer_records import ReferDataset
from deixis.video_records import ClipDataset

_LOOKED_AT = 20  # clips, to see whether there are sentences


def caption_folders(wanted: Sequence[ReferCycleOptions], accelerator: Accelerator) -> None:
    """Write captions of --sa1b-dir and --sav-dir into the run's folder, with the model that the run starts from. All
    processes take their share.

    Args:
        wanted: see `captions_wanted`.

    What an earlier or interrupted run has done is not done again; for large folders do it beforehand, by
    `deixis refer cycle`, and train on what that writes.

    Raises:
        DeixisError: masks or model cannot be used.
    """
    for one in wanted:
        cycle_masks_together(one, accelerator)


def captions_wanted(
    public: PublicData, parts: ReferParts, *, folder: Path, max_tiles: int, dry_run: bool, on_cpu: bool
) -> list[ReferCycleOptions]:
    """What is to be described before a run can start.

    Args:
        folder: of the run.

    Raises:
        DeixisError: masks cannot be used, or a dry run would have to write.
    """
    if public.placeholder_captions:
        return []
    found = []
    most = public.sa1b_max_samples
    for name, masks, form, images in (("sa1b", public.sa1b_dir, "sa1b", most), ("sav", public.sav_dir, None, None)):
        if masks is None or (name == "sav" and has_sentences(read_clips(masks))):
            continue
        output = captions_folder(folder, name)
        if dry_run and not (output / KEPT).exists():
            raise OptionError(
                f"--{name}-dir: its masks have no sentences, and a dry run writes none; write them first, as in "
                f"deixis refer cycle --masks {masks} --output cycle, and name cycle/{KEPT} as --data, or give "
                "--placeholder-captions"
            )
        found.append(
            ReferCycleOptions(
                masks=str(masks),
                format=form,
                model=parts.model,
                tokenizer=parts.tokenizer,
                output=output,
                threshold=public.cycle_threshold,
                max_images=images,
                max_tiles=max_tiles,
                device="cpu" if on_cpu else None,
            )
        )
    return found


def read_sa1b(public: PublicData, folder: Path) -> ReferDataset:
    """What `caption_folders` kept of SA-1B; with --placeholder-captions its masks as they are.

    Raises:
        DataError: nothing was kept.
    """
    if public.placeholder_captions:
        return read_refer(str(public.sa1b_dir), format="sa1b", max_samples=public.sa1b_max_samples)
    return read_refer(_kept(public, folder, "sa1b"), format="refer_json")


def read_sav(public: PublicData, folder: Path) -> ClipDataset:
    """The clips of --sav-dir: with their own sentences, or with what `caption_folders` kept; with
    --placeholder-captions as they are.

    Raises:
        DataError: nothing was kept.
    """
    clips = read_clips(str(public.sav_dir))
    if public.placeholder_captions or has_sentences(clips):
        return clips
    file = _kept(public, folder, "sav")
    with reading(file, "captions"):
        entries = json.loads(file.read_text(encoding="utf-8"))
        captions = tuple((entry["id"], {e["id"]: tuple(e["text"]) for e in entry["expressions"]}) for entry in entries)
    return CaptionedClips(clips, captions, f"{clips.name}, captioned")


def has_sentences(clips: ClipDataset) -> bool:
    """Whether one of the first clips has any."""
    return any(e.texts for index in range(min(_LOOKED_AT, len(clips))) for e in clips[index].expressions)


def captions_folder(folder: Path, name: str) -> Path:
    """Where a run keeps them; a run that replaces this one finds them there."""
    return folder / "captions" / name


def _kept(public: PublicData, folder: Path, name: str) -> Path:
    file = captions_folder(folder, name) / KEPT
    with reading(file, "captions"):
        empty = not file.exists() or json.loads(file.read_text(encoding="utf-8")) == []
    if empty:
        raise DataError(
            f"{file}: no caption is kept, since none finds its mask again with an IoU of {public.cycle_threshold:g}; "
            "lower --cycle-threshold, or start from a --model that describes better"
        )
    return file
