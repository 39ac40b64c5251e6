"""Findings as text and as JSON, for `data check` and `refer check`, and what a cleaned copy did about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from deixis.console import Console
from deixis.data.findings import KINDS, SEVERITIES, Finding, Severity

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def print_findings(console: Console, found: Sequence[Finding], show: int) -> None:
    """Everything found, grouped by severity and kind: of each kind the first `show`, all of them for 0."""
    for severity in SEVERITIES:
        of_severity = [finding for finding in found if finding.severity == severity]
        if of_severity:
            console.print(f"\n{severity}s: {len(of_severity)}", style=f"bold {_COLOURS[severity]}")
        for kind in dict.fromkeys(finding.kind for finding in of_severity):
            _print_kind(console, kind, [finding for finding in of_severity if finding.kind == kind], show)


def print_counts(console: Console, found: Sequence[Finding]) -> None:
    """How many of each severity."""
    counts = count_severities(found)
    console.print(f"\n{', '.join(f'{count} {severity}s' for severity, count in counts.items())}", style="bold")


def _print_kind(console: Console, kind: str, group: Sequence[Finding], show: int) -> None:
    console.print(f"  {KINDS[kind].title}: {len(group)} ({kind})", style="bold", markup=False)
    for finding in group[: show or None]:
        console.print(f"    {_line(finding)}", markup=False)
    if show and len(group) > show:
        console.print(f"    … and {len(group) - show} more (--show 0 lists all)", markup=False)
    fixes = list(dict.fromkeys(finding.fix for finding in group if finding.fix))
    more = f" [--fix: {'; '.join(fixes[:2])}{' …' if len(fixes) > 2 else ''}]" if fixes else ""
    console.print(f"    → {KINDS[kind].remedy}{more}", style="dim", markup=False)


def findings_json(found: Sequence[Finding]) -> dict[str, Any]:
    """Everything found, and how many of each severity, as JSON's values."""
    return {
        "counts": count_severities(found),
        "findings": [{"severity": one.severity, **vars(one), "remedy": one.remedy} for one in found],
    }


def count_severities(found: Sequence[Finding]) -> dict[Severity, int]:
    """How many of each severity."""
    counts = Counter(finding.severity for finding in found)
    return {severity: counts[severity] for severity in SEVERITIES}


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
