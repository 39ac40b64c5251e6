"""Findings as text, as JSON, and what a cleaned copy did about them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence

from deixis.console import Console
from deixis.data.checks import Checked
from deixis.data.checks.prompts import PromptFacts
from deixis.data.findings import KINDS, SEVERITIES, Finding
from deixis.options.data import DataCheckOptions

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}
_LONGEST_NAMES = 5


def print_findings(options: DataCheckOptions, checked: Checked, facts: PromptFacts, found: Sequence[Finding]) -> None:
    """Everything found, grouped by severity and kind, then the prompt and the sum."""
    console = Console(highlight=False, soft_wrap=True)
    objects = sum(checked.counts.values())
    images, names = len(checked.dataset), len(checked.vocabulary)
    console.print(f"{options.data}: {images} images read, {objects} sound objects, {names} class names", markup=False)
    for severity in SEVERITIES:
        groups = _by_kind(found, severity)
        if groups:
            console.print(f"\n{severity}s: {sum(map(len, groups.values()))}", style=f"bold {_COLOURS[severity]}")
        for kind, group in groups.items():
            _print_group(console, kind, group, options.show)
    if options.model:
        _print_prompt(console, options.model, facts)
    counts = Counter(finding.severity for finding in found)
    fixable = sum(bool(finding.fix) for finding in found)
    console.print(f"\n{', '.join(f'{counts[severity]} {severity}s' for severity in SEVERITIES)}", style="bold")
    if fixable and options.fix is None:
        console.print(f"--fix FOLDER writes a copy that does something about {fixable} of them", markup=False)


def _print_group(console: Console, kind: str, group: Sequence[Finding], show: int) -> None:
    console.print(f"  {KINDS[kind].title}: {len(group)} ({kind})", style="bold", markup=False)
    for finding in group[: show or None]:
        console.print(f"    {_line(finding)}", markup=False)
    if show and len(group) > show:
        console.print(f"    … and {len(group) - show} more (--show 0 lists all)", markup=False)
    fixes = list(dict.fromkeys(finding.fix for finding in group if finding.fix))
    more = f" [--fix: {'; '.join(fixes[:2])}{' …' if len(fixes) > 2 else ''}]" if fixes else ""
    console.print(f"    → {KINDS[kind].remedy}{more}", style="dim", markup=False)


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
    counts = Counter(finding.severity for finding in found)
    content = {
        "data": data,
        "images": len(checked.dataset),
        "sound_images": len(checked.samples),
        "objects": sum(checked.counts.values()),
        "counts": {severity: counts[severity] for severity in SEVERITIES},
        "findings": [
            {
                "severity": finding.severity,
                "kind": finding.kind,
                "file": finding.file,
                "place": finding.place,
                "message": finding.message,
                "remedy": finding.remedy,
                "fix": finding.fix,
            }
            for finding in found
        ],
        "classes": {name: checked.counts[name] for name in checked.vocabulary.names},
        "prompt": {
            "limit": facts.limit,
            "tokens": facts.tokens,
            "prompts": facts.prompts,
            "pieces": {name: list(pieces) for name, pieces in facts.pieces.items()},
        },
    }
    return json.dumps(content, ensure_ascii=False, indent=1)


def fixes_text(found: Sequence[Finding], lost: Sequence[str], format: str) -> str:
    """What the cleaned copy changed, counted and then line by line, and what was left for a person."""
    done, left = [f for f in found if f.fix], [f for f in found if not f.fix and f.severity != "note"]
    lines = [f"{count} x {fix}" for fix, count in Counter(finding.fix for finding in done).most_common()]
    lines += [f"lost in {format}: {line}" for line in lost]
    lines += ["", *(f"{finding.fix}: {_line(finding)}" for finding in done)]
    if left:
        lines += ["", "left as it is:", *(f"{finding.severity}: {_line(finding)}" for finding in left)]
    return "\n".join(lines) + "\n"


def _line(finding: Finding) -> str:
    place = f" · {finding.place}" if finding.place else ""
    return f"{finding.file}{place}: {finding.message}"


def _by_kind(found: Sequence[Finding], severity: str) -> dict[str, list[Finding]]:
    groups: dict[str, list[Finding]] = defaultdict(list)
    for finding in found:
        if finding.severity == severity:
            groups[finding.kind].append(finding)
    return groups
