"""Check a data set: read what can be read, check everything once, report it, and write a cleaned copy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from deixis.atomic_files import write_atomic
from deixis.console import Console, print_text
from deixis.data.checks import Checked
from deixis.data.checks.limits import ModelLimits
from deixis.data.checks.prompts import PromptFacts, examine_prompts
from deixis.data.findings import Finding, Findings, collecting_warnings
from deixis.data.formats import format_of, read_dataset
from deixis.data.formats.writing import not_kept, write_dataset
from deixis.errors import DataError, ModelError, OptionError
from deixis.models.builtin import BUILTIN, resolve_model
from deixis.models.folders import model_folder, read_json
from deixis.models.text import FastPromptTokenizer, load_tokenizer
from deixis.options.annotated_data import ClassTools
from deixis.options.checks import A_DETECTOR
from deixis.options.data_check import DataCheckOptions
from deixis.recipes.data.check_report import findings_json, fixes_text, print_counts, print_findings
from deixis.recipes.data.chosen import EVERYTHING, used_names
from deixis.recipes.data.survey import compare, survey

FIXES_FILE = "fixes.txt"
_LONGEST_NAMES = 5
_LIMITS = ("config.json", "preprocessor_config.json", "processor_config.json")  # the last of newer transformers
OF_A_VOCABULARY = {"name_fragmented", "name_unknown", "prompt_chunks", "prompt_too_long"}


def check_data(options: DataCheckOptions) -> int:
    """Check, print, and fix if asked. Returns the exit code: 1 where errors remain, else 0.

    Raises:
        DataError: nothing can be read, or the cleaned copy cannot be written.
        ModelError: the model's tokenizer cannot be read.
    """
    if options.fix is not None and format_of(options.data, options.format) == "scenes":
        raise OptionError("--fix: expected data from files, got generated scenes")
    tokenizer = FastPromptTokenizer(load_tokenizer(resolve_model(options.model or BUILTIN)))
    limits = model_limits(options.model)
    findings = Findings()
    own = (options.data, options.images, options.format, options.split)
    tools, say = options.group(ClassTools), partial(print_text, to_stderr=True) if options.json else print_text
    used = _used_names(options, tools)
    try:
        checked = survey(*own, findings, options.num_workers, limits, tools=tools, used=used, say=say)
    except DataError:
        if findings.found and not options.json:  # why nothing could be read
            print_findings(Console(highlight=False, soft_wrap=True), findings.found, options.show)
        raise
    annotated = has_annotations(checked, findings)
    if options.val_data:
        other = Findings()
        places = (options.val_data, options.val_images, options.format, options.val_split)
        tools = replace(tools, sample=None)
        validation = survey(*places, other, options.num_workers, limits, tools=tools, used=used)
        # `--fix` writes only the training data
        findings.found += [replace(f, fix="") for f in other.found if not f.kind.startswith("class_")]
        compare(checked, validation, findings)
    facts = _try_names(checked, tokenizer, findings, of_a_model=bool(options.model))
    if options.json:
        print_text(as_json(options.data, checked, facts, findings.found))
    else:
        print_report(options, checked, facts, findings.found)
    standing = [finding for finding in findings.found if finding.severity == "error"]
    if options.fix is not None:
        _write(options, checked, findings.found, annotated)
        standing = [finding for finding in standing if not finding.fix]
    return 1 if standing else 0


def _used_names(options: DataCheckOptions, tools: ClassTools) -> dict[str, str] | None:
    """The classes that are used of both data sets; None where there is one, which decides by itself."""
    if not options.val_data or tools == EVERYTHING:
        return None
    places = [(options.data, options.images, options.split), (options.val_data, options.val_images, options.val_split)]
    with collecting_warnings(Findings(), options.data):  # they are reported once, by the check
        sets = [
            read_dataset(data, images, options.format, masks=False, split=split, findings=Findings())
            for data, images, split in places
        ]
    return used_names(sets, tools)


def has_annotations(checked: Checked, findings: Findings) -> bool:
    """Whether there were objects before those that cannot be used were left out."""
    about = {"record_malformed", "image_unknown", "category_unknown", "box_malformed", "file_malformed"}
    about |= {"box_degenerate", "mask_empty", "image_missing", "image_unreadable", "image_misplaced"}
    return bool(checked.counts) or any(found.kind in about for found in findings.found)


def _try_names(
    checked: Checked, tokenizer: FastPromptTokenizer, findings: Findings, of_a_model: bool = True
) -> PromptFacts:
    """The prompt doctor; of grounding data, whose images have names of their own, without the size of the prompt.

    Where no model is named, pieces and lengths are not reported: the built-in's tokenizer spells by letter.
    """
    names = checked.vocabulary.names
    own = Findings()
    facts = examine_prompts(names, tokenizer, checked.counts, checked.file, own)
    shared = checked.shares_names
    for finding in own.found:
        if not of_a_model and finding.kind in OF_A_VOCABULARY:
            continue
        if shared or finding.kind not in ("prompt_chunks", "names_same_tokens"):
            findings.found.append(finding if shared else replace(finding, fix=""))
    if shared:
        for name in names:
            if not facts.pieces[name] and not checked.counts[name] and len(checked.vocabulary) > 1:
                checked.drop_class(name)
    return facts


def print_report(options: DataCheckOptions, checked: Checked, facts: PromptFacts, found: Sequence[Finding]) -> None:
    """The data set in numbers, everything found, the prompt, and the sum."""
    console = Console(highlight=False, soft_wrap=True)
    objects = sum(checked.counts.values())
    images, names = len(checked.dataset), len(checked.vocabulary)
    console.print(f"{options.data}: {images} images read, {objects} sound objects, {names} class names", markup=False)
    print_findings(console, found, options.show)
    if options.model:
        _print_prompt(console, options.model, facts)
    print_counts(console, found)
    fixable = sum(bool(finding.fix) for finding in found)
    if fixable and options.fix is None:
        console.print(f"--fix FOLDER writes a copy that mends {fixable} of them", markup=False)


def _print_prompt(console: Console, model: str, facts: PromptFacts) -> None:
    console.print(
        f"\nprompt: {len(facts.pieces)} names take {facts.tokens} tokens, {facts.limit} fit into one: "
        f"{facts.prompts} prompt{'s' if facts.prompts > 1 else ''} (tokenizer of {model})",
        markup=False,
    )
    longest = sorted(facts.pieces, key=lambda name: -len(facts.pieces[name]))[:_LONGEST_NAMES]
    for name in longest:
        if len(facts.pieces[name]) > 1:
            console.print(
                f"  {len(facts.pieces[name])} tokens: {name} = {' | '.join(facts.pieces[name])}", markup=False
            )


def as_json(data: str, checked: Checked, facts: PromptFacts, found: Sequence[Finding]) -> str:
    """Everything as one JSON object."""
    content = {
        "data": data,
        "images": len(checked.dataset),
        "sound_images": len(checked.samples),
        "objects": sum(checked.counts.values()),
        **findings_json(found),
        "classes": {name: checked.counts[name] for name in checked.vocabulary.names},
        "prompt": {
            "limit": facts.limit,
            "tokens": facts.tokens,
            "prompts": facts.prompts,
            "pieces": {name: list(pieces) for name, pieces in facts.pieces.items()},
        },
    }
    return json.dumps(content, ensure_ascii=False, indent=1)


def _write(options: DataCheckOptions, checked: Checked, found: list[Finding], annotated: bool) -> None:
    assert options.fix is not None
    other_frame = any(one.kind in ("boxes_elsewhere", "boxes_shares") for one in found)
    # Then the reader took the numbers for something else than they are, and a copy would make that permanent.
    if annotated and (other_frame or not checked.counts):
        what = "the boxes are in another frame" if other_frame else "no object is left after cleaning"
        raise DataError(
            f"{options.data}: {what}, so nothing is written to {options.fix}; see the errors "
            "above: the annotations are probably in another form than they were read in"
        )
    console = Console(stderr=options.json, highlight=False, soft_wrap=True)
    dataset = checked.cleaned()
    format = options.to or format_of(options.data, options.format)
    lost = not_kept(dataset, format)
    written = write_dataset(dataset, options.fix, format, options.image_files)
    write_atomic(options.fix / FIXES_FILE, fixes_text(found, lost, format))
    again = read_dataset(written, format=format)  # shows that the copy can be read
    console.print(
        f"cleaned copy: {options.fix}, {len(again)} images, {sum(checked.counts.values())} objects;", markup=False
    )
    for line in lost:
        console.print(f"lost in {format}: {line}", markup=False)
    console.print(f"{options.fix / FIXES_FILE} lists what was done; read the copy with --data {written}", markup=False)


def model_limits(model: str) -> ModelLimits:
    """Queries and image size of a model; those of the released models where none is named or it says none.

    Of a hub id only the files that say it are downloaded.
    """
    if not model:
        return ModelLimits()
    source = resolve_model(model)
    try:
        folder = model_folder(source, _LIMITS, A_DETECTOR)
        queries = read_json(folder / _LIMITS[0])["num_queries"]
        older, newer = (folder / name for name in _LIMITS[1:])
        size = read_json(older)["size"] if older.exists() else read_json(newer)["image_processor"]["size"]
        image_size = (int(size["shortest_edge"]), int(size["longest_edge"]))
        return ModelLimits(int(queries), image_size=image_size, whose=model)
    except (ModelError, KeyError, TypeError, ValueError, OverflowError):  # a tokenizer alone, for instance
        return ModelLimits()
