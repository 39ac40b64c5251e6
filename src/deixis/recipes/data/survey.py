"""What is wrong with a data set, found in one way for `data check`, training and evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from deixis.console import Console
from deixis.data.checks import MAX_CHECKED, Checked, check_annotations, check_dataset
from deixis.data.checks.classes import compare_classes
from deixis.data.checks.copies import examine_leaks, examine_shared_files
from deixis.data.checks.limits import ModelLimits
from deixis.data.findings import KINDS, Finding, Findings, collecting_warnings
from deixis.data.formats import read_dataset
from deixis.data.scenes import PREFIX as SCENES_PREFIX
from deixis.errors import DataError
from deixis.options.annotated_data import ClassTools
from deixis.progress_bar import ProgressBar
from deixis.recipes.data.chosen import EVERYTHING, Say, chosen, used_names
from deixis.recipes.run.outputs import warn
from deixis.records import Dataset

# By the readers themselves, and by `crowded`.
_REPORTED_ELSEWHERE = {"reader_warning", "objects_over_queries", "objects_over_measured"}


def survey(
    data: str,
    images: Path | None,
    format: str | None,
    split: str | None,
    findings: Findings,
    workers: int,
    limits: ModelLimits | None = None,
    decode: bool = True,
    masks: bool = True,
    tools: ClassTools = EVERYTHING,
    used: dict[str, str] | None = None,
    say: Say = lambda line: None,
) -> Checked:
    """Read what can be read of a data set and check everything once.

    Args:
        limits: of the model that will be trained or measured.
        decode: decode every image; without, find what needs no pixels.
        masks: check masks too.
        tools, used, say: what is used of the data; see `recipes.data.chosen`. Without `used`, `tools` decide by this
            data alone.

    Raises:
        DataError: nothing can be read.
    """
    with collecting_warnings(findings, data):
        dataset = read_dataset(data, images, format, masks=masks, split=split, findings=findings)
    dataset = chosen(dataset, tools, used or used_names([dataset], tools), say, findings)
    if not decode:
        return check_annotations(dataset, data, findings, limits)
    with ProgressBar(f"checking {Path(data).name}", len(dataset)) as progress:
        return check_dataset(dataset, data, findings, workers, progress.one_more, limits)


def compare(training: Checked, validation: Checked, findings: Findings) -> None:
    """What is on both sides, or on one only; leaked images leave the training side."""
    if training.counts and validation.counts:
        compare_classes(training.counts, validation.counts, training.file, validation.file, findings)
    if not (training.hashes and validation.hashes):
        examine_shared_files(list(training.samples.values()), list(validation.samples.values()), findings)
        return
    pairs = [[(checked.samples[i], checked.hashes[i]) for i in checked.samples] for checked in (training, validation)]
    positions = list(training.samples)
    for leaked in examine_leaks(pairs[0], pairs[1], findings):
        # From the training side: the figures that are reported must not change.
        del training.samples[positions[leaked]], training.hashes[positions[leaked]]


def report_findings(
    console: Console,
    sets: Sequence[tuple[str, Path | None, Dataset]],
    format: str | None,
    limits: ModelLimits,
    decode: bool = False,
    workers: int = 2,
    training: int = 1,
    max_unreadable: int = 0,
    tools: ClassTools = EVERYTHING,
    used: dict[str, str] | None = None,
) -> None:
    """One line for each kind of finding on the data sets of a run, warnings on stderr.

    Args:
        sets: (annotations, folder of images, what was read of them) of each data set; generated scenes are passed over.
        limits: of the model.
        decode: decode every image, for a dry run.
        training: how many of the sets are trained on; the others are compared with them.
        max_unreadable: damaged images of the training sets that training leaves out.
        tools, used: what is used of the data, by the names of all sets; see `recipes.data.chosen`.

    Raises:
        DataError: images cannot be decoded, when all of them are: more than training leaves out, or measured ones.
    """
    findings = Findings()
    trained: list[Checked] = []
    measured: list[Checked] = []
    for number, (data, images, dataset) in enumerate(sets):
        if data.startswith(SCENES_PREFIX):
            continue
        own = Findings()
        if len(dataset) <= MAX_CHECKED or decode:
            drawn = tools if number < training else replace(tools, sample=None)
            found = survey(
                data, images, format, None, own, workers, limits, decode, masks=False, tools=drawn, used=used
            )
        else:  # what is wrong with the file itself has been read once, and would take as long again
            found = check_annotations(dataset, data, own, limits)
        findings.found += own.found
        _raise_if_unreadable(own.found, max_unreadable if number < training else 0)
        (trained if number < training else measured).append(found)
    for other in measured if trained else ():
        compare(_joined(trained), other, findings)
    for line in summary(findings.found):
        warn(line)
    notes = Counter(KINDS[found.kind].title for found in findings.found if found.severity == "note")
    if notes:
        listed = ", ".join(f"{title}: {count}" for title, count in notes.most_common())
        console.print(f"notes on the data: {listed} (deixis data check lists them)", markup=False)


def _joined(trained: Sequence[Checked]) -> Checked:
    """Several training sets as one, to be compared with validation data."""
    hashed = all(one.hashes or not one.samples for one in trained)
    return replace(
        trained[0],
        samples=dict(enumerate(sample for one in trained for sample in one.samples.values())),
        hashes=dict(enumerate(one.hashes[i] for one in trained for i in one.samples)) if hashed else {},
        counts=sum((one.counts for one in trained), Counter()),
    )


def summary(found: Sequence[Finding]) -> list[str]:
    """A line for each kind of error and warning: how many, the first of them, and what to do."""
    lines = []
    for severity in ("error", "warning"):
        kinds = dict.fromkeys(one.kind for one in found if one.severity == severity)
        for kind in kinds:
            if kind in _REPORTED_ELSEWHERE:
                continue
            group = [one for one in found if one.kind == kind]
            first = group[0]
            place = f"{Path(first.file).name}{f', {first.place}' if first.place else ''}"
            first_text = f"{'the first: ' if len(group) > 1 else ''}{place}: {first.message}"
            lines.append(f"{KINDS[kind].title}: {len(group)} ({first_text}); {KINDS[kind].remedy}")
    return lines


def _raise_if_unreadable(found: Sequence[Finding], max_unreadable: int) -> None:
    damaged = [one for one in found if one.kind == "image_unreadable"]
    if len(damaged) > max_unreadable:
        raise DataError(
            f"{damaged[0].file}: {damaged[0].message}; {len(damaged)} such image{'s' if len(damaged) > 1 else ''} in "
            "the data: restore them, or write a copy without them with 'deixis data check --fix FOLDER'"
        )
