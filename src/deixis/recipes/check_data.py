"""Check a data set: read what can be read, look at everything once, tell it, and write a cleaned copy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from deixis.console import Console, print_text
from deixis.data.checks import Checked, check_dataset
from deixis.data.checks.classes import compare_classes
from deixis.data.checks.copies import examine_leaks
from deixis.data.checks.prompts import PromptFacts, examine_prompts
from deixis.data.findings import Finding, Findings, collecting_warnings
from deixis.data.readers import format_of, read_dataset
from deixis.data.writers import losses, write_dataset
from deixis.data.writers.files import write_atomic
from deixis.errors import OptionError
from deixis.models.builtin import resolve_model
from deixis.models.text import FastPromptTokenizer, load_tokenizer
from deixis.recipes.bars import bar
from deixis.recipes.check_report import as_json, fixes_text, print_findings
from deixis.recipes.data_options import DataCheckOptions

FIXES_FILE = "fixes.txt"


def check_data(options: DataCheckOptions) -> int:
    """Check, tell, and fix if asked. Returns the exit code: 1 where errors stand, else 0.

    Raises:
        DataError: nothing can be read, or the cleaned copy cannot be written.
        ModelError: the model's tokenizer cannot be read.
    """
    if options.fix is not None and format_of(options.data, options.format) == "scenes":
        raise OptionError("--fix: got generated scenes, wanted data from files")
    tokenizer = FastPromptTokenizer(load_tokenizer(resolve_model(options.model)))
    findings = Findings()
    checked = _checked(options.data, options.images, options.format, options.split, findings, options.workers)
    if options.val_data:
        other = Findings()
        places = (options.val_data, options.val_images, options.format, options.val_split)
        validation = _checked(*places, other, options.workers)
        findings.found += [replace(f, fix="") for f in other.found if not f.kind.startswith("class_")]
        _compare(checked, validation, findings)
    facts = _try_names(checked, tokenizer, findings)
    if options.json:
        print_text(as_json(options.data, checked, facts, findings.found))
    else:
        print_findings(options, checked, facts, findings.found)
    standing = [finding for finding in findings.found if finding.severity == "error"]
    if options.fix is not None:
        _write(options, checked, findings.found)
        standing = [finding for finding in standing if not finding.fix]
    return 1 if standing else 0


def _checked(
    data: str,
    images: Path | None,
    format: str | None,
    split: str | None,
    findings: Findings,
    workers: int,
) -> Checked:
    with collecting_warnings(findings, data):
        dataset = read_dataset(data, images, format, split=split, findings=findings)
    with bar(f"checking {Path(data).name}", len(dataset)) as advance:
        return check_dataset(dataset, data, findings, workers, advance)


def _compare(training: Checked, validation: Checked, findings: Findings) -> None:
    """What stands on both sides, or on one only; leaked images leave the training side."""
    compare_classes(training.counts, validation.counts, training.file, validation.file, findings)
    pairs = [[(checked.samples[i], checked.looks[i]) for i in checked.samples] for checked in (training, validation)]
    positions = list(training.samples)
    for leaked in examine_leaks(pairs[0], pairs[1], findings):
        del training.samples[positions[leaked]], training.looks[positions[leaked]]


def _try_names(checked: Checked, tokenizer: FastPromptTokenizer, findings: Findings) -> PromptFacts:
    """The prompt doctor; of grounding data, whose images have names of their own, without the size of the prompt."""
    names = checked.vocabulary.names
    own = Findings()
    facts = examine_prompts(names, tokenizer, checked.counts, checked.file, own)
    shared = checked.shares_names
    for finding in own.found:
        if shared or finding.kind not in ("prompt_chunks", "names_same_tokens"):
            findings.found.append(finding if shared else replace(finding, fix=""))
    if shared:
        for name in names:
            if not facts.pieces[name] and not checked.counts[name] and len(checked.vocabulary) > 1:
                checked.drop_class(name)
    return facts


def _write(options: DataCheckOptions, checked: Checked, found: list[Finding]) -> None:
    assert options.fix is not None
    console = Console(stderr=options.json, highlight=False, soft_wrap=True)
    dataset = checked.cleaned()
    format = options.to or format_of(options.data, options.format)
    lost = losses(dataset, format)
    written = write_dataset(dataset, options.fix, format, options.image_files)
    write_atomic(options.fix / FIXES_FILE, fixes_text(found, lost, format))
    again = read_dataset(written, format=format)
    console.print(
        f"cleaned copy: {options.fix}, {len(again)} images, {sum(checked.counts.values())} objects;", markup=False
    )
    for line in lost:
        console.print(f"lost in {format}: {line}", markup=False)
    console.print(
        f"what was done stands in {options.fix / FIXES_FILE}; read the copy with --data {written}", markup=False
    )
