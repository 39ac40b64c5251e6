"""Check phrases and masks: read what can be read, check everything once, report it by kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deixis.atomic_files import write_atomic
from deixis.console import Console, print_text
from deixis.data.checks.refer import ConversationLimits, ReferFacts, check_refer
from deixis.data.clip_formats import are_clips, read_clips
from deixis.data.findings import Findings, collecting_warnings
from deixis.data.pixels.cuts import Cutter
from deixis.data.refer_formats import read_refer
from deixis.data.refer_formats.refcoco import splits_of
from deixis.data.sets.mask_regions import with_placeholders
from deixis.options.refer_check import ReferCheckOptions
from deixis.progress_bar import ProgressBar
from deixis.recipes.data.check_report import count_severities, findings_json, print_counts, print_findings
from deixis.recipes.refer.data.splits import TEST, VALIDATION
from deixis.recipes.run.owned_output import require_own_file
from deixis.refer_records import ReferDataset
from deixis.video_records import ClipDataset


def check_refer_data(options: ReferCheckOptions, limits: ConversationLimits | None = None) -> int:
    """Check, print, and with --output write the findings. Returns the exit code: 1 if there are errors, else 0.

    Args:
        limits: how a model writes conversations, to check their tokens too; by default those of `options.model`.

    Raises:
        DeixisError: a data set, or the model, cannot be read at all.
    """
    options.check()
    if options.output is not None:
        require_own_file(options.output, _are_findings)
    if limits is None and options.model:
        limits = model_limits(options)
    console = Console(highlight=False, soft_wrap=True, quiet=options.json)
    reports, errors = [], 0
    for name, read in sources(options).items():
        findings = Findings()
        facts = _checked(name, read, findings, options, limits)
        console.print(
            f"{name}: {facts.images} images read, {facts.phrases} sentences, {facts.masks} masks, "
            f"{facts.absent} expressions without an object"
            + (f", {facts.exchanges} questions with answers" if facts.exchanges else ""),
            markup=False,
        )
        print_findings(console, findings.found, options.show)
        if facts.longest_tokens:
            console.print(f"\nlongest conversation: {facts.longest_tokens} tokens", markup=False)
        print_counts(console, findings.found)
        reports.append({"data": name, **vars(facts), **findings_json(findings.found)})
        errors += count_severities(findings.found)["error"]
    text = json.dumps(reports, ensure_ascii=False, indent=1)
    if options.json:
        print_text(text)
    if options.output is not None:
        write_atomic(options.output, text + "\n")
    return 1 if errors else 0


def _are_findings(text: str) -> bool:
    """Whether a file holds what this command writes, or wrote before it was a list."""
    values = json.loads(text)
    reports = list(values.values()) if isinstance(values, dict) else values
    return bool(reports) and all(isinstance(report, dict) and "findings" in report for report in reports)


def model_limits(options: ReferCheckOptions) -> ConversationLimits:
    """The token limits and template of the model's conversations in training.

    Raises:
        ModelError: the model cannot be read.
    """
    from deixis.models.sa2va import read_wording  # torch and transformers: only where a model is named

    # Conversations are as long as the model's own template and tokenizer make them.
    wording = read_wording(options.model)
    return ConversationLimits(
        wording.tokens,
        wording.seg_token_id,
        tile_counter(wording.cutter, options.max_tiles),
        max_tokens=options.max_tokens,
        max_masks=options.max_masks,
        behaviour=options.behaviour,
        clip_frames=options.clip_frames,
        frame_tiles=tile_counter(wording.cutter, options.max_tiles, clip=True),
    )


def sources(options: ReferCheckOptions) -> dict[str, Callable[[list[str]], ReferDataset | ClipDataset]]:
    """The data sets that `deixis refer train` would read, by name; each function appends its faults to a list."""

    def images(path: str | Path, form: str | None, split: str | None = None, max_images: int | None = None) -> Any:
        return lambda faults: read_refer(
            path, options.images, form, split, max_images or options.max_images, objects=options.objects, faults=faults
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
        first = min(options.sa1b_max_samples, options.max_images or options.sa1b_max_samples)
        found[str(options.sa1b_dir)] = images(options.sa1b_dir, "sa1b", max_images=first)
    if options.openimages_dir is not None:
        found[str(options.openimages_dir)] = images(options.openimages_dir, "openimages_masks")
    if options.sav_dir is not None:
        found[str(options.sav_dir)] = clips(options.sav_dir, None)
    return found


def tile_counter(cutter: Cutter, max_tiles: int, clip: bool = False) -> Callable[[tuple[int, int]], int]:
    """A function that counts the tiles, or blocks, of an image or of a frame of a clip; 0 for a text without one."""
    return lambda size_hw: 0 if 0 in size_hw else cutter.count(size_hw, max_tiles, clip)


def _checked(
    name: str,
    read: Callable[[list[str]], ReferDataset | ClipDataset],
    findings: Findings,
    options: ReferCheckOptions,
    limits: ConversationLimits | None,
) -> ReferFacts:
    faults: list[str] = []
    with collecting_warnings(findings, name):
        dataset = read(faults)
        dataset = with_placeholders(dataset) if options.placeholder_captions else dataset
    for fault in faults:
        findings.add("record_malformed", name, "", fault.removeprefix(f"{name}: "))
    with ProgressBar(f"checking {Path(name).name}", len(dataset)) as progress:
        return check_refer(
            dataset, findings, limits, tiny_px=options.tiny, decode=options.decode, advance=progress.one_more
        )
