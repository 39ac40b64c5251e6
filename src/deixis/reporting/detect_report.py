"""What the report of a detector's run shows besides what all reports show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from deixis.evaluation.coco_map import DetectionMetrics
from deixis.evaluation.thresholds import DEFAULT_THRESHOLD
from deixis.evaluation.trade_off import knee
from deixis.records import Sample
from deixis.reporting import plots
from deixis.reporting.data import DatasetFacts, ForgettingFacts
from deixis.reporting.explained import Explained
from deixis.reporting.page import Bars, Cell, Legend, Table, number, numbers, percent
from deixis.reporting.pictures import Picture, drawn, titled
from deixis.reporting.run_report import Forgetting, TaskFacts, figures_table
from deixis.results.detections import Detections

HEADLINE = ("AP", "AP50", "AP75", "AR100")
SIZES = {"small": "AP_small", "medium": "AP_medium", "large": "AP_large"}
METRICS_NOTE = (
    "All in percent. AP: COCO's average precision over IoU 0.50 to 0.95; AP50, AP75: at one IoU; AR100: recall of "
    "the detections that count per image. Objects are small below 32² and large above 96² pixels of area. Crowds "
    "are ignored. FPR_bg: false detections of score 0.3 or more per image and class that the image does not show; "
    "AP_at_FPR_bg: AP of the detections whose score keeps it at 0.05 or less."
)
LOSSES_NOTE = (
    "Each line is a mean over spans of steps, its shade the range. No suffix: the last decoder layer; _0, _1, ...: the "
    "layers before it; _enc: the encoder's proposals."
)


def detector_facts(
    training: DatasetFacts,
    validation: DatasetFacts,
    test: DatasetFacts | None,
    before: DetectionMetrics | None,
    after: DetectionMetrics,
    *,
    forgetting: ForgettingFacts | None = None,
    pictures: Sequence[Sequence[Picture]] = (),
    explained: Explained | None = None,
) -> TaskFacts:
    """The parts of the report.

    Args:
        test: None where there is no test data.
        before, after: metrics on test data, or on validation data without it; `before` is None where it was not
            measured.
        forgetting: AP on old data against AP on new data; None where it was not measured.
        pictures: of `detections_row`.
        explained: curves, calibration and mistakes.
    """
    measured, what = (validation, "Validation") if test is None else (test, "Test")
    sets = {"Training": training, "Validation": validation} | ({} if test is None else {"Test": test})
    return TaskFacts(
        tiles=[(name, None if before is None else getattr(before, name), getattr(after, name)) for name in HEADLINE],
        metrics_note=METRICS_NOTE,
        figures=_figures(before, after, measured),
        measured_on=f"{what} data: {number(after.images)} images with {number(after.boxes)} objects of "
        f"{number(len(measured.boxes_per_class))} classes ({measured.name}); at most {number(after.max_detections)} "
        f"detections per image count. {_background(before, after)}",
        data_tables=[_facts_table(sets), _classes_table(sets)],
        forgetting=None if forgetting is None else forgetting_part(forgetting, what.lower()),
        losses_note=LOSSES_NOTE,
        pictures=pictures,
        pictures_note=f"Drawn: detections that score {DEFAULT_THRESHOLD} or more.",
        explained=explained,
    )


def forgetting_part(facts: ForgettingFacts, new: str) -> Forgetting:
    """AP on old data against AP on new data between the base and the tuned model.

    Args:
        new: which data is the new one, "validation" or "test".
    """
    best = knee(facts.points)
    rows = []
    for point in facts.points:
        ends = {0.0: " (before)", 1.0: " (after)"}.get(point.weight, "")
        label = Markup("{}{} <b>knee</b>" if point == best else "{}{}").format(f"{point.weight:g}", ends)
        rows.append([label, *map(percent, (point.AP_new, point.AP_old, point.balance))])
    note = (
        f"AP in percent on {number(facts.new_images)} images of the {new} data (new) and {number(facts.old_images)} of "
        f"{facts.old_name} (old), for models between the base (weight 0) and the tuned one (weight 1). The knee is the "
        "largest harmonic mean; it was chosen on these images, so its figures are slightly optimistic."
    )
    table = Table(["Weight", "New", "Old", "Mean"], rows, numbers=3)
    return Forgetting(plots.trade_off_curve(facts.points, best), table, note, facts.command)


def _figures(before: DetectionMetrics | None, after: DetectionMetrics, measured: DatasetFacts) -> list[Table]:
    """Metrics overall, by object size and by class."""

    def figure(name: str, attribute: str, count: int | None = None) -> tuple[str, float | None, float, int | None]:
        return name, None if before is None else getattr(before, attribute), getattr(after, attribute), count

    sizes = (figure(size, attribute, measured.boxes_per_size.get(size)) for size, attribute in SIZES.items())
    classes = (
        (name, None if before is None else before.per_class.get(name), after.per_class.get(name), count)
        for name, count in measured.boxes_per_class.items()
    )
    overall = HEADLINE if math.isnan(after.AP_at_FPR_bg) else (*HEADLINE, "AP_at_FPR_bg")
    return [
        figures_table("Overall", "Metric", (figure(name, name) for name in overall)),
        figures_table("AP by object size", "Size", sizes, counted="Objects"),
        figures_table("AP by class", "Class", classes, counted="Objects", scroll=True),
    ]


def _background(before: DetectionMetrics | None, after: DetectionMetrics) -> str:
    """False detections in a sentence: fewer are better, unlike the figures of the tables."""
    if math.isnan(after.FPR_bg):
        return "Every image shows every class, so FPR_bg cannot be measured."
    earlier = "" if before is None else f", {before.FPR_bg:.3f} before"
    return f"FPR_bg is {after.FPR_bg:.3f}{earlier}."


def _facts_table(sets: Mapping[str, DatasetFacts]) -> Table:
    """Facts of the data sets, side by side."""
    columns = [facts.rows() for facts in sets.values()]
    rows = [[name.capitalize(), *(numbers(column[name]) for column in columns)] for name in columns[0]]
    return Table(["", *(f"{role}: {facts.name}" for role, facts in sets.items())], rows, numbers=len(columns))


def _classes_table(sets: Mapping[str, DatasetFacts]) -> Table:
    """Objects by class; bars of the first two sets."""
    counts = [facts.boxes_per_class for facts in sets.values()]
    names = dict.fromkeys(name for one in counts for name in one)
    most = max([1, *(count for one in counts for count in one.values())])
    rows: list[list[Cell]] = []
    for name in names:
        row = [one.get(name, 0) for one in counts]
        rows.append([name, Bars(((row[0] / most, "after"), (row[1] / most, "before"))), *row])
    legend = Legend((("training", "after"), ("validation", "before")))
    return Table(["Class", legend, *sets], rows, numbers=len(sets), title="Objects by class", scroll=True)


def detections_row(sample: Sample, before: Detections | None, after: Detections) -> list[Picture]:
    """An image as annotated, before and after training."""
    title, pixels = titled(sample)
    shown = {"Before training": before, "After training": after}
    found = {caption: one.above(DEFAULT_THRESHOLD) for caption, one in shown.items() if one is not None}
    return [drawn(f"Annotated: {title}", pixels, sample), *(drawn(name, pixels, one) for name, one in found.items())]
