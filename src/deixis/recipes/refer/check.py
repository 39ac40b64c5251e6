"""Check phrases and masks: read what can be read, look at everything once, tell it by kind."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deixis.atomic_files import write_atomic
from deixis.console import Console
from deixis.data.checks.refer import KINDS, Limits, ReferFacts, ReferFinding, check_refer, gravest
from deixis.data.clip_formats import are_clips, read_clips
from deixis.data.pixels.tiles import grid_for
from deixis.data.refer_formats import read_refer
from deixis.data.refer_formats.refcoco import splits_of
from deixis.data.sets.placeholders import with_placeholders
from deixis.options.refer_check import ReferCheckOptions
from deixis.progress_bar import ProgressBar
from deixis.recipes.refer.splits import TEST, VALIDATION
from deixis.recipes.run.owned_output import require_own_file
from deixis.refer_records import ReferDataset
from deixis.video_records import ClipDataset

EXIT_ERRORS = 1
_NAMED = 3


def check_refer_data(options: ReferCheckOptions, limits: Limits | None = None) -> int:
    """Check, print, and write the findings where asked. Returns the exit code: 1 where there are errors, else 0.

    Args:
        limits: a model's way to write conversations, to look at their tokens too; that of `options.model` if not given.

    Raises:
        DeixisError: a data set, or the model, cannot be read at all.
    """
    options.check()
    if options.output is not None:
        require_own_file(options.output, _are_findings)
    if limits is None and options.model:
        limits = model_limits(options)
    everything: list[ReferFinding] = []
    written: dict[str, Any] = {}
    for name, read in sources(options).items():
        facts, found = _checked(name, read, options, limits)
        _tell(name, facts, found)
        everything += found
        written[name] = {"facts": asdict(facts), "findings": [asdict(finding) for finding in found]}
    if options.output is not None:
        write_atomic(options.output, json.dumps(written, indent=2, ensure_ascii=False) + "\n")
    return EXIT_ERRORS if gravest(everything) == "error" else 0


def _are_findings(text: str) -> bool:
    values = json.loads(text)
    return isinstance(values, dict) and all(
        isinstance(value, dict) and value.keys() == {"facts", "findings"} for value in values.values()
    )


def model_limits(options: ReferCheckOptions) -> Limits:
    """What the model's conversations in training are tried with.

    Raises:
        ModelError: the model cannot be read.
    """
    from deixis.models.sa2va import read_wording  # torch and transformers: only where a model is named

    wording = read_wording(options.model)
    tiles = tile_counter(wording.tile_px, options.max_tiles)
    most = (options.max_tokens, options.max_masks)
    return Limits(wording.tokens, wording.seg_token_id, tiles, *most, options.behaviour, options.clip_frames)


def sources(options: ReferCheckOptions) -> dict[str, Callable[[list[str]], ReferDataset | ClipDataset]]:
    """What `deixis refer train` would read, by name; each a function that is handed a list for faults."""

    def images(path: str | Path, form: str | None, split: str | None = None, most: int | None = None) -> Any:
        return lambda faults: read_refer(
            path, options.images, form, split, most or options.max_images, objects=options.objects, faults=faults
        )

    def clips(path: str | Path, form: str | None) -> Any:
        return lambda _: read_clips(path, options.images, form, max_clips=options.max_images)

    found: dict[str, Callable[[list[str]], ReferDataset | ClipDataset]] = {}
    for path in options.data:
        found[path] = clips(path, options.format) if are_clips(path, options.format) else images(path, options.format)
    if options.refcoco_dir is not None:
        there = splits_of(options.refcoco_dir)
        for split in (name for name in ("train", *VALIDATION, *TEST) if name == "train" or name in there):
            found[f"{options.refcoco_dir}#{split}"] = images(options.refcoco_dir, "refcoco", split)
    if options.sa1b_dir is not None:
        most = min(options.sa1b_max_samples, options.max_images or options.sa1b_max_samples)
        found[str(options.sa1b_dir)] = images(options.sa1b_dir, "sa1b", most=most)
    if options.openimages_dir is not None:
        found[str(options.openimages_dir)] = images(options.openimages_dir, "openimages_masks")
    if options.sav_dir is not None:
        found[str(options.sav_dir)] = clips(options.sav_dir, None)
    return found


def tile_counter(tile_px: int, most_tiles: int) -> Callable[[tuple[int, int]], int]:
    """How many tiles an image becomes, its thumbnail counted."""

    def count(size_hw: tuple[int, int]) -> int:
        columns, rows = grid_for(size_hw, tile_px, most_tiles)
        return columns * rows + (columns * rows > 1)

    return count


def _checked(
    name: str,
    read: Callable[[list[str]], ReferDataset | ClipDataset],
    options: ReferCheckOptions,
    limits: Limits | None,
) -> tuple[ReferFacts, list[ReferFinding]]:
    faults: list[str] = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        dataset = read(faults)
        dataset = with_placeholders(dataset) if options.placeholder_captions else dataset
    found = [ReferFinding("entry", name, fault) for fault in faults]
    found += [ReferFinding("said", name, str(warning.message)) for warning in said]
    with ProgressBar(f"checking {Path(name).name}") as progress:
        facts, more = check_refer(dataset, limits, options.tiny, options.decode, progress)
    return facts, found + more


def _tell(name: str, facts: ReferFacts, found: Sequence[ReferFinding]) -> None:
    console = Console(highlight=False, soft_wrap=True)

    def say(text: str) -> None:
        console.print(text, markup=False)

    say(
        f"{name}: {facts.images:,} images, {facts.phrases:,} sentences, {facts.masks:,} masks, "
        f"{facts.absent:,} expressions about nothing there"
    )
    if facts.longest_tokens:
        say(f"  longest conversation: {facts.longest_tokens:,} tokens")
    for kind, (severity, title) in KINDS.items():
        of_kind = [finding for finding in found if finding.kind == kind]
        if of_kind:
            say(f"  {severity}: {len(of_kind):,} {title}")
        for finding in of_kind[:_NAMED] if severity != "note" else ():
            say(f"    {finding.where}: {finding.message.removeprefix(f'{finding.where}: ')}")
    if not found:
        say("  nothing found")
